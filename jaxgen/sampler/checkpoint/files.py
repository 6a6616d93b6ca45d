"""Files that are written whole or not at all, and read with suspicion."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxgen.core.atomic import replacing
from jaxgen.core.errors import InputError, expected

__all__ = ["line", "read_settings", "space", "write_bytes", "write_settings"]

FORMAT = "jaxgen-sampling/1"
_MOST_JSON = 1 << 24


def write_settings(path: Path, data: dict[str, Any]) -> None:
    """Write what a run is made of."""
    write_bytes(path, (json.dumps({"format": FORMAT, **data}, indent=2) + "\n").encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file, whole or not at all."""
    with replacing(path) as file:
        file.write(data)


def read_settings(path: Path) -> dict[str, Any]:
    """Read what `write_settings` wrote, or raise `InputError`."""
    try:
        if path.stat().st_size > _MOST_JSON:
            raise ValueError(f"{path.stat().st_size} bytes")
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r}")
        for part in ("settings", "environment"):
            if not all(isinstance(x, str) for pair in data[part].items() for x in pair):
                raise ValueError(f"{part} that are no texts")
        return data
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise expected(str(path), f"a run of format {FORMAT}", line(error)) from error


@contextlib.contextmanager
def space(path: Path) -> Iterator[None]:
    """Turn trouble with the disk into an `InputError`; what was written before stays whole."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # the system's errors, or tensorstore's
        raise expected(
            "folder",
            f"to write into {path}",
            line(error),
            "The last checkpoint and its draws are whole: make room, then resume",
        ) from error


def line(error: Exception) -> str:
    """An error in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
