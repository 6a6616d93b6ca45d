"""Pretrained models: `load(name)`, `describe(name)`, `available()`.

The registry, and JAX with it, is imported when one of them is used: the names of models alone
(`jaxgen.models.catalogue`) are for the command line's help and completion.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxgen.models.registry import ModelInfo, available, describe, load

__all__ = ["ModelInfo", "available", "describe", "load"]


def __getattr__(name: str) -> Any:
    """Return a name of the registry."""
    if name not in __all__:
        raise AttributeError(f"module 'jaxgen.models' has no attribute {name!r}")
    return getattr(import_module("jaxgen.models.registry"), name)
