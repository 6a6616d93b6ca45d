"""A posterior of the reference set, with its exact answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
from numpy.typing import ArrayLike

from jaxgen.core.types import PRNGKey
from jaxgen.target.posterior import Posterior

__all__ = ["Modes", "ReferencePosterior", "generator_of"]


@dataclasses.dataclass(frozen=True)
class Modes:
    """A division of the latent space into parts, with the posterior mass of each.

    Attributes:
      label: latents `[N, d]` to the index of the part that each is in, `[N]` integers.
      masses: `[K]` exact masses, which sum to one.
    """

    label: Callable[[np.ndarray], np.ndarray]
    masses: np.ndarray

    def __call__(self, z: ArrayLike) -> np.ndarray:
        """Return the part that each latent of `[..., d]` is in: integers `[...]`."""
        z = np.asarray(z, np.float64)
        return np.asarray(self.label(z.reshape(-1, z.shape[-1]))).reshape(z.shape[:-1])


@dataclasses.dataclass(frozen=True)
class ReferencePosterior:
    """A posterior through a generator whose answer is known.

    Attributes:
      name: the name that `jaxgen.posteriors.get` knows it by.
      posterior: what a sampler is given; latents are one array `[d]`.
      dimension: d.
      log_z: the log evidence.
      log_z_error: its standard error; 0 where it is exact up to rounding.
      mean: `[d]` posterior means.
      variance: `[d]` posterior variances.
      covariance: `[d, d]`, or None where only the variances are known.
      mean_error: `[d]` standard errors of `mean`; zeros where it is exact.
      draws: `draws(key, n)` gives `[n, d]` independent exact draws (float32); None where
        there is no way to make them.
      modes: the parts that a sampler may miss, or None where there is only one.
      how: how the answer was obtained, a sentence.
    """

    name: str
    posterior: Posterior
    dimension: int
    log_z: float
    mean: np.ndarray
    variance: np.ndarray
    how: str
    log_z_error: float = 0.0
    covariance: np.ndarray | None = None
    mean_error: np.ndarray | float = 0.0
    draws: Callable[[PRNGKey, int], np.ndarray] | None = None
    modes: Modes | None = None

    def __post_init__(self) -> None:
        error = np.broadcast_to(np.asarray(self.mean_error, np.float64), (self.dimension,))
        object.__setattr__(self, "mean_error", error)


def generator_of(key: PRNGKey) -> np.random.Generator:
    """NumPy's random numbers from a JAX key: exact draws are made in float64."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
