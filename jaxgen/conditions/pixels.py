"""Conditions on pixels: some of them, all of them coarsely, or any function of them."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.conditions.algebra import Condition
from jaxgen.conditions.checks import check_image, check_mask, check_noise
from jaxgen.errors import expected
from jaxgen.pytree import pytree, static
from jaxgen.types import Array, Scalar

__all__ = [
    "BernoulliPixels",
    "LowResolution",
    "ObservedPixels",
    "Operator",
    "average_pool",
    "stride_subsample",
]


@pytree
class ObservedPixels(Condition):
    """Pixels seen through Gaussian noise: sum over observed pixels of log N(y; x, noise^2).

    Attributes:
      observed: the image y `[H, W, channels]`, in [0, 1]; hidden pixels may hold anything
        finite.
      mask: 1 (or True) where observed; `[H, W]`, `[H, W, 1]` or the image's shape.
      noise: standard deviation of the observation noise, in pixel units.
    """

    observed: Array
    mask: Array
    noise: Scalar

    def __call__(self, image: Array) -> Array:
        """The normalised Gaussian log likelihood of the observed pixels."""
        mask = _full_mask(self.mask, image.shape)
        return _gaussian_log_likelihood(self.observed - image, self.noise, mask)

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Shapes must fit the generator, pixels lie in [0, 1], the noise be positive."""
        check_mask(self.mask, image_shape)
        mask = np.broadcast_to(
            np.asarray(_full_mask(jnp.asarray(self.mask), image_shape)), image_shape
        )
        check_image("observed", self.observed, image_shape, mask > 0)
        check_noise(self.noise)


@pytree
class BernoulliPixels(Condition):
    """Pixels as independent Bernoulli trials: sum of y log x + (1 - y) log(1 - x).

    For decoders trained with a Bernoulli likelihood, whose image is the mean x. Means are
    kept away from 0 and 1 by 1e-6, where float32 has no more digits to give.

    Attributes:
      observed: binary or grey pixels y in [0, 1] `[H, W, channels]`.
      mask: 1 where observed, as in `ObservedPixels`.
    """

    observed: Array
    mask: Array

    def __call__(self, image: Array) -> Array:
        """The Bernoulli log likelihood of the observed pixels."""
        mean = jnp.clip(image, 1e-6, 1 - 1e-6)
        terms = self.observed * jnp.log(mean) + (1 - self.observed) * jnp.log1p(-mean)
        mask = _full_mask(self.mask, image.shape)
        return jnp.sum(jnp.where(mask > 0, terms, 0.0))

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Shapes must fit the generator and pixels lie in [0, 1]."""
        check_mask(self.mask, image_shape)
        mask = np.broadcast_to(
            np.asarray(_full_mask(jnp.asarray(self.mask), image_shape)), image_shape
        )
        check_image("observed", self.observed, image_shape, mask > 0)


@pytree
class LowResolution(Condition):
    """A low-resolution view seen through Gaussian noise: log N(y; A x, noise^2 I).

    Attributes:
      observed: the view y `[H / factor, W / factor, channels]`.
      noise: standard deviation of the noise on the view.
      factor: how many pixels of the image make one of the view, in each direction.
      method: `"average"` (box average) or `"stride"` (every factor-th pixel, as the
        co-generation authors do).
    """

    observed: Array
    noise: Scalar
    factor: int = static()
    method: str = static(default="average")

    def view(self, image: Array) -> Array:
        """A x: the low-resolution view of an image."""
        down = average_pool if self.method == "average" else stride_subsample
        return down(image, self.factor)

    def __call__(self, image: Array) -> Array:
        """The normalised Gaussian log likelihood of the view."""
        return _gaussian_log_likelihood(self.observed - self.view(image), self.noise)

    def check(self, image_shape: tuple[int, ...]) -> None:
        """The factor must divide the image and the view have the size that follows."""
        if self.method not in ("average", "stride"):
            raise expected("LowResolution.method", "'average' or 'stride'", repr(self.method))
        height, width, *rest = image_shape
        if self.factor < 1 or height % self.factor or width % self.factor:
            raise expected(
                "LowResolution.factor", f"a divisor of {height} and {width}", self.factor
            )
        shape = (height // self.factor, width // self.factor, *rest)
        check_image("observed", self.observed, shape)
        check_noise(self.noise)


@pytree
class Operator(Condition):
    """Any forward operator seen through Gaussian noise: log N(y; A(x), noise^2 I).

    Attributes:
      observed: y, of the shape of A(x).
      noise: standard deviation, a scalar or of the shape of y.
      forward: A, a function of the image (and of `arguments`).
      arguments: arrays that A needs; changing them compiles nothing.
    """

    observed: Array
    noise: Array | float
    forward: Any = static()
    arguments: tuple[Any, ...] = ()

    def __call__(self, image: Array) -> Array:
        """The normalised Gaussian log likelihood of y."""
        residual = self.observed - self.forward(image, *self.arguments)
        return _gaussian_log_likelihood(residual, self.noise)

    def check(self, image_shape: tuple[int, ...]) -> None:
        """A(x) must have the shape of y."""
        image = jax.ShapeDtypeStruct(image_shape, jnp.float32)
        out = jax.eval_shape(self.forward, image, *self.arguments)
        if np.shape(self.observed) != out.shape:
            raise expected("Operator.observed", f"shape {out.shape}", np.shape(self.observed))
        if not np.all(np.isfinite(self.observed)):
            raise expected("Operator.observed", "finite numbers", "NaN or infinity")
        check_noise(self.noise)


def average_pool(image: Array, factor: int) -> Array:
    """Box averages of factor x factor pixels: `[H, W, c] -> [H/f, W/f, c]`."""
    height, width, channels = image.shape
    blocks = image.reshape(height // factor, factor, width // factor, factor, channels)
    return blocks.mean(axis=(1, 3))


def stride_subsample(image: Array, factor: int) -> Array:
    """Every factor-th pixel: `[H, W, c] -> [H/f, W/f, c]`."""
    return image[::factor, ::factor]


def _gaussian_log_likelihood(
    residual: Array, noise: Array | float, mask: Array | None = None
) -> Array:
    """sum of log N(residual; 0, noise^2), over the entries that a mask keeps."""
    terms = -0.5 * (residual / noise) ** 2 - jnp.log(noise) - 0.5 * math.log(2 * math.pi)
    return jnp.sum(terms if mask is None else jnp.where(mask > 0, terms, 0.0))


def _full_mask(mask: Array, image_shape: tuple[int, ...]) -> Array:
    """A mask with the image's number of axes."""
    return mask[..., None] if mask.ndim == len(image_shape) - 1 else mask
