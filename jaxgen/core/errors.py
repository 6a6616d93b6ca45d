"""How jaxgen says no.

Bad input is answered before anything is traced or written, by one line that names the
argument, what was expected, what came and, where there is one, the way out.
"""

from __future__ import annotations

__all__ = ["InputError", "expected"]


class InputError(ValueError):
    """An argument that cannot be used. The command line prints it and exits with 2."""


def expected(argument: str, wanted: str, got: object, hint: str = "") -> InputError:
    """Build the one-line error: `argument: expected WANTED; got GOT. HINT`."""
    message = f"{argument}: expected {wanted}; got {got}"
    return InputError(f"{message}. {hint}" if hint else message)
