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
    conditional_agreement,
    expected_calibration_error,
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


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_calibration_error_equals_a_loop_over_bins(bins):
    logits = logits_of(5, n=400, k=4)
    labels = np.random.default_rng(6).integers(0, 4, 400)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
    wanted = 0.0
    for b in range(bins):
        inside = (confidence >= b / bins) & (confidence < (b + 1) / bins)
        if inside.any():
            wanted += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    found = expected_calibration_error(logits.astype(np.float32), labels, bins=bins)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_calibration_error_of_what_says_how_often_it_is_right():
    """Labels drawn with the classifier's own probabilities: 0 but for the labels' noise."""
    logits = jnp.asarray(logits_of(7, n=40_000, k=3, scale=1.0), jnp.float32)
    labels = jax.random.categorical(jax.random.key(0), logits)
    assert expected_calibration_error(logits, labels) < 0.01
    assert expected_calibration_error(4.0 * logits, labels) > 0.1
    sure = 1e4 * jax.nn.one_hot(labels, 3)
    assert expected_calibration_error(sure, labels) == 0.0
    assert expected_calibration_error(-sure, labels) > 0.4
    with pytest.raises(InputError, match="bins"):
        expected_calibration_error(logits, labels, bins=0)
    with pytest.raises(InputError, match="labels"):
        expected_calibration_error(logits, labels[1:])


def test_agreement_is_that_of_draws_accepted_by_their_probability():
    logits, judge = logits_of(8, n=50, k=4, scale=1.0), logits_of(9, n=50, k=3)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rng = np.random.default_rng(0)
    found = conditional_agreement(logits, judge)
    assert found.shape == (3,)
    for c in range(3):
        rows = rng.choice(50, size=200_000, p=p[:, c] / p[:, c].sum())
        np.testing.assert_allclose(found[c], np.mean(judge.argmax(1)[rows] == c), atol=0.005)
    with pytest.raises(InputError, match="judge_logits"):
        conditional_agreement(logits[:, :2], judge)
