"""Caffe's pointwise layers and those that combine, cut and reshape blobs.

Where Caffe's formula is less than obvious the layer states it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxgen.core.errors import InputError
from jaxgen.core.types import Array
from jaxgen.models.caffe.base import Layer, axis_of, from_caffe, register, to_caffe, whole_axis

__all__: list[str] = []


class _Pointwise(Layer):
    """A function of each number."""

    function: ClassVar[Callable[[Array], Array]]

    def forward(self, x: Array) -> Array:
        return type(self).function(x)


def _pointwise(name: str, function: Callable[[Array], Array]) -> None:
    register(name)(type(name, (_Pointwise,), {"function": staticmethod(function)}))


_pointwise("AbsVal", jnp.abs)
_pointwise("BNLL", jax.nn.softplus)
_pointwise("Sigmoid", jax.nn.sigmoid)
_pointwise("TanH", jnp.tanh)
# At test time a dropout layer does nothing.
_pointwise("Dropout", lambda x: x)


@register("ReLU")
class ReLU(Layer):
    """max(x, 0) + slope * min(x, 0)."""

    def __init__(self, slope: float = 0.0):
        self.slope = float(slope)

    def forward(self, x: Array) -> Array:
        return jax.nn.relu(x) if self.slope == 0.0 else jnp.where(x > 0, x, self.slope * x)


@register("ELU")
class ELU(Layer):
    """x above zero, alpha * (exp(x) - 1) below."""

    def __init__(self, alpha: float = 1.0):
        self.alpha = float(alpha)

    def forward(self, x: Array) -> Array:
        return jax.nn.elu(x, self.alpha)


@register("Swish")
class Swish(Layer):
    """x * sigmoid(beta * x)."""

    def __init__(self, beta: float = 1.0):
        self.beta = float(beta)

    def forward(self, x: Array) -> Array:
        return x * jax.nn.sigmoid(self.beta * x)


@register("Clip")
class Clip(Layer):
    """min(max(x, low), high)."""

    def __init__(self, low: float, high: float):
        self.low, self.high = float(low), float(high)

    def forward(self, x: Array) -> Array:
        return jnp.clip(x, self.low, self.high)


@register("Threshold")
class Threshold(Layer):
    """1 where x > threshold, else 0."""

    def __init__(self, threshold: float = 0.0):
        self.threshold = float(threshold)

    def forward(self, x: Array) -> Array:
        return (x > self.threshold).astype(x.dtype)


@register("Power", "Exp", "Log")
class Affine(Layer):
    """A function of u = shift + scale * x: u^power, base^u or log_base(u); base -1 is e."""

    def __init__(
        self,
        function: str,
        scale: float = 1.0,
        shift: float = 0.0,
        power: float = 1.0,
        log_base: float = 1.0,
    ):
        if function not in ("power", "exp", "log"):
            raise InputError(f"function: expected power, exp or log; got {function!r}")
        self.function, self.power, self.log_base = function, float(power), float(log_base)
        self.scale, self.shift = float(scale), float(shift)

    def forward(self, x: Array) -> Array:
        u = self.shift + self.scale * x
        if self.function == "exp":
            return jnp.exp(self.log_base * u)
        if self.function == "log":
            return jnp.log(u) / self.log_base
        # Integer powers keep their gradient at zero, where exp(p log u) has none.
        return u ** (int(self.power) if self.power.is_integer() else self.power)


@register("Softmax")
class Softmax(Layer):
    """exp(x) / sum(exp(x)) along one axis."""

    def __init__(self, axis: int = 1):
        self.axis = int(axis)

    def forward(self, x: Array) -> Array:
        return jax.nn.softmax(x, axis=axis_of(x.ndim, self.axis))


@register("Eltwise")
class Eltwise(Layer):
    """Product, weighted sum or maximum of equal shapes."""

    arity = (2, None)

    def __init__(self, operation: str, coefficients: Sequence[float] = ()):
        if operation not in ("PROD", "SUM", "MAX"):
            raise InputError(f"operation: expected PROD, SUM or MAX; got {operation!r}")
        self.operation, self.coefficients = operation, tuple(float(c) for c in coefficients)

    def forward(self, *bottoms: Array) -> Array:
        if len({x.shape for x in bottoms}) > 1:
            shapes = ", ".join(str(to_caffe(x).shape) for x in bottoms)
            raise InputError(f"bottoms: expected equal shapes; got {shapes}")
        if self.coefficients and len(self.coefficients) != len(bottoms):
            raise InputError(f"coeff: expected one for each bottom; got {self.coefficients}")
        terms = bottoms
        if self.operation == "SUM" and self.coefficients:
            terms = tuple(c * x for c, x in zip(self.coefficients, bottoms, strict=True))
        combine = {"PROD": jnp.multiply, "SUM": jnp.add, "MAX": jnp.maximum}[self.operation]
        result = terms[0]
        for term in terms[1:]:
            result = combine(result, term)
        return result


@register("Concat")
class Concat(Layer):
    """The bottoms one after the other along one axis."""

    arity = (1, None)

    def __init__(self, axis: int = 1):
        self.axis = int(axis)

    def forward(self, *bottoms: Array) -> Array:
        if len({x.ndim for x in bottoms}) > 1:
            raise InputError("bottoms: expected equal numbers of axes")
        return jnp.concatenate(bottoms, axis_of(bottoms[0].ndim, self.axis))


@register("Slice")
class Slice(Layer):
    """The parts of the bottom between the points of one axis; equal parts without points."""

    def __init__(self, axis: int, points: Sequence[int], tops: int):
        self.axis, self.points, self.tops = int(axis), tuple(int(p) for p in points), int(tops)

    def forward(self, x: Array) -> tuple[Array, ...]:
        axis = axis_of(x.ndim, self.axis)
        length, points = x.shape[axis], self.points
        if not points:
            if length % self.tops:
                raise InputError(f"tops: expected a divisor of {length}; got {self.tops}")
            points = tuple(range(length // self.tops, length, length // self.tops))
        edges = (0, *points, length)
        if len(points) != self.tops - 1 or any(b <= a for a, b in itertools.pairwise(edges)):
            wanted = f"{self.tops - 1} increasing points inside 0 to {length}"
            raise InputError(f"slice_point: expected {wanted}; got {self.points}")
        return tuple(jnp.split(x, points, axis))


@register("Split")
class Split(Layer):
    """The bottom several times."""

    def __init__(self, tops: int):
        self.tops = int(tops)

    def forward(self, x: Array) -> tuple[Array, ...]:
        return (x,) * self.tops


@register("Flatten")
class Flatten(Layer):
    """Axes `axis` to `end_axis`, both included, as one, in Caffe's order of elements."""

    def __init__(self, axis: int = 1, end_axis: int = -1):
        self.axis, self.end_axis = int(axis), int(end_axis)

    def forward(self, x: Array) -> Array:
        x = to_caffe(x)
        first, last = whole_axis(x.ndim, self.axis), whole_axis(x.ndim, self.end_axis)
        if last < first:
            raise InputError(f"end_axis: expected at least {first}; got {last}")
        return from_caffe(x.reshape(*x.shape[:first], -1, *x.shape[last + 1 :]))


