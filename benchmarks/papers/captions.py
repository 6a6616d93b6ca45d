"""Do images drawn for a caption show what it says? Rejection sampling knows the truth.

For each caption, draws from p(z | caption) by `sample` with default settings, DCGAN and
captioner as shipped, next to exact draws: z from the prior, kept with probability
p(caption | G(z)). On both sides, without asking the captioner:

  class       share that the judge, which no sampler has seen, puts into the caption's class
  attributes  share whose lit pixels or columns, measured, are in the third that was asked for

and the same shares of prior draws, which nobody asked for anything. `--figure` draws a row of
images for each caption.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import jax.numpy as jnp
import numpy as np
from common import batched

import jaxgen
from jaxgen.models.registry import describe
from jaxgen.train.captions import WORDS, Thirds, measured

CAPTIONS = (
    "a dark narrow dress",
    "a bright wide bag",
    "a dark wide pullover",
    "a bright narrow top",
    "a narrow boot",
    "a bright sneaker",
)
FIRST = WORDS.index("top")


def shares(images, caption, judge, bounds):
    """(class right, attributes right) of images."""
    words = caption.split()
    label = WORDS.index(words[-1]) - FIRST
    right = np.asarray(jnp.argmax(batched(judge, images), axis=1) == label)
    brightness, width = measured(np.asarray(images))
    fits = np.ones(len(images), bool)
    for word, values, (low, high) in (
        ("dark", brightness, (-np.inf, bounds.brightness[0])),
        ("bright", brightness, (bounds.brightness[1], np.inf)),
        ("narrow", width, (-np.inf, bounds.width[0])),
        ("wide", width, (bounds.width[1], np.inf)),
    ):
        if word in words:
            fits &= (values >= low) & (values <= high)
    return {"class": round(float(right.mean()), 3), "attributes": round(float(fits.mean()), 3)}


def main():
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--chains", type=int, default=32)
    options.add_argument("--draws", type=int, default=20_000, help="prior draws for the truth")
    options.add_argument("--figure", help="a picture to write")
    args = options.parse_args()
    captions = CAPTIONS[:1] if args.smoke else CAPTIONS
    draws, chains = (1000, 4) if args.smoke else (args.draws, args.chains)
    generator, judge = (jaxgen.load(f"fashion-mnist/{name}") for name in ("dcgan", "judge"))
    captioner = jaxgen.load("fashion-mnist/captioner")
    bounds = Thirds(**describe("fashion-mnist/captioner").metadata["thirds"])
    key = jax.random.key(args.seed)
    z = jax.random.normal(jax.random.fold_in(key, 1000), (draws, 64))
    images = batched(generator, z)
    uniform = np.asarray(jax.random.uniform(jax.random.fold_in(key, 1001), (draws,)))
    rows, shown = [], []
    for i, caption in enumerate(captions):
        condition = jaxgen.Caption.of(captioner, caption)
        probability = np.exp(np.asarray(batched(condition, images), np.float64))
        exact = images[np.flatnonzero(uniform < probability)]
        posterior = jaxgen.Posterior(jaxgen.Gaussian.standard(64), generator, condition)
        budget = {"warmup": 2, "num_steps": 2} if args.smoke else {}
        result = jaxgen.sample(jax.random.fold_in(key, i), posterior, num_chains=chains, **budget)
        drawn = batched(generator, result.position)
        shown.append(np.asarray(drawn[:10, :, :, 0]))
        log_truth = float(np.log(probability.mean()))
        rows.append(
            {
                "caption": caption,
                "log_z": [round(result.log_z, 2), round(log_truth, 2)],
                "log_z_standard_error": round(result.log_z_standard_error, 2),
                "gradients": int(result.num_gradients.max()),
                "ours": shares(drawn, caption, judge, bounds),
                "exact": {**shares(exact, caption, judge, bounds), "n": len(exact)}
                if len(exact)
                else None,
                "prior": shares(images, caption, judge, bounds),
            }
        )
    if args.figure:
        draw(Path(args.figure), captions, shown)
    common.report("captions", chains=chains, prior_draws=draws, rows=rows)


def draw(path, captions, shown):
    """Draw a row of images under each caption."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(len(captions), 1, figsize=(8, 1.05 * len(captions)))
    for axis, caption, images in zip(np.atleast_1d(axes), captions, shown, strict=True):
        axis.imshow(np.concatenate(images, axis=1), cmap="gray", vmin=0, vmax=1)
        axis.set_title(caption, fontsize=9, loc="left", pad=2)
        axis.axis("off")
    figure.tight_layout(pad=0.4)
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
