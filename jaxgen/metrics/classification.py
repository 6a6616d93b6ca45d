"""What a classifier makes of images: accuracy, calibration, agreement, and its score.

With Google's Inception network these are the "Inception accuracy" of Odena, Olah & Shlens
(ICML 2017) and the "Inception score" of Salimans et al. (NeurIPS 2016). Any classifier may
give the logits; numbers of two classifiers cannot be compared. Use one that had no part in
the sampling.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core.errors import expected
from jaxgen.core.types import Array
from jaxgen.metrics.distances import frechet_distance

__all__ = [
    "ClassifierScore",
    "classifier_accuracy",
    "classifier_score",
    "conditional_agreement",
    "expected_calibration_error",
    "feature_frechet_distance",
]


class ClassifierScore(NamedTuple):
    """Attributes:
    mean: the mean of the score over the splits.
    deviation: its standard deviation over the splits (divided by their number less 1),
      as published; 0 for one split.
    """

    mean: Array
    deviation: Array


@partial(jax.jit, static_argnames="splits")
def classifier_score(logits: Array, *, splits: int = 1) -> ClassifierScore:
    """exp of the mean divergence of p(y|x) from its own mean, from 1 to the number of classes.

    `exp(mean_x KL(p(y|x) || mean_x p(y|x)))`: high where the classifier is sure of each image
    and the images are of many classes. It sees neither a lack of variety within a class nor
    whether an image is of the class that was asked for, and super-stimuli raise it.

    Source: Salimans et al. (NeurIPS 2016), Sec. 4. The estimate is biased downwards by few
    images a split, so compare equal numbers only. Images are split in their order: shuffle
    images that are sorted by class.

    Args:
      logits: `[n, K]` of a classifier, unnormalised.
      splits: number of equal parts (`n // splits` images each; a rest is left out).
    """
    logits = _logits(logits)
    size = logits.shape[0] // splits if splits >= 1 else 0
    if size < 1:
        raise expected("splits", f"1 to {logits.shape[0]}, the number of images", splits)
    log_p = jax.nn.log_softmax(logits[: size * splits]).reshape(splits, size, -1)
    log_mean = jax.nn.logsumexp(log_p, axis=1, keepdims=True) - jnp.log(size)
    divergence = jnp.sum(jnp.exp(log_p) * (log_p - log_mean), axis=-1)
    scores = jnp.exp(jnp.mean(divergence, axis=1))
    deviation = jnp.std(scores, ddof=1) if splits > 1 else jnp.zeros(())
    return ClassifierScore(jnp.mean(scores), deviation)


@partial(jax.jit, static_argnames="top")
def classifier_accuracy(logits: Array, labels: Array, *, top: int = 1) -> Array:
    """Return the share of images whose label is among the `top` classes of highest logit.

    Args:
      logits: `[n, K]`.
      labels: `[n]`, the classes that were asked for.
      top: 1 to K. Of equal logits the first class counts as the higher one.
    """
    logits = _logits(logits)
    labels = _labels(logits, labels)
    if not 1 <= top <= logits.shape[1]:
        raise expected("top", f"1 to {logits.shape[1]}, the number of classes", top)
    _, best = jax.lax.top_k(logits, top)
    return jnp.mean(jnp.any(best == labels[:, None], axis=1))


@partial(jax.jit, static_argnames="bins")
def expected_calibration_error(logits: Array, labels: Array, *, bins: int = 15) -> Array:
    """Return by how much a classifier's confidence differs from its accuracy, on average.

        sum_b |B_b| / n  |accuracy(B_b) - confidence(B_b)|

    over equal bins of the highest probability of each image; 0 is a calibrated classifier, of
    whose answers at 80% four out of five are right. It is biased upwards by few images a bin.
    Source: Naeini, Cooper and Hauskrecht (AAAI 2015); Guo et al. (ICML 2017), Eq. 3.

    Args:
      logits: `[n, K]` of a classifier, unnormalised.
      labels: `[n]`, the true classes.
      bins: how many, at least 1.
    """
    logits = _logits(logits)
    labels = _labels(logits, labels)
    if bins < 1:
        raise expected("bins", "at least 1", bins)
    probability = jax.nn.softmax(logits)
    confidence, answer = jnp.max(probability, axis=1), jnp.argmax(probability, axis=1)
    # The bin of a confidence of exactly 1 is the last one.
    place = jnp.minimum((confidence * bins).astype(jnp.int32), bins - 1)
    gap = jnp.where(answer == labels, 1.0, 0.0) - confidence
    return jnp.sum(jnp.abs(jax.ops.segment_sum(gap, place, bins))) / logits.shape[0]


@jax.jit
def conditional_agreement(logits: Array, judge_logits: Array) -> Array:
    """Return, of each class, on what share of draws given this class a judge sees it too.

        sum_i p(c | x_i) [judge(x_i) = c] / sum_i p(c | x_i),    x_i from the prior

    With images of prior draws this is the judge's agreement with exact draws from
    p(x | c), which are prior draws weighted by p(c | x); with real images it is how far two
    classifiers can agree at all.

    Args:
      logits: `[n, K]` of the classifier that is conditioned on.
      judge_logits: `[n, J]` of the judge, whose J <= K classes are the first of the other's.

    Returns:
      `[J]`, one share for each of the judge's classes.
    """
    logits, judge_logits = _logits(logits), _logits(judge_logits)
    classes = judge_logits.shape[1]
    if judge_logits.shape[0] != logits.shape[0] or classes > logits.shape[1]:
        wanted = f"{logits.shape[0]} rows of at most {logits.shape[1]} classes"
        raise expected("judge_logits", wanted, f"shape {judge_logits.shape}")
    weights = jax.nn.softmax(logits)[:, :classes]
    seen = jax.nn.one_hot(jnp.argmax(judge_logits, axis=1), classes)
    return jnp.sum(weights * seen, axis=0) / jnp.sum(weights, axis=0)


def feature_frechet_distance(
    network: object, images: Array, reference: Array, *, batch_size: int = 100
) -> Array:
    """`frechet_distance` between two sets of images in the features of any network.

    It is the FID only for Inception's pool3 on 299 px images; with another network, name it.

    Args:
      network: image -> features `[D]` (or any shape), as `judge.at("features")`.
      images: `[n, H, W, channels]`, n at least 2.
      reference: `[m, H, W, channels]`; equal n and m compare best.
      batch_size: images at once.
    """
    parts = [_features(network, x, batch_size=batch_size) for x in (images, reference)]
    return frechet_distance(*parts)


@partial(jax.jit, static_argnames="batch_size")
def _features(network: object, images: Array, *, batch_size: int) -> Array:
    features = jax.lax.map(network, jnp.asarray(images), batch_size=batch_size)
    return features.reshape(features.shape[0], -1)


def _logits(logits: Array) -> Array:
    logits = jnp.asarray(logits)
    if logits.ndim != 2 or logits.shape[0] < 1:
        raise expected("logits", "a row for each image, [n, K]", f"shape {logits.shape}")
    return logits


def _labels(logits: Array, labels: Array) -> Array:
    labels = jnp.asarray(labels)
    if labels.shape != logits.shape[:1] or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise expected("labels", f"{logits.shape[0]} integers", f"{labels.dtype}{labels.shape}")
    return labels
