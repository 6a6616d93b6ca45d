"""What a run is made of, as names and short texts that can be compared.

A run may only go on as what it was. Its settings become a flat dict: numbers and texts as
they are, arrays as their type, shape and digest, functions as their names and code. Two
dicts say by themselves in what two runs differ.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import re
import types
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

__all__ = ["describe", "difference"]

# Arrays up to this size are shown; containers of more arrays than that are summed up.
_SMALL = 8
_MANY = 32
_LONG = 100
_ARRAYS = (jax.Array, np.ndarray, np.generic)


def describe(value: Any, name: str = "") -> dict[str, str]:
    """`{dotted name: text}` for nested dataclasses, containers, arrays and functions."""
    leaves = jax.tree.leaves(value)
    if _is_tree(value) and not leaves:
        return {name: _short(value)}  # all of it is structure
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        result = {name or "type": type(value).__qualname__}
        for field in dataclasses.fields(value):
            if field.metadata.get("remark"):
                continue  # nothing that changes what is computed
            result |= describe(getattr(value, field.name), _join(name, field.name))
        return result
    if isinstance(value, functools.partial):
        parts = {"function": value.func, "args": value.args, "keywords": value.keywords}
        return describe(parts, name)
    items = _items(value)
    if items is not None:
        parts = jax.tree.leaves(value, is_leaf=dataclasses.is_dataclass)
        if len(parts) > _MANY and all(isinstance(part, _ARRAYS) for part in parts):
            return {name: _digest_of_all(leaves)}
        result = {}
        for key, item in items:
            result |= describe(item, _join(name, key))
        return result
    if _is_tree(value):  # such as a network's parameter, in its wrapping
        return {name: _digest_of_all(leaves)}
    return {name: _text(value)}


def difference(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """A line for each name in which two descriptions differ."""
    lines = []
    for name in sorted(old.keys() | new.keys()):
        was, now = _placeless(old.get(name, "nothing")), _placeless(new.get(name, "nothing"))
        if was != now:
            lines.append(f"{name} was {was}, is {now}")
    return lines


def _items(value: Any) -> list[tuple[str, Any]] | None:
    """A container's named parts, or None."""
    if isinstance(value, Mapping):
        return [(str(key), value[key]) for key in sorted(value, key=str)]
    if isinstance(value, list | tuple):
        names = getattr(value, "_fields", range(len(value)))
        return [(str(key), item) for key, item in zip(names, value, strict=True)]
    return None


def _text(value: Any) -> str:
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return f"key {np.asarray(jax.random.key_data(value)).tolist()}"
    if isinstance(value, _ARRAYS):
        array = np.asarray(value)
        if array.size <= _SMALL:
            return f"{array.dtype}{list(array.shape)} {array.tolist()}"
        return f"{array.dtype}{list(array.shape)} sha256 {_digest([array])}"
    if isinstance(value, types.FunctionType | types.MethodType):
        code = value.__code__
        parts = [code.co_code, repr(code.co_names).encode(), _stable(code.co_consts).encode()]
        digest = hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]
        return f"{value.__module__}.{value.__qualname__} sha256 {digest}"
    if isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    return _short(value)


def _short(value: Any) -> str:
    """A repr, or its digest where it is long."""
    text = _stable(value)
    if len(text) <= _LONG:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"{type(value).__qualname__} sha256 {digest}"


def _is_tree(value: Any) -> bool:
    """Whether JAX takes the value apart."""
    return value is not None and not jax.tree_util.all_leaves([value])


def _digest_of_all(leaves: list[Any]) -> str:
    arrays = [np.asarray(leaf) for leaf in leaves]
    return f"{sum(a.size for a in arrays)} numbers sha256 {_digest(arrays)}"


def _digest(arrays: list[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _placeless(text: str) -> str:
    """A description without the file of this package in which a function or class stands.

    Modules move between versions, and older run folders name the former ones. What a
    function does is in the digest of its code.
    """
    return re.sub(r"\bjaxgen(?:\.[a-z]\w*)+\.(?=[A-Za-z_])", "jaxgen.", text)


def _stable(value: Any) -> str:
    """A repr without what changes from process to process: memory addresses."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _join(name: str, part: str) -> str:
    return f"{name}.{part}" if name else part
