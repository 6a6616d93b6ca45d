"""Normalisations, softmax and reductions.

BatchNormalization is `Affine`: at inference it is one scale and one shift for each channel,
which the converter computes from its four arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxgen.core.errors import InputError
from jaxgen.core.types import Array
from jaxgen.models.tensor_ops.base import (
    MOST_AXES,
    Operator,
    aligned,
    axes_of,
    axis_of,
    from_caffe,
    integers,
    register,
    to_caffe,
)
from jaxgen.models.tensor_ops.pointwise import _number

__all__: list[str] = []


@register("Normalization")
class Normalization(Operator):
    """(x - mean) / sqrt(variance + epsilon) over given axes; without `centre`, x / rms.

    Instance and layer normalisation, and OpenVINO's MVN. `outside` adds epsilon to the
    deviation rather than to the variance.
    """

    def configure(
        self,
        axes: Sequence[int],
        epsilon: float = 1e-5,
        centre: bool = True,
        scale: bool = True,
        outside: bool = False,
    ) -> None:
        self.axes = integers("axes", axes, -MOST_AXES, MOST_AXES)
        self.epsilon, self.outside = _number("epsilon", epsilon), bool(outside)
        self.centre, self.scale = bool(centre), bool(scale)

    def compute(self, x: Array) -> Array:
        axes = axes_of(x, self.axes)
        if self.centre:
            x = x - jnp.mean(x, axes, keepdims=True)
        if not self.scale:
            return x
        power = jnp.mean(x * x, axes, keepdims=True)
        if self.outside:
            return x / (jnp.sqrt(power) + self.epsilon)
        return x * jax.lax.rsqrt(power + self.epsilon)


@register("GroupNormalization")
class GroupNormalization(Operator):
    """Every group of channels of a sample less its mean, over its standard deviation."""

    def configure(self, groups: int, epsilon: float = 1e-5) -> None:
        (self.groups,) = integers("groups", [groups], 1, 1 << 20)
        self.epsilon = _number("epsilon", epsilon)

    def compute(self, x: Array) -> Array:
        whole = to_caffe(x)
        if whole.ndim < 3 or whole.shape[1] % self.groups:
            raise InputError(f"groups: expected a divisor of the channels; got {self.groups}")
        rows = whole.reshape(whole.shape[0], self.groups, -1)
        rows = rows - jnp.mean(rows, 2, keepdims=True)
        variance = jnp.mean(rows * rows, 2, keepdims=True)
        rows = rows * jax.lax.rsqrt(variance + self.epsilon)
        return from_caffe(rows.reshape(whole.shape))


@register("LpNormalization")
class LpNormalization(Operator):
    """x over its norm along axes: sqrt(sum x^2 + epsilon), its maximum with it, or sum |x|."""

    def configure(
        self, axes: Sequence[int], p: int = 2, epsilon: float = 0.0, maximum: bool = False
    ) -> None:
        self.axes = integers("axes", axes, -MOST_AXES, MOST_AXES)
        self.epsilon, self.maximum = _number("epsilon", epsilon), bool(maximum)
        if p not in (1, 2):
            raise InputError(f"p: expected 1 or 2; got {p!r}")
        self.p = p

    def compute(self, x: Array) -> Array:
        axes = axes_of(x, self.axes)
        if self.p == 1:
            return x / jnp.sum(jnp.abs(x), axes, keepdims=True)
        power = jnp.sum(x * x, axes, keepdims=True)
        power = jnp.maximum(power, self.epsilon) if self.maximum else power + self.epsilon
        return x / jnp.sqrt(power)


@register("LRN")
class LRN(Operator):
    """x / (bias + alpha / size * sum of x^2 over `size` neighbouring channels)^beta."""

    def configure(self, size: int, alpha: float, beta: float, bias: float) -> None:
        (self.size,) = integers("size", [size], 1, 1 << 12)
        self.alpha, self.beta = _number("alpha", alpha), _number("beta", beta)
        self.bias = _number("bias", bias)

    def compute(self, x: Array) -> Array:
        axis = axis_of(x.ndim, 1)
        before = (self.size - 1) // 2
        pads = [(before, self.size - 1 - before) if a == axis else (0, 0) for a in range(x.ndim)]
        window = tuple(self.size if a == axis else 1 for a in range(x.ndim))
        total = jax.lax.reduce_window(x * x, 0.0, jax.lax.add, window, (1,) * x.ndim, pads)
        return x / (self.bias + self.alpha / self.size * total) ** self.beta


@register("Softmax")
class Softmax(Operator):
    """exp(x) / sum exp(x) along axes, or its logarithm."""

    def configure(self, axes: Sequence[int] = (-1,), log: bool = False) -> None:
        self.axes, self.log = integers("axes", axes, -MOST_AXES, MOST_AXES), bool(log)

    def compute(self, x: Array) -> Array:
        return (jax.nn.log_softmax if self.log else jax.nn.softmax)(x, axes_of(x, self.axes))


def _l2(x: Array, axes: tuple[int, ...], keepdims: bool) -> Array:
    return jnp.sqrt(jnp.sum(x * x, axes, keepdims=keepdims))


_REDUCTIONS: dict[str, Callable[..., Array]] = {
    "ReduceMean": jnp.mean,
    "ReduceSum": jnp.sum,
    "ReduceMax": jnp.max,
    "ReduceMin": jnp.min,
    "ReduceProd": jnp.prod,
    "ReduceL1": lambda x, axes, keepdims: jnp.sum(jnp.abs(x), axes, keepdims=keepdims),
    "ReduceL2": _l2,
    "ReduceSumSquare": lambda x, axes, keepdims: jnp.sum(x * x, axes, keepdims=keepdims),
    "ReduceLogSum": lambda x, axes, keepdims: jnp.log(jnp.sum(x, axes, keepdims=keepdims)),
    "ReduceLogSumExp": lambda x, axes, keepdims: jax.nn.logsumexp(x, axes, keepdims=keepdims),
}


@register(*_REDUCTIONS)
class Reduce(Operator):
    """One number for all that differ in the given axes only."""

    def configure(self, method: str, axes: Sequence[int], keep: bool = True) -> None:
        if method not in _REDUCTIONS:
            raise InputError(f"method: expected one of {', '.join(_REDUCTIONS)}; got {method!r}")
        self.method, self.keep = method, bool(keep)
        self.axes = integers("axes", axes, -MOST_AXES, MOST_AXES)

    def compute(self, x: Array) -> Array:
        reduced = _REDUCTIONS[self.method](x, axes_of(x, self.axes), keepdims=True)
        if self.keep:
            return reduced
        whole = to_caffe(reduced)
        gone = {axis % x.ndim for axis in self.axes}
        return from_caffe(whole.reshape([n for a, n in enumerate(whole.shape) if a not in gone]))


@register("ArgMax", "ArgMin")
class ArgMax(Operator):
    """The position of the largest number along an axis (of the smallest, if so configured)."""

    def configure(self, axis: int = 0, keep: bool = True, smallest: bool = False) -> None:
        (self.axis,) = integers("axis", [axis], -MOST_AXES, MOST_AXES)
        self.keep, self.smallest = bool(keep), bool(smallest)

    def compute(self, x: Array) -> Array:
        whole = to_caffe(x)
        find = jnp.argmin if self.smallest else jnp.argmax
        return from_caffe(find(whole, self.axis, keepdims=self.keep).astype(x.dtype))


@register("Scaled")
class Scaled(Operator):
    """x * scale (+ shift), the constants broadcast against x: after a normalisation."""

    operands = (2, 3)

    def compute(self, x: Array, scale: Array, *shift: Array) -> Array:
        x, scale, *rest = aligned(x, scale, *shift)
        return x * scale + rest[0] if rest else x * scale
