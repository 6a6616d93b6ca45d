"""Frozen dataclasses that are JAX pytrees: what a user composes is data.

Array fields are leaves, so a posterior can be passed to a jitted function as an
argument and a new label, mask, observation or set of weights compiles nothing.
Fields marked with `static` are part of the tree's structure: changing one compiles
again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

import jax

__all__ = ["StaticFunction", "as_data", "pytree", "replace", "static"]

T = TypeVar("T")


def static(**kwargs: Any) -> Any:
    """A dataclass field that belongs to the structure, not to the data.

    Its value must be hashable and comparable.
    """
    return dataclasses.field(metadata={"static": True}, **kwargs)


@dataclass_transform(frozen_default=True, field_specifiers=(static, dataclasses.field))
def pytree(cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass and register it as a JAX pytree."""
    frozen = dataclasses.dataclass(frozen=True, eq=False)(cls)
    return jax.tree_util.register_dataclass(frozen)  # type: ignore[arg-type]


def replace(obj: T, **changes: Any) -> T:
    """A copy of a `pytree` object with some fields changed."""
    return dataclasses.replace(obj, **changes)  # type: ignore[type-var]


@pytree
class StaticFunction:
    """A plain function where data is expected: a pytree without leaves."""

    function: Callable[..., Any] = static()

    def __call__(self, *args: Any) -> Any:
        """function(*args)."""
        return self.function(*args)


def as_data(value: Any) -> Any:
    """Wrap a plain function (or any callable that JAX takes for a leaf) in `StaticFunction`.

    Callable pytrees, such as a `Network`, stay as they are: their arrays are data.
    """
    if callable(value) and jax.tree_util.all_leaves([value]):
        return StaticFunction(value)
    return value
