"""Write a converted file: whole, new, and never over what it was made from.

Every command writes through `write_new`, after its comparison has passed. `destination` makes
the same checks at the start, so that a long conversion is not refused at its end.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxgen.core.errors import expected
from jaxgen.models.weights import save_weights

__all__ = ["destination", "write_new"]

_SUFFIX = ".safetensors"

PathLike = str | os.PathLike[str]


def destination(path: PathLike, *, sources: Iterable[PathLike] = (), force: bool = False) -> Path:
    """Return the file to write, after a check that writing it destroys nothing.

    Args:
      path: the file to write.
      sources: the files that are read; none of them may be written, not even with `force`.
      force: whether another file that exists may be replaced.

    Raises:
      InputError: if the name does not end in `.safetensors`, if it is (another name of) a
        source, or if it exists and `force` is false.
    """
    path = Path(path)
    if path.suffix != _SUFFIX:
        raise expected("--out", f"a name that ends in {_SUFFIX}", repr(path.name))
    for source in sources:
        if _same(path, Path(source)):
            hint = "A source is never overwritten: choose another name."
            raise expected("--out", "another file than those that are read", str(path), hint)
    if path.is_dir():
        raise expected("--out", "a file", f"{path}, which is a folder")
    if not force and os.path.lexists(path):
        raise expected("--out", "a new file", f"{path}, which exists", "Overwrite it with --force.")
    return path


def write_new(
    path: PathLike,
    arrays: Mapping[str, Any],
    metadata: Mapping[str, Any],
    *,
    sources: Iterable[PathLike] = (),
    force: bool = False,
) -> Path:
    """Write a weight file that appears whole or not at all.

    Without `force` a file that another process makes meanwhile is not replaced either: the
    finished file gets its name by a hard link, which fails where the name is taken.

    Args:
      path: see `destination`.
      sources: likewise.
      force: likewise.
      arrays: see `jaxgen.models.weights.save_weights`.
      metadata: likewise.

    Returns:
      The file.

    Raises:
      InputError: as `destination` does, or for numbers that are not finite.
    """
    sources = tuple(sources)
    path = destination(path, sources=sources, force=force)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.stem[:100]}.") as folder:
        made = Path(folder) / f"made{_SUFFIX}"
        save_weights(made, arrays, metadata)
        if force:
            os.replace(made, destination(path, sources=sources, force=True))
            return path
        try:
            os.link(made, path)
        except FileExistsError:
            destination(path, sources=sources)
            raise
        except OSError:  # a file system without hard links
            os.replace(made, destination(path, sources=sources))
    return path


def _same(path: Path, source: Path) -> bool:
    """Return whether two names mean one file, through links as well."""
    try:
        return os.path.samefile(path, source)
    except OSError:
        return os.path.abspath(path) == os.path.abspath(source)
