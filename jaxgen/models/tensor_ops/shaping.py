"""Operators that arrange numbers anew and compute nothing.

The converter works out every shape for one sample, so all configurations are plain numbers:
a `Reshape` knows its result, a `Slice` its ends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import InputError
from jaxgen.core.types import Array
from jaxgen.models.caffe.description import MOST_ELEMENTS
from jaxgen.models.tensor_ops.base import (
    MOST_AXES,
    MOST_OPERANDS,
    Operator,
    axis_of,
    from_caffe,
    integers,
    register,
    to_caffe,
    whole_axis,
)
from jaxgen.models.tensor_ops.pointwise import _number

__all__: list[str] = []


def _shape(name: str, values: Sequence[int]) -> tuple[int, ...]:
    shape = integers(name, values, 0)
    if len(shape) > MOST_AXES or math.prod(shape) > MOST_ELEMENTS:
        raise InputError(f"{name}: expected at most {MOST_ELEMENTS} numbers; got {shape}")
    return shape


@register("Reshape")
class Reshape(Operator):
    """The same numbers, in the file's order, in another shape."""

    def configure(self, shape: Sequence[int]) -> None:
        self.shape = _shape("shape", shape)

    def compute(self, x: Array) -> Array:
        if math.prod(self.shape) != x.size:
            raise InputError(f"shape: expected {x.size} numbers; got {self.shape}")
        return from_caffe(to_caffe(x).reshape(self.shape))


@register("Transpose")
class Transpose(Operator):
    """Axis i of the result is axis `order[i]` of the operand."""

    def configure(self, order: Sequence[int]) -> None:
        self.order = integers("order", order, 0, MOST_AXES)

    def compute(self, x: Array) -> Array:
        if sorted(self.order) != list(range(x.ndim)):
            raise InputError(f"order: expected one of {x.ndim} axes; got {self.order}")
        return from_caffe(to_caffe(x).transpose(self.order))


@register("Expand")
class Expand(Operator):
    """Axes of length one, or missing in front, repeated to fill a shape."""

    def configure(self, shape: Sequence[int]) -> None:
        self.shape = _shape("shape", shape)

    def compute(self, x: Array) -> Array:
        whole = to_caffe(x)
        shape = np.broadcast_shapes(whole.shape, self.shape)
        whole = whole.reshape((1,) * (len(shape) - whole.ndim) + whole.shape)
        return from_caffe(jnp.broadcast_to(whole, shape))


@register("Tile")
class Tile(Operator):
    """The whole tensor repeated along each axis."""

    def configure(self, repeats: Sequence[int]) -> None:
        self.repeats = integers("repeats", repeats, 0, 1 << 20)

    def compute(self, x: Array) -> Array:
        whole = to_caffe(x)
        if len(self.repeats) != whole.ndim:
            raise InputError(f"repeats: expected {whole.ndim}; got {self.repeats}")
        if x.size * math.prod(self.repeats) > MOST_ELEMENTS:
            raise InputError(f"repeats: expected at most {MOST_ELEMENTS} numbers in the result")
        return from_caffe(jnp.tile(whole, self.repeats))


@register("Concat")
class Concat(Operator):
    """The operands one after the other along one axis."""

    operands = (1, MOST_OPERANDS)

    def configure(self, axis: int) -> None:
        (self.axis,) = integers("axis", [axis], -MOST_AXES, MOST_AXES)

    def compute(self, *xs: Array) -> Array:
        if len({x.ndim for x in xs}) > 1:
            raise InputError("operands: expected equal numbers of axes")
        return jnp.concatenate(xs, axis_of(xs[0].ndim, self.axis))


@register("Split")
class Split(Operator):
    """Parts of given lengths along one axis."""

    def configure(self, axis: int, lengths: Sequence[int]) -> None:
        (self.axis,) = integers("axis", [axis], -MOST_AXES, MOST_AXES)
        self.lengths = integers("lengths", lengths, 0)

    def compute(self, x: Array) -> tuple[Array, ...]:
        axis = axis_of(x.ndim, self.axis)
        if sum(self.lengths) != x.shape[axis]:
            raise InputError(f"lengths: expected a sum of {x.shape[axis]}; got {self.lengths}")
        ends = np.cumsum(self.lengths)[:-1].tolist()
        return tuple(jnp.split(x, ends, axis))


@register("Slice")
class Slice(Operator):
    """From `starts` on `lengths` numbers along each axis, by steps that may be negative."""

    def configure(
        self, starts: Sequence[int], lengths: Sequence[int], steps: Sequence[int]
    ) -> None:
        self.starts, self.lengths = integers("starts", starts, 0), integers("lengths", lengths, 0)
        self.steps = integers("steps", steps, -(1 << 30), 1 << 30)
        if not len(self.starts) == len(self.lengths) == len(self.steps) or 0 in self.steps:
            raise InputError("starts, lengths, steps: expected one of each for every axis")

    def compute(self, x: Array) -> Array:
        if len(self.starts) != x.ndim:
            raise InputError(f"starts: expected {x.ndim}; got {len(self.starts)}")
        cut: list[Any] = [slice(None)] * x.ndim
        for i, (start, length, step) in enumerate(
            zip(self.starts, self.lengths, self.steps, strict=True)
        ):
            axis = axis_of(x.ndim, i)
            last = start + (length - 1) * step
            if length and not (start < x.shape[axis] and 0 <= last < x.shape[axis]):
                raise InputError(f"axis {i}: {start} to {last} lies outside {x.shape[axis]}")
            stop = last + (1 if step > 0 else -1)
            cut[axis] = slice(start, stop if length and stop >= 0 else None if length else start,
                              step)  # fmt: skip
        return x[tuple(cut)]


