"""The classifier score, accuracy, Frechet distance of features, against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from jaxgen.core.errors import InputError
from jaxgen.metrics import (
    classifier_accuracy,
    classifier_score,
    feature_frechet_distance,
)


def logits_of(seed, n=60, k=7, scale=3.0):
    return scale * np.random.default_rng(seed).normal(size=(n, k))


@pytest.mark.parametrize("splits", [1, 4, 7])
def test_score_equals_the_published_loop(splits):
    """As the authors' code and torchmetrics compute it, from probabilities, in float64."""
    logits = logits_of(0)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    size, scores = len(p) // splits, []
    for i in range(splits):
        part = p[i * size : (i + 1) * size]
        marginal = part.mean(axis=0, keepdims=True)
        kl = part * (np.log(part) - np.log(marginal))
        scores.append(np.exp(kl.sum(axis=1).mean()))
    result = classifier_score(logits.astype(np.float32), splits=splits)
    np.testing.assert_allclose(result.mean, np.mean(scores), rtol=1e-4)
    wanted = np.std(scores, ddof=1) if splits > 1 else 0.0
    np.testing.assert_allclose(result.deviation, wanted, rtol=1e-3, atol=1e-6)


def test_score_is_1_for_one_class_and_k_for_all_of_them():
    sure = 200.0 * jnp.eye(5)
    np.testing.assert_allclose(classifier_score(jnp.tile(sure, (4, 1))).mean, 5.0, rtol=1e-5)
    np.testing.assert_allclose(classifier_score(jnp.tile(sure[:1], (9, 1))).mean, 1.0, rtol=1e-5)
    np.testing.assert_allclose(classifier_score(jnp.zeros((9, 5))).mean, 1.0, rtol=1e-5)


def test_accuracy_counts():
    logits = logits_of(1, n=40)
    labels = np.random.default_rng(2).integers(0, 7, 40)
    order = np.argsort(-logits, axis=1)
    for top in (1, 3, 7):
        wanted = np.mean([labels[i] in order[i, :top] for i in range(40)])
        np.testing.assert_allclose(
            classifier_accuracy(jnp.asarray(logits), labels, top=top), wanted, rtol=1e-6
        )


def test_frechet_distance_of_features_equals_the_formula():
    rng = np.random.default_rng(3)
    a, b = rng.uniform(size=(90, 4, 4, 1)), rng.uniform(size=(70, 4, 4, 1)) ** 2
    matrix = rng.normal(size=(16, 5))
    x, y = (np.tanh(v.reshape(len(v), -1) @ matrix) for v in (a, b))
    s, t = np.cov(x.T), np.cov(y.T)
    root = np.real(scipy.linalg.sqrtm(s @ t))
    wanted = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(s + t - 2 * root)
    weights = jnp.asarray(matrix, jnp.float32)
    got = feature_frechet_distance(
        jax.tree_util.Partial(lambda w, image: jnp.tanh(image.reshape(-1) @ w), weights),
        a.astype(np.float32),
        b.astype(np.float32),
        batch_size=32,
    )
    np.testing.assert_allclose(got, wanted, rtol=1e-4)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="splits"):
        classifier_score(jnp.zeros((3, 2)), splits=4)
    with pytest.raises(InputError, match="logits"):
        classifier_score(jnp.zeros(3))
    with pytest.raises(InputError, match="labels"):
        classifier_accuracy(jnp.zeros((3, 2)), jnp.zeros(3))
    with pytest.raises(InputError, match="top"):
        classifier_accuracy(jnp.zeros((3, 2)), jnp.zeros(3, int), top=3)
