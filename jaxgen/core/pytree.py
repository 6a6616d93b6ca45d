"""Frozen dataclasses that are JAX pytrees: what a user composes is data.

Array fields are leaves, so a posterior can be passed to a jitted function as an
argument and a new label, mask, observation or set of weights compiles nothing.
Fields marked with `static` are part of the tree's structure: changing one compiles
again.

They print in one line: `Gaussian(mean=float32[64], scale=float32[64])`. No array of more
than one number is ever printed, because a posterior may hold millions of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

import jax
import numpy as np
from jax.core import Tracer

from jaxgen.core.types import ArrayTree

__all__ = [
    "StaticFunction",
    "as_data",
    "pytree",
    "replace",
    "short",
    "static",
    "with_structure",
]

T = TypeVar("T")

# A container of more entries than this is counted, not listed.
_MOST_ENTRIES = 6
_LONGEST = 80


def static(*, remark: bool = False, **kwargs: Any) -> Any:
    """Return a dataclass field that belongs to the structure, not to the data.

    Its value must be hashable and comparable.

    Args:
      remark: True for what is only said about the object and changes no result, such as
        the names of a classifier's classes: a stored run is not compared in it.
      kwargs: as `dataclasses.field` takes them.
    """
    return dataclasses.field(metadata={"static": True, "remark": remark}, **kwargs)


@dataclass_transform(frozen_default=True, field_specifiers=(static, dataclasses.field))
def pytree(cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass, register it as a JAX pytree, and let it print short."""
    frozen = dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)
    if frozen.__repr__ is object.__repr__:
        frozen.__repr__ = _repr  # type: ignore[method-assign, assignment]
    return jax.tree_util.register_dataclass(frozen)  # type: ignore[arg-type]


def with_structure(*names: str) -> Callable[[type[T]], type[T]]:
    """Register a NamedTuple so that some of its fields are structure, as strings must be.

    Without it JAX takes every field of a NamedTuple for data, and a jitted function cannot
    return one that holds a string.

    Args:
      names: of the fields that are no arrays; their values must be hashable.
    """

    def register(cls: Any) -> Any:
        data = [name for name in cls._fields if name not in names]

        def flatten(value: Any) -> tuple[Any, Any]:
            children = [(jax.tree_util.GetAttrKey(n), getattr(value, n)) for n in data]
            return children, tuple(getattr(value, n) for n in names)

        def unflatten(structure: ArrayTree, children: Any) -> Any:
            fields = dict(zip(data, children, strict=True))
            return cls(**fields, **dict(zip(names, structure, strict=True)))

        jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)
        return cls

    return register


def replace(obj: T, **changes: object) -> T:
    """Return a copy of a `pytree` object with some fields changed."""
    return dataclasses.replace(obj, **changes)  # type: ignore[type-var]


def short(value: object) -> str:
    """Return a value in one short line; arrays as their type and shape, `float32[28,28,1]`.

    Arrays of shape `[]` show their number, where it is at hand.
    """
    if isinstance(value, jax.Array | np.ndarray | np.generic):
        return _short_array(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return repr(value) if type(value).__repr__ is _repr else _cut(repr(value))
    if isinstance(value, dict):
        return _listed([f"{key!r}: {short(item)}" for key, item in value.items()], "{}")
    if isinstance(value, list):
        return _listed([short(item) for item in value], "[]")
    if isinstance(value, tuple):
        inside = _listed([short(item) for item in value], "()")
        return inside if len(value) != 1 else f"{inside[:-1]},)"
    if value is not None and not jax.tree_util.all_leaves([value]):
        leaves = [x for x in jax.tree.leaves(value) if hasattr(x, "dtype") or np.isscalar(x)]
        count = sum(np.size(leaf) for leaf in leaves)
        return f"{type(value).__name__}({count:,} numbers)"
    return _cut(repr(value))


def _repr(self: Any) -> str:
    parts = []
    for field in dataclasses.fields(self):
        value = getattr(self, field.name)
        if field.metadata.get("remark"):
            continue
        # Structure is told in full: runs are compared by it.
        parts.append(f"{field.name}={repr(value) if 'static' in field.metadata else short(value)}")
    return f"{type(self).__qualname__}({', '.join(parts)})"


def _short_array(value: Any) -> str:
    shape = ",".join(str(size) for size in np.shape(value))
    key = jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)
    known = not isinstance(value, Tracer) and getattr(value, "is_fully_addressable", True)
    if shape or key or not known:
        return f"{value.dtype}[{shape}]"
    return f"{np.asarray(value)[()]:.6g}" if np.issubdtype(value.dtype, np.floating) else f"{value}"


def _listed(parts: list[str], brackets: str) -> str:
    if len(parts) > _MOST_ENTRIES:
        parts = [*parts[: _MOST_ENTRIES - 1], f"... {len(parts) - _MOST_ENTRIES + 1} more"]
    return brackets[0] + ", ".join(parts) + brackets[1]


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 4]} ..."


@pytree
class StaticFunction:
    """A plain function where data is expected: a pytree without leaves."""

    function: Callable[..., Any] = static()

    def __call__(self, *args: object) -> Any:
        """function(*args)."""
        return self.function(*args)


def as_data(value: object) -> Any:
    """Wrap a plain function (or any callable that JAX takes for a leaf) in `StaticFunction`.

    Callable pytrees, such as a `Network`, stay as they are: their arrays are data.
    """
    if callable(value) and jax.tree_util.all_leaves([value]):
        return StaticFunction(value)
    return value
