"""Distributions over latents.

There are two kinds. A *density* prior (`Gaussian`, `Box`, `Sphere`) can be drawn from
and evaluated, so Metropolis-Hastings, MALA, HMC and annealed importance sampling may
use it. A *score* prior (`ScorePrior`) only knows the gradient of its log density, as a
denoising autoencoder does: unadjusted Langevin dynamics and ascent may use it, and
anything that needs an acceptance ratio refuses it.

A kernel moves in *coordinates*; `prior.latent(coordinates)` is what the generator is
given. They are the same thing for a Gaussian. `Box` and `Sphere` move in the
coordinates of a standard normal and map it onto their support, which leaves the target
exact and spares the kernels a boundary or a constraint.

Chains move in the floating type of their prior: float32 unless another is asked for, also
under `jax_enable_x64`. `Gaussian.standard(64, dtype="float64")` asks for float64.
Distributions of NumPyro and TensorFlow Probability: `jaxgen.target.distributions`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxgen.core.errors import expected
from jaxgen.core.pytree import as_data, pytree
from jaxgen.core.types import Array, ArrayTree, PRNGKey, Scalar

__all__ = [
    "Box",
    "Gaussian",
    "ScorePrior",
    "Sphere",
    "normal_like",
    "standard_normal_log_prob",
]

Shape = int | Sequence[int]


def standard_normal_log_prob(z: ArrayTree) -> Array:
    """log N(z; 0, I) = -1/2 sum z^2 - d/2 log(2 pi), summed over all leaves of `z`."""
    leaves = jax.tree.leaves(z)
    size = sum(leaf.size for leaf in leaves)
    squares = sum(jnp.sum(leaf * leaf) for leaf in leaves)
    return jnp.asarray(-0.5 * squares - 0.5 * size * math.log(2 * math.pi))


@pytree
class Gaussian:
    """Independent normal latents: log p(z) = sum_i log N(z_i; mean_i, scale_i^2).

    Attributes:
      mean: an array, or a pytree of arrays, of the latent's shape.
      scale: standard deviations, of the same structure and shapes.
    """

    mean: ArrayTree
    scale: ArrayTree

    def __post_init__(self) -> None:
        # `Gaussian(0.0, 1.0)` is a prior over one number; placeholders are left alone.
        for name in ("mean", "scale"):
            object.__setattr__(self, name, jax.tree.map(_number, getattr(self, name)))

    @classmethod
    def standard(cls, shape: Shape, dtype: DTypeLike = jnp.float32) -> Gaussian:
        """N(0, I) over one array of the given shape; an int is a vector's length."""
        return cls(jnp.zeros(_shape(shape), dtype), jnp.ones(_shape(shape), dtype))

    def sample(self, key: PRNGKey) -> ArrayTree:
        """One draw, of the shape of `mean`."""
        noise = normal_like(key, self.mean)
        return jax.tree.map(lambda m, s, n: m + s * n, self.mean, self.scale, noise)

    def log_prob(self, z: ArrayTree) -> Array:
        """Return the normalised log density at `z`: a scalar."""
        white = jax.tree.map(lambda x, m, s: (x - m) / s, z, self.mean, self.scale)
        log_scale = sum(jnp.sum(jnp.log(s)) for s in jax.tree.leaves(self.scale))
        value = standard_normal_log_prob(white)
        return value - jnp.asarray(log_scale, value.dtype)

    def latent(self, coordinates: ArrayTree) -> ArrayTree:
        """Return the coordinates as they are: a Gaussian's are the latent itself."""
        return coordinates

    def check(self) -> None:
        """Raise `InputError` unless the shapes agree and every scale is positive."""
        if jax.tree.structure(self.mean) != jax.tree.structure(self.scale):
            raise expected("Gaussian.scale", "the structure of mean", type(self.scale).__name__)
        for m, s in zip(jax.tree.leaves(self.mean), jax.tree.leaves(self.scale), strict=True):
            _check_floating("Gaussian.mean", m)
            _check_floating("Gaussian.scale", s)
            if np.shape(m) != np.shape(s):
                raise expected("Gaussian.scale", f"shape {np.shape(m)} like mean", np.shape(s))
            if m.dtype != s.dtype:
                raise expected("Gaussian.scale", f"{m.dtype} like mean", s.dtype)
            if not np.all(np.isfinite(m)):
                raise expected("Gaussian.mean", "finite numbers", "NaN or infinity")
            if not (np.all(np.isfinite(s)) and np.all(np.asarray(s) > 0)):
                raise expected("Gaussian.scale", "positive finite numbers", f"minimum {np.min(s)}")


@pytree
class Box:
    """The uniform distribution on a box, `low <= z <= high`.

    Its coordinates u are standard normal and z = low + (high - low) Phi(u), with Phi the
    normal distribution function, so z is exactly uniform and no proposal can leave it.

    Attributes:
      low, high: arrays of the latent's shape.
    """

    low: Array
    high: Array

    @classmethod
    def symmetric(
        cls, shape: Shape, half_width: float = 1.0, dtype: DTypeLike = jnp.float32
    ) -> Box:
        """Return the box [-half_width, half_width]^d."""
        high = jnp.full(_shape(shape), float(half_width), dtype)
        return cls(-high, high)

    def sample(self, key: PRNGKey) -> Array:
        """One draw, in coordinates."""
        return jax.random.normal(key, self.low.shape, self.low.dtype)

    def log_prob(self, u: Array) -> Array:
        """log N(u; 0, I): the density of the coordinates, normalised."""
        return standard_normal_log_prob(u)

    def latent(self, coordinates: Array) -> Array:
        """z = low + (high - low) Phi(u)."""
        return self.low + (self.high - self.low) * jax.scipy.stats.norm.cdf(coordinates)

    def check(self) -> None:
        """Raise `InputError` unless low < high everywhere, in one shape."""
        _check_floating("Box.low", self.low)
        _check_floating("Box.high", self.high)
        if np.shape(self.low) != np.shape(self.high):
            raise expected("Box.high", f"shape {np.shape(self.low)} like low", np.shape(self.high))
        width = np.asarray(self.high) - np.asarray(self.low)
        if not (np.all(np.isfinite(width)) and np.all(width > 0)):
            raise expected("Box", "low < high everywhere, both finite", f"high - low = {width}")


