"""Completing faces of 1024 px on two cores, in minutes: does a stranger believe the result?

One photograph and four faces that MobileStyleGAN drew (FFHQ), each with a hidden hole, with a
hidden half, and reduced eight times, from 128 px to 16. What the sampler sees are 16 x 16 cells,
with noise of 0.03. They are compared with the network's view on a coarse grid
(`mobilestylegan-ffhq/p-16`, annealed in P space and whitened coordinates); every draw is then
made by the network itself at 512 px and shown at 128. `jaxgen.applications.coarse` has the
method. Faces are drawn from z, not from P space, so that the prior of the runs is not quite that
of the truth.

  jaxgen fetch mobilestylegan-ffhq
  python benchmarks/papers/faces_completed.py --photo FACE.png \
      --landmarks 38,50,82,57,63,100 --work DIR --figure docs/faces.jpg

Reported: seconds, errors on the hidden pixels, the share of the hidden pixels of drawn faces
inside 90% intervals, and what the runs themselves say of their convergence. Results are kept in
`--work` and not done again.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import jax.numpy as jnp
import numpy as np

import jaxgen
from jaxgen.applications.alignment import align_face
from jaxgen.applications.coarse import cells, complete
from jaxgen.target.conditions import ObservedPixels
from jaxgen.target.whitened import fisher_information

NAME = "mobilestylegan-ffhq"
TASKS = ("hole", "half", "8x reduced")
SIZE, SIDE = 128, 16
NOISE = 0.03
# What the view on the coarse grid misses, and of a photograph what the network cannot make.
ERROR = {"drawn": 0.08, "photograph": 0.08}


def hidden_cells(task, side):
    """1 where a cell is seen: a hole over nose and mouth, the right half, or all cells."""
    mask = np.ones((side, side), np.float32)
    if task == "hole":
        mask[side * 7 // 16 : side * 13 // 16, side * 5 // 16 : side * 11 // 16] = 0
    elif task == "half":
        mask[:, side // 2 :] = 0
    return mask


def networks(args):
    """(cheap view, generator of images, generator of the truth, latent size)."""
    if args.smoke:  # without the network: the smallest generator there is, in its place
        network = jaxgen.load("fashion-mnist/vae")

        def padded(z):
            image = jnp.broadcast_to(network(z), (28, 28, 3))
            return jnp.pad(image, ((2, 2), (2, 2), (0, 0)))

        def cheap(z):
            return padded(z).reshape(8, 4, 8, 4, 3).mean((1, 3))

        return cheap, padded, padded, 20
    return (jaxgen.load(f"{NAME}/p-{SIDE}"), jaxgen.load(f"{NAME}/p-512"),
            jaxgen.load(f"{NAME}/512"), 512)  # fmt: skip


def faces(args, truth_of, latent):
    """{name: (face, 1 where it is known)}."""
    found = {}
    if args.photo:
        from PIL import Image

        with Image.open(args.photo) as picture:
            photo = np.asarray(picture.convert("RGB"), np.float32) / 255
        points = [float(x) for x in args.landmarks.split(",")]
        found["photograph"] = align_face(photo, points[:2], points[2:4], points[4:], args.size)
    drawn = (
        jax.jit(lambda network, z: network(z)) if not args.smoke else lambda network, z: network(z)
    )
    latents = jax.random.normal(jax.random.key(2024 + args.seed), (args.drawn, latent))
    for i, z in enumerate(latents):
        image = np.clip(np.asarray(drawn(truth_of, z)), 0, 1)
        found[f"drawn {i + 1}"] = cells(image, args.size), np.ones((args.size, args.size))
    return found


def solve(name, face, known, task, nets, args, number):
    """Return the arrays and figures of one run."""
    cheap, expensive, _, latent = nets
    block = args.size // args.side
    task_mask = hidden_cells(task, args.side)
    mask = task_mask * (cells(known, args.side) == 1)
    rng = np.random.default_rng([args.seed, number])
    observed = cells(face, args.side)
    if name != "photograph":
        observed = observed + NOISE * rng.normal(size=observed.shape)
    observed = observed.astype(np.float32)
    kind = "photograph" if name == "photograph" else "drawn"
    prior = jaxgen.Gaussian.standard(latent)
    begun, cpu = time.perf_counter(), time.process_time()
    scale = jnp.float32(np.hypot(NOISE, ERROR[kind]))
    blank = ObservedPixels(jnp.zeros_like(observed), jnp.asarray(mask), scale)
    information = args.information.setdefault(
        (task, kind),
        fisher_information(1, jaxgen.Posterior(prior, cheap, blank), probes=args.probes, batch=2)
        if (task, kind) not in args.information else None,
    )  # fmt: skip
    full_side = 512 if not args.smoke else args.size
    found = complete(
        jax.random.key(100 * args.seed + number), cheap, expensive, observed, mask, prior=prior,
        noise=NOISE, error=ERROR[kind], num_chains=args.chains, draws=args.draws,
        num_steps=args.steps, burn_in=args.burn_in, warmup=args.warmup, leapfrog=args.leapfrog,
        rounds=args.rounds,
        reduction=full_side // args.size, pool=args.pool, probes=args.probes,
        information=information,
    )  # fmt: skip
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    pixels = np.kron(task_mask, np.ones((block, block)))
    scored = (pixels == 0) & (known > 0) if np.any(pixels == 0) else known > 0
    miss = found.mean - face
    inside = (face >= found.low) & (face <= found.high)
    shown = np.asarray(found.result.draws["image"])
    chains = shown.reshape(*shown.shape[:2], -1)
    within = chains.var(1, ddof=1).mean(0)
    r_hat = np.sqrt(1 + chains.mean(1).var(0, ddof=1) / within)
    facts = {
        "face": name, "task": task, "seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1),
        "gradients": int(np.max(found.result.num_gradients)),
        "rmse_mean": round(float(np.sqrt(np.mean(miss[scored] ** 2))), 4),
        "rmse_draw": round(float(np.sqrt(np.mean((found.images - face)[:, scored] ** 2))), 4),
        "deviation": round(float(found.deviation[scored].mean()), 4),
        "coverage": round(float(inside[scored].mean()), 3),
        "residual": round(found.residual, 4), "cheap_residual": round(found.cheap_residual, 4),
        "view_error": round(found.view_error, 4),
        "lineages": int(found.result.num_lineages),
        "r_hat_cells": round(float(np.median(r_hat)), 2),
        "log_z": [round(float(found.result.log_z), 1),
                  round(float(found.result.log_z_standard_error), 1)],
        "notes": list(found.notes),
    }  # fmt: skip
    seen = np.where(mask[..., None] > 0, np.clip(observed, 0, 1), 0.5)
    if task != "8x reduced":  # what a person sees of it
        kept = np.kron(mask, np.ones((block, block)))[..., None]
        seen = np.where(kept > 0, face, 0.5)
    else:
        seen = np.kron(seen, np.ones((block, block, 1)))
    picked = found.images[:: max(1, len(found.images) // 4)][:4]
    shown = np.where(known[..., None] > 0, face, 0.5)
    return {"facts": json.dumps(facts), "truth": shown, "seen": seen, "mean": found.mean,
            "deviation": found.deviation, "draws": picked}  # fmt: skip


def attempt(name, task, path, make):
    """Return a run's arrays, from `--work` where they are there already."""
    if path is not None and path.exists():
        with np.load(path) as file:
            return {key: file[key] for key in file.files}
    found = make()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **found)
    return found


