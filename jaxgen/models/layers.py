"""Convolutions and transposed convolutions in two exact forms: XLA's and matrix products.

The same sums as products:

- a convolution cuts the padded input into blocks of `stride` x `stride` pixels, gathers
  the blocks under every output pixel and makes one product with the kernel;
- a transposed convolution makes one product of every input pixel with every tap,
  `[N*h*w, Cin] @ [Cin, kh*kw*Cout]`, and adds the taps that meet in one output pixel.

`form` chooses: "xla", "matmul", or "auto": products on CPU, XLA's own on GPU and TPU. On
CPU the products are 3 to 4 times faster inside a compiled loop (`lax.scan`), where
samplers run them and where XLA gives its convolutions one plain thread; outside a loop
XLA's are up to twice as fast. `benchmarks/conv_forms.py` measures both.

Shapes: images `[..., H, W, C]` with any number of leading axes, none included; kernels
`[kh, kw, Cin, Cout]` (HWIO). The transposed kernel is stored as `jax.lax.conv_transpose`
and `nnx.ConvTranspose` read it, that is, turned by 180 degrees against PyTorch's and
Caffe's taps; `padding` counts, as theirs does, the rows cut from the full output.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxgen.errors import expected
from jaxgen.types import Array

__all__ = ["Conv", "ConvTranspose", "Form", "conv", "conv_transpose"]

Form: TypeAlias = Literal["auto", "matmul", "xla"]
Pair: TypeAlias = tuple[int, int]
Padding: TypeAlias = int | tuple[Pair, Pair]

# Kernels whose sides the stride does not divide are filled up with zero taps; beyond
# this many products per useful one XLA's convolution is the better choice.
_MOST_WASTE = 2.0
_LECUN = nnx.initializers.lecun_normal()


def conv(
    x: Array,
    kernel: Array,
    *,
    stride: int | Pair = 1,
    padding: Padding = 0,
    groups: int = 1,
    form: Form = "auto",
) -> Array:
    """Cross-correlation: `y[i, j] = sum_ab x[i*s + a - p, j*s + b - p] @ kernel[a, b]`.

    Args:
      x: `[..., H, W, Cin]`.
      kernel: `[kh, kw, Cin / groups, Cout]`.
      stride: one number, or one for rows and one for columns.
      padding: rows and columns of zeros around `x`; one number or ((top, bottom), (left, right)).
      groups: number of groups of channels that do not see each other.
      form: how to compute it, see the module.

    Returns:
      `[..., (H + top + bottom - kh) // s + 1, (W + left + right - kw) // s + 1, Cout]`.
    """
    stride, pads = _pair(stride), _pads(padding)
    lead, x = x.shape[:-3], x.reshape((-1, *x.shape[-3:]))
    if _chosen(form) == "matmul" and groups <= 8:
        if groups == 1:
            y = _conv_matmul(x, kernel, stride, pads)
        else:
            parts = zip(
                jnp.split(x, groups, axis=-1), jnp.split(kernel, groups, axis=-1), strict=True
            )
            y = jnp.concatenate([_conv_matmul(a, k, stride, pads) for a, k in parts], axis=-1)
    else:
        y = lax.conv_general_dilated(
            x,
            kernel,
            stride,
            pads,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )
    return y.reshape(lead + y.shape[1:])


def conv_transpose(
    x: Array,
    kernel: Array,
    *,
    stride: int | Pair = 1,
    padding: Padding = 0,
    form: Form = "auto",
) -> Array:
    """Transposed convolution: `y[i*s + a - p, j*s + b - p] += x[i, j] @ taps[a, b]`.

    `taps` is `kernel` turned by 180 degrees: `taps[a, b] = kernel[kh-1-a, kw-1-b]`.

    Args:
      x: `[..., h, w, Cin]`.
      kernel: `[kh, kw, Cin, Cout]`.
      stride: one number, or one for rows and one for columns.
      padding: rows and columns cut from the full output; one number or
        ((top, bottom), (left, right)).
      form: how to compute it, see the module.

    Returns:
      `[..., (h - 1) * s + kh - top - bottom, (w - 1) * s + kw - left - right, Cout]`.
    """
    stride, pads = _pair(stride), _pads(padding)
    kh, kw = kernel.shape[:2]
    lead, x = x.shape[:-3], x.reshape((-1, *x.shape[-3:]))
    (mh, sh), (mw, sw) = _blocks(kh, stride[0]), _blocks(kw, stride[1])
    cheap = mh * sh * mw * sw <= _MOST_WASTE * kh * kw and min(min(pads[0]), min(pads[1])) >= 0
    if _chosen(form) == "matmul" and cheap:
        y = _conv_transpose_matmul(x, kernel, stride, pads)
    else:
        around = [(k - 1 - lo, k - 1 - hi) for k, (lo, hi) in zip((kh, kw), pads, strict=True)]
        y = lax.conv_general_dilated(
            x,
            kernel,
            (1, 1),
            around,
            lhs_dilation=stride,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    return y.reshape(lead + y.shape[1:])


class Conv(nnx.Module):
    """A convolution with a kernel `[kh, kw, Cin / groups, Cout]` and a bias; see `conv`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Pair,
        *,
        stride: int | Pair = 1,
        padding: Padding = 0,
        groups: int = 1,
        use_bias: bool = True,
        form: Form = "auto",
        kernel_init: Any = _LECUN,
        rngs: nnx.Rngs,
    ):
        shape = (*_pair(kernel_size), in_features // groups, out_features)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(out_features)) if use_bias else None
        self.stride, self.padding = _pair(stride), _pads(padding)
        self.groups = groups
        self.form: Form = form

    def __call__(self, x: Array) -> Array:
        y = conv(
            x,
            self.kernel[...],
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
            form=self.form,
        )
        return y if self.bias is None else _add_bias(y, self.bias[...])


class ConvTranspose(nnx.Module):
    """A transposed convolution with a kernel `[kh, kw, Cin, Cout]` and a bias.

    See `conv_transpose` for the orientation of the kernel and the meaning of `padding`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Pair,
        *,
        stride: int | Pair = 1,
        padding: Padding = 0,
        use_bias: bool = True,
        form: Form = "auto",
        kernel_init: Any = _LECUN,
        rngs: nnx.Rngs,
    ):
        shape = (*_pair(kernel_size), in_features, out_features)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape))
        self.bias = nnx.Param(jnp.zeros(out_features)) if use_bias else None
        self.stride, self.padding = _pair(stride), _pads(padding)
        self.form: Form = form

    def __call__(self, x: Array) -> Array:
        y = conv_transpose(
            x, self.kernel[...], stride=self.stride, padding=self.padding, form=self.form
        )
        return y if self.bias is None else _add_bias(y, self.bias[...])


def _conv_matmul(x: Array, kernel: Array, stride: Pair, pads: tuple[Pair, Pair]) -> Array:
    """`x: [N, H, W, Cin]`; one product with the pixels under every output pixel."""
    n, height, width, channels = x.shape
    kh, kw, _, features = kernel.shape
    (top, bottom), (left, right) = pads
    oh = (height + top + bottom - kh) // stride[0] + 1
    ow = (width + left + right - kw) // stride[1] + 1
    (mh, sh), (mw, sw) = _blocks(kh, stride[0]), _blocks(kw, stride[1])
    if mh * sh * mw * sw > _MOST_WASTE * kh * kw:
        # A kernel much smaller than its stride: read the taps' pixels with strides.
        around = [(0, 0, 0), (top, bottom, 0), (left, right, 0), (0, 0, 0)]
        x = lax.pad(x, jnp.zeros((), x.dtype), around)
        pixels = [
            x[:, a : a + (oh - 1) * sh + 1 : sh, b : b + (ow - 1) * sw + 1 : sw]
            for a in range(kh)
            for b in range(kw)
        ]
        patches = jnp.concatenate(pixels, axis=-1)
        return patches @ kernel.reshape(-1, features)
    rows, cols = oh + mh - 1, ow + mw - 1
    # Pad to whole blocks (or cut the rows that no output pixel reads: a negative pad).
    edges = [
        (0, 0, 0),
        (top, rows * sh - height - top, 0),
        (left, cols * sw - width - left, 0),
        (0, 0, 0),
    ]
    x = lax.pad(x, jnp.zeros((), x.dtype), edges)
    x = x.reshape(n, rows, sh, cols, sw, channels).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(n, rows, cols, sh * sw * channels)
    patches = jnp.concatenate(
        [x[:, i : i + oh, j : j + ow] for i in range(mh) for j in range(mw)], axis=-1
    )
    taps = jnp.pad(kernel, ((0, mh * sh - kh), (0, mw * sw - kw), (0, 0), (0, 0)))
    taps = taps.reshape(mh, sh, mw, sw, channels, features).transpose(0, 2, 1, 3, 4, 5)
    return patches @ taps.reshape(-1, features)


def _conv_transpose_matmul(x: Array, kernel: Array, stride: Pair, pads: tuple[Pair, Pair]) -> Array:
    """`x: [N, h, w, Cin]`; one product with all taps, then shift and add."""
    n, height, width, channels = x.shape
    kh, kw, _, features = kernel.shape
    (top, bottom), (left, right) = pads
    (mh, sh), (mw, sw) = _blocks(kh, stride[0]), _blocks(kw, stride[1])
    taps = jnp.pad(kernel[::-1, ::-1], ((0, mh * sh - kh), (0, mw * sw - kw), (0, 0), (0, 0)))
    # Tap a = i*s + r adds to the output block i further down, in its row r.
    taps = taps.reshape(mh, sh, mw, sw, channels, features).transpose(4, 0, 2, 1, 3, 5)
    y = (x @ taps.reshape(channels, -1)).reshape(n, height, width, mh, mw, sh * sw * features)
    zero = jnp.zeros((), y.dtype)
    full = sum(
        lax.pad(
            y[:, :, :, i, j],
            zero,
            [(0, 0, 0), (i, mh - 1 - i, 0), (j, mw - 1 - j, 0), (0, 0, 0)],
        )
        for i in range(mh)
        for j in range(mw)
    )
    rows, cols = height + mh - 1, width + mw - 1
    full = jnp.asarray(full).reshape(n, rows, cols, sh, sw, features).transpose(0, 1, 3, 2, 4, 5)
    full = full.reshape(n, rows * sh, cols * sw, features)
    oh = (height - 1) * sh + kh - top - bottom
    ow = (width - 1) * sw + kw - left - right
    return full[:, top : top + oh, left : left + ow]


def _add_bias(y: Array, bias: Array) -> Array:
    return y + jnp.broadcast_to(bias, y.shape)


def _blocks(kernel: int, stride: int) -> Pair:
    """How many blocks of `stride` pixels cover a kernel's side, and the stride."""
    return -(-kernel // stride), stride


def _pair(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _pads(value: Padding) -> tuple[Pair, Pair]:
    if isinstance(value, int):
        return (value, value), (value, value)
    (top, bottom), (left, right) = value
    return (top, bottom), (left, right)


def _chosen(form: Form) -> str:
    if form not in ("auto", "matmul", "xla"):
        raise expected("form", '"auto", "matmul" or "xla"', repr(form))
    if form == "auto":
        return "matmul" if jax.default_backend() == "cpu" else "xla"
    return form
