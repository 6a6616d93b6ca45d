"""What the ported networks share: pooling as PyTorch counts it, and preprocessing.

All functions take images `[..., H, W, C]` with any number of leading axes, none included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from jaxgen.core.platform import platform
from jaxgen.core.types import Array
from jaxgen.models.conv.layers import Conv, conv, upsample_conv

__all__ = [
    "ConvNorm",
    "Depthwise",
    "UpConv",
    "adaptive_avg_pool",
    "avg_pool",
    "batch_norm",
    "max_pool",
    "spatial_mean",
    "standardise",
    "upsample",
    "upsample_conv",
]


def batch_norm(features: int, rngs: nnx.Rngs, epsilon: float = 1e-5) -> nnx.BatchNorm:
    """Batch normalisation by its running statistics, as PyTorch's eval mode."""
    return nnx.BatchNorm(features, use_running_average=True, epsilon=epsilon, rngs=rngs)


class ConvNorm(nnx.Module):
    """Convolution without bias, batch normalisation, ReLU (if `relu`)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        *,
        stride: int = 1,
        padding: Any = 0,
        epsilon: float = 1e-3,
        rngs: nnx.Rngs,
    ):
        self.conv = Conv(
            inputs, outputs, kernel, stride=stride, padding=padding, use_bias=False, rngs=rngs
        )
        self.bn = batch_norm(outputs, rngs, epsilon)

    def __call__(self, x: Array) -> Array:
        """Apply convolution, normalisation and, if asked for, ReLU."""
        return jax.nn.relu(self.bn(self.conv(x)))


def standardise(image: Array, mean: Sequence[float], std: Sequence[float]) -> Array:
    """(image - mean) / std per channel; an empty mean leaves the image alone."""
    if not mean:
        return image
    shape = (1,) * (image.ndim - 1) + (-1,)
    low, scale = (jnp.asarray(v, image.dtype).reshape(shape) for v in (mean, std))
    return (image - low) / scale


def max_pool(
    x: Array, window: int, stride: int | None = None, padding: object = 0, ceil: bool = False
) -> Array:
    """Largest value of each window; `ceil` lets the last window hang over the edge.

    `padding` is a number of pixels, or (before, after) for both rows and columns.
    """
    stride = stride or window
    if not isinstance(padding, int):
        return _reduce(x, window, stride, [padding, padding], -jnp.inf, lax.max)
    sides = [_sides(n, window, stride, padding, ceil) for n in x.shape[-3:-1]]
    return _reduce(x, window, stride, sides, -jnp.inf, lax.max)


def avg_pool(x: Array, window: int, stride: int | None = None, padding: int = 0) -> Array:
    """Mean of each window, zeros of the padding counted."""
    sides = [(padding, padding)] * 2
    return _reduce(x, window, stride or window, sides, 0.0, lax.add) / (window * window)


def adaptive_avg_pool(x: Array, size: int) -> Array:
    """To `size` x `size` pixels: cell i is the mean of rows floor(i*H/size) to
    ceil((i+1)*H/size), and so for columns.
    """
    if x.shape[-3:-1] == (size, size):
        return x
    rows, cols = (_cells(n, size) for n in x.shape[-3:-1])
    high = lax.Precision.HIGHEST
    return jnp.einsum("ah,...hwc,bw->...abc", rows, x, cols, precision=high)


def spatial_mean(x: Array) -> Array:
    """Return the mean over rows and columns: `[..., C]`."""
    return x.mean((-3, -2))


def upsample(x: Array, factor: int = 2) -> Array:
    """Nearest neighbour: every pixel becomes `factor` x `factor` pixels."""
    return jnp.repeat(jnp.repeat(x, factor, axis=-3), factor, axis=-2)


class UpConv(nnx.Module):
    """Nearest-neighbour upsampling by 2 and a 3x3 convolution; see `upsample_conv`."""

    def __init__(self, inputs: int, outputs: int, rngs: nnx.Rngs):
        init = nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(init(rngs.params(), (3, 3, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))

    def __call__(self, x: Array) -> Array:
        """Return the upsampled and convolved feature map."""
        y = upsample_conv(x, self.kernel[...])
        return y + jnp.broadcast_to(self.bias[...], y.shape)


class Depthwise(nnx.Module):
    """A convolution of each channel by itself, kernel `[kh, kw, 1, C]`, without bias.

    On CPU it is a sum of shifted images: XLA's grouped convolution is slow there.
    """

    def __init__(
        self, channels: int, kernel: int, *, stride: int = 1, padding: Any = 0, rngs: nnx.Rngs
    ):
        init = nnx.initializers.lecun_normal()
        self.kernel = nnx.Param(init(rngs.params(), (kernel, kernel, 1, channels)))
        self.stride = stride
        pad = (padding, padding) if isinstance(padding, int) else padding[0]
        self.padding = (pad, pad if isinstance(padding, int) else padding[1])

    def __call__(self, x: Array) -> Array:
        """Convolve every channel by its own kernel."""
        kernel, stride = self.kernel[...], self.stride
        if platform() != "cpu":
            return conv(x, kernel, stride=stride, padding=self.padding, groups=x.shape[-1])
        side = kernel.shape[0]
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [*self.padding, (0, 0)])
        rows, cols = ((n - side) // stride + 1 for n in x.shape[-3:-1])
        shape = (1,) * (x.ndim - 1) + (-1,)
        taps = [
            x[
                ...,
                a : a + (rows - 1) * stride + 1 : stride,
                b : b + (cols - 1) * stride + 1 : stride,
                :,
            ]
            * kernel[a, b, 0].reshape(shape)
            for a in range(side)
            for b in range(side)
        ]
        return sum(taps[1:], taps[0])


def _sides(size: int, window: int, stride: int, padding: int, ceil: bool) -> tuple[int, int]:
    out = (size + 2 * padding - window) // stride + 1
    if ceil:
        out = -(-(size + 2 * padding - window) // stride) + 1
        if (out - 1) * stride >= size + padding:  # a window must begin inside
            out -= 1
    return padding, max(padding, (out - 1) * stride + window - size - padding)


def _reduce(x: Array, window: int, stride: int, sides: Any, start: float, combine: Any) -> Array:
    lead = (1,) * (x.ndim - 3)
    pads = [(0, 0)] * (x.ndim - 3) + list(sides) + [(0, 0)]
    return lax.reduce_window(
        x, start, combine, (*lead, window, window, 1), (*lead, stride, stride, 1), pads
    )


def _cells(size: int, cells: int) -> np.ndarray:
    matrix = np.zeros((cells, size), np.float32)
    for i in range(cells):
        first, last = i * size // cells, -(-(i + 1) * size // cells)
        matrix[i, first:last] = 1.0 / (last - first)
    return matrix
