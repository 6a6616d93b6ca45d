"""How good are the shipped generators and classifiers, and how far can any be?

For each generator the Frechet distance of 10,000 draws from the test images of Fashion-MNIST, in
the features of the judge (which none of the others has met), over several keys; and, since
`fashion-mnist/gan` was trained against features of another classifier, the same distance of the
pixels themselves. 10,000 training images stand beside both. For each classifier its accuracy and
its expected calibration error on test images. For each pair, class by class, on what share of
exact draws given the class the judge sees it too: exact draws are prior draws weighted by
p(class | image). The same weights on test images give the share that a perfect generator would
have, since the two classifiers do not agree on every real image either. Where a classifier knows
"none of these", its mean probability on test images and on draws. `--picture FILE.png` writes
draws of each generator, and those that the classifier rejects and likes most. `--smoke` takes
one pair.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

import jaxgen
from jaxgen import data
from jaxgen.metrics import (
    classifier_accuracy,
    conditional_agreement,
    expected_calibration_error,
    frechet_distance,
)
from jaxgen.train.figures import apply

PAIRS = (
    ("fashion-mnist/dcgan", "fashion-mnist/cnn"),
    ("fashion-mnist/gan", "fashion-mnist/cnn"),
    ("fashion-mnist/gan", "fashion-mnist/classifier"),
)
COLUMNS, ROWS = 20, 4


def draws(name: str, seed: int, count: int) -> jax.Array:
    """Images of prior draws of a generator."""
    return apply(jaxgen.load(name), jax.random.normal(jax.random.key(seed), (count, 64)))


def of_pair(
    generator: str, classifier: str, images: jax.Array, test: data.Images, judge: jaxgen.Network
) -> dict:
    """Figures of a classifier, and of exact draws given each class."""
    network, real = jaxgen.load(classifier), data.to_unit(test.images)
    logits, on_draws = apply(network, real), apply(network, images)
    labels = jnp.asarray(test.labels)
    ceiling = conditional_agreement(logits, apply(judge, real))
    agree = conditional_agreement(on_draws, apply(judge, images))
    row = {
        "generator": generator,
        "classifier": classifier,
        "accuracy": round(float(classifier_accuracy(logits, labels)), 4),
        "calibration_error": round(float(expected_calibration_error(logits, labels)), 4),
        "judge_agrees": np.round(np.asarray(agree), 3).tolist(),
        "judge_agrees_on_real": np.round(np.asarray(ceiling), 3).tolist(),
        "lowest": round(float(agree.min()), 3),
        "mean": round(float(agree.mean()), 3),
        "mean_on_real": round(float(ceiling.mean()), 3),
        "mean_top_probability": round(float(jax.nn.softmax(on_draws).max(1).mean()), 3),
    }
    if logits.shape[1] > len(agree):
        for name, values in (("draws", on_draws), ("test", logits)):
            none = jax.nn.softmax(values)[:, len(agree) :].sum(axis=1)
            row[f"none_of_these_{name}"] = round(float(none.mean()), 4)
    return row


def picture(path: str, count: int) -> None:
    """Draws of each generator in rows, and below them those of lowest and highest p(none)."""
    images = {name: draws(name, 5, COLUMNS * ROWS) for name in dict.fromkeys(g for g, _ in PAIRS)}
    pool = draws(PAIRS[-1][0], 6, count)
    none = jax.nn.softmax(apply(jaxgen.load(PAIRS[-1][1]), pool))[:, -1]
    order = np.argsort(np.asarray(none))[::-1]
    parts = [*images.values(), pool[order[: COLUMNS * ROWS]], pool[order[-COLUMNS * ROWS :]]]
    grids = [
        np.asarray(x).reshape(ROWS, COLUMNS, 28, 28).swapaxes(1, 2).reshape(ROWS * 28, -1)
        for x in parts
    ]
    gap = np.ones((6, COLUMNS * 28))
    whole = np.concatenate([x for grid in grids for x in (grid, gap)][:-1])
    Image.fromarray(np.round(255 * whole).astype(np.uint8)).resize(
        (2 * whole.shape[1], 2 * whole.shape[0]), Image.Resampling.NEAREST
    ).save(path)


def main() -> None:
    """Parse the command line, measure, print one line of JSON."""
    parser = common.parser(__doc__)
    parser.add_argument("--keys", type=int, default=3)
    parser.add_argument("--data-dir", help="folder of the four Fashion-MNIST files")
    parser.add_argument("--picture", help="write draws as a picture")
    args = parser.parse_args()
    count, keys = (500, 2) if args.smoke else (10_000, args.keys)
    pairs = PAIRS[:1] if args.smoke else PAIRS
    judge, test = jaxgen.load("fashion-mnist/judge"), data.fashion_mnist("test", args.data_dir)
    if args.smoke:
        test = type(test)(test.images[:500], test.labels[:500])
    features = judge.at("features")
    real = apply(features, data.to_unit(test.images))
    train = data.to_unit(data.fashion_mnist("train", args.data_dir).images[:count])
    floor = float(frechet_distance(apply(features, train), real))
    pixels = data.to_unit(test.images).reshape(len(test.images), -1)
    pixel_floor = float(frechet_distance(train.reshape(len(train), -1), pixels))
    distances: dict[str, list[float]] = {}
    rows = []
    for generator, classifier in pairs:
        if generator not in distances:
            distances[generator] = [
                float(frechet_distance(apply(features, draws(generator, 10 + k, count)), real))
                for k in range(keys)
            ]
        images = draws(generator, 3, count)
        found = distances[generator]
        flat = images.reshape(count, -1)
        rows.append(
            {
                "frechet_pixels": round(float(frechet_distance(flat, pixels)), 3),
                "frechet": round(float(np.mean(found)), 2),
                "frechet_deviation": round(float(np.std(found, ddof=1)), 2) if keys > 1 else None,
                **of_pair(generator, classifier, images, test, judge),
            }
        )
    if args.picture:
        picture(args.picture, count)
    common.report(
        "shipped_weights",
        draws=count,
        keys=keys,
        frechet_real=round(floor, 3),
        frechet_pixels_real=round(pixel_floor, 3),
        rows=rows,
    )


if __name__ == "__main__":
    main()
