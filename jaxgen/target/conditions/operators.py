"""Operators on images, as data: what `Operator(forward=...)` and `reconstruct` take.

Each is a callable pytree, `A(image) -> array`; another mask, width or matrix compiles
nothing unless a shape changes. All but `Intensity` are linear. `Matrix.of` makes one of any
linear function, of other libraries too: a physics object of deepinv, say.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.pytree import as_data, pytree, static
from jaxgen.core.types import Array, PRNGKey
from jaxgen.target.conditions.blur import gaussian_window, separable
from jaxgen.target.conditions.precision import like

__all__ = [
    "BoxAverage",
    "Convolution",
    "Fourier",
    "GaussianBlur",
    "Intensity",
    "Matrix",
    "RandomProjection",
    "Stride",
    "as_operator",
]


@pytree
class BoxAverage:
    """Means of factor x factor pixels: `[H, W, c] -> [H/f, W/f, c]`."""

    factor: int = static()

    def __call__(self, image: Array) -> Array:
        """Return A x."""
        height, width, channels = _divided(image, self.factor)
        shape = (height, self.factor, width, self.factor, channels)
        return image.reshape(shape).mean(axis=(1, 3))


@pytree
class Stride:
    """Every factor-th pixel, from the first: `[H, W, c] -> [H/f, W/f, c]`."""

    factor: int = static()

    def __call__(self, image: Array) -> Array:
        """Return A x."""
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
        """Make the blur of a standard deviation in pixels, by default cut off at 3 sigma."""
        if not (np.isfinite(sigma) and sigma > 0):
            raise expected("sigma", "a positive number of pixels", sigma)
        radius = int(np.ceil(3 * sigma)) if radius is None else radius
        return cls(jnp.asarray(gaussian_window(sigma, radius), jnp.float32))

    def __call__(self, image: Array) -> Array:
        """Return A x."""
        return separable(image, like(self.taps, image), "edge")


@pytree
class RandomProjection:
    """m fixed random sums of all pixels: `[H, W, c] -> [m]` (compressed sensing).

    Attributes:
      matrix: `[m, H * W * c]`.
    """

    matrix: Array

    @classmethod
    def of(cls, key: PRNGKey, count: int, image_shape: tuple[int, ...]) -> RandomProjection:
        """Return normal entries of variance 1/m, so that lengths are kept on average."""
        if count < 1:
            raise expected("count", "at least 1", count)
        size = int(np.prod(image_shape))
        return cls(jax.random.normal(key, (count, size), jnp.float32) / math.sqrt(count))

    def __call__(self, image: Array) -> Array:
        """Return A x."""
        return like(self.matrix, image) @ image.reshape(-1)


@pytree
class Convolution:
    """Convolution with a kernel, channel by channel: a blur that is known as an array.

    y[i, j] = sum_{a, b} k[a, b] x[i + r - a, j + s - b], r and s half the kernel's sides, as
    `scipy.ndimage.convolve` has it.

    Attributes:
      kernel: `[a, b]`, both odd.
      boundary: what lies outside: "edge" (repeated), "wrap", "reflect" or "constant" (0).
    """

    kernel: Array
    boundary: str = static(default="edge")

    def __call__(self, image: Array) -> Array:
        """Return A x, of the image's shape."""
        rows, cols = _odd(self.kernel)
        if self.boundary not in _BOUNDARIES:
            raise expected("Convolution.boundary", f"one of {_BOUNDARIES}", repr(self.boundary))
        pad = ((rows // 2, rows // 2), (cols // 2, cols // 2), (0, 0))
        wide = jnp.moveaxis(jnp.pad(image, pad, mode=self.boundary), -1, 0)[:, None]
        window = like(self.kernel, image)[None, None, ::-1, ::-1]
        out = jax.lax.conv_general_dilated(
            wide, window, (1, 1), "VALID", precision=jax.lax.Precision.HIGHEST
        )
        return jnp.moveaxis(out[:, 0], 0, -1)


@pytree
class Fourier:
    """Measured entries of the 2-D Fourier transform of one channel: `[H, W, 1] -> complex [m]`.

    Unitary (norm "ortho"), so that noise has the same size on both sides. What magnetic
    resonance imaging sees; multi-coil images need a function of your own.

    Attributes:
      entries: `[m]`, flat places in the transform, in rising order.
    """

    entries: Array

    @classmethod
    def of(cls, mask: Array) -> Fourier:
        """Make the operator of a mask `[H, W]`, 1 where measured, with zero frequency at [0, 0]."""
        values = np.asarray(mask)
        if values.ndim != 2 or not np.all((values == 0) | (values == 1)) or not values.any():
            raise expected("mask", "0 and 1 of shape [H, W], not all 0", f"shape {values.shape}")
        return cls(jnp.asarray(np.flatnonzero(values), jnp.int32))

    def __call__(self, image: Array) -> Array:
        """Return A x."""
        if image.ndim != 3 or image.shape[-1] != 1:
            raise expected("Fourier", "an image [H, W, 1]", f"shape {image.shape}")
        return jnp.fft.fft2(image[..., 0], norm="ortho").reshape(-1)[self.entries]


@pytree
class Intensity:
    """|A x|^2: phase retrieval. It has a gradient everywhere, which |A x| has not at 0.

    Attributes:
      operator: A, with complex or real values.
    """

    operator: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "operator", as_operator(self.operator))

    def __call__(self, image: Array) -> Array:
        """Return |A x|^2."""
        value = self.operator(image)
        return value.real**2 + value.imag**2 if jnp.iscomplexobj(value) else value**2


@pytree
class Matrix:
    """Any linear operator of small images, as its matrix: `[H, W, c] -> [shape]`.

    Attributes:
      columns: `[m, H * W * c]`.
      shape: of y, of m entries.
    """

    columns: Array
    shape: tuple[int, ...] = static()

    @classmethod
    def of(cls, function: Callable[[Any], Any], image_shape: tuple[int, ...]) -> Matrix:
        """Make the matrix of a linear function, called once per pixel: NumPy in, array out.

        For a physics object of deepinv, whose images are `[1, c, H, W]` tensors:

            def blur(image):
                x = torch.from_numpy(image).movedim(-1, 0)[None]
                return physics.A(x)[0].movedim(0, -1).numpy()

            A = Matrix.of(blur, (28, 28, 1))

        Raises:
          InputError: for a function that is not linear.
        """
        size = math.prod(image_shape)

        def call(image: np.ndarray) -> np.ndarray:
            return np.asarray(function(image.reshape(image_shape).astype(np.float32)))

        first = call(np.zeros(size))
        columns = np.stack([call(row).reshape(-1) for row in np.eye(size)], axis=1)
        probe = np.random.default_rng(0).normal(size=size)
        made, wanted = columns @ probe, call(probe).reshape(-1)
        scale = np.abs(wanted).max(initial=1e-6)
        if np.any(first != 0) or np.abs(made - wanted).max(initial=0) > 1e-3 * scale:
            raise expected("Matrix.of", "a linear function, without noise", "another")
        return cls(like(columns, np.zeros((), np.float32)), first.shape)

    def __call__(self, image: Array) -> Array:
        """Return A x."""
        return (like(self.columns, image) @ _as_type_of(image, self.columns)).reshape(self.shape)


_BOUNDARIES = ("edge", "wrap", "reflect", "constant")


def as_operator(forward: object) -> Any:
    """Return a forward operator as data; raise `InputError` for modules of PyTorch."""
    torch = getattr(sys.modules.get("torch.nn"), "Module", None)
    if isinstance(torch, type) and isinstance(forward, torch):
        raise expected(
            "forward",
            "a function that JAX can differentiate",
            f"{type(forward).__name__}, which computes in torch",
            "If it is linear and images are small, give "
            "jaxgen.target.conditions.operators.Matrix.of(function, image_shape)",
        )
    return as_data(forward)


def _as_type_of(image: Array, matrix: Array) -> Array:
    flat = image.reshape(-1)
    return flat.astype(like(matrix, image).dtype)


def _odd(kernel: Array) -> tuple[int, int]:
    shape = jnp.shape(kernel)
    if len(shape) != 2 or shape[0] % 2 == 0 or shape[1] % 2 == 0:
        raise expected("Convolution.kernel", "a window of odd sides [a, b]", f"shape {shape}")
    return shape


def _divided(image: Array, factor: int) -> tuple[int, int, int]:
    height, width, channels = image.shape
    if factor < 1 or height % factor or width % factor:
        raise expected("factor", f"a divisor of {height} and {width}", factor)
    return height // factor, width // factor, channels