@register("Reshape")
class Reshape(Layer):
    """A new shape for `num_axes` axes from `axis` on: 0 keeps a length, -1 infers one."""

    def __init__(self, dims: Sequence[int], axis: int = 0, num_axes: int = -1):
        self.dims = tuple(int(d) for d in dims)
        self.axis, self.num_axes = int(axis), int(num_axes)
        if min(self.dims, default=0) < -1 or self.dims.count(-1) > 1:
            raise InputError(f"dim: expected 0, positive lengths and one -1; got {self.dims}")

    def forward(self, x: Array) -> Array:
        x = to_caffe(x)
        # Unlike elsewhere, -1 is the place after the last axis.
        start = self.axis if self.axis >= 0 else x.ndim + 1 + self.axis
        end = x.ndim if self.num_axes == -1 else start + self.num_axes
        if not 0 <= start <= end <= x.ndim:
            raise InputError(f"axis, num_axes: expected to lie inside {x.ndim} axes")
        dims = list(self.dims)
        for i, dim in enumerate(dims):
            if dim == 0:
                if start + i >= x.ndim:
                    raise InputError(f"dim: the 0 at position {i} copies an axis that is not there")
                dims[i] = x.shape[start + i]
        return from_caffe(x.reshape(*x.shape[:start], *dims, *x.shape[end:]))


