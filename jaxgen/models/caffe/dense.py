"""Caffe's layers with matrices and per-channel numbers: inner products, LSTM, norms."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jaxgen.core.errors import InputError
from jaxgen.core.types import Array
from jaxgen.models.caffe.base import Layer, axis_of, from_caffe, register, to_caffe, whole_axis

__all__ = [
    "LSTM",
    "MVN",
    "BatchNorm",
    "Embed",
    "FromImage",
    "InnerProduct",
    "Normalize",
    "PReLU",
    "Scale",
    "ToImage",
]


@register("InnerProduct")
class InnerProduct(Layer):
    """x @ kernel + bias over all axes from `axis` on; kernel (I, O), bias (O,).

    With `spatial` the bottom is an image and the kernel's rows are in the order of our
    (H, W, C), which the conversion has arranged; otherwise they are in Caffe's order.
    """

    parameters = ("kernel", "bias")

    def __init__(self, axis: int = 1, spatial: bool = False):
        self.axis, self.spatial = int(axis), bool(spatial)

    def forward(self, x: Array) -> Array:
        """Compute the top for a batch of bottoms; the class says what it is."""
        axis = whole_axis(x.ndim, self.axis)
        if self.spatial and (x.ndim != 4 or axis != 1):
            raise InputError("bottom: expected an image, flattened from axis 1")
        kernel, bias = self.need("kernel", x), self.get("bias", x)
        x = x if self.spatial else to_caffe(x)
        lead = x.shape[:axis]
        x = x.reshape(-1, _product(x.shape[axis:]))
        if x.shape[1] != kernel.shape[0]:
            raise InputError(f"bottom: expected {kernel.shape[0]} numbers; got {x.shape[1]}")
        y = x @ kernel
        if bias is not None:
            y = y + bias[None, :]
        return from_caffe(y.reshape(*lead, kernel.shape[1]))


@register("Embed")
class Embed(Layer):
    """Row x of the kernel (classes, O) for every index x, plus a bias; adds an axis."""

    parameters = ("kernel", "bias")

    def forward(self, x: Array) -> Array:
        """Compute the top for a batch of bottoms; the class says what it is."""
        kernel = self.need("kernel", jnp.zeros((), jnp.result_type(float)))
        indices = to_caffe(x).astype(jnp.int32)
        # Out of range is data at this point, not an error: NaN cannot be overlooked.
        y = jnp.take(kernel, indices, axis=0, mode="fill", fill_value=jnp.nan)
        bias = self.get("bias", kernel)
        if bias is not None:
            y = y + bias.reshape((1,) * indices.ndim + (-1,))
        return from_caffe(y)


@register("LSTM")
class LSTM(Layer):
    """Caffe's LSTM over (T, N, D), as in LRCN (Donahue et al., 2015).

    With h and c of the step before, zero at the start, and the continuation mark r_t
    (0 starts a new sequence):

        [i, f, o, g] = W_x x_t + W_s s + b + W_h (r_t h)
        c = r_t sigmoid(f) c + sigmoid(i) tanh(g),   h = sigmoid(o) tanh(c)

    Bottoms: x (T, N, D...), r (T, N) and optionally the static input s (N, E...). Caffe
    carries the state from one call to the next; here every call starts afresh, so give it
    whole sequences. Kernels are (inputs, 4 H).
    """

    arity = (2, 3)
    parameters = ("kernel", "bias", "static_kernel", "recurrent_kernel")

    def forward(self, x: Array, marks: Array, static: Array | None = None) -> Array:
        """Compute the top for a batch of bottoms; the class says what it is."""
        x = to_caffe(x)
        if x.ndim < 3 or marks.shape != x.shape[:2]:
            wanted = "(T, N, D) and marks (T, N)"
            raise InputError(f"bottoms: expected {wanted}; got {x.shape} and {marks.shape}")
        steps, batch = x.shape[:2]
        recurrent = self.need("recurrent_kernel", x)
        hidden = recurrent.shape[0]
        gates = x.reshape(steps, batch, -1) @ self.need("kernel", x)
        gates = gates + self.need("bias", x)[None, None, :]
        if static is not None:
            flat = to_caffe(static).reshape(batch, -1)
            gates = gates + (flat @ self.need("static_kernel", x))[None]

        def step(state: tuple[Array, Array], now: tuple[Array, Array]):
            (h, c), (gate, mark) = state, now
            mark = mark[:, None]
            i, f, o, g = jnp.split(gate + (mark * h) @ recurrent, 4, axis=1)
            c = mark * jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zero = jnp.zeros((batch, hidden), gates.dtype)
        _, outputs = lax.scan(step, (zero, zero), (gates, marks.astype(gates.dtype)))
        return outputs


@register("BatchNorm")
class BatchNorm(Layer):
    """(x - mean) / sqrt(variance + eps) by running statistics (C,), Caffe's factor folded."""

    parameters = ("mean", "variance")

    def __init__(self, eps: float = 1e-5):
        self.eps = float(eps)

    def forward(self, x: Array) -> Array:
        """Compute the top for a batch of bottoms; the class says what it is."""
        mean, variance = self.need("mean", x), self.need("variance", x)
        scale = lax.rsqrt(variance + self.eps)
        return (x - _along(mean, x, 1)) * _along(scale, x, 1)


