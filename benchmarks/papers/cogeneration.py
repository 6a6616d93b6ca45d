"""Is a posterior sample worth its cost? Completing images with a DCGAN at four stages of training.

Held-out Fashion-MNIST images, and images drawn by the generator itself (where the truth is
within reach), with a 12 x 12 hole, without their lower half, or reduced four times. Each
method sees the same pixels and none the truth; errors are those of the hidden pixels (of all
pixels after reduction).

  gd            Adam on |x_o - G(z)_o|^2 from one prior draw: the mean error of 24 such runs
  gd_restarts   the best of those 24 by that objective: about as many gradients as `ours`
  gd_5000       from the best of 5000 prior draws (the paper's second baseline)
  paper         the co-generation authors' settings: 500 raw betas, HMC(20), one step size,
                the prior tempered away; 4 chains; `paper_mean` is the mean over chains
  unannealed    the same without annealing
  ours          `jaxgen.tasks`: the posterior mean; `ours_draw` is a single draw, on average
  ours_tight    the same, told that the noise is 0.02 as if the generator could show anything,
                which is what an optimiser assumes

Adam's rate is tuned for each stage and task by the objective on two images that are not judged.
The stages are snapshots of the recipe, trained by

  jaxgen train fashion-mnist/dcgan --snapshots 500,1500,4000 --out weights

(it may be stopped after 4000), beside the weights that are shipped. Rows are appended to
`--rows FILE` as they are done, and what is there is not done again.

With `--added S` what is seen has Gaussian noise of that level (a quarter of a reduced view's own
is averaged away), and `--noise given` tells every method so. The truth stays without noise. Of
images that the generator drew itself the posterior mean then has the least squared error that any
method can have on average.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import jax.numpy as jnp
import numpy as np

import jaxgen
from jaxgen import baselines, data, kernels, metrics, schedules, tasks
from jaxgen.target.conditions import LowResolution, ObservedPixels

STAGES = ("500", "1500", "4000", "shipped")
TASKS = ("hole", "half", "superres")
METHODS = ("ours", "ours_tight", "gd", "gd_5000", "paper", "unannealed")
KEY = ("stage", "task", "kind", "seed", "index", "method")  # what tells rows apart
NOISE = {"hole": 0.1, "half": 0.1, "superres": 0.05}
TIGHT = 0.02
PRIOR = jaxgen.Gaussian.standard(64)
RESTARTS = CHAINS = 24


def generator_at(stage, folder):
    """Return the network of a training stage."""
    if stage == "shipped":
        return jaxgen.load("fashion-mnist/dcgan")
    path = Path(folder) / f"fashion_mnist_dcgan_{stage}.safetensors"
    if not path.exists():
        raise SystemExit(
            f"{path} is missing: jaxgen train fashion-mnist/dcgan --snapshots "
            f"500,1500,4000 --out {folder}"
        )
    return jaxgen.load(path)


def mask_of(task):
    """1 where the image is seen; for super-resolution nothing of it is."""
    mask = np.ones((28, 28), np.float32)
    if task == "hole":
        mask[8:20, 8:20] = 0
    elif task == "half":
        mask[14:] = 0
    else:
        mask[:] = 0
    return mask


def condition(image, task, noise):
    """Return what a baseline is shown."""
    image = jnp.asarray(image)
    if task == "superres":
        view = jaxgen.target.conditions.average_pool(image, 4)
        return LowResolution(view, jnp.float32(noise), 4)
    mask = jnp.asarray(mask_of(task))
    return ObservedPixels(image * mask[..., None], mask, jnp.float32(noise))


def posterior(generator, image, task, noise=None):
    """Return a baseline's target."""
    noise = NOISE[task] if noise is None else noise
    return jaxgen.Posterior(PRIOR, generator, condition(image, task, noise))


def errors(image, truth, task):
    """(MSE, SSIM) of the hidden pixels."""
    found = metrics.regions(jnp.asarray(image), jnp.asarray(truth), mask_of(task)).hidden
    return float(found.mse), float(found.ssim)


