"""Manifests: which files make up a checkpoint, and the SHA-256 of each.

    N.safetensors            arrays
    N.json                   the manifest, written last: without it, there is no checkpoint N
    N.p0001.safetensors, ...  the same of further processes, where several write

The two newest checkpoints are kept. If a file of the newest is damaged, the one before it
serves: what is computed again has the same bits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgen.core.errors import InputError, expected
from jaxgen.sampler.checkpoint.files import line, read_checked, read_json, unpack, write_json

__all__ = [
    "Manifest",
    "arrays_of",
    "ending",
    "forget",
    "numbers",
    "read_manifest",
    "write_manifest",
]

FORMAT = "jaxgen-checkpoint/1"
_NAME = re.compile(r"(\d{8,12})((?:\.p\d{4})?)\.json")
_ANY = re.compile(r"(\d{8,12})(?:\.p\d{4})?\.(?:json|safetensors)")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Manifest(NamedTuple):
    """One process's part of a checkpoint.

    Attributes:
      number: of the checkpoint.
      files: name, relative to the folder of the manifest -> SHA-256.
      processes: how many wrote this checkpoint.
      written: draws that are counted.
    """

    number: int
    files: dict[str, str]
    processes: int
    written: int


def ending(index: int, processes: int) -> str:
    """Return the ending of one process's files: empty where there is one process."""
    return "" if processes == 1 else f".p{index:04d}"


def write_manifest(folder: Path, manifest: Manifest, suffix: str = "") -> None:
    """Commit a checkpoint whose files are all written."""
    data = {"format": FORMAT, **manifest._asdict()}
    write_json(folder / f"{manifest.number:08d}{suffix}.json", data)


def numbers(folder: Path) -> list[int]:
    """Return the numbers of the checkpoints that have a manifest, the newest first."""
    if not folder.is_dir():
        return []
    found = (_NAME.fullmatch(path.name) for path in folder.iterdir())
    return sorted({int(match[1]) for match in found if match}, reverse=True)


def read_manifest(folder: Path, number: int) -> list[Manifest]:
    """Read a checkpoint's manifests, one of each process that wrote it.

    Raises:
      InputError: if one is missing or damaged.
    """
    first = [folder / f"{number:08d}{suffix}.json" for suffix in ("", ".p0000")]
    place = first[0] if first[0].exists() else first[1]
    manifests = [_read(place, number)]
    count = manifests[0].processes
    if (count == 1) != (place == first[0]):
        raise expected(str(place), f"a manifest of {count} processes", "another name")
    for index in range(1, count):
        other = _read(folder / f"{number:08d}{ending(index, count)}.json", number)
        if (other.processes, other.written) != (count, manifests[0].written):
            raise expected(str(folder), f"a checkpoint {number} of {count} processes", "two halves")
        manifests.append(other)
    return manifests


def arrays_of(folder: Path, manifest: Manifest, name: str) -> dict[str, np.ndarray]:
    """Read the arrays of one of a manifest's files, whose SHA-256 must agree."""
    path = folder / name
    if name not in manifest.files:
        raise expected(str(path), "a file of this checkpoint", "none in its manifest")
    data = read_checked(path, manifest.files[name])
    try:
        return unpack(data)[0]
    except Exception as error:  # the library's own
        raise expected(str(path), "a safetensors file", line(error)) from error


def forget(folder: Path, before: int | None = None, after: int | None = None) -> None:
    """Delete checkpoints with numbers below `before` or above `after`, and what was left half.

    A manifest goes before its arrays: a checkpoint without all of its files is none.
    """
    if not folder.is_dir():
        return
    names = sorted(path.name for path in folder.iterdir())
    for name in sorted(names, key=lambda name: not name.endswith(".json")):
        match = _ANY.fullmatch(name)
        number = int(match[1]) if match else None
        old = number is not None and before is not None and number < before
        new = number is not None and after is not None and number > after
        if old or new or (after is not None and name.endswith(".part")):
            (folder / name).unlink(missing_ok=True)


def _read(path: Path, number: int) -> Manifest:
    try:
        data: dict[str, Any] = read_json(path)
        if data["format"] != FORMAT or not data["checked"]:
            raise ValueError(f"format {data['format']!r}")
        files: Mapping[str, str] = data["files"]
        for name, digest in files.items():
            if not _DIGEST.fullmatch(digest) or ".." in Path(name).parts[1:] or name[:1] == "/":
                raise ValueError(f"file {name[:80]!r}")
        counts = [data["number"], data["processes"], data["written"]]
        if not all(isinstance(x, int) and 0 <= x < 1 << 40 for x in counts) or counts[0] != number:
            raise ValueError("numbers that are none")
        if not 1 <= counts[1] <= 9999:
            raise ValueError(f"{counts[1]} processes")
        return Manifest(number, dict(files), counts[1], counts[2])
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise expected(str(path), "the manifest of a checkpoint", line(error)) from error
