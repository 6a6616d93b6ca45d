"""Former names of public things, accepted for one minor version with a `DeprecationWarning`.

In a module:     __getattr__ = former_names(__name__, {"Tuning": "KernelParams"})
In a class:      num_ancestors = former_field("num_ancestors", "num_lineages")
At a function:   @former_keyword("moves", "num_mcmc_steps")
"""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from jaxgen.core.errors import expected

__all__ = ["former_field", "former_keyword", "former_names"]

P = ParamSpec("P")
R = TypeVar("R")


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


def former_keyword(old: str, new: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator: a function accepts its keyword `new` as `old` too, with a warning.

    It belongs above all other decorators, so that the warning names the line of the caller. A
    function that hands its keywords on needs it as well, for the same reason.

    Raises:
      InputError: when the function is called with both.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name = function.__qualname__.removesuffix(".__init__")

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            if old in kwargs:
                if new in kwargs:
                    hint = f"{old} is the former name of {new}"
                    raise expected(new, f"{new} alone", f"{old} as well", hint)
                warnings.warn(
                    f"{name}({old}=...) is deprecated: use {name}({new}=...)",
                    DeprecationWarning,
                    stacklevel=2,
                )
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate
