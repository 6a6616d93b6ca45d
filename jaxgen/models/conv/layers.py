"""Convolutions and transposed convolutions in three exact forms: XLA's and matrix products.

The same sums as products:

- "matmul": a convolution cuts the padded input into blocks of `stride` x `stride` pixels,
  gathers the blocks under every output pixel and makes one product with the kernel; a
  transposed convolution makes one product of every input pixel with every tap,
  `[N*h*w, Cin] @ [Cin, kh*kw*Cout]`, and adds the taps that meet in one output pixel;
- "winograd": 3x3 kernels of stride 1 and 4x4 kernels of stride 2, padding 1, as four ninths
  or nine sixteenths as many products of sums (`jaxgen.models.conv.winograd`). Rounding is two to
  three times larger; other kernels are computed as by "matmul".

`form` chooses: "xla", one of the two, or "auto": XLA's own on GPU and TPU, on CPU whichever
product is faster (`jaxgen.core.platform` says which of them is traced for). Inside a compiled
loop (`lax.scan`), where samplers run and where XLA gives its convolutions one plain thread,
products are several times faster than XLA's convolutions; `benchmarks/speed/conv_forms.py`
measures all forms, `benchmarks/speed/gradient.py` whole networks.

Shapes: images `[..., H, W, C]` with any number of leading axes, none included; kernels
`[kh, kw, Cin, Cout]` (HWIO). The transposed kernel is stored as `jax.lax.conv_transpose`
and `nnx.ConvTranspose` read it, that is, turned by 180 degrees against PyTorch's and
Caffe's taps; `padding` counts, as theirs does, the rows cut from the full output.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxgen.core.errors import expected
from jaxgen.core.platform import platform
from jaxgen.core.types import Array
from jaxgen.models.conv import winograd

__all__ = ["Conv", "ConvTranspose", "Form", "conv", "conv_transpose", "upsample_conv"]

Form: TypeAlias = Literal["auto", "matmul", "winograd", "xla"]
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
    products = _products(form)
    scheme = winograd.chosen(kernel.shape, x.shape[1:3], stride, pads, transposed=False)
    if products and groups == 1 and scheme and _preferred(scheme, form, x, kernel):
        y = winograd.fewer_products(scheme, x, kernel)
    elif products and groups <= 8:
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
    around = tuple((k - 1 - lo, k - 1 - hi) for k, (lo, hi) in zip((kh, kw), pads, strict=True))
    one = x.shape[-3:-1] == (1, 1)
    if stride == (1, 1) and not one:
        return conv(x, kernel, padding=(around[0], around[1]), form=form)
    lead, x = x.shape[:-3], x.reshape((-1, *x.shape[-3:]))
    (mh, sh), (mw, sw) = _blocks(kh, stride[0]), _blocks(kw, stride[1])
    cheap = mh * sh * mw * sw <= _MOST_WASTE * kh * kw and min(min(pads[0]), min(pads[1])) >= 0
    products = _products(form)
    scheme = winograd.chosen(kernel.shape, x.shape[1:3], stride, pads, transposed=True)
    if products and one and min(min(pads[0]), min(pads[1])) >= 0:
        y = _one_pixel(x, kernel, pads)
    elif products and scheme and _preferred(scheme, form, x, kernel):
        y = winograd.fewer_products(scheme, x, kernel[::-1, ::-1])
    elif products and cheap:
        y = _conv_transpose_matmul(x, kernel, stride, pads)
    else:
        y = lax.conv_general_dilated(
            x,
            kernel,
            (1, 1),
            around,
            lhs_dilation=stride,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
    return y.reshape(lead + y.shape[1:])


def upsample_conv(x: Array, kernel: Array, *, form: Form = "auto") -> Array:
    """Every pixel doubled in both directions, then a 3x3 convolution with zeros around.

    Neighbours that are equal meet several taps, whose sum is all that matters: four 2x2
    convolutions of the small image, 16 products for 36. That is one transposed convolution,
    whose 4x4 kernel is the 3x3 one added to itself shifted by one row, and by one column.
    As "winograd" (9 products) the common part of all four is computed once.

    Args:
      x: `[..., H, W, Cin]`.
      kernel: `[3, 3, Cin, Cout]`, that of the plain convolution.
      form: how to compute it, see the module.

    Returns:
      `[..., 2H, 2W, Cout]`.
    """
    if kernel.shape[:2] != (3, 3):
        raise expected("kernel", "[3, 3, Cin, Cout]", kernel.shape)
    if _products(form) and _preferred(winograd.NEAREST, form, x, kernel):
        y = winograd.fewer_products(winograd.NEAREST, x.reshape((-1, *x.shape[-3:])), kernel)
        return y.reshape(x.shape[:-3] + y.shape[1:])
    for axis in (0, 1):
        before = [(1, 0) if i == axis else (0, 0) for i in range(4)]
        after = [(0, 1) if i == axis else (0, 0) for i in range(4)]
        kernel = jnp.pad(kernel, before) + jnp.pad(kernel, after)
    return conv_transpose(x, kernel, stride=2, padding=1, form=form)


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
        """Apply the convolution and add the bias."""
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
        """Apply the transposed convolution and add the bias."""
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


def _one_pixel(x: Array, kernel: Array, pads: tuple[Pair, Pair]) -> Array:
    """Return the transposed convolution of one pixel: a dense layer."""
    (top, bottom), (left, right) = pads
    kh, kw, channels, features = kernel.shape
    taps = kernel[::-1, ::-1][top : kh - bottom, left : kw - right]
    y = x.reshape(-1, channels) @ taps.transpose(2, 0, 1, 3).reshape(channels, -1)
    return y.reshape(-1, *taps.shape[:2], features)


def _add_bias(y: Array, bias: Array) -> Array:
    return y + jnp.broadcast_to(bias, y.shape)


def _blocks(kernel: int, stride: int) -> Pair:
    """Return how many blocks of `stride` pixels cover a kernel's side, and the stride."""
    return -(-kernel // stride), stride


def _pair(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _pads(value: Padding) -> tuple[Pair, Pair]:
    if isinstance(value, int):
        return (value, value), (value, value)
    (top, bottom), (left, right) = value
    return (top, bottom), (left, right)


def _products(form: Form) -> bool:
    """Return whether to compute by matrix products of one kind or the other."""
    if form not in ("auto", "matmul", "winograd", "xla"):
        raise expected("form", '"auto", "matmul", "winograd" or "xla"', repr(form))
    return form != "xla" and (form != "auto" or platform() == "cpu")


def _preferred(scheme: winograd.Scheme, form: Form, x: Array, kernel: Array) -> bool:
    """Return whether to take the scheme where products are taken."""
    if form != "auto":
        return form == "winograd"
    return winograd.worthwhile(scheme, x.shape[-3:-1], kernel.shape[2:])
