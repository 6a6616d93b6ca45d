"""Draws on disk: safetensors files, each with the draws of some chains between two checkpoints.

A file is called FIRST-LAST.safetensors after its draws, with .pN before the ending where
several processes write, each its own chains.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.sampler.checkpoint.files import line, write_bytes

__all__ = ["leaf_names", "process_of", "read_draws", "shards", "write_draws"]

_SHARD = re.compile(r"(\d{8})-(\d{8})(?:\.p(\d+))?\.safetensors")


def write_draws(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write one file of draws, leaves `[C, S, ...]`."""
    from safetensors.numpy import save

    write_bytes(path, save({k: np.ascontiguousarray(v) for k, v in arrays.items()}))


def shards(folder: Path) -> Iterator[tuple[Path, int, int]]:
    """The files of draws in order, with their first and last draw."""
    for path in sorted(folder.glob("*.safetensors")):
        match = _SHARD.fullmatch(path.name)
        if match:
            yield path, int(match[1]), int(match[2])


def read_draws(path: Path, start: int, stop: int, only: str | None = None) -> dict[str, np.ndarray]:
    """Draws start .. stop - 1 of all processes, or of one."""
    by_process: dict[str, list[Any]] = {}
    for shard, first, last in shards(path / "draws"):
        if only is None or process_of(shard) == only:
            by_process.setdefault(process_of(shard), []).append((shard, first, last))
    if not by_process:
        raise expected(str(path / "draws"), f"{stop} draws", "none")
    parts = []
    for files in by_process.values():
        following, chunks = 0, []
        for shard, first, last in files:
            if first != following:
                missing = f"{following} to {first - 1}"
                raise expected(str(path / "draws"), "all draws", f"none of {missing}")
            following = last + 1
            if first < max(stop, 1) and last >= start:
                chunks.append(_read_shard(shard, max(start - first, 0), stop - first))
        if following < stop:
            raise expected(str(path / "draws"), f"{stop} draws", f"{following} of them")
        names = chunks[0]
        parts.append({name: np.concatenate([c[name] for c in chunks], 1) for name in names})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _read_shard(shard: Path, start: int, stop: int) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    try:
        return {name: array[:, start:stop] for name, array in load_file(shard).items()}
    except Exception as error:  # the library's own, and the system's
        raise expected(str(shard), "a safetensors file", line(error)) from error


def process_of(path: Path) -> str:
    """The part of a file's name that says which process wrote it."""
    match = _SHARD.fullmatch(path.name)
    return "" if match is None or match[3] is None else f".p{match[3]}"


def leaf_names(tree: Any) -> tuple[list[str], Any]:
    """A name for each leaf: its keys, joined by dots."""
    paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    names = [".".join(re.sub(r"\W", "", str(key)) for key in path) or "draws" for path, _ in paths]
    return names, structure
