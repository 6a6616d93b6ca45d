"""Caffe's layers that look at neighbourhoods: convolutions, pooling, LRN, crop, resizing.

All blobs here are (N, H, W, C). Lengths and divisors follow Caffe where it differs from
everybody else: pooling rounds its output size up, and an average divides by the number of
positions its window covers in the padded image, not by those in the image.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxgen.core.errors import InputError
from jaxgen.core.types import Array
from jaxgen.models.caffe.base import Layer, axis_of, register, whole_axis

__all__ = ["Convolution", "Crop", "Deconvolution", "Interp", "LocalResponse", "Pooling"]

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_LARGEST = 1 << 16


def _pair(name: str, values: Sequence[int], least: int) -> tuple[int, int]:
    if len(values) != 2 or not all(least <= int(v) <= _LARGEST for v in values):
        raise InputError(f"{name}: expected two numbers from {least} to {_LARGEST}; got {values}")
    return int(values[0]), int(values[1])


def _image(x: Array) -> None:
    if x.ndim != 4:
        raise InputError(f"bottom: expected (N, C, H, W); got {x.ndim} axes")


@register("Convolution", "ConvolutionDepthwise", "DepthwiseConvolution")
class Convolution(Layer):
    """Cross-correlation with zero padding; kernel (kh, kw, I/groups, O), bias (O,)."""

    parameters = ("kernel", "bias")

    def __init__(
        self,
        kernel_size: Sequence[int],
        stride: Sequence[int] = (1, 1),
        pad: Sequence[int] = (0, 0),
        dilation: Sequence[int] = (1, 1),
        groups: int = 1,
    ):
        self.kernel_size, self.stride = _pair("kernel", kernel_size, 1), _pair("stride", stride, 1)
        self.pad, self.dilation = _pair("pad", pad, 0), _pair("dilation", dilation, 1)
        self.groups = int(groups)

    def forward(self, x: Array) -> Array:
        """Compute the top for a batch of bottoms; the class says what it is."""
        _image(x)
        extent = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel_size, strict=True)]
        if any(n + 2 * p < e for n, p, e in zip(x.shape[1:3], self.pad, extent, strict=True)):
            image = f"a padded image of at least {extent[0]} x {extent[1]}"
            raise InputError(f"bottom: expected {image}; got {x.shape[1:3]} and pad {self.pad}")
        y = lax.conv_general_dilated(
            x,
            self.need("kernel", x),
            self.stride,
            [(p, p) for p in self.pad],
            rhs_dilation=self.dilation,
            dimension_numbers=_DIMENSIONS,
            feature_group_count=self.groups,
        )
        return _biased(y, self.get("bias", x))


@register("Deconvolution")
class Deconvolution(Convolution):
    """The transpose of a convolution, as a convolution of the input dilated by the stride.

    Its kernel (kh, kw, I/groups, O) is Caffe's turned by 180 degrees; each side is padded
    by dilation * (k - 1) - pad, and a negative number crops.
    """

    def forward(self, x: Array) -> Array:
        """Compute the top for a batch of bottoms; the class says what it is."""
        _image(x)
        sides = [
            d * (k - 1) - p
            for d, k, p in zip(self.dilation, self.kernel_size, self.pad, strict=True)
        ]
        out = [(n - 1) * s + 1 + 2 * q - d * (k - 1) for n, s, q, d, k in zip(
            x.shape[1:3], self.stride, sides, self.dilation, self.kernel_size, strict=True
        )]  # fmt: skip
        if min(out) < 1:
            raise InputError(f"pad: leaves an image of {out[0]} x {out[1]}")
        y = lax.conv_general_dilated(
            x,
            self.need("kernel", x),
            (1, 1),
            [(q, q) for q in sides],
            lhs_dilation=self.stride,
            rhs_dilation=self.dilation,
            dimension_numbers=_DIMENSIONS,
            feature_group_count=self.groups,
        )
        return _biased(y, self.get("bias", x))


@register("Pooling")
class Pooling(Layer):
    """Maximum or average of windows; without a kernel size, of the whole image.

    Output length ceil((n + 2 p - k) / s) + 1 (floor if `ceil` is False), less one if
    there is padding and the last window would start beyond the image and its padding.
    Windows are cut at the image's right edge plus p for the average's divisor.
    """

    def __init__(
        self,
        method: str,
        kernel_size: Sequence[int] | None = None,
        stride: Sequence[int] = (1, 1),
        pad: Sequence[int] = (0, 0),
        ceil: bool = True,
    ):
        if method not in ("MAX", "AVE"):
            raise InputError(f"pool: expected MAX or AVE; got {method!r}")
        self.method, self.ceil = method, bool(ceil)
        self.kernel_size = None if kernel_size is None else _pair("kernel", kernel_size, 1)
        self.stride, self.pad = _pair("stride", stride, 1), _pair("pad", pad, 0)
        if self.kernel_size and any(
            p >= k for p, k in zip(self.pad, self.kernel_size, strict=True)
        ):
            raise InputError(f"pad: expected less than the kernel; got {self.pad}")

    def forward(self, x: Array) -> Array:
        """Compute the top for a batch of bottoms; the class says what it is."""
        _image(x)
        if self.kernel_size is None:
            reduce = jnp.max if self.method == "MAX" else jnp.mean
            return reduce(x, axis=(1, 2), keepdims=True)
        spans = [
            self._span(n, k, s, p)
            for n, k, s, p in zip(
                x.shape[1:3], self.kernel_size, self.stride, self.pad, strict=True
            )
        ]
        padding = [
            (0, 0),
            *((p, after) for p, (after, _) in zip(self.pad, spans, strict=True)),
            (0, 0),
        ]
        window, strides = (1, *self.kernel_size, 1), (1, *self.stride, 1)
        rows, columns = (np.asarray(counts) for _, counts in spans)
        empty = rows.min() < 1 or columns.min() < 1
        if self.method == "MAX":
            y = lax.reduce_window(x, -jnp.inf, lax.max, window, strides, padding)
            return jnp.maximum(y, jnp.finfo(x.dtype).min) if empty else y
        if empty:
            raise InputError("stride: a window of the average lies wholly outside the image")
        total = lax.reduce_window(x, 0.0, lax.add, window, strides, padding)
        return total / jnp.asarray(np.outer(rows, columns)[None, :, :, None], x.dtype)

    def _span(self, n: int, k: int, s: int, p: int) -> tuple[int, list[int]]:
        """Return the padding after the image, and how many padded positions each window covers."""
        room = n + 2 * p - k
        out = (-(-room // s) if self.ceil else room // s) + 1
        if any(self.pad) and (out - 1) * s >= n + p:
            out -= 1
        if out < 1:
            raise InputError(f"kernel: expected at most the padded image, {n + 2 * p}; got {k}")
        starts = [i * s - p for i in range(out)]
        return starts[-1] + k - n, [min(start + k, n + p) - start for start in starts]


@register("LRN")
class LocalResponse(Layer):
    """x / (k + alpha / size * sum of x^2 over the window)^beta.

    The window is `size` channels, or within a channel `size` x `size` positions; then the
    mean of the squares replaces the sum over `size`, and Caffe ignores k (it is 1).
    """

    def __init__(
        self, size: int = 5, alpha: float = 1.0, beta: float = 0.75, k: float = 1.0,
        within: bool = False,
    ):  # fmt: skip
        if size % 2 == 0 or not 1 <= size <= _LARGEST:
            raise InputError(f"local_size: expected an odd number; got {size}")
        self.size, self.alpha, self.beta = int(size), float(alpha), float(beta)
        self.k, self.within = float(k), bool(within)

    def forward(self, x: Array) -> Array:
        """Compute the top for a batch of bottoms; the class says what it is."""
        _image(x)
        size, half = self.size, (self.size - 1) // 2
        if self.within:
            window, padding = (1, size, size, 1), [(0, 0), (half, half), (half, half), (0, 0)]
        else:
            window, padding = (1, 1, 1, size), [(0, 0), (0, 0), (0, 0), (half, half)]
        total = lax.reduce_window(x * x, 0.0, lax.add, window, (1, 1, 1, 1), padding)
        k, count = (1.0, size * size) if self.within else (self.k, size)
        return x * (k + self.alpha / count * total) ** -self.beta


@register("Crop")
class Crop(Layer):
    """The first bottom cut to the second one's lengths, from `axis` on."""

    arity = (2, 2)

    def __init__(self, axis: int = 2, offsets: Sequence[int] = ()):
        self.axis, self.offsets = int(axis), tuple(int(o) for o in offsets)

    def forward(self, x: Array, reference: Array) -> Array:
        """Compute the top for a batch of bottoms; the class says what it is."""
        if x.ndim != reference.ndim:
            raise InputError("bottoms: expected equal numbers of axes")
        axes = range(whole_axis(x.ndim, self.axis), x.ndim)
        offsets = list(self.offsets or (0,))
        if len(offsets) not in (1, len(axes)):
            raise InputError(f"offset: expected 1 or {len(axes)} numbers; got {offsets}")
        starts = offsets * len(axes) if len(offsets) == 1 else offsets
        for start, caffe_axis in zip(starts, axes, strict=True):
            axis = axis_of(x.ndim, caffe_axis)
            stop = start + reference.shape[axis]
            if start < 0 or stop > x.shape[axis]:
                have = f"{start} to {stop} of {x.shape[axis]}"
                raise InputError(f"offset: expected to lie inside the first bottom; got {have}")
            x = lax.slice_in_dim(x, start, stop, axis=axis)
        return x