@register("Scale", "Bias")
class Scale(Layer):
    """scale * x + bias, each a parameter or (scale, or bias alone) the second bottom.

    The array covers axes `axis`, `axis` + 1, ... of the first bottom, as many as it has.
    """

    arity = (1, 2)
    parameters = ("scale", "bias")

    def __init__(self, axis: int = 1, additive: bool = False):
        self.axis, self.additive = int(axis), bool(additive)

    def forward(self, x: Array, other: Array | None = None) -> Array:
        """Compute the top for a batch of bottoms; the class says what it is."""
        scale, bias = self.get("scale", x), self.get("bias", x)
        if other is not None:
            other = to_caffe(other)
            scale, bias = (scale, other) if self.additive else (other, bias)
        if scale is not None:
            x = x * _along(scale, x, self.axis)
        return x if bias is None else x + _along(bias, x, self.axis)


@register("PReLU")
class PReLU(Layer):
    """x above zero, slope * x below, with a slope for each channel or one for all."""

    parameters = ("slope",)

    def forward(self, x: Array) -> Array:
        """Compute the top for a batch of bottoms; the class says what it is."""
        slope = self.need("slope", x)
        slope = slope.reshape((1,) * x.ndim) if slope.size == 1 else _along(slope, x, 1)
        return jnp.where(x > 0, x, slope * x)


@register("Normalize")
class Normalize(Layer):
    """scale * x / sqrt(sum of x^2 + eps), over channels or the whole sample (ParseNet)."""

    parameters = ("scale",)

    def __init__(self, across_spatial: bool = True, eps: float = 1e-10):
        self.across_spatial, self.eps = bool(across_spatial), float(eps)

    def forward(self, x: Array) -> Array:
        """Compute the top for a batch of bottoms; the class says what it is."""
        axes = tuple(range(1, x.ndim)) if self.across_spatial else (axis_of(x.ndim, 1),)
        y = x * lax.rsqrt(jnp.sum(x * x, axes, keepdims=True) + self.eps)
        scale = self.need("scale", x)
        return y * (scale.reshape((1,) * x.ndim) if scale.size == 1 else _along(scale, x, 1))


@register("MVN")
class MVN(Layer):
    """(x - mean) / (standard deviation + eps) of each channel, or of the whole sample."""

    def __init__(self, across_channels: bool = False, variance: bool = True, eps: float = 1e-9):
        self.across_channels, self.variance = bool(across_channels), bool(variance)
        self.eps = float(eps)

    def forward(self, x: Array) -> Array:
        """Compute the top for a batch of bottoms; the class says what it is."""
        first = 1 if self.across_channels else 2
        axes = tuple(axis_of(x.ndim, a) for a in range(first, x.ndim))
        y = x - x.mean(axes, keepdims=True)
        if not self.variance:
            return y
        return y / (jnp.sqrt(jnp.mean(y * y, axes, keepdims=True)) + self.eps)


@register("FromImage")
class FromImage(Layer):
    """An RGB (or grey) image in [0, 1] as the network wants it: scale * (255 x - mean).

    `swap` makes it BGR first. The mean is (C,) or (H, W, C), in the network's order. Of an
    image larger than `size` (H, W) the middle is taken, from row (height - H) // 2 on, as
    Caffe does at test time.
    """

    parameters = ("mean",)

    def __init__(self, scale: float = 1.0, swap: bool = False, size: Sequence[int] | None = None):
        self.scale, self.swap = float(scale), bool(swap)
        self.size = None if size is None else (int(size[0]), int(size[1]))

    def forward(self, x: Array) -> Array:
        """Compute the top for a batch of bottoms; the class says what it is."""
        if self.size is not None:
            top, left = ((n - m) // 2 for n, m in zip(x.shape[1:3], self.size, strict=True))
            if top < 0 or left < 0:
                wanted = f"at least {self.size[0]} x {self.size[1]} pixels"
                raise InputError(f"image: expected {wanted}; got {x.shape[1]} x {x.shape[2]}")
            x = x[:, top : top + self.size[0], left : left + self.size[1]]
        x = 255.0 * (x[..., ::-1] if self.swap else x)
        mean = self.get("mean", x)
        if mean is not None:
            x = x - mean.reshape((1,) * (4 - mean.ndim) + mean.shape)
        return self.scale * x


@register("ToImage")
class ToImage(FromImage):
    """The inverse of `FromImage`: what a generator draws, as RGB; [0, 1] is not enforced."""

    def forward(self, x: Array) -> Array:
        """Compute the top for a batch of bottoms; the class says what it is."""
        x = x / self.scale
        mean = self.get("mean", x)
        if mean is not None:
            x = x + mean.reshape((1,) * (4 - mean.ndim) + mean.shape)
        x = x / 255.0
        return x[..., ::-1] if self.swap else x


def _along(array: Array, x: Array, axis: int) -> Array:
    """Return an array over Caffe's axes `axis`, ... of x, shaped to broadcast against x."""
    axis = whole_axis(x.ndim, axis) if array.ndim else 0
    shape = to_caffe(x).shape[axis : axis + array.ndim]
    if axis + array.ndim > x.ndim or array.shape != shape:
        raise InputError(f"bottom: expected {array.shape} from axis {axis} on; got {shape}")
    full = array.reshape((1,) * axis + array.shape + (1,) * (x.ndim - axis - array.ndim))
    return from_caffe(full)


def _product(lengths: tuple[int, ...]) -> int:
    total = 1
    for length in lengths:
        total *= length
    return total
