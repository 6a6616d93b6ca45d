"""Run folders read from outside, while the run is under way or after it has ended."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgen.core.atomic import local_folder
from jaxgen.core.errors import InputError, expected
from jaxgen.core.printing import prints_short
from jaxgen.sampler.checkpoint.draws import Shard, read_draws, shard_of, shards_in
from jaxgen.sampler.checkpoint.files import FORMAT, read_settings
from jaxgen.sampler.checkpoint.manifests import Manifest, numbers, read_manifest
from jaxgen.sampler.finished import DRAWS, MANY, SUMMARY, Arrays, read_summary
from jaxgen.sampler.finished import FORMAT as FORMAT_OF_RUN

# Arrays of a posterior that have a row for each draw.
_DRAWN = ("position", "image", "log_density")

__all__ = ["StoredRun", "counted", "load_run"]


@prints_short
class StoredRun(NamedTuple):
    """A run folder as it is on disk now, of a run under way or of one that has ended.

    Attributes:
      settings: what the run is made of, name -> text.
      environment: versions and devices.
      num_draws: draws of each chain, up to the last checkpoint.
      draws: name -> `[C, S, ...]`; a single array that was collected is called "draws". Of a
        folder that the command line has written: "position", "image", "log_density"; where it
        holds several posteriors, as "class_7/image".
      summary: `summary.json` of a run that has ended, with the figures of each posterior in
        `summary["runs"]`; empty before.
      arrays: what else is stored with the draws, by its name in `draws.safetensors`: weights,
        history, the maps of tasks; empty before the run has ended.
    """

    settings: dict[str, str]
    environment: dict[str, str]
    num_draws: int
    draws: dict[str, np.ndarray]
    summary: dict[str, Any]
    arrays: dict[str, np.ndarray]


def load_run(
    folder: str | os.PathLike[str], start: int | None = 0, stop: int | None = None
) -> StoredRun:
    """Read a run folder: settings, draws up to the last checkpoint, and figures at the end.

    The run may be under way, killed, or complete. Chains that several processes wrote are
    joined. Every file of a checkpoint must have the SHA-256 with which it was written. Folders of
    the command line have no checkpoints: their draws are those of `draws.safetensors`.

    Args:
      folder: as given to `sample`, `ais` or a task, or written by `jaxgen demo`, `sample`,
        `inpaint` or `superres`.
      start: the first draw of each chain to read; may be negative, as in a slice.
      stop: the draw after the last one to read; None for all.

    Raises:
      InputError: if there is no run, or draws are missing or damaged.
    """
    path = local_folder(folder, "folder")
    if not (path / "run.json").is_file():
        if not (path / SUMMARY).is_file():
            raise expected(str(path), "a run folder", f"none with a run.json or a {SUMMARY}")
        return _finished(path, start, stop)
    found = read_settings(path / "run.json")
    if found["format"] == FORMAT:
        shards, num_draws = _newest(path)
    else:
        shards = list(shards_in(path / "draws"))
        num_draws = min({s.suffix: s.last + 1 for s in shards}.values(), default=0)
    start, stop, _ = slice(start, stop).indices(num_draws)
    draws = read_draws(shards, start, stop) if num_draws else {}
    summary, arrays = _end(path, without=_DRAWN) if (path / SUMMARY).is_file() else ({}, {})
    return StoredRun(found["settings"], found["environment"], num_draws, draws, summary, arrays)


def _finished(path: Path, start: int | None, stop: int | None) -> StoredRun:
    """Read a folder of the command line, which keeps no checkpoints."""
    summary, arrays = _end(path)
    names = [str(run.get("name")) for run in summary["runs"]]
    one = len(names) == 1
    draws: dict[str, np.ndarray] = {}
    counts = []
    for name in names:
        for leaf in _DRAWN:
            array = arrays.pop(f"{name}/{leaf}", None)
            if array is not None:
                draws[leaf if one else f"{name}/{leaf}"] = array[:, slice(start, stop)]
                counts.append(array.shape[1])
    settings = {str(k): str(v) for k, v in _mapping(summary.get("arguments")).items()}
    places = {**_mapping(summary.get("versions")), "device": summary.get("device", "")}
    environment = {str(k): str(v) for k, v in places.items()}
    return StoredRun(settings, environment, min(counts, default=0), draws, summary, arrays)


def _end(path: Path, without: tuple[str, ...] = ()) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return summary and arrays of a run that has ended; other folders raise `InputError`."""
    summary = read_summary(path / SUMMARY, FORMAT_OF_RUN, MANY)
    if summary["format"] == MANY:
        items = summary.get("items")
        first = items[0] if isinstance(items, list) and items else {}
        name = first.get("name") if isinstance(first, dict) else None
        hint = f"As in load_run({str(path / str(name))!r})" if name else ""
        raise expected(str(path), "the folder of one run", "a folder of runs", hint)
    runs = summary.get("runs")
    if not isinstance(runs, list) or not all(isinstance(run, dict) for run in runs):
        raise expected(f"{path / SUMMARY}: runs", "a list of posteriors", "something else")
    stored = Arrays(path / DRAWS)
    names = [name for name in sorted(stored.names) if name.rpartition("/")[2] not in without]
    arrays = {name: stored.get(name) for name in names}
    for name, array in arrays.items():
        if name.rpartition("/")[2] in _DRAWN and array.ndim < 2:
            wanted = "shape [chains, draws, ...]"
            raise expected(f"{path / DRAWS}: {name}", wanted, list(array.shape))
    return summary, arrays


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def counted(folder: Path, manifests: list[Manifest]) -> list[Shard]:
    """Return the files of draws that a checkpoint counts, in order."""
    files: dict[str, str] = {}
    for manifest in manifests:
        files |= manifest.files
    found = (shard_of(folder / name, digest) for name, digest in sorted(files.items()))
    return [shard for shard in found if shard]


def _newest(path: Path) -> tuple[list[Shard], int]:
    """Return the files of draws that the newest whole manifest counts, and how many draws."""
    folder = path / "checkpoints"
    trouble: InputError | None = None
    for _ in range(3):  # a run that is going on may take them away while they are read
        for number in numbers(folder):
            try:
                manifests = read_manifest(folder, number)
                return counted(folder, manifests), manifests[0].written
            except InputError as error:
                trouble = trouble or error
    if trouble is not None:
        raise trouble
    return [], 0
