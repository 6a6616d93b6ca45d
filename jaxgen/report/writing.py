"""Writing the page: beside the run, in one rename."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from jaxgen.core.errors import expected
from jaxgen.report.page import GENERATOR, page
from jaxgen.report.reading import Run, read
from jaxgen.report.verdicts import Part
from jaxgen.sampler.checkpoint.files import write_bytes

__all__ = ["check_free", "default_path", "write"]


def default_path(run: str | Path) -> Path:
    """`RUN.html` beside the run's folder, which stays as it was written."""
    path = Path(run).resolve()
    return path.with_name(f"{path.name}.html")


def check_free(path: Path, *, force: bool = False) -> None:
    """Raise `InputError` unless a page may be written: an earlier page is replaced, a
    stranger's file only with `force`, a folder never.
    """
    if path.is_dir():
        raise expected("--out", "the name of a file", f"{path}, a folder")
    if path.suffix.lower() not in (".html", ".htm"):
        raise expected("--out", "a name that ends in .html", str(path))
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise expected("--out", "a folder that can be written to", str(path.parent))
    if not os.path.lexists(path) or force:
        return
    try:
        with path.open("rb") as file:
            ours = GENERATOR.encode() in file.read(512)
    except OSError:
        ours = False
    if not ours:
        hint = "Give --force to replace it, or another --out"
        raise expected("--out", "a new file, or an earlier report", str(path), hint)


def write(
    run: str | Path | Run,
    out: str | Path | None = None,
    *,
    force: bool = False,
    parts: Sequence[Part] | None = None,
) -> Path:
    """Write a run's report; returns where.

    Args:
      run: the folder that a command has written.
      out: the file; `RUN.html` beside the folder by default. An earlier report is replaced.
      force: replace also what is no report.
      parts: of `examine(run)`, where the caller has them already.

    Raises:
      InputError: for a folder that holds no run, a damaged one, or a file in the way.
    """
    folder = run.path if isinstance(run, Run) else Path(run)
    path = default_path(folder) if out is None else Path(out)
    check_free(path, force=force)
    text = page(run if isinstance(run, Run) else read(folder), parts)
    try:
        write_bytes(path, text.encode("utf-8", errors="replace"))
    except OSError as error:
        raise expected("--out", "a file that can be written", error) from error
    return path
