"""Single values as short texts, for fingerprints (`jaxgen.core.fingerprint`)."""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import re
import sys
import types
from typing import Any

import jax
import numpy as np

from jaxgen.core.code import is_library, source_digest

__all__ = [
    "attributes_of",
    "cached_names",
    "digest_of",
    "in_library",
    "is_own_module",
    "is_plain",
    "is_tree",
    "join",
    "module_text",
    "name_of",
    "placeless",
    "sha",
    "short_text",
]

# Longer texts are given by their digest.
_LONG = 100
# A run notes the versions of these: another one does not stop it.
_NOTED = ("jax", "jaxlib", "numpy", "blackjax", "flax", "jaxgen")


def module_text(value: types.ModuleType) -> str:
    """Return a module by its name, and by its source or version where those matter."""
    top = value.__name__.partition(".")[0]
    if not is_library(value.__name__):
        return f"module {value.__name__} sha256 {source_digest(value)}"
    version = getattr(sys.modules.get(top), "__version__", "")
    noted = top in _NOTED or not isinstance(version, str)
    return f"module {value.__name__}{'' if noted else f' {version}'}".rstrip()


def attributes_of(value: object) -> dict[str, Any]:
    """Return an object's own attributes, but not what it only remembers (`cached_property`)."""
    found = dict(getattr(value, "__dict__", {}))
    for base in type(value).__mro__:
        slots = vars(base).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if hasattr(value, slot):
                found[slot] = getattr(value, slot)
    hidden = {"__dict__", "__weakref__", *cached_names(type(value))}
    return {str(key): item for key, item in found.items() if key not in hidden}


@functools.cache
def cached_names(kind: type) -> frozenset[str]:
    """Return the names of a class's cached properties."""
    return frozenset(
        key
        for base in kind.__mro__
        for key, item in vars(base).items()
        if isinstance(item, functools.cached_property)
    )


def is_plain(value: object) -> bool:
    """Return whether a value is told by its repr: numbers, texts, and jaxgen's records of such."""
    if value is None or isinstance(value, bool | int | float | complex | str | enum.Enum):
        return True
    if isinstance(value, range | slice | np.dtype | re.Pattern):
        return True
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        ours = type(value).__module__.partition(".")[0] == "jaxgen"
        fields = dataclasses.fields(value)
        return ours and all(is_plain(getattr(value, field.name)) for field in fields)
    return False


def short_text(value: object) -> str:
    """Return a repr, or its digest where it is long."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >> 256:
        value = hex(value)  # Python does not write long numbers in decimal
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(value))
    if len(text) <= _LONG:
        return text
    return f"{type(value).__qualname__} sha256 {sha([text.encode()])[:12]}"


def name_of(value: Any) -> str:
    """Return the name of a value, or of its class, with its module."""
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{getattr(named, '__module__', '')}.{named.__qualname__}"


def in_library(kind: type) -> bool:
    """Return whether a class belongs to an installed package."""
    return is_library(kind.__module__ or "")


def is_own_module(value: object) -> bool:
    """Return whether a value is one of the user's own modules."""
    return isinstance(value, types.ModuleType) and not is_library(value.__name__)


def is_tree(value: object) -> bool:
    """Return whether a value is a tree with leaves, to JAX."""
    return value is not None and not jax.tree_util.all_leaves([value])


def digest_of(array: np.ndarray) -> str:
    """Return 16 digits of the SHA-256 of an array."""
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)  # no copy of large arrays
    return sha([flat.data])[:16]


def sha(parts: list[Any]) -> str:
    """Return the SHA-256 of parts, each with its length."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def placeless(text: str) -> str:
    """Return a description without the file of this package in which a function or class stands.

    Modules move between versions, and older run folders name the former ones. What a
    function does is in the digest of its code.
    """
    return re.sub(r"\bjaxgen(?:\.[a-z]\w*)+\.(?=[A-Za-z_])", "jaxgen.", text)


def join(name: str, part: str) -> str:
    """Return a dotted name."""
    return f"{name}.{part}" if name else part
