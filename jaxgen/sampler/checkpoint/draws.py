"""Draws on disk: safetensors files, each with the draws of some chains between two checkpoints.

A file is called FIRST-LAST.safetensors after its draws, with .pN before the ending where
several processes write, each its own chains: which, is in its metadata. So the number of
processes may change from one checkpoint to the next.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.types import ArrayTree
from jaxgen.sampler.checkpoint.files import line, read_checked, unpack, write_arrays

__all__ = ["Shard", "leaf_names", "read_draws", "shard_of", "shards_in", "write_draws"]

_SHARD = re.compile(r"(\d{8,12})-(\d{8,12})((?:\.p\d{4,})?)\.safetensors")


class Shard(NamedTuple):
    """One file of draws.

    Attributes:
      path: where it lies.
      first, last: of its draws.
      suffix: of the process that wrote it, empty where there was one.
      digest: the SHA-256 it must have; empty for runs of former versions, which have none.
    """

    path: Path
    first: int
    last: int
    suffix: str
    digest: str = ""


def write_draws(
    folder: Path, first: int, suffix: str, chains: tuple[int, int, int], arrays: dict[str, Any]
) -> tuple[str, str]:
    """Write one file of draws, leaves `[c, S, ...]`.

    Args:
      folder: of draws.
      first: number of the first draw.
      suffix: of this process.
      chains: first chain, number of chains here, number of chains in all.
      arrays: name -> draws.

    Returns:
      The file's name and SHA-256.
    """
    count = next(iter(arrays.values())).shape[1]
    name = f"{first:08d}-{first + count - 1:08d}{suffix}.safetensors"
    notes = {"chains": " ".join(map(str, chains))}
    return name, write_arrays(folder / name, arrays, notes)


def shard_of(path: Path, digest: str = "") -> Shard | None:
    """Read a file's name; None for files of others."""
    match = _SHARD.fullmatch(path.name)
    return match and Shard(path, int(match[1]), int(match[2]), match[3], digest)


def shards_in(folder: Path) -> Iterator[Shard]:
    """Yield the files of draws in a folder, in order."""
    for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else ():
        shard = shard_of(path)
        if shard:
            yield shard


def read_draws(
    shards: list[Shard], start: int, stop: int, chains: tuple[int, int] | None = None
) -> dict[str, np.ndarray]:
    """Read draws start .. stop - 1 from their files: leaves `[C, stop - start, ...]`.

    Args:
      shards: files that hold these draws, for all chains.
      start: the first draw to read.
      stop: the draw after the last one to read.
      chains: the first of the chains to return, and how many; all by default.

    Raises:
      InputError: for damaged files, and where draws are missing.
    """
    folder = shards[0].path.parent if shards else Path("draws")
    wanted = [shard for shard in shards if shard.first < max(stop, 1) and shard.last >= start]
    old = _former_chains(wanted)
    result: dict[str, np.ndarray] = {}
    seen = np.zeros((0, 0), bool)
    for shard in wanted:
        arrays, (first, count, total) = _read(shard, old)
        begin, end = (0, total) if chains is None else (chains[0], chains[0] + chains[1])
        if not result:
            seen = np.zeros((end - begin, stop - start), bool)
            result = {
                name: np.zeros((*seen.shape, *array.shape[2:]), array.dtype)
                for name, array in arrays.items()
            }
        low = min(max(first, begin), end)  # chains that are in the file and wanted
        high = max(min(first + count, end), low)
        rows, there = slice(low - begin, high - begin), slice(low - first, high - first)
        columns = slice(max(shard.first, start) - start, min(shard.last + 1, stop) - start)
        draws = slice(max(start - shard.first, 0), min(stop, shard.last + 1) - shard.first)
        for name, array in arrays.items():
            target = result.get(name)
            if target is None or target.shape[2:] != array.shape[2:] or target.dtype != array.dtype:
                raise expected(str(shard.path), "the arrays of the other files", name)
            target[rows, columns] = array[there, draws]
        seen[rows, columns] = True
    if stop > start and not (wanted and seen.all()):
        lacking = np.flatnonzero(~seen.all(0)) if wanted else [0]
        raise expected(str(folder), "all draws", f"no {int(lacking[0]) + start} of some chain")
    return result


def leaf_names(tree: ArrayTree) -> tuple[list[str], Any]:
    """Return a name for each leaf (its keys, joined by dots), and the structure of the tree."""
    paths, structure = jax.tree_util.tree_flatten_with_path(tree)
    names = [".".join(re.sub(r"\W", "", str(key)) for key in path) or "draws" for path, _ in paths]
    if len(set(names)) < len(names):  # keys that differ in other signs only
        names = [f"{name}.{i}" for i, name in enumerate(names)]
    return names, structure


def _read(
    shard: Shard, old: Mapping[str, tuple[int, int, int]]
) -> tuple[dict[str, np.ndarray], tuple[int, int, int]]:
    """Read a file's arrays, and which chains these are."""
    try:
        data = read_checked(shard.path, shard.digest) if shard.digest else shard.path.read_bytes()
        arrays, notes = unpack(data)
        chains = tuple(map(int, notes["chains"].split())) if "chains" in notes else None
    except ValueError:  # InputError is one
        raise
    except Exception as error:  # the library's own, and the system's
        raise expected(str(shard.path), "a safetensors file", line(error)) from error
    first, count, total = chains or old[shard.suffix]
    draws = shard.last - shard.first + 1
    if not 0 <= first <= first + count <= total or any(
        array.shape[:2] != (count, draws) for array in arrays.values()
    ):
        raise expected(str(shard.path), f"{count} chains of {draws} draws", "another shape")
    return arrays, (first, count, total)


def _former_chains(shards: list[Shard]) -> dict[str, tuple[int, int, int]]:
    """Which chains the files of former versions hold: those of the processes, one after another."""
    first: dict[str, Shard] = {}
    for shard in shards:
        if not shard.digest:
            first.setdefault(shard.suffix, shard)
    counts = {}
    for suffix in sorted(first):
        try:
            arrays = unpack(first[suffix].path.read_bytes())[0]
        except Exception as error:
            raise expected(str(first[suffix].path), "a safetensors file", line(error)) from error
        counts[suffix] = next(iter(arrays.values())).shape[0] if arrays else 0
    result, total = {}, sum(counts.values())
    for suffix, count in counts.items():
        result[suffix] = (sum(row[1] for row in result.values()), count, total)
    return result
