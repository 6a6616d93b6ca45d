"""Run folders read from outside, whether or not the run is going on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxgen.core.atomic import local_folder
from jaxgen.core.errors import InputError, expected
from jaxgen.sampler.checkpoint.draws import Shard, read_draws, shard_of, shards_in
from jaxgen.sampler.checkpoint.files import FORMAT, read_settings
from jaxgen.sampler.checkpoint.manifests import Manifest, numbers, read_manifest

__all__ = ["StoredRun", "counted", "load_run"]


class StoredRun(NamedTuple):
    """A run folder as it is on disk now, whether or not the run is still going on.

    Attributes:
      settings: what the run is made of, name -> text.
      environment: versions and devices.
      num_draws: draws of each chain, up to the last checkpoint.
      draws: name -> `[C, S, ...]`; a single array that was collected is called "draws".
    """

    settings: dict[str, str]
    environment: dict[str, str]
    num_draws: int
    draws: dict[str, np.ndarray]


def load_run(
    folder: str | os.PathLike[str], start: int | None = 0, stop: int | None = None
) -> StoredRun:
    """Read a run folder: settings, and draws up to the last checkpoint.

    The run may be going on, have been killed, or be complete. Where several processes
    wrote it, their chains are put together. Every file that is read must have the SHA-256
    with which it was written.

    Args:
      folder: as given to `sample` or `ais`.
      start, stop: which draws of each chain to read; all by default.

    Raises:
      InputError: if there is no run, or draws are missing or damaged.
    """
    path = local_folder(folder, "folder")
    if not (path / "run.json").is_file():
        raise expected(str(path), "a run folder", "none with a run.json")
    found = read_settings(path / "run.json")
    if found["format"] == FORMAT:
        shards, num_draws = _newest(path)
    else:
        shards = list(shards_in(path / "draws"))
        num_draws = min({s.suffix: s.last + 1 for s in shards}.values(), default=0)
    start, stop, _ = slice(start, stop).indices(num_draws)
    draws = read_draws(shards, start, stop) if num_draws else {}
    return StoredRun(found["settings"], found["environment"], num_draws, draws)


def counted(folder: Path, manifests: list[Manifest]) -> list[Shard]:
    """The files of draws that a checkpoint counts, in order."""
    files: dict[str, str] = {}
    for manifest in manifests:
        files |= manifest.files
    found = (shard_of(folder / name, digest) for name, digest in sorted(files.items()))
    return [shard for shard in found if shard]


def _newest(path: Path) -> tuple[list[Shard], int]:
    """The draws that the newest whole manifest counts."""
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