def mean_errors(images, truth, task):
    """Return the mean over images of their errors."""
    return np.mean([errors(image, truth, task) for image in images], axis=0)


def observed(truth, task, seed, added):
    """Return the image with noise, of which a method sees a part or a reduced view."""
    if not added:
        return truth
    level = added * (4 if task == "superres" else 1)
    return truth + level * np.random.default_rng(seed).normal(size=truth.shape).astype(np.float32)


def solve(method, key, generator, truth, seen, task, rate, args):
    """{name: (MSE, SSIM)}, and facts about the run."""
    given = args.added or NOISE[task]
    if method in ("ours", "ours_tight"):
        noise = given if args.noise is None else args.noise
        settings = {
            "prior": PRIOR,
            "noise": TIGHT if method == "ours_tight" else noise,
            "num_chains": 8 if args.smoke else CHAINS,
            "kernel": kernels.HMC(args.length, jitter=True),
            "betas": schedules.Adaptive(cess=0.5 if args.smoke else args.cess),
            "num_mcmc_steps": 1,
            "warmup": 2 if args.smoke else 10,
            "num_steps": 2 if args.smoke else 20,
            "thin": 1,
        }
        if task == "superres":
            view = jaxgen.target.conditions.average_pool(jnp.asarray(seen), 4)
            found = tasks.super_resolve(key, generator, view, 4, **settings)
        else:
            found = tasks.inpaint(key, generator, seen, mask_of(task), **settings)
        hidden = np.ones((28, 28, 1)) - mask_of(task)[..., None]
        inside = (truth >= found.low) & (truth <= found.high)
        facts = {
            "gradients": int(found.result.num_gradients.max()),
            "coverage": float(np.sum(hidden * inside) / np.sum(hidden)),
            "noise": found.noise,
            "misfit": found.misfit,
            "ancestors": found.result.num_lineages,
        }
        return {
            method: errors(found.mean, truth, task),
            f"{method}_draw": mean_errors(found.samples, truth, task),
        }, facts
    if method in ("gd", "gd_5000"):
        best_of, chains = (1, RESTARTS) if method == "gd" else (5000, 1)
        found = baselines.descend(
            key,
            posterior(generator, seen, task, given),
            rate,
            num_steps=20 if args.smoke else args.steps,
            num_chains=chains,
            best_of=50 if args.smoke and best_of > 1 else best_of,
        )
        facts = {"gradients": found.num_gradients, "evaluations": found.num_evaluations}
        if method == "gd_5000":
            return {"gd_5000": errors(found.image, truth, task)}, facts
        return {
            "gd": mean_errors(found.images, truth, task),
            "gd_restarts": errors(found.image, truth, task),
        }, facts
    found = baselines.cogeneration(
        key,
        posterior(generator, seen, task, tasks.COGEN_NOISE),
        num_chains=2 if args.smoke else 4,
        betas=schedules.sigmoid(6, -5, 5, rescale=False) if args.smoke else None,
        annealed=method == "paper",
    )
    norm = float(np.linalg.norm(np.asarray(found.position), axis=-1).mean())
    return {
        method: mean_errors(found.images, truth, task),
        f"{method}_mean": errors(found.mean, truth, task),
    }, {"gradients": found.num_gradients, "norm": norm}


def truths(kind, seed, generator, count):
    """`count` images of a seed: held-out ones, or the generator's own."""
    if kind == "drawn":
        key = jax.random.fold_in(jax.random.key(77), seed)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))
        latents = jax.vmap(lambda k: jax.random.normal(k, (64,)))(keys)
        return np.asarray(jax.vmap(generator)(latents))
    images = data.fashion_mnist("test").images
    order = np.random.default_rng(2024).permutation(len(images))
    chosen = images[order[100 * seed : 100 * seed + count]]  # more images: the first stay
    return np.asarray(data.to_unit(jnp.asarray(chosen))).reshape(count, 28, 28, 1)


