"""Conditions on pixels: some of them, all of them coarsely, or any function of them."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.pytree import pytree, static
from jaxgen.core.types import Array, Scalar
from jaxgen.target.conditions.algebra import Condition
from jaxgen.target.conditions.checks import (
    check_forward,
    check_image,
    check_mask,
    check_noise,
    seen_pixels,
)
from jaxgen.target.conditions.noise import GaussianNoise
from jaxgen.target.conditions.operators import BoxAverage, Stride, as_operator
from jaxgen.target.conditions.precision import like

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
      observed: the image y `[H, W, channels]`, in [0, 1] up to the noise; hidden pixels may
        hold anything finite.
      mask: 1 (or True) where observed; `[H, W]`, `[H, W, 1]` or the image's shape.
      noise: standard deviation of the observation noise, in pixel units.
    """

    observed: Array
    mask: Array
    noise: Scalar

    def residual(self, image: Array) -> Array:
        """y - x, of the image's shape."""
        return like(self.observed, image) - image

    def kept(self, residual: Array) -> Array | None:
        """Return the mask, of the image's shape."""
        return jnp.broadcast_to(_full_mask(self.mask, residual), residual.shape)

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Shapes must fit the generator, pixels lie in [0, 1] up to the noise, which is positive.

        G(z) + noise leaves [0, 1] by definition, by six standard deviations hardly ever.
        """
        check_mask(self.mask, image_shape)
        check_noise(self.noise, image_shape)
        seen = seen_pixels(self.mask, image_shape)
        check_image("observed", self.observed, image_shape, seen, noise=self.noise)


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
        """Return the Bernoulli log likelihood of the observed pixels."""
        mean = jnp.clip(image, 1e-6, 1 - 1e-6)
        observed = like(self.observed, image)
        terms = observed * jnp.log(mean) + (1 - observed) * jnp.log1p(-mean)
        mask = _full_mask(self.mask, image)
        return jnp.sum(jnp.where(mask > 0, terms, 0.0))

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Shapes must fit the generator and pixels lie in [0, 1]."""
        check_mask(self.mask, image_shape)
        check_image("observed", self.observed, image_shape, seen_pixels(self.mask, image_shape))


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
        """Return A x: the low-resolution view of an image."""
        down = average_pool if self.method == "average" else stride_subsample
        return down(image, self.factor)

    def residual(self, image: Array) -> Array:
        """y - A x, of the view's shape."""
        return like(self.observed, image) - self.view(image)

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Check that the factor divides the image and the view has the size that follows."""
        if self.method not in ("average", "stride"):
            raise expected("LowResolution.method", "'average' or 'stride'", repr(self.method))
        height, width, *rest = image_shape
        if self.factor < 1 or height % self.factor or width % self.factor:
            raise expected(
                "LowResolution.factor", f"a divisor of {height} and {width}", self.factor
            )
        shape = (height // self.factor, width // self.factor, *rest)
        check_noise(self.noise, shape)
        check_image("observed", self.observed, shape, noise=self.noise)


@pytree
class Operator(GaussianNoise):
    """Any forward operator seen through Gaussian noise: log N(y; A(x), noise^2 I).

    Complex observations, as in magnetic resonance imaging, have this noise in their real and
    in their imaginary part. Leave out what was not measured, `A(x)[mask]` with a NumPy mask:
    zeros count as measurements, and log Z would be that of other data.

    Attributes:
      observed: y, of the shape of A(x), real or complex as A(x) is.
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
        object.__setattr__(self, "forward", as_operator(self.forward))

    def residual(self, image: Array) -> Array:
        """y - A(x), of the shape of y."""
        made = self.forward(image, *self.arguments)
        return like(self.observed, made) - made

    def check(self, image_shape: tuple[int, ...]) -> None:
        """A(x) must have the shape of y, and be complex where y is."""
        out = check_forward("Operator", self.forward, self.arguments, image_shape)
        if np.shape(self.observed) != out.shape:
            raise expected("Operator.observed", f"shape {out.shape}", np.shape(self.observed))
        if not np.all(np.isfinite(self.observed)):
            raise expected("Operator.observed", "finite numbers", "NaN or infinity")
        if jnp.issubdtype(out.dtype, jnp.complexfloating) != np.iscomplexobj(self.observed):
            raise expected(
                "Operator.observed",
                f"{out.dtype} numbers as A(x) has them",
                getattr(self.observed, "dtype", type(self.observed).__name__),
            )
        check_noise(self.noise, out.shape)


def average_pool(image: Array, factor: int) -> Array:
    """Box averages of factor x factor pixels: `[H, W, c] -> [H/f, W/f, c]`."""
    return BoxAverage(factor)(image)


def stride_subsample(image: Array, factor: int) -> Array:
    """Every factor-th pixel: `[H, W, c] -> [H/f, W/f, c]`."""
    return Stride(factor)(image)


def _full_mask(mask: Array, image: Array) -> Array:
    """1 where observed, with the image's number of axes, in its precision."""
    mask = like(jnp.asarray(mask).astype(bool), image)
    return mask[..., None] if mask.ndim == image.ndim - 1 else mask
