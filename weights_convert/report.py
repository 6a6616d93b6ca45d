"""Text from files of strangers: made safe to print, and read no further than a limit."""

from __future__ import annotations

from pathlib import Path

from jaxgen.core.errors import expected

__all__ = ["plain", "read_classes"]

_MOST_TEXT = 1 << 22  # characters


def plain(text: str, longest: int = 4000) -> str:
    """One line without control characters, which could drive a terminal; cut if very long."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return text if len(text) <= longest else f"{text[:longest]} ... ({len(text)} characters)"


def read_classes(path: str) -> list[str]:
    """Read the names of classes, one a line; empty lines are left out.

    Raises:
      InputError: for a file that cannot be read as text.
    """
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(_MOST_TEXT)
    except (OSError, UnicodeDecodeError) as error:
        raise expected("--classes", "a text file", f"{path} ({error})") from error
    return [line.strip() for line in text.splitlines() if line.strip()]