def run(args, rows):
    """Every row that is not there yet, seeds outermost so that a stopped run is balanced."""
    kinds = ("drawn",) if args.smoke else args.kinds.split(",")
    rates = {}
    for seed in range(args.seed, args.seed + args.seeds):
        for stage in args.stage_names:
            generator = generator_at(stage, args.stages)
            for task in TASKS if not args.smoke else TASKS[:1]:
                for kind in kinds:
                    for index, truth in enumerate(truths(kind, seed, generator, args.images)):
                        for method in args.methods:
                            name = (stage, task, kind, seed, index, method)
                            if name in rows:
                                continue
                            slow = method in ("paper", "unannealed")
                            if slow and (seed != args.seed or index or stage not in args.paper):
                                continue
                            rate = None
                            if method in ("gd", "gd_5000"):
                                rate = rates.get((stage, task))
                                if rate is None:
                                    rate = tuned(generator, task, args)
                                    rates[stage, task] = rate
                            begun = time.perf_counter()
                            key = jax.random.fold_in(jax.random.key(seed), index)
                            seen = observed(truth, task, [seed, index], args.added)
                            found, facts = solve(
                                method, key, generator, truth, seen, task, rate, args
                            )
                            row = dict(zip(KEY, name, strict=True))
                            row["errors"] = {k: [float(x) for x in v] for k, v in found.items()}
                            row |= facts | {"rate": rate}
                            row["seconds"] = round(time.perf_counter() - begun, 1)
                            rows.add(row)


def tuned(generator, task, args):
    """Adam's rate, by the objective on one image of each kind that is not judged."""
    others = [
        truths(kind, 99, generator, 1)[0] for kind in ("drawn",) + ("real",) * (not args.smoke)
    ]
    targets = [posterior(generator, image, task) for image in others]
    return baselines.tune(
        jax.random.key(5),
        targets,
        rates=(0.03, 0.1, 0.3, 1.0),
        num_steps=10 if args.smoke else 300,
        num_chains=2,
    )


