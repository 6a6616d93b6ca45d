"""Completing faces with the Progressive GAN of the co-generation paper (CelebA, 128 x 128).

A photograph and faces that the network drew itself (where the truth is within reach), with a
random box of 30 to 60 pixels a side hidden, or reduced eight times to 16 x 16. A gradient of
one face takes about a second on a CPU, so that the budget is small and the same for everyone:

  gd        Adam on |x_o - G(z)_o|^2 from one prior draw, at 0.03 and at 0.1: the rate with the
            smaller error on what was seen (two runs, so twice the budget)
  gd_best   the same from the best of N prior draws, at that rate
  ours      annealed HMC, 4 chains of as many gradients, the likelihood to the power 1/50 (1/4)
            since residuals are patches and not pixels; `ours` is the chains' mean, without
            weights (which mean nothing before chains mix), `ours_best` the chain that is
            closest to what was seen, chosen as descent's best is, `ours_draw` one chain's error

The network ignores the length of z, so the prior is `Sphere`. Nothing has converged at this
size; the paper spent 10,000 gradients a chain on a GPU.

  jaxgen fetch progan-celeba128
  python benchmarks/papers/faces.py --photo FACE.png --work runs/faces --figure faces.png

`--network FILE` takes a converted file. Results are kept in `--work` and not done again.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import jax.numpy as jnp
import numpy as np

import jaxgen
from jaxgen import adapt, baselines, kernels, metrics, schedules
from jaxgen.plotting.pictures import masked
from jaxgen.target.conditions import LowResolution, ObservedPixels

RATES = (0.03, 0.1)
LEAPFROG = 8
NOISE = {"box": 0.1, "superres": 0.05}
# What the network cannot make it misses in patches: so many residuals count as one.
REDUNDANCY = {"box": 50.0, "superres": 4.0}


def box(seed, size):
    """Return the paper's mask: a box with sides of 30 to 60 pixels (of 128), anywhere inside."""
    rng = np.random.default_rng(seed)
    low, high = 30 * size // 128, 60 * size // 128
    height, width = rng.integers(low, high + 1, 2)
    top, left = rng.integers(0, size - height + 1), rng.integers(0, size - width + 1)
    mask = np.ones((size, size), np.float32)
    mask[top : top + height, left : left + width] = 0
    return mask


def target_of(generator, prior, truth, task, seed):
    """(posterior, mask of what was seen, a picture of what was seen)."""
    size = truth.shape[0]
    if task == "box":
        mask = box(seed, size)
        seen = truth * mask[..., None]
        condition = ObservedPixels(jnp.asarray(seen), jnp.asarray(mask), jnp.float32(NOISE[task]))
        weighed = condition * (1 / REDUNDANCY[task])
        return jaxgen.Posterior(prior, generator, weighed), mask, masked(truth, mask)
    view = jaxgen.target.conditions.average_pool(jnp.asarray(truth), 8)
    condition = LowResolution(view, jnp.float32(NOISE[task]), 8)
    shown = np.asarray(view).repeat(8, 0).repeat(8, 1)
    weighed = condition * (1 / REDUNDANCY[task])
    return jaxgen.Posterior(prior, generator, weighed), np.zeros((size, size)), shown


