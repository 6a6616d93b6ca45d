"""What the layers of `sequential` compute: shapes, weights and functions, by type.

Images are `[..., H, W, C]` with any number of leading axes, none included. The functions are
those of PyTorch in evaluation mode; `weights_convert.references` has the same in torch, and the
tests compare every type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from jaxgen.core.types import Array
from jaxgen.models.conv.layers import Conv, ConvTranspose
from jaxgen.models.ported.blocks import adaptive_avg_pool, standardise, upsample
from jaxgen.models.ported.sequential_schema import pair, sides

__all__ = [
    "FUNCTIONS", "Convolution", "GroupNorm", "LayerNorm", "PReLU", "TransposedConvolution", "make",
    "window_count",
]  # fmt: skip

Settings = Mapping[str, Any]
Shape = tuple[int, ...]


class Convolution(Conv):
    """`Conv` of `jaxgen.models.conv.layers`, with pixels left out between the taps (dilation)."""

    def __init__(self, *args: Any, dilation: tuple[int, int] = (1, 1), **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.dilation = dilation

    def __call__(self, x: Array) -> Array:
        """Return the image for an image, or for a batch of them."""
        if self.dilation == (1, 1):
            return super().__call__(x)
        return _general(
            x, self, window_strides=self.stride, padding=self.padding, groups=self.groups
        )


class TransposedConvolution(ConvTranspose):
    """`jaxgen.models.conv.layers.ConvTranspose` with groups, dilation and `output_padding`.

    The output has (n - 1) * stride - 2 * padding + dilation * (k - 1) + output_padding + 1 rows.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: tuple[int, int],
        *,
        groups: int = 1,
        dilation: tuple[int, int] = (1, 1),
        output_padding: tuple[int, int] = (0, 0),
        **kwargs: Any,
    ):
        super().__init__(inputs // groups, outputs, kernel, **kwargs)
        self.groups, self.dilation, self.output_padding = groups, dilation, output_padding

    def __call__(self, x: Array) -> Array:
        """Return the image for an image, or for a batch of them."""
        if self.groups == 1 and self.dilation == (1, 1) and self.output_padding == (0, 0):
            return super().__call__(x)
        sizes = [d * (k - 1) for d, k in zip(self.dilation, self.kernel.shape[:2], strict=True)]
        around = tuple(
            (n - low, n - high + more)
            for n, (low, high), more in zip(sizes, self.padding, self.output_padding, strict=True)
        )
        return _general(
            x, self, window_strides=(1, 1), padding=around, groups=self.groups,
            lhs_dilation=self.stride,
        )  # fmt: skip


class GroupNorm(nnx.Module):
    """(x - mean) / sqrt(var + eps) over each group of channels of one image, then an affine map.

    With as many groups as channels it is instance normalisation.
    """

    def __init__(self, channels: int, groups: int, eps: float, affine: bool):
        self.scale = nnx.Param(jnp.ones(channels)) if affine else None
        self.bias = nnx.Param(jnp.zeros(channels)) if affine else None
        self.groups, self.eps = groups, eps

    def __call__(self, x: Array, rank: int) -> Array:
        """Return the normalised sample; its last `rank` axes are its own."""
        channels = x.shape[-1]
        split = x.reshape((*x.shape[:-1], self.groups, channels // self.groups))
        axes = (*range(x.ndim - rank, x.ndim - 1), split.ndim - 1)
        y = _standard(split, axes, self.eps).reshape(x.shape)
        return y if self.scale is None else y * _last(self.scale, y) + _last(self.bias, y)


class LayerNorm(nnx.Module):
    """(x - mean) / sqrt(var + eps) over the whole sample, then an affine map of its own shape."""

    def __init__(self, shape: Shape, eps: float, affine: bool, bias: bool):
        self.scale = nnx.Param(jnp.ones(shape)) if affine else None
        self.bias = nnx.Param(jnp.zeros(shape)) if affine and bias else None
        self.eps = eps

    def __call__(self, x: Array, rank: int) -> Array:
        """Return the normalised sample; its last `rank` axes are its own."""
        y = _standard(x, tuple(range(x.ndim - rank, x.ndim)), self.eps)
        y = y if self.scale is None else y * _last(self.scale, y)
        return y if self.bias is None else y + _last(self.bias, y)


class PReLU(nnx.Module):
    """max(x, 0) + slope * min(x, 0), with one slope, or one for each channel."""

    def __init__(self, count: int):
        self.slope = nnx.Param(jnp.full(count, 0.25))

    def __call__(self, x: Array, rank: int) -> Array:
        """Return the activation."""
        return jnp.where(x >= 0, x, x * _last(self.slope, x))


def make(layer: Settings, shape: Shape, rngs: nnx.Rngs) -> nnx.Module | None:
    """Return the module of a layer with weights; None for one without.

    Args:
      layer: its settings, completed.
      shape: of one sample before it.
      rngs: for its first weights.
    """
    kind, inputs = layer["type"], shape[-1] if shape else 1
    if kind == "linear":
        return nnx.Linear(inputs, layer["out"], use_bias=layer["bias"], rngs=rngs)
    if kind == "batch_norm":
        affine = layer["affine"]
        return nnx.BatchNorm(
            inputs, use_running_average=True, epsilon=layer["eps"], use_bias=affine,
            use_scale=affine, rngs=rngs,
        )  # fmt: skip
    if kind == "instance_norm":
        return GroupNorm(inputs, inputs, layer["eps"], layer["affine"]) if layer["affine"] else None
    if kind == "group_norm" and layer["affine"]:
        return GroupNorm(inputs, layer["groups"], layer["eps"], True)
    if kind == "layer_norm" and layer["affine"]:
        return LayerNorm(shape, layer["eps"], True, layer["bias"])
    if kind == "prelu":
        return PReLU(layer["count"])
    if kind not in ("conv", "conv_transpose"):
        return None
    common = {
        "stride": pair(layer["stride"]),
        "padding": tuple((n, n) for n in pair(layer["padding"])),
        "use_bias": layer["bias"],
        "groups": layer["groups"],
        "dilation": pair(layer["dilation"]),
        "rngs": rngs,
    }
    if kind == "conv":
        return Convolution(inputs, layer["out"], pair(layer["kernel"]), **common)
    more = pair(layer["output_padding"])
    return TransposedConvolution(
        inputs, layer["out"], pair(layer["kernel"]), output_padding=more, **common
    )


def window_count(size: int, kernel: int, stride: int, padding: int, ceil: bool) -> int:
    """Return how many windows a pooling layer has along one axis; below 1 if none fits."""
    over = size + 2 * padding - kernel
    count = (-(-over // stride) if ceil else over // stride) + 1
    # A window may hang over the end, but must begin inside.
    return count - 1 if ceil and (count - 1) * stride >= size + padding else count


# Functions ---------------------------------------------------------------------------


def _general(x: Array, layer: Any, *, window_strides: Any, padding: Any, groups: int,
             lhs_dilation: Any = (1, 1)) -> Array:  # fmt: skip
    batch = x.reshape((-1, *x.shape[-3:]))
    y = lax.conv_general_dilated(
        batch, layer.kernel[...], window_strides, padding, lhs_dilation=lhs_dilation,
        rhs_dilation=layer.dilation, feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    y = y.reshape((*x.shape[:-3], *y.shape[1:]))
    return y if layer.bias is None else y + _last(layer.bias, y)


def _last(variable: Any, like: Array) -> Array:
    """Return a weight that goes along the last axes of an array."""
    value = variable[...]
    return value.reshape((1,) * (like.ndim - value.ndim) + value.shape)


def _standard(x: Array, axes: tuple[int, ...], eps: float) -> Array:
    mean = x.mean(axes, keepdims=True)
    centred = x - mean
    return centred * lax.rsqrt((centred * centred).mean(axes, keepdims=True) + eps)


def _flatten(x: Array, s: Settings, rank: int) -> Array:
    lead = x.shape[: x.ndim - rank]
    return jnp.moveaxis(x, -1, -3).reshape((*lead, -1)) if rank == 3 else x


def _unflatten(x: Array, s: Settings, rank: int) -> Array:
    return jnp.moveaxis(x.reshape((*x.shape[:-1], *s["shape"])), -3, -1)


def _pool(x: Array, s: Settings, start: float, combine: Any) -> Array:
    kernel, stride = pair(s["kernel"]), pair(s["stride"] or s["kernel"])
    pads = []
    for n, k, step, p in zip(x.shape[-3:-1], kernel, stride, pair(s["padding"]), strict=True):
        last = (window_count(n, k, step, p, s["ceil"]) - 1) * step + k
        pads.append((p, max(p, last - n - p)))
    lead = (1,) * (x.ndim - 3)
    around = [(0, 0)] * (x.ndim - 3) + pads + [(0, 0)]
    return lax.reduce_window(x, start, combine, (*lead, *kernel, 1), (*lead, *stride, 1), around)


def _avg_pool(x: Array, s: Settings, rank: int) -> Array:
    """Means whose divisors count the padding, if so set, but nothing beyond it."""
    kernel, stride = pair(s["kernel"]), pair(s["stride"] or s["kernel"])
    counts = []
    for n, k, step, p in zip(x.shape[-3:-1], kernel, stride, pair(s["padding"]), strict=True):
        first = np.arange(window_count(n, k, step, p, s["ceil"])) * step - p
        last = np.minimum(first + k, n + p)
        inside = np.minimum(last, n) - np.maximum(first, 0)
        counts.append(last - first if s["count_padding"] else inside)
    area = (counts[0][:, None] * counts[1][None, :])[..., None]
    divisor = jnp.asarray(area, x.dtype).reshape((1,) * (x.ndim - 3) + area.shape)
    return _pool(x, s, 0.0, lax.add) / divisor


def _adaptive(x: Array, s: Settings, rank: int) -> Array:
    rows, cols = pair(s["size"])
    if rows == cols:
        return adaptive_avg_pool(x, rows)
    matrices = [_cells(n, m) for n, m in zip(x.shape[-3:-1], (rows, cols), strict=True)]
    return _rows_and_columns(x, *matrices)


def _cells(size: int, cells: int) -> np.ndarray:
    """Cell i is the mean of floor(i * size / cells) to ceil((i + 1) * size / cells)."""
    matrix = np.zeros((cells, size), np.float32)
    for i in range(cells):
        first, last = i * size // cells, -(-(i + 1) * size // cells)
        matrix[i, first:last] = 1.0 / (last - first)
    return matrix


def _upsample(x: Array, s: Settings, rank: int) -> Array:
    rows, cols = pair(s["factor"])
    if s["mode"] == "nearest":
        if rows == cols:
            return upsample(x, rows)
        return jnp.repeat(jnp.repeat(x, rows, axis=-3), cols, axis=-2)
    matrices = [
        _between(n, n * f, s["align_corners"])
        for n, f in zip(x.shape[-3:-1], (rows, cols), strict=True)
    ]
    return _rows_and_columns(x, *matrices)


def _between(size: int, larger: int, corners: bool) -> np.ndarray:
    """Return the matrix of linear interpolation along an axis, corners aligned or pixels' edges."""
    at = np.arange(larger)
    scale = (size - 1) / max(larger - 1, 1) if corners else size / larger
    place = at * scale if corners else np.maximum((at + 0.5) * scale - 0.5, 0.0)
    low = np.minimum(place.astype(int), size - 1)
    share = place - low
    matrix = np.zeros((larger, size))
    np.add.at(matrix, (at, low), 1.0 - share)
    np.add.at(matrix, (at, np.minimum(low + 1, size - 1)), share)
    return matrix.astype(np.float32)


def _rows_and_columns(x: Array, rows: np.ndarray, cols: np.ndarray) -> Array:
    high = lax.Precision.HIGHEST
    return jnp.einsum("ah,...hwc,bw->...abc", rows, x, cols, precision=high)


def _pixel_shuffle(x: Array, s: Settings, rank: int) -> Array:
    """(C * r * r, H, W) to (C, H * r, W * r), in PyTorch's order of channels."""
    r, (*lead, height, width, channels) = s["factor"], x.shape
    split = x.reshape((*lead, height, width, channels // (r * r), r, r))
    n = len(lead)  # H, W, C, r, r become H, r, W, r, C
    moved = split.transpose((*range(n), n, n + 3, n + 1, n + 4, n + 2))
    return moved.reshape((*lead, height * r, width * r, channels // (r * r)))


def _padded(mode: str) -> Callable[[Array, Settings, int], Array]:
    def pad(x: Array, s: Settings, rank: int) -> Array:
        left, right, top, bottom = sides(s["padding"])
        around = [(0, 0)] * (x.ndim - 3) + [(top, bottom), (left, right), (0, 0)]
        more = {"constant_values": s.get("value", 0.0)} if mode == "constant" else {}
        return jnp.pad(x, around, mode=mode, **more)

    return pad


def _softplus(x: Array, s: Settings, rank: int) -> Array:
    scaled = x * s["beta"]
    soft = jax.nn.softplus(jnp.minimum(scaled, s["threshold"])) / s["beta"]
    return jnp.where(scaled > s["threshold"], x, soft)


def _instance_norm(x: Array, s: Settings, rank: int) -> Array:
    return _standard(x, tuple(range(x.ndim - rank, x.ndim - 1)), s["eps"])


def _group_norm(x: Array, s: Settings, rank: int) -> Array:
    return GroupNorm(x.shape[-1], s["groups"], s["eps"], False)(x, rank)


def _layer_norm(x: Array, s: Settings, rank: int) -> Array:
    return _standard(x, tuple(range(x.ndim - rank, x.ndim)), s["eps"])


def _pixel_norm(x: Array, s: Settings, rank: int) -> Array:
    return x * lax.rsqrt((x * x).mean(-1, keepdims=True) + s["eps"])


def _unary(function: Callable[[Array], Array]) -> Callable[[Array, Settings, int], Array]:
    return lambda x, s, rank: function(x)


FUNCTIONS: dict[str, Callable[[Array, Settings, int], Array]] = {
    **{
        name: _unary(getattr(jax.nn, function))
        for name, function in {
            "relu": "relu", "relu6": "relu6", "selu": "selu", "silu": "silu", "mish": "mish",
            "softsign": "soft_sign", "tanh": "tanh", "sigmoid": "sigmoid",
            "log_sigmoid": "log_sigmoid", "hardsigmoid": "hard_sigmoid",
            "hardswish": "hard_swish", "softmax": "softmax", "log_softmax": "log_softmax",
        }.items()
    },
    "identity": _unary(lambda x: x),
    "dropout": _unary(lambda x: x),
    "to_unit": _unary(lambda x: 0.5 * x + 0.5),
    "from_unit": _unary(lambda x: 2.0 * x - 1.0),
    "scalar": _unary(lambda x: x[..., 0]),
    "leaky_relu": lambda x, s, rank: jax.nn.leaky_relu(x, s["slope"]),
    "elu": lambda x, s, rank: jax.nn.elu(x, s["alpha"]),
    "celu": lambda x, s, rank: jax.nn.celu(x, s["alpha"]),
    "gelu": lambda x, s, rank: jax.nn.gelu(x, approximate=s["approximate"] == "tanh"),
    "softplus": _softplus,
    "hardtanh": lambda x, s, rank: jnp.clip(x, s["low"], s["high"]),
    "pixel_norm": _pixel_norm,
    "standardise": lambda x, s, rank: standardise(x, s["mean"], s["std"]),
    "flatten": _flatten,
    "unflatten": _unflatten,
    "max_pool": lambda x, s, rank: _pool(x, s, -jnp.inf, lax.max),
    "avg_pool": _avg_pool,
    "adaptive_avg_pool": _adaptive,
    "upsample": _upsample,
    "pixel_shuffle": _pixel_shuffle,
    "zero_pad": _padded("constant"),
    "constant_pad": _padded("constant"),
    "reflection_pad": _padded("reflect"),
    "replication_pad": _padded("edge"),
    "instance_norm": _instance_norm,
    "group_norm": _group_norm,
    "layer_norm": _layer_norm,
}  # fmt: skip
"""Type -> function of the input, the settings and the number of axes of one sample, for layers
without weights."""
