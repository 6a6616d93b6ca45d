"""`summary.json` and `draws.safetensors`, read as if a stranger had written them.

They may come from another machine or by mail, so nothing in them is believed: sizes before
memory is taken, types before use. Every error names the file and the field.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.core.errors import expected
from jaxgen.sampler.finished.writing import FORMAT

__all__ = ["Arrays", "present_arguments", "read_summary", "short"]

_MOST_SUMMARY = 1 << 26
_MOST_LEVELS = 40
# Elements of one array, and of all that are looked at.
_MOST_NUMBERS = 1 << 29
_FLOATS = {"F16", "F32", "F64"}
# An argument in files of former versions -> its name today.
_ARGUMENTS = {"moves": "num_mcmc_steps"}


def read_summary(path: Path, *formats: str) -> dict[str, Any]:
    """Return a summary of one of some formats, by default that of a run.

    Raises:
      InputError: for a file that is none, or is damaged.
    """
    _regular(path)
    try:
        size = path.stat().st_size
        if size > _MOST_SUMMARY:
            raise expected(str(path), f"at most {_MOST_SUMMARY} bytes", size)
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise expected(str(path), "a readable file", error.strerror or error) from error
    except UnicodeDecodeError as error:
        raise expected(str(path), "UTF-8", "other bytes") from error
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise expected(str(path), "JSON", "something else") from error
    formats = formats or (FORMAT,)
    if not isinstance(data, dict) or data.get("format") not in formats:
        got = data.get("format") if isinstance(data, dict) else data
        raise expected(f"{path}: format", formats[0], short(got))
    if not _shallow(data):
        raise expected(str(path), f"objects at most {_MOST_LEVELS} levels deep", "deeper ones")
    return data


def present_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a stored call under the names that they have today."""
    return {_ARGUMENTS.get(name, name): value for name, value in arguments.items()}


def _regular(path: Path) -> None:
    """Refuse what is there but is no file: reading a pipe would wait for ever."""
    if path.exists() and not path.is_file():
        raise expected(str(path), "a file", "a folder, a pipe or a device")


def _shallow(data: Any) -> bool:
    """Return whether nothing is nested so deeply that walking it could fail."""
    level = [data]
    for _ in range(_MOST_LEVELS):
        inner = [v for v in level if isinstance(v, dict | list)]
        level = [v for x in inner for v in (x.values() if isinstance(x, dict) else x)]
    return not any(isinstance(v, dict | list) for v in level)


class Arrays:
    """The arrays of a safetensors file, each read when it is asked for and checked."""

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self.path = path
        _regular(path)
        try:
            self._file = safe_open(path, framework="numpy")
        except (OSError, SafetensorError) as error:
            raise expected(str(path), "a whole safetensors file", error) from error
        self.names = frozenset(self._file.keys())
        self._taken = 0

    def get(self, name: str) -> np.ndarray:
        """One array, as float32 at least."""
        field = f"{self.path}: {name}"
        if name not in self.names:
            raise expected(field, "an array", "none")
        part = self._file.get_slice(name)
        if part.get_dtype() not in _FLOATS:
            raise expected(f"{field}: dtype", "floating-point numbers", part.get_dtype())
        count = math.prod(part.get_shape())
        self._taken += count
        if max(count, self._taken) > _MOST_NUMBERS:
            raise expected(f"{field}: shape", f"at most {_MOST_NUMBERS} numbers", self._taken)
        array = self._file.get_tensor(name)
        return array.astype(np.float32) if array.dtype == np.float16 else array


def short(value: Any) -> str:
    """Return a foreign value in a few characters, for an error."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
