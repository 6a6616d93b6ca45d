"""Linear operators on images, as data: what `Operator(forward=...)` and `reconstruct` take.

Each is a callable pytree, `A(image) -> array`; another mask, width or matrix compiles
nothing unless a shape changes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.pytree import pytree, static
from jaxgen.core.types import Array, PRNGKey

__all__ = ["BoxAverage", "GaussianBlur", "RandomProjection", "Stride"]


@pytree
class BoxAverage:
    """Means of factor x factor pixels: `[H, W, c] -> [H/f, W/f, c]`."""

    factor: int = static()

    def __call__(self, image: Array) -> Array:
        """A x."""
        height, width, channels = _divided(image, self.factor)
        shape = (height, self.factor, width, self.factor, channels)
        return image.reshape(shape).mean(axis=(1, 3))


@pytree
class Stride:
    """Every factor-th pixel, from the first: `[H, W, c] -> [H/f, W/f, c]`."""

    factor: int = static()

    def __call__(self, image: Array) -> Array:
        """A x."""
        _divided(image, self.factor)
        return image[:: self.factor, :: self.factor]


@pytree
class GaussianBlur:
    """Convolution with a normalised Gaussian, edges repeated: `[H, W, c] -> [H, W, c]`.

    Attributes:
      taps: `[2 r + 1]`, the window along one axis.
    """

    taps: Array

    @classmethod
    def of(cls, sigma: float, radius: int | None = None) -> GaussianBlur:
        """Of a standard deviation in pixels, cut off at 3 sigma where no radius is given."""
        if not (np.isfinite(sigma) and sigma > 0):
            raise expected("sigma", "a positive number of pixels", sigma)
        radius = int(np.ceil(3 * sigma)) if radius is None else radius
        taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
        return cls(jnp.asarray(taps / taps.sum(), jnp.float32))

    def __call__(self, image: Array) -> Array:
        """A x."""
        size = self.taps.shape[0]
        radius = size // 2
        for axis in (0, 1):
            padding = [(radius, radius) if k == axis else (0, 0) for k in range(3)]
            wide = jnp.pad(image, padding, mode="edge")
            length = image.shape[axis]
            parts = [
                self.taps[k] * jax.lax.slice_in_dim(wide, k, k + length, axis=axis)
                for k in range(size)
            ]
            image = jnp.sum(jnp.stack(parts), axis=0)
        return image


@pytree
class RandomProjection:
    """m fixed random sums of all pixels: `[H, W, c] -> [m]` (compressed sensing).

    Attributes:
      matrix: `[m, H * W * c]`.
    """

    matrix: Array

    @classmethod
    def of(cls, key: PRNGKey, count: int, image_shape: tuple[int, ...]) -> RandomProjection:
        """Normal entries of variance 1/m, so that lengths are kept on average."""
        if count < 1:
            raise expected("count", "at least 1", count)
        size = int(np.prod(image_shape))
        return cls(jax.random.normal(key, (count, size)) / np.sqrt(count))

    def __call__(self, image: Array) -> Array:
        """A x."""
        return self.matrix @ image.reshape(-1)


def _divided(image: Array, factor: int) -> tuple[int, int, int]:
    height, width, channels = image.shape
    if factor < 1 or height % factor or width % factor:
        raise expected("factor", f"a divisor of {height} and {width}", factor)
    return height // factor, width // factor, channels