@pytree
class Sphere:
    """The uniform distribution on a sphere of radius r (sqrt(d) by default).

    For generators that normalise their latent or were trained on a sphere. Its
    coordinates u are standard normal and z = r u / |u|; the direction of a standard
    normal is uniform, so the target on the sphere is exact, and |u| is left to the prior.

    Attributes:
      like: an array of the latent's shape (its values do not matter).
      radius: the sphere's radius.
    """

    like: Array
    radius: Scalar

    @classmethod
    def of(
        cls, shape: Shape, radius: float | None = None, dtype: DTypeLike = jnp.float32
    ) -> Sphere:
        """Return the sphere in the given shape; the default radius is that of a typical draw."""
        like = jnp.zeros(_shape(shape), dtype)
        length = math.sqrt(like.size) if radius is None else float(radius)
        return cls(like, jnp.asarray(length, dtype))

    def sample(self, key: PRNGKey) -> Array:
        """One draw, in coordinates."""
        return jax.random.normal(key, self.like.shape, self.like.dtype)

    def log_prob(self, u: Array) -> Array:
        """log N(u; 0, I): the density of the coordinates, normalised."""
        return standard_normal_log_prob(u)

    def latent(self, coordinates: Array) -> Array:
        """z = r u / |u|."""
        radius = jnp.asarray(self.radius, coordinates.dtype)
        return radius * coordinates / jnp.linalg.norm(coordinates)

    def check(self) -> None:
        """Raise `InputError` unless the radius is positive."""
        _check_floating("Sphere.like", self.like)
        if not (np.isfinite(self.radius) and np.asarray(self.radius) > 0):
            raise expected("Sphere.radius", "a positive number", self.radius)


@pytree
class ScorePrior:
    """A prior known by its score alone, with a distribution to start chains from.

    With a denoising autoencoder R trained on noise of variance sigma^2 the score is
    approximately (R(z) - z) / sigma^2 (Alain & Bengio 2014; PPGN Eq. 6): see `denoising`.

    Attributes:
      function: z -> gradient of log p(z), of the shape of z; a pytree such as a `Network`,
        or a plain function.
      start: a density prior; first states are drawn from it and nothing else uses it.
      noise: sigma of the denoising autoencoder, or None where `function` is the score.
    """

    function: Any
    start: Any
    noise: Scalar | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "function", as_data(self.function))

    @classmethod
    def denoising(cls, autoencoder: object, noise: float, start: object) -> ScorePrior:
        """Return the score (R(z) - z) / noise^2 of a denoising autoencoder R."""
        return cls(autoencoder, start, jnp.asarray(float(noise)))

    def sample(self, key: PRNGKey) -> ArrayTree:
        """Return a first state, from `start`: not a draw from this prior."""
        return self.start.sample(key)

    def score(self, z: ArrayTree) -> ArrayTree:
        """Return the gradient of log p at z."""
        value = self.function(z)
        noise = self.noise
        if noise is None:
            return value
        return jax.tree.map(lambda r, x: (r - x) / jnp.asarray(noise, x.dtype) ** 2, value, z)

    def latent(self, coordinates: ArrayTree) -> ArrayTree:
        """Return the coordinates as they are."""
        return coordinates

    def check(self) -> None:
        """Raise `InputError` unless the noise is positive and `start` can be drawn from."""
        if not hasattr(self.start, "sample"):
            raise expected("ScorePrior.start", "a prior to draw first states from", self.start)
        if self.noise is not None and not np.asarray(self.noise) > 0:
            raise expected("ScorePrior.noise", "a positive number", self.noise)


def _number(value: object) -> Any:
    """Return a Python number as a float32 array; anything else as it is."""
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return jnp.asarray(value, jnp.float32) if plain else value


def _check_floating(name: str, value: Any) -> None:
    dtype = getattr(value, "dtype", None)
    if dtype not in (jnp.dtype(jnp.float32), jnp.dtype(jnp.float64)):
        got = type(value).__name__ if dtype is None else f"{dtype}{list(np.shape(value))}"
        raise expected(
            name,
            "an array of float32 or float64",
            got,
            "Chains of fewer digits do not move; network.astype(...) makes a network cheaper",
        )


def _shape(shape: Shape) -> tuple[int, ...]:
    result = (shape,) if isinstance(shape, int) else tuple(shape)
    if any(isinstance(size, bool) or not isinstance(size, int | np.integer) for size in result):
        raise expected("shape", "an integer or several", shape)
    if any(size < 1 for size in result):
        raise expected("shape", "positive sizes", shape)
    return result


def normal_like(key: PRNGKey, tree: ArrayTree) -> ArrayTree:
    """Draw standard normal noise of a tree's shapes, one sub-key for each leaf."""
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves)) if len(leaves) > 1 else [key]
    noise = [jax.random.normal(k, jnp.shape(x), x.dtype) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, noise)
