"""Pickles of NumPy arrays in dictionaries and lists, read without running anything.

Early Flax checkpoints and many small research files are such pickles. Only arrays of plain
numbers, and the containers, numbers and text around them, are read.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.core.errors import InputError
from weights_convert.restricted_pickle import Buildable, Bytes2, PickleError, load
from weights_convert.sniff import refuse

__all__ = ["read_numpy_pickle"]

_MAX_BYTES = 1 << 28  # read whole, and copied once or twice on the way
_MAX_DEPTH = 32
_MAX_LEAVES = 100_000
_KINDS = frozenset(("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"))


def read_numpy_pickle(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Return the arrays of a pickle file, by their path: "params/Conv_0/kernel", "3" in a list.

    Raises:
      InputError: for another kind of file; `restricted_pickle.Forbidden` for one that names
        anything but NumPy's arrays. Nothing is run.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path}: larger than {_MAX_BYTES} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if (other := refuse(path, "a pickle of NumPy arrays")) is not None:
        raise other
    tree, _ = load(data, str(path), _ALLOWED, limit=_MAX_BYTES)
    found: dict[str, np.ndarray] = {}
    _collect(tree, "", 0, found, path)
    if not found:
        raise InputError(f"{path}: no arrays in it")
    return found


class _DType(Buildable):
    """numpy.dtype("f4", ...), completed by its byte order."""

    def __init__(self, kind: object, *_flags: object):
        if not isinstance(kind, str) or kind not in _KINDS:
            raise PickleError("a type of numbers that is not plain")
        self.dtype = np.dtype(kind)

    def build(self, state: Any) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise PickleError("a type of numbers that is not plain")
        self.dtype = self.dtype.newbyteorder(order) if order in "<>" else self.dtype


class _Array(Buildable):
    """numpy.core.multiarray._reconstruct(...), completed by shape, type and bytes."""

    def __init__(self):
        self.value: np.ndarray | None = None

    def build(self, state: object) -> None:
        if not (isinstance(state, tuple) and len(state) == 5):
            raise PickleError("an array without its shape, type and bytes")
        _, shape, dtype, fortran, raw = state
        if not (isinstance(shape, tuple) and isinstance(dtype, _DType)):
            raise PickleError("an array whose shape or type is none")
        raw = raw.raw if isinstance(raw, Bytes2) else raw  # as Python 2 wrote it
        if not isinstance(raw, bytes) or not all(type(n) is int and n >= 0 for n in shape):
            raise PickleError("an array whose bytes or shape are none")
        if len(shape) > 32 or math.prod(shape) * dtype.dtype.itemsize != len(raw):
            raise PickleError(f"an array of shape {shape[:8]} in {len(raw)} bytes")
        if math.prod(max(n, 1) for n in shape) >= 2**48:
            raise PickleError(f"a shape that no file can fill, {shape[:8]}")
        order = "F" if fortran else "C"
        self.value = np.frombuffer(raw, dtype.dtype).reshape(shape, order=order)


def _encoded(text: object, encoding: object = "latin1") -> bytes:
    """Bytes as Python 3 writes them for protocols that Python 2 can read."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8"):
        raise PickleError("bytes that are none")
    try:
        return text.encode(encoding)
    except UnicodeEncodeError:
        raise PickleError("bytes that are none") from None


def _scalar(dtype: object, raw: object) -> _Array:
    """One number of NumPy's: an array without axes."""
    made = _Array()
    made.build((1, (), dtype, False, raw))
    return made


def _from_buffer(
    raw: object, dtype: object, shape: object, order: object, *_axes: object
) -> _Array:
    """Return an array of protocol 5: its bytes, type, shape and order."""
    if order not in ("C", "F") or any(axis is not None for axis in _axes):
        raise PickleError("an array in an unknown order")
    made = _Array()
    made.build((1, shape, dtype, order == "F", raw))
    return made


def _nothing(*_arguments: object) -> None:
    raise PickleError("an array's class, called")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _DType,
    ("numpy", "ndarray"): _nothing,
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: _Array(),
    ("numpy._core.multiarray", "_reconstruct"): lambda *_: _Array(),
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encoded,
    ("builtins", "bytes"): lambda *arguments: _encoded("", *arguments),
}


def _collect(node: object, name: str, depth: int, found: dict[str, np.ndarray], path: Path) -> None:
    if depth > _MAX_DEPTH or len(found) > _MAX_LEAVES:
        raise InputError(f"{path}: {name[:80]!r}: nested too deeply, or too much of it")
    if isinstance(node, _Array):
        if node.value is None:
            raise InputError(f"{path}: {name[:80]!r}: an array without content")
        found[name or "array"] = node.value
        return
    if isinstance(node, dict):
        items = [(str(key), value) for key, value in node.items()]
    elif isinstance(node, list | tuple):
        items = [(str(i), value) for i, value in enumerate(node)]
    else:
        return
    for key, value in items:
        _collect(value, f"{name}/{key}" if name else key, depth + 1, found, path)
