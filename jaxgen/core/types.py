"""The vocabulary: arrays, trees and the protocols of what composes.

Every protocol speaks about ONE latent, ONE image, ONE chain; batching belongs to
whoever calls `jax.vmap`. Shapes used throughout the package:

- `z`: a latent, any pytree of float arrays (most often one array `[D]`);
- `image`: `[H, W, channels]` floats, in [0, 1] for the models that jaxgen ships;
- `C` chains, `T` temperatures, `D` latent size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import jax

__all__ = [
    "Array",
    "ArrayTree",
    "Classifier",
    "Condition",
    "Density",
    "Device",
    "Encoder",
    "Exactness",
    "Generator",
    "PRNGKey",
    "Preconditioning",
    "Prior",
    "Resampling",
    "Scalar",
    "Score",
]

Array: TypeAlias = jax.Array
PRNGKey: TypeAlias = jax.Array
Scalar: TypeAlias = jax.Array | float
ArrayTree: TypeAlias = Any
# An image -> logits `[K]`.
Classifier: TypeAlias = Callable[[jax.Array], jax.Array]
# An image -> mean and log variance `[2, D]` of an approximate posterior over latents.
Encoder: TypeAlias = Callable[[jax.Array], jax.Array]
# `jax.Device`, which type checkers take for a variable.
Device: TypeAlias = Any
Exactness: TypeAlias = Literal["exact", "clipped", "approximate"]
Resampling: TypeAlias = Literal["systematic", "stratified", "residual", "multinomial"]
Preconditioning: TypeAlias = Literal["none", "diagonal", "dense", "score"]


@runtime_checkable
class Density(Protocol):
    """A log density over latents, normalised or not: `z -> scalar`."""

    def __call__(self, z: ArrayTree, /) -> Array:
        """Return the log density at `z`, a scalar."""
        ...


@runtime_checkable
class Score(Protocol):
    """A gradient of a log density over latents, of the shape of `z`."""

    def score(self, z: ArrayTree, /) -> ArrayTree:
        """Return the gradient of the log density at `z`."""
        ...


@runtime_checkable
class Prior(Protocol):
    """A distribution over latents that can be drawn from and evaluated.

    Kernels move in its coordinates; `latent` maps them to what the generator is given.
    """

    def sample(self, key: PRNGKey, /) -> ArrayTree:
        """Draw coordinates; the key is consumed."""
        ...

    def log_prob(self, coordinates: ArrayTree, /) -> Array:
        """Return the normalised log density at these coordinates, a scalar."""
        ...

    def latent(self, coordinates: ArrayTree, /) -> ArrayTree:
        """Return the latent that these coordinates stand for."""
        ...


@runtime_checkable
class Generator(Protocol):
    """A latent to an image."""

    def __call__(self, z: ArrayTree, /) -> Array:
        """Return the image of a latent."""
        ...


@runtime_checkable
class Condition(Protocol):
    """The log likelihood of what was observed, given an image: `image -> scalar`."""

    def __call__(self, image: Array, /) -> Array:
        """Return the log likelihood of what was observed, a scalar."""
        ...
