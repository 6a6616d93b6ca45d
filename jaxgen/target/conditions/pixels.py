"""Conditions on pixels: some of them, all of them coarsely, or any function of them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.pytree import as_data, pytree, static
from jaxgen.core.types import Array, Scalar
from jaxgen.target.conditions.algebra import Condition
from jaxgen.target.conditions.checks import check_image, check_mask, check_noise
from jaxgen.target.conditions.noise import GaussianNoise

__all__ = [
    "BernoulliPixels",
    "LowResolution",
    "ObservedPixels",
    "Operator",
    "average_pool",
    "stride_subsample",
]


@pytree
class ObservedPixels(GaussianNoise):
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

    def residual(self, image: Array) -> Array:
        """y - x, of the image's shape."""
        return self.observed - image

    def kept(self, residual: Array) -> Array | None:
        """The mask, of the image's shape."""
        return jnp.broadcast_to(_full_mask(self.mask, residual.shape), residual.shape)

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
class LowResolution(GaussianNoise):
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

    def residual(self, image: Array) -> Array:
        """y - A x, of the view's shape."""
        return self.observed - self.view(image)

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
class Operator(GaussianNoise):
    """Any forward operator seen through Gaussian noise: log N(y; A(x), noise^2 I).

    Attributes:
      observed: y, of the shape of A(x).
      noise: standard deviation, a scalar or of the shape of y.
      forward: A, a function of the image (and of `arguments`), or a callable pytree such as
        those of `jaxgen.target.conditions.operators`, whose arrays are then data.
      arguments: arrays that A needs; changing them compiles nothing.
    """

    observed: Array
    noise: Array | float
    forward: Any
    arguments: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "forward", as_data(self.forward))

    def residual(self, image: Array) -> Array:
        """y - A(x), of the shape of y."""
        return self.observed - self.forward(image, *self.arguments)

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


def _full_mask(mask: Array, image_shape: tuple[int, ...]) -> Array:
    """A mask with the image's number of axes."""
    return mask[..., None] if mask.ndim == len(image_shape) - 1 else mask
