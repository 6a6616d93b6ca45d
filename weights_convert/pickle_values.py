"""What a pickle stream may hold besides plain data, and the errors for everything else."""

from __future__ import annotations

import re
from typing import Any

from jaxgen.core.errors import InputError

__all__ = [
    "HOSTILE", "Attributes", "Buildable", "Bytes2", "Forbidden", "PickleError", "Placeholder",
    "Unnamed", "forbidden",
]  # fmt: skip


class PickleError(InputError):
    """A stream that is damaged, too long, or asks for something that is not data."""


class Forbidden(PickleError):
    """A stream that names a global outside the table: it may be an attack."""


class Attributes(dict[Any, Any]):
    """A dictionary to which `BUILD` may add attributes, which are dropped."""


class Bytes2(str):
    """Text that Python 2 wrote as bytes; `raw` has them as they stand in the file."""

    raw: bytes = b""


class Placeholder:
    """A value that the file gives by an unknown name: nothing was imported, nothing was run.

    Attributes:
      label: the name.
      state: what the file wanted the object to have, plain data or placeholders; or None.
      items: those of a dictionary of an unknown class, or None.
    """

    __slots__ = ("items", "label", "state")

    def __init__(self, label: str):
        self.label = label
        self.state: Any = None
        self.items: dict[Any, Any] | None = None


class Unnamed:
    """Stands in for a key of a dictionary that is neither text nor a small number."""

    __slots__ = ("kind",)

    def __init__(self, kind: str):
        self.kind = kind


HOSTILE = re.compile(
    r"(os|posix|nt|subprocess|sys|socket|shutil|pty|runpy|importlib|ctypes|pickle|marshal|code"
    r"|webbrowser|commands|asyncio|multiprocessing|urllib|requests|http|ftplib|platform|pip"
    r"|timeit|cProfile|profile|pdb|bdb|idlelib|tempfile|cloudpickle)(\..*)?"
    r"|builtins\.(eval|exec|execfile|compile|open|file|__import__|input|apply|breakpoint|globals"
    r"|vars|delattr|setattr)(\..*)?",
    re.DOTALL,
)
"""Names by which pickles attack; no checkpoint has a use for them."""


def forbidden(name: str, label: str, at: str = "") -> Forbidden:
    """Return the error for a name that would have to be imported."""
    return Forbidden(
        f"{name}: {at}the file wants to use {label[:200]!r}, which is not among the names a file "
        "of weights needs. Nothing was run. Save the weights alone, "
        "torch.save(model.state_dict(), ...), or as safetensors"
    )


class Buildable:
    """A value that a global's function made and `BUILD` completes."""

    def build(self, state: object) -> None:
        """Take the state from the file, which is to be checked.

        Raises:
          PickleError: if it does not fit.
        """
        raise NotImplementedError
