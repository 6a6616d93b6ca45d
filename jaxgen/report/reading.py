"""A run's folder, read as if a stranger had written it.

`summary.json` and `draws.safetensors` may come from another machine or by mail, so nothing
in them is believed: sizes before memory is taken, types and shapes before use. Every error
names the file and the field.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgen.core.errors import expected
from jaxgen.report.output_folder import FORMAT

__all__ = ["HISTORY", "Entry", "Run", "read"]

HISTORY = ("beta", "acceptance_rate", "step_size", "ess", "log_z")

_MOST_SUMMARY = 1 << 26
_MOST_RUNS = 10_000
_MOST_LEVELS = 40
# Elements of one array, and of all that are looked at.
_MOST_NUMBERS = 1 << 29
_FLOATS = {"F16", "F32", "F64"}


class Entry(NamedTuple):
    """One posterior of a run.

    Attributes:
      name, label: from the summary.
      data: its entry of the summary, as it stands.
      position: `[C, S, ...]`.
      image: `[C, S, H, W, 1 or 3]`.
      weights: `[C]`, normalised.
      history: column -> `[T]`, empty where the run did not anneal.
      extra: what else is stored under its name: mean, deviation, low, high, truth, mask,
        view, log_density.
    """

    name: str
    label: str
    data: dict[str, Any]
    position: np.ndarray
    image: np.ndarray
    weights: np.ndarray
    history: dict[str, np.ndarray]
    extra: dict[str, np.ndarray]


class Run(NamedTuple):
    """A folder that `jaxgen demo`, `sample`, `inpaint` or `superres` has written."""

    path: Path
    summary: dict[str, Any]
    entries: tuple[Entry, ...]


def read(path: str | Path) -> Run:
    """Read a run's folder.

    Raises:
      InputError: for a folder that is none of a run, or is damaged; names file and field.
    """
    path = Path(path)
    if not path.is_dir():
        hint = "The run is interrupted: finish it with --resume" if _waits(path) else ""
        raise expected("RUN", "the folder of a run", f"{path}, which is no folder", hint)
    summary = _summary(path / "summary.json")
    listed = summary.get("runs")
    where = f"{path / 'summary.json'}: runs"
    if not isinstance(listed, list) or not 0 < len(listed) <= _MOST_RUNS:
        raise expected(where, "a list of posteriors", _short(listed))
    arrays = _Arrays(path / "draws.safetensors")
    entries = []
    for index, data in enumerate(listed):
        field = f"{where}[{index}]"
        if not isinstance(data, dict):
            raise expected(field, "an object", _short(data))
        name = data.get("name")
        if not isinstance(name, str) or not name:
            raise expected(f"{field}.name", "a name", _short(name))
        if name in (entry.name for entry in entries):
            raise expected(f"{field}.name", "a name of its own", _short(name))
        entries.append(_entry(name, data, arrays))
    return Run(path, summary, tuple(entries))


def _waits(path: Path) -> bool:
    return path.with_name(f"{path.name}.partial").is_dir()


def _summary(path: Path) -> dict[str, Any]:
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
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        got = data.get("format") if isinstance(data, dict) else data
        raise expected(f"{path}: format", FORMAT, _short(got))
    if not _shallow(data):
        raise expected(str(path), f"objects at most {_MOST_LEVELS} levels deep", "deeper ones")
    return data


def _regular(path: Path) -> None:
    """Refuse what is there but is no file: reading a pipe would wait for ever."""
    if path.exists() and not path.is_file():
        raise expected(str(path), "a file", "a folder, a pipe or a device")


def _shallow(data: Any) -> bool:
    """Whether nothing is nested so deeply that walking it could fail."""
    level = [data]
    for _ in range(_MOST_LEVELS):
        inner = [v for v in level if isinstance(v, dict | list)]
        level = [v for x in inner for v in (x.values() if isinstance(x, dict) else x)]
    return not any(isinstance(v, dict | list) for v in level)


class _Arrays:
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


def _entry(name: str, data: dict[str, Any], arrays: _Arrays) -> Entry:
    field = f"{arrays.path}: {name}"
    image = arrays.get(f"{name}/image")
    if image.ndim != 5 or image.shape[-1] not in (1, 3) or image.size == 0:
        wanted = "shape [chains, draws, H, W, 1 or 3]"
        raise expected(f"{field}/image", wanted, list(image.shape))
    position = arrays.get(f"{name}/position")
    if position.ndim < 3 or position.shape[:2] != image.shape[:2] or position.size == 0:
        wanted = f"shape [{image.shape[0]}, {image.shape[1]}, ...]"
        raise expected(f"{field}/position", wanted, list(position.shape))
    weights = arrays.get(f"{name}/weights").astype(np.float64)
    if weights.shape != image.shape[:1]:
        raise expected(f"{field}/weights", f"shape [{len(image)}]", list(weights.shape))
    total = weights.sum()
    if not (np.all(weights >= 0) and np.isfinite(total) and total > 0):
        raise expected(f"{field}/weights", "weights of at least 0", "others")
    history = {column: arrays.get(f"{name}/history/{column}") for column in HISTORY}
    for column, values in history.items():
        if values.ndim != 1 or len(values) != len(history["beta"]):
            wanted = f"shape [{history['beta'].size}]"
            raise expected(f"{field}/history/{column}", wanted, list(values.shape))
    label = data.get("label")
    return Entry(
        name,
        label if isinstance(label, str) else name,
        data,
        position,
        image,
        weights / total,
        history,
        _extra(name, arrays, image.shape),
    )


def _extra(name: str, arrays: _Arrays, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Stored pictures of a posterior, and the log densities of its draws."""
    result = {}
    for what in ("mean", "deviation", "low", "high", "truth", "mask", "view", "log_density"):
        if f"{name}/{what}" not in arrays.names:
            continue
        array = arrays.get(f"{name}/{what}")
        if what == "log_density":
            good, wanted = array.shape == shape[:2], list(shape[:2])
        elif what == "mask":
            good, wanted = array.shape == shape[2:4], list(shape[2:4])
        elif what == "view":
            good = array.ndim == 3 and array.shape[-1] == shape[-1] and array.size > 0
            wanted = ["h", "w", shape[-1]]
        else:
            good, wanted = array.shape == shape[2:], list(shape[2:])
        if not good:
            field = f"{arrays.path}: {name}/{what}"
            raise expected(field, f"shape {wanted}", list(array.shape))
        result[what] = array
    return result


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