@register("Gather")
class Gather(Operator):
    """Take the entries at indices along one axis; the indices' shape replaces the axis.

    With `indices` in the configuration the one operand is the tensor; else the second
    operand holds them. Those below zero count from the end.
    """

    operands = (1, 2)

    def configure(
        self, axis: int = 0, indices: Sequence[int] | None = None, shape: Sequence[int] = ()
    ) -> None:
        (self.axis,) = integers("axis", [axis], -MOST_AXES, MOST_AXES)
        self.indices = None if indices is None else integers("indices", indices, -(1 << 31))
        self.shape = _shape("shape", shape)
        if indices is not None and math.prod(self.shape) != len(indices):
            raise InputError(f"shape: expected {len(indices)} indices; got {self.shape}")

    def compute(self, x: Array, *rest: Array) -> Array:
        whole = to_caffe(x)
        axis = whole_axis(whole.ndim, self.axis)
        length = whole.shape[axis]
        if self.indices is None:
            (found,) = rest
            index = to_caffe(found).astype(jnp.int32)
            index = jnp.where(index < 0, index + length, index)
            return from_caffe(jnp.take(whole, index, axis, mode="clip"))
        if rest:
            raise InputError("operands: expected 1 where the indices are constants; got 2")
        chosen = np.asarray(self.indices, np.int64).reshape(self.shape)
        if chosen.size and not (-length <= chosen.min() and chosen.max() < length):
            raise InputError(f"indices: expected {-length} to {length - 1}; got {chosen.max()}")
        return from_caffe(jnp.take(whole, chosen % max(length, 1), axis))


@register("Pad")
class Pad(Operator):
    """More numbers before and after along each axis, or fewer where a count is negative."""

    def configure(
        self, before: Sequence[int], after: Sequence[int], mode: str = "constant",
        value: float = 0.0,
    ) -> None:  # fmt: skip
        bound = 1 << 20
        self.before = integers("before", before, -bound, bound)
        self.after = integers("after", after, -bound, bound)
        if mode not in ("constant", "reflect", "edge", "wrap", "symmetric"):
            wanted = "constant, reflect, edge, wrap or symmetric"
            raise InputError(f"mode: expected {wanted}; got {mode!r}")
        self.mode, self.value = mode, _number("value", value)

    def compute(self, x: Array) -> Array:
        whole = to_caffe(x)
        if not len(self.before) == len(self.after) == whole.ndim:
            raise InputError(f"before, after: expected {whole.ndim} counts of each")
        pads = list(zip(self.before, self.after, strict=True))
        longer = [
            n + max(lo, 0) + max(hi, 0) for n, (lo, hi) in zip(whole.shape, pads, strict=True)
        ]
        if math.prod(longer) > MOST_ELEMENTS:
            raise InputError(f"before, after: expected at most {MOST_ELEMENTS} numbers")
        ends = [
            (max(-lo, 0), n - max(-hi, 0)) for n, (lo, hi) in zip(whole.shape, pads, strict=True)
        ]
        if any(a > b for a, b in ends):
            raise InputError("before, after: cut off more than there is")
        # In our order of axes, so that images are not transposed and back.
        place = [axis_of(x.ndim, a) for a in range(x.ndim)]
        cut: list[Any] = [slice(None)] * x.ndim
        around = [(0, 0)] * x.ndim
        for axis, (lo, hi), (first, last) in zip(place, pads, ends, strict=True):
            cut[axis] = slice(first, last)
            around[axis] = (max(lo, 0), max(hi, 0))
        x = x[tuple(cut)]
        if self.mode != "constant":
            return jnp.pad(x, around, mode=self.mode)
        return jnp.pad(x, around, constant_values=self.value)


@register("DepthToSpace", "SpaceToDepth")
class DepthToSpace(Operator):
    """Blocks of `size` x `size` pixels from channels, or back (`inverse`).

    Channel (a * size + b) * C + c is pixel (a, b) of a block, "DCR", or with `columns`
    c * size^2 + a * size + b, "CRD", which is PyTorch's PixelShuffle.
    """

    def configure(self, size: int, columns: bool = False, inverse: bool = False) -> None:
        (self.size,) = integers("size", [size], 1, 1 << 12)
        self.columns, self.inverse = bool(columns), bool(inverse)

    def compute(self, x: Array) -> Array:
        if x.ndim != 4:
            raise InputError(f"operand: expected (N, C, H, W); got {x.ndim} axes")
        n, h, w, c = x.shape
        s = self.size
        if self.inverse:
            if h % s or w % s:
                raise InputError(f"size: expected a divisor of {h} and {w}; got {s}")
            blocks = x.reshape(n, h // s, s, w // s, s, c)
            order = (0, 1, 3, 5, 2, 4) if self.columns else (0, 1, 3, 2, 4, 5)
            return blocks.transpose(order).reshape(n, h // s, w // s, s * s * c)
        if c % (s * s):
            raise InputError(f"size: expected s with s^2 dividing {c} channels; got {s}")
        if self.columns:
            blocks = x.reshape(n, h, w, c // (s * s), s, s).transpose(0, 1, 4, 2, 5, 3)
        else:
            blocks = x.reshape(n, h, w, s, s, c // (s * s)).transpose(0, 1, 3, 2, 4, 5)
        return blocks.reshape(n, h * s, w * s, c // (s * s))