@register("Permute")
class Permute(Layer):
    """The axes in another order; axes that are not named follow in theirs."""

    def __init__(self, order: Sequence[int]):
        self.order = tuple(int(a) for a in order)

    def forward(self, x: Array) -> Array:
        if len(set(self.order)) != len(self.order) or not set(self.order) <= set(range(x.ndim)):
            raise InputError(f"order: expected different axes below {x.ndim}; got {self.order}")
        rest = tuple(a for a in range(x.ndim) if a not in self.order)
        return from_caffe(to_caffe(x).transpose(*self.order, *rest))


@register("Tile")
class Tile(Layer):
    """The bottom repeated along one axis."""

    def __init__(self, axis: int, tiles: int):
        self.axis, self.tiles = int(axis), int(tiles)

    def forward(self, x: Array) -> Array:
        return jnp.concatenate([x] * self.tiles, axis_of(x.ndim, self.axis))


@register("Reduction")
class Reduction(Layer):
    """coeff * (sum, sum of absolute values, of squares, or mean) over `axis` and after."""

    def __init__(self, operation: str, axis: int = 0, coefficient: float = 1.0):
        if operation not in ("SUM", "ASUM", "SUMSQ", "MEAN"):
            raise InputError(f"operation: expected SUM, ASUM, SUMSQ or MEAN; got {operation!r}")
        self.operation, self.axis, self.coefficient = operation, int(axis), float(coefficient)

    def forward(self, x: Array) -> Array:
        x = to_caffe(x)
        axes = tuple(range(whole_axis(x.ndim, self.axis), x.ndim))
        if self.operation == "MEAN":
            return self.coefficient * x.mean(axes)
        terms = {"SUM": lambda v: v, "ASUM": jnp.abs, "SUMSQ": jnp.square}[self.operation](x)
        return self.coefficient * terms.sum(axes)


@register("ArgMax")
class ArgMax(Layer):
    """The indices, as floats, of the `top_k` largest numbers, and those numbers if wanted.

    Without an axis the sample is flattened in Caffe's order and the top is (N, 1 or 2, k).
    """

    def __init__(self, axis: int | None = None, top_k: int = 1, out_max_val: bool = False):
        self.axis = None if axis is None else int(axis)
        self.top_k, self.out_max_val = int(top_k), bool(out_max_val)

    def forward(self, x: Array) -> Array:
        x = to_caffe(x)
        if self.axis is not None:
            axis = whole_axis(x.ndim, self.axis)
            values, indices = self._top(jnp.moveaxis(x, axis, -1))
            return from_caffe(jnp.moveaxis(values if self.out_max_val else indices, -1, axis))
        values, indices = self._top(x.reshape(x.shape[0], -1))
        rows = [indices, values] if self.out_max_val else [indices]
        top = jnp.stack(rows, axis=1)
        return from_caffe(top.reshape(*top.shape, *(1,) * (x.ndim - 3)))

    def _top(self, x: Array) -> tuple[Array, Array]:
        if self.top_k > x.shape[-1]:
            raise InputError(f"top_k: expected at most {x.shape[-1]}; got {self.top_k}")
        values, indices = jax.lax.top_k(x, self.top_k)
        return values, indices.astype(x.dtype)