def solve(method, key, posterior, args):
    """(estimate, images of the chains, gradients for each chain, facts)."""
    temperatures = max(1, args.gradients // LEAPFROG)
    if method == "ours":
        result = jaxgen.ais(
            key,
            posterior,
            kernels.HMC(LEAPFROG),
            schedules.geometric(temperatures, 3e-3),
            num_chains=args.chains,
            # Each temperature asks for a step 1.5 times smaller: follow the acceptance fast.
            step_size=adapt.DualAveraging(0.2, gain=1.0),
            tile=1,
        )
        draw = jax.jit(lambda target, z: jax.lax.map(target.image, z))
        images = np.asarray(draw(posterior, result.position))
        facts = {
            "acceptance": float(np.mean(result.acceptance_rate)),
            "log_weight": np.asarray(result.log_weight).tolist(),
        }
        return images.mean(axis=0), images, int(result.num_gradients.max()), facts
    best_of = args.best_of if method == "gd_best" else 1
    rates = RATES if method == "gd" else (args.rate,)
    found = {
        rate: baselines.descend(key, posterior, rate, num_steps=args.gradients, best_of=best_of)
        for rate in rates
    }
    rate = max(rates, key=lambda r: float(found[r].score[0]))
    image = found[rate].image
    return image, image[None], args.gradients, {"rate": rate}


def faces(generator, args):
    """{name: face}."""
    latents = jax.random.normal(jax.random.key(2024), (2, *args.latent))
    drawn = [np.clip(np.asarray(generator(args.prior.latent(z))), 0, 1) for z in latents]
    found = {}
    if args.photo:
        from PIL import Image

        with Image.open(args.photo) as picture:
            found["photograph"] = np.asarray(picture.convert("RGB"), np.float32) / 255
    names = ("drawn 1", "drawn 2")
    return found | dict(zip(names[: args.drawn], drawn, strict=False))


def figure(path, panels):
    """One row for each target: truth, what was seen, the three methods, the two best chains."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    titles = (
        "truth",
        "seen",
        "descent",
        "descent, best of N",
        "ours: mean",
        "ours: best chain",
        "another chain",
    )
    fig, axes = plt.subplots(
        len(panels), len(titles), figsize=(10.5, 1.62 * len(panels) + 0.3), squeeze=False
    )
    for line, (label, pictures, texts) in zip(axes, panels, strict=True):
        for axis, picture, text in zip(line, pictures, texts, strict=True):
            axis.imshow(np.clip(picture, 0, 1))
            axis.set(xticks=[], yticks=[])
            axis.set_xlabel(text, fontsize=7, labelpad=2)
        line[0].set_ylabel(label, fontsize=8)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=9)
    fig.tight_layout(pad=0.4)
    fig.savefig(path, dpi=100)


def main():
    """Print a table and one JSON line."""
    parser = common.parser(__doc__)
    parser.add_argument("--network", default="progan-celeba128", help="a name or a file")
    parser.add_argument("--photo", help="a face of the network's size, PNG")
    parser.add_argument("--drawn", type=int, default=2, help="faces drawn by the network")
    parser.add_argument("--tasks", default="box,superres", help="(%(default)s)")
    parser.add_argument("--gradients", type=int, default=64, help="for each chain (%(default)s)")
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--best-of", type=int, default=20)
    parser.add_argument("--work", help="folder in which results are kept")
    parser.add_argument("--figure", help="also draw the figure into this file")
    args = parser.parse_args()
    if args.smoke:  # without the network: the smallest generator there is, in its place
        network = jaxgen.load("fashion-mnist/vae")
        args.latent, args.gradients, args.chains, args.best_of = (20,), 16, 2, 3
        args.network, args.drawn = "fashion-mnist/vae", 1
        args.latent = jaxgen.models.describe(args.network).input_shape

        def generator(z):
            image = jnp.broadcast_to(network(z), (28, 28, 3))
            return jnp.pad(image, ((2, 2), (2, 2), (0, 0)))

        args.prior = jaxgen.Gaussian.standard(args.latent)
    else:
        generator = jaxgen.load(args.network)
        args.latent = (512,)
        args.prior = jaxgen.Sphere.of(512)
    rows, panels = [], []
    for task in args.tasks.split(","):
        for index, (name, truth) in enumerate(faces(generator, args).items()):
            seed = 100 * args.seed + index
            posterior, mask, shown = target_of(generator, args.prior, truth, task, seed)
            row = {"face": name, "task": task}
            pictures = {}
            for method in ("gd", "gd_best", "ours"):
                args.rate = row.get("rate", RATES[0])
                key = jax.random.fold_in(jax.random.key(args.seed), index)
                facts = attempt(method, key, posterior, args, f"{name}-{task}".replace(" ", ""))
                image, images = facts.pop("image"), facts.pop("images")
                pictures[method] = image
                row |= {k: facts[k] for k in ("rate", "acceptance") if k in facts}
                row[method] = closeness(image, truth, mask) | {
                    k: facts[k] for k in ("gradients", "seconds")
                }
                if method == "ours":
                    each = [closeness(x, truth, mask) for x in images]
                    row["ours_draw"] = {
                        k: round(float(np.mean([e[k] for e in each])), 4) for k in each[0]
                    }
                    near = np.argsort([-float(seen_as(posterior, x)) for x in images])
                    row["ours_best"] = closeness(images[near[0]], truth, mask)
                    chains = images[near[:2]]
            rows.append(row)
            texts = ["", ""] + [
                f"{row[m]['hidden_mse']:.4f} / {row[m]['hidden_ssim']:.2f}"
                for m in ("gd", "gd_best", "ours", "ours_best")
            ]
            panels.append(
                (
                    f"{name}\n{task}",
                    [truth, shown, *pictures.values(), *chains],
                    [*texts, ""],
                )
            )
            print(json.dumps(row), flush=True)
    if args.figure:
        figure(args.figure, panels)
    common.report(
        "faces",
        gradients_a_chain=args.gradients,
        chains=args.chains,
        best_of=args.best_of,
        wins={
            f"{one} over {other}": {
                "mse": sum(r[one]["hidden_mse"] < r[other]["hidden_mse"] for r in rows),
                "ssim": sum(r[one]["hidden_ssim"] > r[other]["hidden_ssim"] for r in rows),
                "of": len(rows),
            }
            for one in ("ours", "ours_best")
            for other in ("gd", "gd_best")
        },
        rows=rows,
    )


def attempt(method, key, posterior, args, name):
    """Return a method's result, from `--work` where it is there already."""
    path = Path(args.work) / f"{name}-{method}.npz" if args.work else None
    if path is not None and path.exists():
        with np.load(path) as file:
            return {
                "image": file["image"],
                "images": file["images"],
                **json.loads(str(file["facts"])),
            }
    begun = time.perf_counter()
    image, images, gradients, facts = solve(method, key, posterior, args)
    facts |= {"gradients": gradients, "seconds": round(time.perf_counter() - begun, 1)}
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, image=image, images=images, facts=json.dumps(facts))
    return {"image": image, "images": images, **facts}


@jax.jit
def seen_as(posterior, image):
    """Return the log likelihood of what was seen, given an image."""
    return posterior.condition(image)


def closeness(image, truth, mask):
    """MSE and SSIM of what was hidden (all pixels after reduction) and of the whole image."""
    found = metrics.regions(
        jnp.asarray(np.clip(image, 0, 1)), jnp.asarray(truth), jnp.asarray(mask)
    )
    return {
        "hidden_mse": round(float(found.hidden.mse), 5),
        "hidden_ssim": round(float(found.hidden.ssim), 4),
        "whole_mse": round(float(found.whole.mse), 5),
        "whole_ssim": round(float(found.whole.ssim), 4),
    }


if __name__ == "__main__":
    main()