def figure(path, rows):
    """One row for each run: truth, what was seen, mean, four draws, deviation."""
    from PIL import Image, ImageDraw

    titles = ["truth", "seen", "posterior mean", "draw", "draw", "draw", "draw", "deviation"]
    size, gap, head, left = rows[0]["truth"].shape[0], 4, 18, 92
    wide = left + len(titles) * (size + gap)
    page = Image.new("RGB", (wide, head + len(rows) * (size + gap)), "white")
    pen = ImageDraw.Draw(page)
    for j, title in enumerate(titles):
        pen.text((left + j * (size + gap) + 4, 3), title, fill="black")
    for i, row in enumerate(rows):
        facts = json.loads(str(row["facts"]))
        top = head + i * (size + gap)
        lines = [facts["face"], facts["task"]]
        if facts["face"] != "photograph":
            lines += [f"{100 * facts['coverage']:.0f}% inside", "90% intervals"]
        pen.multiline_text((4, top + 8), "\n".join(lines), fill="black", spacing=5)
        spread = np.minimum(3 * row["deviation"].mean(-1, keepdims=True), 1).repeat(3, -1)
        pictures = [row["truth"], row["seen"], row["mean"], *row["draws"], spread]
        for j, picture in enumerate(pictures):
            tile = Image.fromarray(np.uint8(255 * np.clip(picture, 0, 1) + 0.5))
            page.paste(tile, (left + j * (size + gap), top))
    page.save(path, quality=84)


