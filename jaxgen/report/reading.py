"""A run's folder, read as if a stranger had written it.

`summary.json` and `draws.safetensors` may come from another machine or by mail, so nothing
in them is believed: sizes before memory is taken, types and shapes before use. Every error
names the file and the field.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.printing import prints_short
from jaxgen.sampler.finished import DRAWS, FORMAT, HISTORY, MANY, SUMMARY, Arrays, read_summary
from jaxgen.sampler.finished.reading import short

__all__ = ["HISTORY", "Entry", "Run", "entry_of", "read"]

_MOST_RUNS = 10_000


@prints_short
class Entry(NamedTuple):
    """One posterior of a run.

    Attributes:
      name, label: from the summary.
      data: its entry of the summary, as it stands.
      position: `[C, S, ...]`.
      output: `[C, S, ...]` what the generator makes of them; None where it was not kept.
      weights: `[C]`, normalised.
      history: column -> `[T]`, empty where the run did not anneal.
      extra: what else is stored under its name: mean, deviation, low, high, truth, mask,
        view, log_density.
    """

    name: str
    label: str
    data: dict[str, Any]
    position: np.ndarray
    output: np.ndarray | None
    weights: np.ndarray
    history: dict[str, np.ndarray]
    extra: dict[str, np.ndarray]

    @property
    def image(self) -> np.ndarray | None:
        """Return the output `[C, S, H, W, 1 or 3]` where it can be looked at, else None."""
        output = self.output
        if output is None or output.ndim < 4:
            return None
        output = output[..., None] if output.ndim == 4 else output
        return output if output.ndim == 5 and output.shape[-1] in (1, 3) else None

    @property
    def size(self) -> tuple[int, int]:
        """Return C and S."""
        return self.position.shape[0], self.position.shape[1]


class Run(NamedTuple):
    """A run as a command, `jaxgen.sample(folder=)` or a task wrote it, or a result in memory.

    Attributes:
      path: the folder, or where the report of a result goes.
      summary: as it stands in `summary.json`.
      entries: its posteriors.
    """

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
        hint = _way_out(path.with_name(f"{path.name}.partial"))
        raise expected("RUN", "the folder of a run", f"{path}, which is no folder", hint)
    if (path / "run.json").is_file() and not (path / SUMMARY).exists():
        hint = "Finish it by jaxgen.sample(..., folder=, resume=True); load_run reads its draws"
        raise expected("RUN", "the folder of a finished run", f"{path}, which has no end yet", hint)
    summary = read_summary(path / SUMMARY, FORMAT, MANY)
    if summary["format"] == MANY:
        return _many(path, summary)
    listed = summary.get("runs")
    where = f"{path / SUMMARY}: runs"
    if not isinstance(listed, list) or not 0 < len(listed) <= _MOST_RUNS:
        raise expected(where, "a list of posteriors", short(listed))
    arrays = Arrays(path / DRAWS)
    entries = []
    for index, data in enumerate(listed):
        field = f"{where}[{index}]"
        if not isinstance(data, dict):
            raise expected(field, "an object", short(data))
        name = data.get("name")
        if not isinstance(name, str) or not name:
            raise expected(f"{field}.name", "a name", short(name))
        if name in (entry.name for entry in entries):
            raise expected(f"{field}.name", "a name of its own", short(name))
        entries.append(entry_of(name, data, arrays, str(arrays.path)))
    return Run(path, summary, tuple(entries))


def _many(path: Path, summary: dict[str, Any]) -> Run:
    """Return a folder of runs as one: an entry for each posterior, called after its folder."""
    where = f"{path / SUMMARY}: items"
    items = summary.get("items")
    if not isinstance(items, list) or not 0 < len(items) <= _MOST_RUNS:
        raise expected(where, "a list of runs", short(items))
    entries = []
    for index, item in enumerate(items):
        name = item.get("name") if isinstance(item, dict) else None
        # One step down, and no further.
        if not isinstance(name, str) or Path(name).name != name or name in ("", ".", ".."):
            raise expected(f"{where}[{index}].name", "the name of a folder", short(name))
        if (path / name).is_symlink() or not (path / name).is_dir():
            raise expected(f"{where}[{index}].name", "a folder in it", short(name))
        read_summary(path / name / SUMMARY)  # a run, and not a folder of runs again
        found = read(path / name).entries
        several = len(found) > 1
        entries += [one._replace(name=f"{name}/{one.name}" if several else name) for one in found]
    return Run(path, summary, tuple(entries))


def _way_out(partial: Path) -> str:
    """Return what to do about a run of which only `RUN.partial` is there."""
    if not partial.is_dir():
        return ""
    if any(partial.rglob("run.json")) or (partial / "items.json").is_file():
        return "The run is interrupted: finish it with --resume"
    return "The run was interrupted before it kept anything: start it again"


def entry_of(name: str, data: dict[str, Any], arrays: Any, place: str) -> Entry:
    """Return one posterior, checked.

    Args:
      name: the posterior's.
      data: its entry of the summary.
      arrays: with `names` and `get(name)`, as `Arrays`.
      place: where they are from, for errors.
    """
    field = f"{place}: {name}"
    position = arrays.get(f"{name}/position")
    if position.ndim < 3 or position.size == 0:
        raise expected(f"{field}/position", "shape [chains, draws, ...]", list(position.shape))
    size = position.shape[:2]
    output = arrays.get(f"{name}/image") if f"{name}/image" in arrays.names else None
    if output is not None and (output.shape[:2] != size or output.ndim < 3 or not output.size):
        wanted = f"shape [{size[0]}, {size[1]}, H, W, channels] like the positions"
        raise expected(f"{field}/image", wanted, list(output.shape))
    weights = arrays.get(f"{name}/weights").astype(np.float64)
    if weights.shape != size[:1]:
        raise expected(f"{field}/weights", f"shape [{size[0]}]", list(weights.shape))
    total = weights.sum()
    if not (np.all(weights >= 0) and np.isfinite(total) and total > 0):
        raise expected(f"{field}/weights", "weights of at least 0", "others")
    history = {column: arrays.get(f"{name}/history/{column}") for column in HISTORY}
    for column, values in history.items():
        if values.ndim != 1 or len(values) != len(history["beta"]):
            wanted = f"shape [{history['beta'].size}]"
            raise expected(f"{field}/history/{column}", wanted, list(values.shape))
    label = data.get("label")
    label = label if isinstance(label, str) else name
    made = Entry(name, label, data, position, output, weights / total, history, {})
    return made._replace(extra=_extra(made, arrays, place))


def _extra(entry: Entry, arrays: Any, place: str) -> dict[str, np.ndarray]:
    """Return the stored pictures of a posterior, and the log densities of its draws."""
    result, image = {}, entry.image
    shape = None if image is None else image.shape[2:]
    for what in ("log_density", "mean", "deviation", "low", "high", "truth", "mask", "view"):
        field = f"{entry.name}/{what}"
        if field not in arrays.names:
            continue
        array = arrays.get(field)
        if what == "log_density":
            good, wanted = array.shape == entry.size, list(entry.size)
        elif shape is None:  # nothing to look at: maps of what is no picture
            continue
        elif what == "mask":
            good, wanted = array.shape == shape[:2], list(shape[:2])
        elif what == "view":
            array = array[..., None] if array.ndim == 2 else array
            good = array.ndim == 3 and array.shape[-1] == shape[-1] and array.size > 0
            wanted = ["h", "w", shape[-1]]
        else:
            array = array[..., None] if array.shape == shape[:2] else array
            good, wanted = array.shape == shape, list(shape)
        if not good:
            raise expected(f"{place}: {field}", f"shape {wanted}", list(array.shape))
        result[what] = array
    return result