def table(rows):
    """Mean and standard error of each method's errors in each cell."""
    cells = {}
    for row in rows:
        for name, (mse, ssim) in row["errors"].items():
            cells.setdefault((row["kind"], row["task"], row["stage"]), {}).setdefault(
                name, []
            ).append((mse, ssim))
    result = []
    for (kind, task, stage), found in sorted(cells.items()):
        entry = {"kind": kind, "task": task, "stage": stage}
        for name, values in found.items():
            mean = np.mean(values, axis=0)
            error = (
                np.std(values, axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else [0, 0]
            )
            entry[name] = {
                "mse": round(float(mean[0]), 4),
                "mse_se": round(float(error[0]), 4),
                "ssim": round(float(mean[1]), 3),
                "ssim_se": round(float(error[1]), 3),
                "n": len(values),
            }
        result.append(entry)
    return result


COLUMNS = {
    "ours": "ours",
    "ours_draw": "ours, one draw",
    "ours_tight": "ours, noise .02",
    "gd": "descent",
    "gd_restarts": "best of 24",
    "gd_5000": "best of 5000",
    "paper": "paper's settings",
    "paper_mean": "the mean of their chains",
    "unannealed": "not annealed",
}
TASK_WORDS = {"hole": "12 x 12 hole", "half": "lower half", "superres": "4x reduced"}


def show(entries):
    """Two tables in Markdown, hidden MSE and SSIM, the best of the methods that all images have."""
    names = [name for name in COLUMNS if any(name in entry for entry in entries)]
    kinds, tasks = ("real", "drawn"), tuple(TASK_WORDS)
    entries = sorted(
        entries,
        key=lambda e: (kinds.index(e["kind"]), tasks.index(e["task"]), STAGES.index(e["stage"])),
    )
    for what, best in (("mse", min), ("ssim", max)):
        print(f"\n| {what.upper()} | stage | n | " + " | ".join(COLUMNS[n] for n in names) + " |")
        print("|---" * (len(names) + 3) + "|")
        for entry in entries:
            whole = max(entry[name]["n"] for name in names if name in entry)
            shared = {n: entry[n][what] for n in names if n in entry and entry[n]["n"] == whole}
            winner = best(shared, key=shared.get)
            line = f"| {entry['kind']}, {TASK_WORDS[entry['task']]} | {entry['stage']} | {whole} |"
            for name in names:
                line += f" {cell_text(entry.get(name), what, name == winner)} |"
            print(line)


def cell_text(cell, what, bold):
    """One cell of a table: mean and standard error; a single image has none."""
    if not cell:
        return "–"
    text = f"{cell[what]:.3f}" + (f" ± {cell[what + '_se']:.3f}" if cell["n"] > 1 else "")
    return f"**{text}**" if bold else text


def wins(entries, other):
    """In how many cells `ours` has the smaller MSE and the larger SSIM than another method."""
    both = [e for e in entries if "ours" in e and other in e]
    return {
        "cells": len(both),
        "mse": sum(e["ours"]["mse"] < e[other]["mse"] for e in both),
        "ssim": sum(e["ours"]["ssim"] > e[other]["ssim"] for e in both),
    }


def main():
    """Print a table and one JSON line."""
    parser = common.parser(__doc__)
    parser.add_argument("--rows", help="a file of JSON lines to go on with")
    parser.add_argument("--stages", default="weights", help="folder of the snapshots (%(default)s)")
    parser.add_argument("--only", help="stages, as in 500,shipped")
    parser.add_argument("--methods", help=f"of {','.join(METHODS)}")
    parser.add_argument("--images", type=int, default=1, help="of each kind, a seed (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--steps", type=int, default=700, help="of gradient descent")
    parser.add_argument("--noise", default="learn", help="learn, student-t, given or a number")
    parser.add_argument("--added", type=float, default=0.0, help="noise of what is seen (0)")
    parser.add_argument("--kinds", default="real,drawn", help="images (%(default)s)")
    parser.add_argument("--length", type=int, default=12, help="of HMC's trajectories, on average")
    parser.add_argument("--cess", type=float, default=0.8)
    parser.add_argument("--paper", default="500,shipped", help="stages for the paper's settings")
    args = parser.parse_args()
    if args.noise == "given":
        args.noise = None  # what the baselines are given: --added, or 0.1 and 0.05 for reduction
    elif args.noise not in ("learn", "student-t"):
        args.noise = float(args.noise)
    args.paper = args.paper.split(",")
    args.methods = args.methods.split(",") if args.methods else METHODS
    args.stage_names = args.only.split(",") if args.only else STAGES
    if args.smoke:
        args.images, args.seeds, args.stage_names = 1, 1, ("shipped",)
        args.methods = ("ours", "gd", "paper")
    rows = common.Rows(args.rows, *KEY)
    run(args, rows)
    entries = table(rows)
    show(entries)
    ours = [row for row in rows if row["method"] == "ours"]
    drawn = [row["coverage"] for row in ours if row["kind"] == "drawn"]
    real = [row["coverage"] for row in ours if row["kind"] == "real"]
    common.report(
        "cogeneration",
        images_of_each_kind=args.images,
        seeds=args.seeds,
        wins={name: wins(entries, name) for name in ("gd", "gd_restarts", "gd_5000", "paper")},
        gradients={
            name: round(float(np.mean([r["gradients"] for r in rows if r["method"] == name])))
            for name in dict.fromkeys(row["method"] for row in rows)
        },
        coverage_of_90={
            "drawn": round(float(np.mean(drawn)), 3) if drawn else None,
            "real": round(float(np.mean(real)), 3) if real else None,
        },
        rows=entries,
    )


if __name__ == "__main__":
    main()
