"""The noise of an observation, as the tasks take it: a number, or a level that is inferred."""

from __future__ import annotations

from typing import TypeAlias

import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.types import Array
from jaxgen.target.conditions import Condition, GaussianNoise, LearnedNoise, NoiseLevels

__all__ = ["Observed", "bare", "is_learned", "learned", "parts_of", "unit_noise"]

# Conditions on pixels whose noise is a number, or inferred.
Observed: TypeAlias = GaussianNoise | LearnedNoise | NoiseLevels

_NOISE_LEVELS = np.geomspace(0.01, 0.64, 13)
# Residuals of neighbouring pixels are correlated: this many pixels count as one.
_PATCH = 10.0


def learned(
    condition: GaussianNoise,
    noise: float | str,
    redundancy: float | None = None,
    image_shape: tuple[int, ...] | None = None,
) -> Observed:
    """Return a condition whose noise is the number given, or integrated out by its name.

    Args:
      condition: what was seen, and the unit of its noise.
      noise: a number, which the condition has already, "learn" or "student-t".
      redundancy: how many residuals count as one; None for as many as lie in a patch of ten
        pixels, 1 at least.
      image_shape: of the image; None where it is that of the observation.
    """
    if noise in ("learn", "student-t") and redundancy is None:
        density = 1.0
        if image_shape is not None:
            density = parts_of(condition.observed) * np.size(condition.observed)
            density = density / np.prod(image_shape)
        redundancy = max(1.0, _PATCH * float(density))
    count = jnp.asarray(redundancy or 1.0, jnp.float32)
    if noise == "learn":
        scales = jnp.asarray(_NOISE_LEVELS / 0.1, jnp.float32)
        return NoiseLevels(condition, scales, count)
    if noise == "student-t":
        one = jnp.float32(1.0)
        return LearnedNoise(condition, one, one, count)
    if isinstance(noise, str):
        raise expected("noise", "a number, 'learn' or 'student-t'", repr(noise))
    if redundancy is not None:
        raise expected("redundancy", "none for a given noise level", redundancy)
    return condition


def unit_noise(noise: float | str) -> Array:
    """Return the condition's noise; for a learned one, the unit that its scales multiply."""
    return jnp.asarray(0.1 if isinstance(noise, str) else noise, jnp.float32)


def is_learned(condition: Condition) -> bool:
    """Return whether the noise of a condition is inferred."""
    return isinstance(condition, LearnedNoise | NoiseLevels)


def parts_of(values: Array | np.ndarray) -> int:
    """Return how many numbers one entry is: a complex residual counts per real and imaginary."""
    return 2 if jnp.iscomplexobj(values) else 1


def bare(condition: Condition) -> GaussianNoise:
    """Return the condition under a learned noise level."""
    inner = condition
    if isinstance(condition, LearnedNoise | NoiseLevels):
        inner = condition.condition
    assert isinstance(inner, GaussianNoise), "tasks observe pixels with Gaussian noise"
    return inner