@register("Interp")
class Interp(Layer):
    """Bilinear resizing whose first and last positions are the image's (aligned corners).

    The size is `size`, or after cropping -pad_begin and -pad_end positions, shrinking
    n -> (n - 1) / shrink + 1 and then zooming n -> n + (n - 1) * (zoom - 1).
    """

    def __init__(
        self, size: Sequence[int] | None = None, zoom: int = 1, shrink: int = 1,
        pad_begin: int = 0, pad_end: int = 0,
    ):  # fmt: skip
        self.size = None if size is None else _pair("height, width", size, 1)
        self.zoom, self.shrink = int(zoom), int(shrink)
        self.pad_begin, self.pad_end = int(pad_begin), int(pad_end)
        if not (1 <= self.zoom <= _LARGEST and 1 <= self.shrink <= _LARGEST):
            raise InputError("zoom_factor, shrink_factor: expected positive numbers")
        if self.pad_begin > 0 or self.pad_end > 0:
            raise InputError("pad_beg, pad_end: expected 0 or less, which crops")

    def forward(self, x: Array) -> Array:
        """Compute the top for a batch of bottoms; the class says what it is."""
        _image(x)
        height, width = x.shape[1:3]
        x = x[:, -self.pad_begin : height + self.pad_end, -self.pad_begin : width + self.pad_end]
        for axis in (1, 2):
            n = x.shape[axis]
            if n < 1:
                raise InputError("pad_beg, pad_end: leave nothing of the image")
            shrunk = (n - 1) // self.shrink + 1
            out = self.size[axis - 1] if self.size else shrunk + (shrunk - 1) * (self.zoom - 1)
            at = np.arange(out) * ((n - 1) / (out - 1) if out > 1 else 0.0)
            low = np.minimum(at.astype(int), n - 1)
            high = np.minimum(low + 1, n - 1)
            shape = [1, 1, 1, 1]
            shape[axis] = out
            part = jnp.asarray((at - low).reshape(shape), x.dtype)
            x = (1 - part) * jnp.take(x, low, axis) + part * jnp.take(x, high, axis)
        return x


def _biased(y: Array, bias: Array | None) -> Array:
    return y if bias is None else y + jax.lax.broadcast_in_dim(bias, (1, 1, 1, bias.size), (3,))
