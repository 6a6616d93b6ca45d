"""Convolutions, transposed convolutions and pooling, of one or two spatial axes.

Products are taken by `jaxgen.models.conv.layers` wherever it has the case. Where every channel has
a kernel of its own, XLA:CPU's grouped convolution does not vectorise, and the sum over taps of
shifted images does: each tap is one multiplication of an image by a row of numbers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxgen.core.errors import InputError
from jaxgen.core.platform import platform
from jaxgen.core.types import Array
from jaxgen.models.caffe.description import MOST_ELEMENTS
from jaxgen.models.conv.layers import conv, conv_transpose
from jaxgen.models.tensor_ops.base import Operator, integers, register, to_caffe

__all__ = ["depthwise"]

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")
_LARGEST = 1 << 16
_MOST_SHIFTS = 49

Pair = tuple[int, int]


def _as_image(x: Array) -> Array:
    """(N, C, L) as (N, 1, L, C); an image as it is."""
    if x.ndim == 3:
        return x.transpose(0, 2, 1)[:, None]
    if x.ndim != 4:
        raise InputError(f"operand: expected (N, C, L) or (N, C, H, W); got {x.ndim} axes")
    return x


def _as_operand(y: Array, x: Array) -> Array:
    """Return an image with as many axes as the operand had."""
    return y[:, 0].transpose(0, 2, 1) if x.ndim == 3 else y


def depthwise(
    x: Array, kernel: Array, stride: Pair, dilation: Pair, pads: tuple[Pair, Pair]
) -> Array:
    """y[i, j, c] = sum_ab x[i s + a d - p, j s + b d - p, c] * kernel[a, b, c]."""
    edges = [(0, 0, 0), (*pads[0], 0), (*pads[1], 0), (0, 0, 0)]
    x = lax.pad(x, jnp.zeros((), x.dtype), edges)
    spans = [
        (n - d * (k - 1) - 1) // s + 1
        for n, k, s, d in zip(x.shape[1:3], kernel.shape, stride, dilation, strict=False)
    ]
    terms = []
    for a in range(kernel.shape[0]):
        for b in range(kernel.shape[1]):
            i, j = a * dilation[0], b * dilation[1]
            rows = slice(i, i + (spans[0] - 1) * stride[0] + 1, stride[0])
            columns = slice(j, j + (spans[1] - 1) * stride[1] + 1, stride[1])
            terms.append(x[:, rows, columns] * kernel[a, b][None, None, None])
    return functools.reduce(jnp.add, terms)


@register("Conv")
class Conv(Operator):
    """Cross-correlation with zeros around; kernel (kh, kw, I/groups, O), bias (O,).

    A kernel that the network computes is the second operand, (O, I/groups, kh, kw).
    """

    parameters = ("kernel", "bias")

    def configure(
        self,
        *,
        stride: Sequence[int] = (1, 1),
        dilation: Sequence[int] = (1, 1),
        pads: Sequence[int] = (0, 0, 0, 0),
        groups: int = 1,
    ) -> None:
        self.stride, self.dilation = _two(stride), _two(dilation)
        begin_end = integers("pads", pads, -_LARGEST, _LARGEST)
        if len(begin_end) != 4:
            raise InputError(f"pads: expected top, left, bottom, right; got {begin_end}")
        self.pads: tuple[Pair, Pair] = ((begin_end[0], begin_end[2]), (begin_end[1], begin_end[3]))
        (self.groups,) = integers("groups", [groups], 1, 1 << 20)

    def forward(self, *bottoms: Array) -> Array:
        """Return the sum for a batch of images, with the bias."""
        if not 1 <= len(bottoms) <= 3:
            raise InputError(f"operands: expected 1 to 3; got {len(bottoms)}")
        x, *rest = bottoms
        kernel = self.get("kernel", x)
        if kernel is None:
            if not rest:
                raise InputError("its kernel is missing")
            kernel = self.kernel_of(rest.pop(0))
        bias = self.get("bias", x)
        if bias is None and rest:
            bias = rest.pop(0)
        if rest:
            raise InputError("operands: more than image, kernel and bias")
        image = _as_image(x)
        self.check(image, kernel)
        y = self.product(image, kernel)
        if bias is not None:
            y = y + bias.reshape(1, 1, 1, -1)
        return _as_operand(y, x)

    def kernel_of(self, operand: Array) -> Array:
        """(O, I/groups, kh, kw), perhaps without kh, as (kh, kw, I/groups, O)."""
        whole = to_caffe(operand)
        return (whole if whole.ndim == 4 else whole[:, :, None]).transpose(2, 3, 1, 0)

    def check(self, x: Array, kernel: Array) -> None:
        """Refuse shapes that do not fit."""
        if kernel.ndim != 4 or kernel.shape[2] * self.groups != x.shape[3]:
            raise InputError(f"kernel: {kernel.shape} does not fit {x.shape[3]} channels")
        if kernel.shape[3] % self.groups:
            raise InputError(f"groups: expected a divisor of {kernel.shape[3]} channels")
        for n, k, d, (lo, hi) in zip(
            x.shape[1:3], kernel.shape[:2], self.dilation, self.pads, strict=True
        ):
            if n + lo + hi < d * (k - 1) + 1:
                raise InputError(f"operand: {n} pixels and pads {lo}, {hi} for a kernel of {k}")

    def product(self, x: Array, kernel: Array) -> Array:
        """Return the convolution, in whichever exact form is fast."""
        alone = kernel.shape[2] == 1 and kernel.shape[3] == self.groups > 1
        if alone and _shifted(kernel):
            return depthwise(x, kernel[:, :, 0], self.stride, self.dilation, self.pads)
        if self.dilation == (1, 1):
            return conv(x, kernel, stride=self.stride, padding=self.pads, groups=self.groups)
        return lax.conv_general_dilated(
            x, kernel, self.stride, self.pads, rhs_dilation=self.dilation,
            dimension_numbers=_DIMENSIONS, feature_group_count=self.groups,
        )  # fmt: skip


@register("ConvTranspose")
class ConvTranspose(Conv):
    """The transpose of a convolution; kernel (kh, kw, I/groups, O) turned by 180 degrees.

    `pads` are cut from the full output; `more` rows and columns are added to its end. A
    kernel that the network computes is the second operand, (I, O/groups, kh, kw).
    """

    def configure(self, *, more: Sequence[int] = (0, 0), **config: Any) -> None:
        super().configure(**config)
        lo_hi = _two(more, 0)
        (top, bottom), (left, right) = self.pads
        self.pads = ((top, bottom - lo_hi[0]), (left, right - lo_hi[1]))

    def kernel_of(self, operand: Array) -> Array:
        """(I, O/groups, kh, kw) as the kernel of the convolution."""
        whole = to_caffe(operand)
        whole = whole if whole.ndim == 4 else whole[:, :, None]
        inputs, outputs, kh, kw = whole.shape
        if inputs % self.groups:
            raise InputError(f"groups: expected a divisor of {inputs} channels")
        parts = whole.reshape(self.groups, inputs // self.groups, outputs, kh, kw)
        kernel = parts.transpose(3, 4, 1, 0, 2).reshape(kh, kw, inputs // self.groups, -1)
        return kernel[::-1, ::-1]

    def check(self, x: Array, kernel: Array) -> None:
        """Refuse shapes that do not fit."""
        if kernel.ndim != 4 or kernel.shape[2] * self.groups != x.shape[3]:
            raise InputError(f"kernel: {kernel.shape} does not fit {x.shape[3]} channels")
        if kernel.shape[3] % self.groups:
            raise InputError(f"groups: expected a divisor of {kernel.shape[3]} channels")
        sides = [
            (n - 1) * s + d * (k - 1) + 1 - lo - hi
            for n, s, d, k, (lo, hi) in zip(
                x.shape[1:3], self.stride, self.dilation, kernel.shape[:2], self.pads, strict=True
            )
        ]
        if min(sides) < 1 or math.prod(sides) * kernel.shape[3] > MOST_ELEMENTS:
            raise InputError(f"pads: an output of {sides[0]} x {sides[1]} pixels")

    def product(self, x: Array, kernel: Array) -> Array:
        """Return the transposed convolution, in whichever exact form is fast."""
        alone = kernel.shape[2] == 1 and kernel.shape[3] == self.groups > 1
        if alone and self.stride == kernel.shape[:2] and self.pads == ((0, 0), (0, 0)):
            return _blocks(x, kernel[::-1, ::-1, 0])
        if self.groups == 1 and self.dilation == (1, 1):
            return conv_transpose(x, kernel, stride=self.stride, padding=self.pads)
        around = [
            (d * (k - 1) - lo, d * (k - 1) - hi)
            for d, k, (lo, hi) in zip(self.dilation, kernel.shape[:2], self.pads, strict=True)
        ]
        if alone and _shifted(kernel):
            gaps = [(0, 0, 0), (0, 0, self.stride[0] - 1), (0, 0, self.stride[1] - 1), (0, 0, 0)]
            x = lax.pad(x, jnp.zeros((), x.dtype), gaps)
            return depthwise(x, kernel[:, :, 0], (1, 1), self.dilation, (around[0], around[1]))
        return lax.conv_general_dilated(
            x, kernel, (1, 1), around, lhs_dilation=self.stride, rhs_dilation=self.dilation,
            dimension_numbers=_DIMENSIONS, feature_group_count=self.groups,
        )  # fmt: skip


@register("Pool")
class Pool(Operator):
    """The maximum, or the average, of windows.

    `pads` are top, left, bottom, right; with `ceil` a last window may reach beyond the
    padded image unless it would start beyond the image and its padding in front. An average
    divides by the window's pixels inside the image, or with `count_padding` inside the
    padded image. Neither padding nor what lies beyond it is ever a maximum.
    """

    def configure(
        self,
        method: str,
        kernel_size: Sequence[int],
        stride: Sequence[int] = (1, 1),
        dilation: Sequence[int] = (1, 1),
        pads: Sequence[int] = (0, 0, 0, 0),
        ceil: bool = False,
        count_padding: bool = False,
    ) -> None:
        if method not in ("max", "average"):
            raise InputError(f"method: expected max or average; got {method!r}")
        self.method, self.kernel_size, self.stride = method, _two(kernel_size), _two(stride)
        self.dilation, self.pads = _two(dilation), integers("pads", pads, 0, _LARGEST)
        if len(self.pads) != 4:
            raise InputError(f"pads: expected top, left, bottom, right; got {self.pads}")
        self.ceil, self.count_padding = bool(ceil), bool(count_padding)

    def compute(self, x: Array) -> Array:
        image = _as_image(x)
        edges, counts = [], []
        for i, n in enumerate(image.shape[1:3]):
            extent = self.dilation[i] * (self.kernel_size[i] - 1) + 1
            lo, hi, stride = self.pads[i], self.pads[i + 2], self.stride[i]
            reach = n + lo + hi - extent
            if reach < 0:
                raise InputError(f"operand: {n} pixels for a window of {extent}")
            length = (-(-reach // stride) if self.ceil else reach // stride) + 1
            if self.ceil and (length - 1) * stride >= n + lo:
                length -= 1
            edges.append((lo, max((length - 1) * stride + extent - n - lo, -n)))
            first, last = (-lo, n + hi) if self.count_padding else (0, n)
            at = np.arange(length)[:, None] * stride - lo
            at = at + np.arange(self.kernel_size[i]) * self.dilation[i]
            counts.append(((first <= at) & (at < last)).sum(1))
        window, strides = (1, *self.kernel_size, 1), (1, *self.stride, 1)
        pads, spread = [(0, 0), *edges, (0, 0)], (1, *self.dilation, 1)
        if self.method == "max":
            y = lax.reduce_window(
                image, -jnp.inf, lax.max, window, strides, pads, window_dilation=spread
            )
        else:
            total = lax.reduce_window(
                image, 0.0, lax.add, window, strides, pads, window_dilation=spread
            )
            size = np.maximum(np.outer(*counts), 1)[None, :, :, None]
            y = total / jnp.asarray(size, total.dtype)
        return _as_operand(y, x)


def _two(values: Sequence[int], least: int = 1) -> Pair:
    found = integers("configuration", values, least, _LARGEST)
    if len(found) != 2:
        raise InputError(f"expected two numbers, for rows and columns; got {found}")
    return found[0], found[1]


def _shifted(kernel: Array) -> bool:
    return platform() == "cpu" and math.prod(kernel.shape[:2]) <= _MOST_SHIFTS


@jax.custom_vjp
def _blocks(x: Array, taps: Array) -> Array:
    """Return a transposed convolution whose taps never meet: every pixel becomes a block.

    Its gradient is written out, as sums of every second (third, ...) pixel: the sum over blocks
    that JAX would make of it is a hundred times slower than this on XLA:CPU.
    """
    n, h, w, c = x.shape
    kh, kw = taps.shape[:2]
    y = x[:, :, None, :, None] * taps[None, None, :, None]
    return y.reshape(n, h * kh, w * kw, c)


def _blocks_forward(x: Array, taps: Array) -> tuple[Array, tuple[Array, Array]]:
    return _blocks(x, taps), (x, taps)


def _blocks_backward(kept: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, taps = kept
    kh, kw = taps.shape[:2]
    parts = [[g[:, a::kh, b::kw] for b in range(kw)] for a in range(kh)]
    terms = [parts[a][b] * taps[a, b][None, None, None] for a in range(kh) for b in range(kw)]
    of_taps = [jnp.stack([jnp.sum(x * part, (0, 1, 2)) for part in row]) for row in parts]
    return functools.reduce(jnp.add, terms), jnp.stack(of_taps)


_blocks.defvjp(_blocks_forward, _blocks_backward)
