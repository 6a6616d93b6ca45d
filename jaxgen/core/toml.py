"""TOML files of other people: input that would take the reader minutes raises an error first.

Python's reader takes time quadratic in the parts of a dotted key, and makes whole numbers of any
length, which no later step can print. TOML 1.0 promises 64 bits, and that is what passes.
"""

from __future__ import annotations

import tomllib
from typing import Any

__all__ = ["parse_toml"]

# In a line: 50,000 parts of a key take a minute.
_MOST_DOTS = 100


def parse_toml(text: str) -> dict[str, Any]:
    """Return the table of a text.

    Raises:
      ValueError: in one line, for text that is no TOML, over 100 dots in a line, or a whole
        number of more than 64 bits.
    """
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > _MOST_DOTS:
            raise ValueError(f"line {number}: over {_MOST_DOTS} dots")
    try:
        found = tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:  # Python refuses to read a decimal number of over 4,300 digits
        raise ValueError("a whole number of more than 64 bits") from None
    _check(found)
    return found


def _check(found: dict[str, Any]) -> None:
    waiting: list[Any] = [found]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise ValueError("a whole number of more than 64 bits")
