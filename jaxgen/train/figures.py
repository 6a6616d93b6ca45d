"""The figures that go into a weight file, measured on the weights as stored.

Fashion-MNIST's test images are used, none of which was trained on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import data
from jaxgen.core.errors import InputError
from jaxgen.core.types import Array
from jaxgen.metrics import (
    conditional_agreement,
    expected_calibration_error,
    frechet_distance,
)
from jaxgen.models.registry import describe, load
from jaxgen.target.networks import Network
from jaxgen.train.toy import coverage

__all__ = [
    "apply",
    "of_agreement",
    "of_classifier",
    "of_discriminator",
    "of_generator",
    "of_reconstruction",
    "of_toy",
]

_COUNT = 10_000


def apply(network: Network, x: Array, batch: int = 250) -> Array:
    """`network` on many samples, a batch at a time, in bounded memory."""
    return jax.jit(lambda net, x: jax.lax.map(net, x, batch_size=batch))(network, x)


def of_classifier(path: Path, data_dir: str | None) -> dict[str, Any]:
    """Accuracy, mean log probability of the label and calibration error, on all test images."""
    test = data.fashion_mnist("test", data_dir)
    logits = apply(load(path), data.to_unit(test.images))
    log_p = jax.nn.log_softmax(logits)[jnp.arange(len(test.labels)), test.labels]
    right = jnp.argmax(logits, axis=1) == test.labels
    return {
        "test_accuracy": _round(jnp.mean(right)),
        "test_log_probability": _round(jnp.mean(log_p)),
        "test_calibration_error": _round(
            expected_calibration_error(logits, jnp.asarray(test.labels))
        ),
    }


def of_agreement(path: Path, generator: str | Path, data_dir: str | None) -> dict[str, Any]:
    """Return how far the judge agrees with a classifier: class by class, on exact draws given it.

    Exact draws are 10 000 prior draws weighted by the class's probability; beside them stand test
    images with the same weights, on which no generator can be better. Of a classifier that knows
    "none of these", also how much of the test images and of the draws it says this of.
    """
    network, judge = load(path), load("fashion-mnist/judge")
    z = jax.random.normal(jax.random.key(3), (_COUNT, *describe(generator).input_shape))
    both = {
        "draws": apply(load(generator), z),
        "test": data.to_unit(data.fashion_mnist("test", data_dir).images),
    }
    found: dict[str, Any] = {}
    for name, images in both.items():
        logits = apply(network, images)
        agree = conditional_agreement(logits, apply(judge, images))
        found[f"judge_agrees_{name}"] = [_round(share, 4) for share in agree]
        if logits.shape[1] > len(agree):
            none = jnp.mean(jax.nn.softmax(logits)[:, len(agree) :].sum(axis=1))
            found[f"none_of_these_{name}"] = _round(none, 4)
    return found


def of_generator(path: Path, data_dir: str | None, seed: int = 1) -> dict[str, Any]:
    """Return what 10 000 draws look like to the shipped judge and classifier.

    The Frechet distance is between the judge's features of the draws and of the test
    images; beside it stands the same distance for 10 000 training images, the floor. Left
    out, with a word, where judge or classifier are not there yet.
    """
    generator = load(path)
    z = jax.random.normal(jax.random.key(seed), (_COUNT, *describe(path).input_shape))
    images = apply(generator, z)
    try:
        judge, classifier = load("fashion-mnist/judge"), load("fashion-mnist/cnn")
    except InputError as error:
        return {"not_measured": str(error)}
    features = judge.at("features")
    test = data.to_unit(data.fashion_mnist("test", data_dir).images)
    train = data.to_unit(data.fashion_mnist("train", data_dir).images[:_COUNT])
    real = apply(features, test)
    log_p = jax.nn.log_softmax(apply(classifier, images))
    shares = np.bincount(np.asarray(jnp.argmax(log_p, axis=1)), minlength=10) / _COUNT
    return {
        "draws": _COUNT,
        "frechet_judge_features": _round(frechet_distance(apply(features, images), real)),
        "frechet_judge_features_real_train": _round(frechet_distance(apply(features, train), real)),
        "class_shares_by_cnn": [_round(share) for share in shares],
        "mean_top_probability_by_cnn": _round(jnp.mean(jnp.exp(jnp.max(log_p, axis=1)))),
    }


def of_discriminator(path: Path, generator: Path, data_dir: str | None) -> dict[str, Any]:
    """Mean logits on test images and on draws of the generator it was trained with."""
    network, test = load(path), data.fashion_mnist("test", data_dir)
    z = jax.random.normal(jax.random.key(1), (_COUNT, *describe(generator).input_shape))
    draws = apply(load(generator), z)
    return {
        "mean_logit_test": _round(jnp.mean(apply(network, data.to_unit(test.images)))),
        "mean_logit_draws": _round(jnp.mean(apply(network, draws))),
    }


def of_reconstruction(encoder: Path, decoder: Path, data_dir: str | None) -> dict[str, Any]:
    """Mean squared error of a test image decoded from its latent's mean."""
    images = data.to_unit(data.fashion_mnist("test", data_dir).images)
    means = apply(load(encoder), images)[:, 0]
    return {
        "test_reconstruction_mse": _round(jnp.mean((apply(load(decoder), means) - images) ** 2))
    }


def of_toy(path: Path) -> dict[str, Any]:
    """Which share of 100 000 draws is near a mode, and each mode's share."""
    points = load(path)(jax.random.normal(jax.random.key(1), (100_000, 2)))
    near, shares = coverage(points)
    return {"within_0.2_of_a_mode": _round(near), "mode_shares": [_round(s) for s in shares]}


def _round(value: Any, digits: int = 5) -> float:
    return round(float(value), digits)