def main():
    """Print a line for each run and one JSON line; write the picture."""
    parser = common.parser(__doc__)
    parser.add_argument("--photo", help="a photograph of a face, PNG or JPEG")
    parser.add_argument("--landmarks", default="38,50,82,57,63,100",
                        help="column,row of both eyes and the mouth (%(default)s)")  # fmt: skip
    parser.add_argument("--drawn", type=int, default=4, help="faces drawn (%(default)s)")
    parser.add_argument("--tasks", default=",".join(TASKS), help="(%(default)s)")
    parser.add_argument("--chains", type=int, default=16)
    parser.add_argument("--draws", type=int, default=3, help="of each chain (%(default)s)")
    parser.add_argument("--burn-in", type=int, default=6, help="(%(default)s)")
    parser.add_argument("--steps", type=int, default=9, help="(%(default)s)")
    parser.add_argument("--warmup", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="at most (%(default)s)")
    parser.add_argument("--leapfrog", type=int, default=12, help="(%(default)s)")
    parser.add_argument("--pool", type=int, default=16, help="(%(default)s)")
    parser.add_argument("--probes", type=int, default=128, help="(%(default)s)")
    parser.add_argument("--work", help="folder in which results are kept")
    parser.add_argument("--figure", help="also draw the figure into this file")
    args = parser.parse_args()
    args.size, args.side, args.information = SIZE, SIDE, {}
    # One device for each core, as the command line has: they share the chains.
    jax.config.update("jax_num_cpu_devices", len(os.sched_getaffinity(0)))
    if args.smoke:
        args.size, args.side, args.drawn, args.tasks = 32, 8, 1, "hole"
        args.chains, args.draws, args.steps, args.warmup, args.pool = 8, 2, 2, 1, 2
        args.probes = 16
    nets = networks(args)
    rows, begun = [], time.perf_counter()
    for i, (name, (face, known)) in enumerate(faces(args, nets[2], nets[3]).items()):
        for j, task in enumerate(args.tasks.split(",")):
            file = f"{name}-{task}.npz".replace(" ", "")
            path = Path(args.work) / file if args.work else None
            number = 10 * i + j

            def make(name=name, face=face, known=known, task=task, number=number):
                return solve(name, face, known, task, nets, args, number)

            rows.append(attempt(name, task, path, make))
            print(str(rows[-1]["facts"]), flush=True)
    if args.figure:
        figure(args.figure, rows)
    facts = [json.loads(str(row["facts"])) for row in rows]
    drawn = [f for f in facts if f["face"] != "photograph"]
    common.report(
        "faces_completed",
        runs=len(rows),
        seconds=round(time.perf_counter() - begun, 1),
        seconds_of_runs=round(sum(f["seconds"] for f in facts), 1),
        cpu_seconds_of_runs=round(sum(f["cpu_seconds"] for f in facts), 1),
        coverage={task: [f["coverage"] for f in drawn if f["task"] == task]
                  for task in args.tasks.split(",")},
        mean_coverage=round(float(np.mean([f["coverage"] for f in drawn])), 3),
    )  # fmt: skip


if __name__ == "__main__":
    main()
