"""Text from files of strangers, made safe to print."""

from __future__ import annotations

__all__ = ["plain"]


def plain(text: str, longest: int = 4000) -> str:
    """One line without control characters, which could drive a terminal; cut if very long."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return text if len(text) <= longest else f"{text[:longest]} ... ({len(text)} characters)"
