"""Networks by name, for rooms that stand below the models.

`ClassLogSoftmax("fashion-mnist/cnn", "sneaker")` needs the registry of models, and
conditions stand below it. So the registry tells this file how to load, once, when it is
imported, and whoever needs a network by its name asks here; what nobody has imported yet is
imported then.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Sequence
from typing import Any

from jaxgen.core.errors import InputError, expected

__all__ = ["class_index", "install", "network"]

_LOADERS: list[Callable[[str], Any]] = []


def install(load: Callable[[str], Any]) -> None:
    """Say how a network is loaded by its name."""
    _LOADERS[:] = [load]


def network(name: str, argument: str) -> Any:
    """Return the network of a name, as `jaxgen.load` gives it.

    Args:
      name: as `jaxgen.load` takes it.
      argument: which argument it was given for; the error begins with it.

    Raises:
      InputError: where nothing has this name.
    """
    if not _LOADERS:  # by its name, since no import goes up a floor
        importlib.import_module("jaxgen.models.registry")
    try:
        return _LOADERS[0](name)
    except InputError as error:
        raise InputError(f"{argument}: {error}") from error


def class_index(label: str, names: Sequence[str], argument: str = "label") -> int:
    """Return a class by its name; case, `-`, `_`, `/` and the end of the word do not matter.

    Raises:
      InputError: for a name that no class, or more than one, begins with.
    """
    folded = [_fold(name) for name in names]
    word = _fold(label)
    if word in folded:
        return folded.index(word)
    starts = [i for i, name in enumerate(folded) if word and name.startswith(word)]
    if len(starts) == 1:
        return starts[0]
    near = difflib.get_close_matches(word, folded, 1, 0.4)
    hint = f"Did you mean {names[folded.index(near[0])]!r}?" if near else ""
    raise expected(argument, f"one of {', '.join(names)}", repr(label), hint)


def _fold(name: str) -> str:
    return name.lower().replace("-", " ").replace("_", " ").replace("/", " ").strip()
