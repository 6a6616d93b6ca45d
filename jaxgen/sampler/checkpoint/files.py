"""Files that are written whole or not at all, and read with suspicion.

Every file of a run has a SHA-256: arrays have theirs in the manifest that counts them, and
JSON files carry their own.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgen.core.atomic import replacing
from jaxgen.core.errors import InputError, expected

__all__ = [
    "FORMAT",
    "line",
    "pack",
    "read_checked",
    "read_json",
    "read_settings",
    "space",
    "unpack",
    "write_arrays",
    "write_bytes",
    "write_json",
    "write_settings",
]

FORMAT = "jaxgen-sampling/3"
# Formats whose draws can be read, though their runs cannot go on; the first had no SHA-256.
_FIRST = "jaxgen-sampling/1"
_FORMER = (_FIRST, "jaxgen-sampling/2")
_MOST_JSON = 1 << 26
# What every reader of safetensors knows; others are kept as bytes.
_NATIVE = {"bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"}
_NATIVE |= {"float16", "float32", "float64"}
_DTYPE = "dtype of "


def pack(arrays: Mapping[str, Any], notes: Mapping[str, str] | None = None) -> bytes:
    """Arrays of any type and size as the bytes of a safetensors file."""
    from safetensors.numpy import save

    notes, stored = dict(notes or {}), {}
    for name, value in arrays.items():
        array = np.ascontiguousarray(value).reshape(np.shape(value))
        if array.dtype.name not in _NATIVE:
            notes[_DTYPE + name] = array.dtype.name
            array = np.frombuffer(array.tobytes(), np.uint8).reshape(
                *array.shape, array.dtype.itemsize
            )
        stored[name] = array
    return save(stored, notes or None)  # the library cannot read an empty dict back


def unpack(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays and notes of a file: the inverse of `pack`."""
    from safetensors.numpy import load

    arrays = load(data)
    (size,) = struct.unpack("<Q", data[:8])
    notes = json.loads(data[8 : 8 + size]).get("__metadata__") or {}
    for name in [note for note in notes if note.startswith(_DTYPE)]:
        kind, stored = jnp.dtype(notes.pop(name)), arrays[name.removeprefix(_DTYPE)]
        shape = stored.shape[:-1]
        arrays[name.removeprefix(_DTYPE)] = np.frombuffer(stored.tobytes(), kind).reshape(shape)
    return arrays, notes


def write_arrays(
    path: Path, arrays: Mapping[str, Any], notes: Mapping[str, str] | None = None
) -> str:
    """Write a safetensors file, whole or not at all, and read it back; returns its SHA-256."""
    data = pack(arrays, notes)
    digest = hashlib.sha256(data).hexdigest()
    write_bytes(path, data)
    del data
    read_checked(path, digest)
    return digest


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    with replacing(path) as file:
        file.write(data)


def read_checked(path: Path, digest: str) -> bytes:
    """Read a file's bytes, or raise `InputError` if they do not have that SHA-256."""
    try:
        data = _regular(path).read_bytes()
    except (OSError, ValueError) as error:
        raise expected(str(path), "a file of this run", line(error)) from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise expected(
            str(path), f"a file with SHA-256 {digest[:12]}", "other bytes: it is damaged"
        )
    return data


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write JSON with its own SHA-256 in it."""
    text = json.dumps({**data, "sha256": _digest(data)}, indent=2)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote.

    Raises:
      OSError, ValueError, TypeError, RecursionError: for anything else.
    """
    if (size := _regular(path).stat().st_size) > _MOST_JSON:
        raise ValueError(f"{size} bytes")
    data = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise ValueError("no object")
    digest = data.pop("sha256", None)
    if digest is not None and digest != _digest(data):
        raise ValueError("other bytes than were written: it is damaged")
    return {**data, "checked": digest is not None}


def write_settings(path: Path, data: dict[str, Any]) -> None:
    """Write what a run is made of."""
    write_json(path, {"format": FORMAT, **data})


def read_settings(path: Path) -> dict[str, Any]:
    """Read what `write_settings` wrote, or raise `InputError`."""
    try:
        data = read_json(path)
        if data["format"] not in (FORMAT, *_FORMER):
            raise ValueError(f"format {data['format']!r}")
        if data["format"] != _FIRST and not data["checked"]:
            raise ValueError("no SHA-256")
        for part in ("settings", "environment"):
            if not all(isinstance(x, str) for pair in data[part].items() for x in pair):
                raise ValueError(f"{part} that are no texts")
        return data
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise expected(str(path), f"a run of format {FORMAT}", line(error)) from error


@contextlib.contextmanager
def space(path: Path) -> Iterator[None]:
    """Turn trouble with the disk into an `InputError`; what was written before stays whole."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        hint = "The last checkpoint and its draws are whole: mend it, then resume"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "The last checkpoint and its draws are whole: make room, then resume"
        elif not path.is_dir():
            hint = "The folder was removed while the run was writing into it: start again"
        raise expected("folder", f"to write into {path}", line(error), hint) from error


def line(error: Exception) -> str:
    """Return an error in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _regular(path: Path) -> Path:
    """Return the path, unless it is a pipe or a device, whose reading may never end."""
    if os.path.lexists(path) and not path.is_file():
        raise ValueError(f"{path.name} is no file")
    return path


def _digest(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
