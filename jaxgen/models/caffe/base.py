"""Caffe's layers as flax modules: what they have in common.

A layer is called on ONE sample: images are `[H, W, C]`, vectors `[D]`. Caffe numbers the
axes of batches, though: axis 1 of (N, C, H, W) is the channel, and a sequence has its
batch second, (T, N, D). So `Layer.__call__` puts the batch axis back with length one,
`forward` works on the batch in Caffe's terms and the axis is removed again; XLA sees
reshapes only. Blobs of four axes are held as (N, H, W, C), all others in Caffe's order;
`axis_of` translates an axis, `to_caffe` and `from_caffe` a whole blob.

Source: Jia et al., 2014, "Caffe: Convolutional architecture for fast feature embedding".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import jax.numpy as jnp
from flax import nnx

from jaxgen.core.errors import InputError
from jaxgen.core.types import Array

__all__ = ["LAYERS", "Layer", "axis_of", "from_caffe", "register", "to_caffe", "whole_axis"]

LAYERS: dict[str, type[Layer]] = {}
_INTERNAL = {0: 0, 1: 3, 2: 1, 3: 2}

L = TypeVar("L", bound="type[Layer]")


class Layer(nnx.Module):
    """A Caffe layer.

    Attributes:
      batch_in: for each bottom the position of its batch axis in Caffe's order, or None.
      batch_out: the same for each top. Both are set by the graph, which infers them.
      arity: (fewest, most) bottoms; None for no upper limit.
      parameters: names of the arrays the layer may own.
    """

    arity: ClassVar[tuple[int, int | None]] = (1, 1)
    parameters: ClassVar[tuple[str, ...]] = ()
    batch_in: tuple[int | None, ...] = (0,)
    batch_out: tuple[int | None, ...] = (0,)

    # `Any` twice is how a type checker is told that each layer has bottoms of its own.
    def forward(self, *bottoms: Any, **none: Any) -> Array | tuple[Array, ...]:
        """Compute the tops of a batch, whose blobs of four axes are (N, H, W, C)."""
        raise NotImplementedError

    def __call__(self, *samples: Array) -> Array | tuple[Array, ...]:
        """Return the top for one sample; a tuple where the layer has several."""
        bottoms = [
            x if axis is None else jnp.expand_dims(x, axis_of(x.ndim + 1, axis))
            for x, axis in zip(samples, self.batch_in, strict=True)
        ]
        result = self.forward(*bottoms)
        tops = result if isinstance(result, tuple) else (result,)
        out = tuple(
            x if axis is None else jnp.squeeze(x, axis_of(x.ndim, axis))
            for x, axis in zip(tops, self.batch_out, strict=True)
        )
        return out if isinstance(result, tuple) else out[0]

    def set_parameters(self, arrays: dict[str, Any]) -> None:
        """Give the layer its arrays."""
        for name, value in arrays.items():
            kind = nnx.BatchStat if name in ("mean", "variance") else nnx.Param
            setattr(self, name, kind(value))

    def get(self, name: str, like: Array) -> Array | None:
        """One of the layer's arrays in the dtype of `like`, or None if it has none."""
        variable = getattr(self, name, None)
        return None if variable is None else variable[...].astype(like.dtype)

    def need(self, name: str, like: Array) -> Array:
        """One of the layer's arrays in the dtype of `like`."""
        value = self.get(name, like)
        if value is None:
            raise InputError(f"{type(self).__name__}: its {name} is missing")
        return value


def register(*names: str) -> Callable[[L], L]:
    """Make a class the implementation of Caffe layer types."""

    def add(cls: L) -> L:
        LAYERS.update(dict.fromkeys(names, cls))
        return cls

    return add


def whole_axis(ndim: int, axis: int) -> int:
    """Return an axis that may be negative as one that is not."""
    if not -ndim <= axis < ndim:
        raise InputError(f"axis: expected {-ndim} to {ndim - 1}; got {axis}")
    return axis % ndim


def axis_of(ndim: int, axis: int) -> int:
    """Return where axis `axis` of Caffe's order lies in our blob of `ndim` axes."""
    axis = whole_axis(ndim, axis)
    return _INTERNAL[axis] if ndim == 4 else axis


def to_caffe(x: Array) -> Array:
    """Our blob in Caffe's order: (N, H, W, C) to (N, C, H, W)."""
    return x.transpose(0, 3, 1, 2) if x.ndim == 4 else x


def from_caffe(x: Array) -> Array:
    """Return a blob of Caffe's order in ours: (N, C, H, W) to (N, H, W, C)."""
    return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x
