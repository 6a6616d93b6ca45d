"""What the operators of a tensor graph have in common.

An operator sees whole tensors of one sample, N = 1, with the axes numbered as in the file.
Tensors of four axes are held as (N, H, W, C), as everywhere in jaxgen; all others in the
file's order. `to_caffe` and `from_caffe` translate.

Operands that are constants in the file are arrays of the layer: operand i is `input{i}`, in
the file's order of axes, and the list `constants` says which those are. An operator's
`compute` gets all operands in order and need not know which of them are constants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import jax.numpy as jnp

from jaxgen.core.errors import InputError
from jaxgen.core.types import Array
from jaxgen.models.caffe.base import Layer, axis_of, from_caffe, to_caffe, whole_axis

__all__ = [
    "MOST_AXES",
    "MOST_OPERANDS",
    "OPERATORS",
    "Operator",
    "aligned",
    "axes_of",
    "axis_of",
    "from_caffe",
    "integers",
    "register",
    "to_caffe",
    "whole_axis",
]

OPERATORS: dict[str, type[Operator]] = {}
MOST_AXES = 8
MOST_OPERANDS = 64
_LARGEST = 1 << 31

O = TypeVar("O", bound="type[Operator]")  # noqa: E741


class Operator(Layer):
    """An operator whose constant operands are arrays of its own.

    Args:
      constants: the positions of the operands that are constants.
      config: what the operator's `configure` takes.
    """

    arity: ClassVar[tuple[int, int | None]] = (0, MOST_OPERANDS)
    operands: ClassVar[tuple[int, int]] = (1, 1)
    parameters: ClassVar[tuple[str, ...]] = tuple(f"input{i}" for i in range(MOST_OPERANDS))

    def __init__(self, constants: Sequence[int] = (), **config: Any):
        self.constants = integers("constants", constants, 0, MOST_OPERANDS - 1)
        if len(set(self.constants)) != len(self.constants):
            raise InputError(f"constants: expected different positions; got {self.constants}")
        self.configure(**config)

    # `Any` twice is how a type checker is told that each operator has arguments of its own.
    def configure(self, *none: Any, **config: Any) -> None:
        """Take the operator's configuration, which may come from a hostile file."""

    def compute(self, *operands: Any, **none: Any) -> Array | tuple[Array, ...]:
        """Compute the result of all operands, which come in the file's order."""
        raise NotImplementedError

    def forward(self, *bottoms: Any, **none: Any) -> Array | tuple[Array, ...]:
        """Put the constants between the bottoms and compute."""
        count = len(bottoms) + len(self.constants)
        least, most = self.operands
        if not least <= count <= most or any(i >= count for i in self.constants):
            raise InputError(f"operands: expected {least} to {most}; got {count}")
        values = iter(bottoms)
        like = bottoms[0] if bottoms else jnp.zeros((), jnp.result_type(float))
        return self.compute(
            *(
                from_caffe(self.need(f"input{i}", like)) if i in self.constants else next(values)
                for i in range(count)
            )
        )


def register(*names: str) -> Callable[[O], O]:
    """Make a class the implementation of operators."""

    def add(cls: O) -> O:
        OPERATORS.update(dict.fromkeys(names, cls))
        return cls

    return add


def integers(name: str, values: Sequence[int], least: int, most: int = _LARGEST) -> tuple[int, ...]:
    """Return a list of whole numbers between bounds, as a tuple."""
    if not isinstance(values, (list, tuple)) or not all(
        type(v) is int and least <= v <= most for v in values
    ):
        raise InputError(f"{name}: expected whole numbers from {least} to {most}; got {values!r}")
    return tuple(values)


def aligned(*xs: Array) -> tuple[Array, ...]:
    """Tensors with as many axes as the longest, by leading axes of length one.

    In NumPy's broadcasting axes are matched from the last, which for us is not the file's
    last: a (C, 1, 1) constant meets the channels of (N, C, H, W).
    """
    rank = max(x.ndim for x in xs)
    if rank < 4:
        return tuple(x.reshape((1,) * (rank - x.ndim) + x.shape) for x in xs)
    out = []
    for x in xs:
        if x.ndim < rank:
            whole = to_caffe(x)
            x = whole.reshape((1,) * (rank - whole.ndim) + whole.shape)
            x = from_caffe(x)
        out.append(x)
    return tuple(out)


def axes_of(x: Array, axes: Sequence[int] | None) -> tuple[int, ...]:
    """Return where axes of the file's order lie in our tensor; all of them for None."""
    if axes is None:
        return tuple(range(x.ndim))
    found = tuple(axis_of(x.ndim, axis) for axis in axes)
    if len(set(found)) != len(found):
        raise InputError(f"axes: expected different axes; got {tuple(axes)}")
    return found
