"""How real images look to a held-out discriminator, and how typical latents are.

A score is any number for an image: the logit of a discriminator that had no part in
training the generator (`load("fashion-mnist/realism")`) or in the sampling. Its mean alone
is no measure: images can score above real ones by being more of the class than any real
image is. So whole distributions are compared, two-sidedly.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core.errors import expected
from jaxgen.core.types import Array

__all__ = [
    "LatentTypicality",
    "ScoreDistance",
    "latent_typicality",
    "score_distance",
    "super_stimulus_index",
]


class ScoreDistance(NamedTuple):
    """The distance between two samples of a score.

    Attributes:
      kolmogorov_smirnov: the largest difference of their distribution functions, 0 to 1.
      wasserstein: the area between them, in units of the score.
      shift: difference of the means, the first sample's minus the second's.
      above: the probability that a score of the first sample exceeds one of the second
        (ties count half): 1/2 where neither is higher.
    """

    kolmogorov_smirnov: Array
    wasserstein: Array
    shift: Array
    above: Array


class LatentTypicality(NamedTuple):
    """The typicality of latents under a standard normal prior.

    Attributes:
      norm: `[n]` |z| / sqrt(d): about 1 +- 1 / sqrt(2 d) for a draw from the prior.
      quantile: `[n]` the probability that a draw from the prior has a lower log density:
        uniform for draws from the prior, 1 at the mode, 0 far out.
    """

    norm: Array
    quantile: Array


@jax.jit
def score_distance(scores: Array, reference: Array) -> ScoreDistance:
    """Compare the scores of samples with those of real images.

    `max_t |F(t) - G(t)|` and `integral |F(t) - G(t)| dt`, F and G being the two empirical
    distribution functions.

    Args:
      scores: `[n]`.
      reference: `[m]`.
    """
    a, b = _scores("scores", scores), _scores("reference", reference)
    pooled = jnp.sort(jnp.concatenate([a, b]))
    f, g = (
        jnp.searchsorted(jnp.sort(x), pooled, side="right").astype(jnp.float32) / x.shape[0]
        for x in (a, b)
    )
    gap = jnp.abs(f - g)
    return ScoreDistance(
        jnp.max(gap),
        jnp.sum(gap[:-1] * jnp.diff(pooled)),
        jnp.mean(a) - jnp.mean(b),
        _above(a, b),
    )


@jax.jit
def super_stimulus_index(
    confidence: Array, realism: Array, real_confidence: Array, real_realism: Array
) -> Array:
    """Confidence against realism: P(more confident than a real image) - P(more realistic).

    A super-stimulus excites the classifier more than any real image of the class and looks
    less real to others than they do. Both are compared by ranks, so neither scale matters:
    0 for real images, 1 where all samples exceed all real images in confidence and fall
    short of all in realism, -1 for samples that look real and are not recognised.

    Args:
      confidence: `[n]` the classifier's log probability (or logit) of the class asked for.
      realism: `[n]` scores of the held-out discriminator.
      real_confidence: `[m]` the same of real images of the same classes.
      real_realism: likewise.
    """
    more_confident = _above(
        _scores("confidence", confidence), _scores("real_confidence", real_confidence)
    )
    more_real = _above(_scores("realism", realism), _scores("real_realism", real_realism))
    return more_confident - more_real


@jax.jit
def latent_typicality(z: Array) -> LatentTypicality:
    """|z| / sqrt(d), and the quantile of log p(z) under the prior N(0, I).

    |Z|^2 is chi-squared with d degrees of freedom, so the quantile is `Q(d / 2, |z|^2 / 2)`,
    the regularised upper incomplete gamma function.

    Args:
      z: `[n, ...]` latents of a standard normal prior.
    """
    z = jnp.asarray(z)
    if z.ndim < 2:
        raise expected("z", "a latent for each row, [n, ...]", f"shape {z.shape}")
    z = z.reshape(z.shape[0], -1)
    square, size = jnp.sum(z**2, axis=1), z.shape[1]
    quantile = jax.scipy.special.gammaincc(jnp.full_like(square, size / 2), square / 2)
    return LatentTypicality(jnp.sqrt(square / size), quantile)


def _above(a: Array, b: Array) -> Array:
    """P(A > B) + P(A = B) / 2 over all pairs."""
    ordered = jnp.sort(b)
    below = jnp.searchsorted(ordered, a, side="left")
    not_above = jnp.searchsorted(ordered, a, side="right")
    return jnp.mean((below + not_above) / 2) / b.shape[0]


def _scores(name: str, values: Array) -> Array:
    values = jnp.asarray(values)
    if values.ndim != 1 or values.shape[0] < 1:
        raise expected(name, "a number for each image, [n]", f"shape {values.shape}")
    return values
