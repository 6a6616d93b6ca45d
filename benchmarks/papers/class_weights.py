"""A weight on the class: how much clearer do draws get, and are they still the right ones?

The posterior with weight w on the class is p(z) p(class | G(z))^w / Z_w. For each class of
Fashion-MNIST and each weight, chains of `sample(key, posterior)` with default settings are
compared with the truth, which prior draws give here: each counts p(class | G(z))^w. Two figures:

  judge  share of images that the judge, a network no sampler has seen, puts into the class
  log Z  log of the mean of p(class | G(z))^w

`z` in a row is the difference from the truth in standard errors. `--figure` draws eight images of
each class with the first weight beside eight with the last: the last draws of chains that are
evenly spaced, which nobody has looked at.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import jax.numpy as jnp
import numpy as np

import jaxgen
from jaxgen.data import CLASS_NAMES

SHOWN = 8
batched = functools.partial(common.batched, size=500)


def weighted_mean(values, log_weights):
    """Return a self-normalised mean and its standard error."""
    weights = np.exp(log_weights - log_weights.max())
    weights /= weights.sum()
    mean = float(weights @ values)
    return mean, float(np.sqrt(np.sum((weights * (values - mean)) ** 2)))


def log_mean(log_values):
    """Return the log of a mean of exponentials, and its standard error."""
    top = log_values.max()
    values = np.exp(log_values - top)
    mean = values.mean()
    return float(top + np.log(mean)), float(values.std(ddof=1) / np.sqrt(values.size) / mean)


def difference(ours, truth):
    """Return the difference of two (value, standard error) in standard errors."""
    return round((ours[0] - truth[0]) / float(np.hypot(ours[1], truth[1])), 2)


def share(right):
    """Return a share, with a standard error that is not 0 where all agree (Agresti & Coull)."""
    about = (right.sum() + 1) / (len(right) + 2)
    return float(right.mean()), float(np.sqrt(about * (1 - about) / (len(right) + 2)))


def figure(path, shown, labels, weights, rows):
    """Write rows of images: the first weight's, then the last weight's."""
    from PIL import Image, ImageDraw

    scale, gap, head, left, note = 2, 2, 34, 84, 92
    size = 28 * scale + gap
    block = SHOWN * size + note
    page = Image.new("RGB", (left + 2 * block, head + len(labels) * size), "white")
    pen = ImageDraw.Draw(page)
    for j, weight in enumerate((weights[0], weights[-1])):
        x = left + j * block
        pen.text((x, 4), f"weight {weight:g}", fill="black")
        pen.text((x + SHOWN * size + 6, 4), "judge agrees:\nhere (exact)", fill="black")
        for i, label in enumerate(labels):
            y = head + i * size
            if not j:
                pen.text((4, y + size // 2 - 6), CLASS_NAMES[label], fill="black")
            row = rows[CLASS_NAMES[label], weight]
            pen.text((x + SHOWN * size + 6, y + size // 2 - 6),
                     f"{row['judge'][0]:.2f} ({row['judge'][1]:.2f})", fill="black")  # fmt: skip
            for k, image in enumerate(shown[label, weight]):
                tile = Image.fromarray(np.uint8(255 * np.clip(image[..., 0], 0, 1) + 0.5))
                tile = tile.resize((28 * scale, 28 * scale), Image.Resampling.NEAREST)
                page.paste(tile, (x + k * size, y))
    page.save(path)


def main():
    """Print one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--draws", type=int, default=20_000, help="prior draws for the truth")
    options.add_argument("--chains", type=int, default=64)
    options.add_argument("--weights", default="1,3", help="with commas (%(default)s)")
    options.add_argument("--generator", default="fashion-mnist/gan", help="(%(default)s)")
    options.add_argument("--classifier", default="fashion-mnist/classifier", help="(%(default)s)")
    options.add_argument("--figure", help="also draw the figure into this file")
    args = options.parse_args()
    labels = range(2) if args.smoke else range(10)
    draws, chains = (2000, 8) if args.smoke else (args.draws, args.chains)
    weights = [float(w) for w in args.weights.split(",")]
    generator, classifier = jaxgen.load(args.generator), jaxgen.load(args.classifier)
    judge = jaxgen.load("fashion-mnist/judge")
    prior = jaxgen.Gaussian.standard(jaxgen.models.describe(args.generator).input_shape)
    key = jax.random.key(args.seed)
    z = jax.vmap(prior.sample)(jax.random.split(jax.random.fold_in(key, 1000), draws))
    images = batched(generator, z)
    log_p = np.asarray(jax.nn.log_softmax(batched(classifier, images), axis=1), np.float64)
    judged = np.asarray(jnp.argmax(batched(judge, images), axis=1))
    rows, shown = [], {}
    for label in labels:
        for i, weight in enumerate(weights):
            condition = weight * jaxgen.ClassLogSoftmax(classifier, label)
            posterior = jaxgen.Posterior(prior, generator, condition)
            result = jaxgen.sample(
                jax.random.fold_in(jax.random.fold_in(key, label), i), posterior, num_chains=chains
            )
            made = batched(generator, result.position)
            shown[label, weight] = np.asarray(made)[:: max(1, chains // SHOWN)][:SHOWN]
            ours = share(np.asarray(jnp.argmax(batched(judge, made), axis=1)) == label)
            truth = weighted_mean(judged == label, weight * log_p[:, label])
            log_z = (result.log_z, result.log_z_standard_error)
            exact = log_mean(weight * log_p[:, label])
            rows.append({
                "class": CLASS_NAMES[label], "weight": weight,
                "judge": [round(ours[0], 3), round(truth[0], 3)],
                "judge_z": difference(ours, truth),
                "log_z": [round(log_z[0], 3), round(exact[0], 3)],
                "log_z_z": difference(log_z, exact),
                "gradients": int(np.max(result.num_gradients)), "notes": list(result.notes),
            })  # fmt: skip
            print(rows[-1], file=sys.stderr, flush=True)
    if args.figure:
        by_name = {(row["class"], row["weight"]): row for row in rows}
        figure(args.figure, shown, labels, weights, by_name)
    mean = {
        f"{w:g}": [round(float(np.mean([r["judge"][i] for r in rows if r["weight"] == w])), 3)
                   for i in (0, 1)] for w in weights
    }  # fmt: skip
    common.report(
        "class_weights",
        chains=chains,
        judge_mean=mean,
        largest={
            name: round(max(abs(r[name]) for r in rows), 2) for name in ("judge_z", "log_z_z")
        },
        rows=rows,
    )


if __name__ == "__main__":
    main()
