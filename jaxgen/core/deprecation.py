"""Former names of public things, accepted for one minor version with a `DeprecationWarning`.

In a module:     __getattr__ = former_names(__name__, {"Tuning": "KernelParams"})
In a class:      num_ancestors = former_field("num_ancestors", "num_lineages")
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["former_field", "former_names"]


def former_names(module: str, renamed: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a module's `__getattr__` that answers to former names, with a warning.

    Args:
      module: the module's own name, `__name__`.
      renamed: former name -> present name in the same module.
    """

    def answer(name: str) -> Any:
        new = renamed.get(name)
        if new is None:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        warnings.warn(
            f"{module}.{name} is deprecated: use {module}.{new}", DeprecationWarning, stacklevel=2
        )
        return getattr(sys.modules[module], new)

    return answer


def former_field(old: str, new: str) -> property:
    """Return a property that reads the field `new` under its former name, with a warning."""

    def get(record: object) -> Any:
        name = type(record).__name__
        warnings.warn(
            f"{name}.{old} is deprecated: use {name}.{new}", DeprecationWarning, stacklevel=2
        )
        return getattr(record, new)

    return property(get, doc=f"Return `{new}`, under its former name.")
