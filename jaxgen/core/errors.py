"""Errors for bad input.

Bad input is answered before anything is traced or written, by one line that names the
argument, what was expected, what came and, where there is one, the way out.
"""

from __future__ import annotations

from numbers import Integral

__all__ = ["InputError", "check_integer", "expected", "visible"]


class InputError(ValueError):
    """An argument that cannot be used. The command line prints it and exits with 2."""


def expected(argument: str, wanted: str, got: object, hint: str = "") -> InputError:
    """Build the one-line error: `argument: expected WANTED; got GOT. HINT`."""
    message = visible(f"{argument}: expected {wanted}; got {got}")
    return InputError(f"{message}. {hint}" if hint else message)


def visible(text: str) -> str:
    """Return a text whose invisible characters are written as Python's escapes of them.

    A name that somebody else chose may hold characters that drive a terminal, or that reverse
    the direction of what follows, so that a reader sees another text than there is (Boucher &
    Anderson 2021, "Trojan Source"). Line feeds stay.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def check_integer(name: str, value: object, least: int) -> None:
    """Raise `InputError` unless value is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, Integral) or int(value) < least:
        raise expected(name, f"an integer of at least {least}", value)
