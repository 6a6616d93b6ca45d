"""The code of a function, as bytes that can be compared between processes.

A digest of compiled code says whether a function's body is another one. What the body refers
to by name (module globals, attributes of modules, imports inside it) is listed here as well,
for `jaxgen.core.fingerprint` to look up. Nothing here depends on addresses, on line numbers or
on the names of local variables; another minor version of Python compiles the same text
to other bytes.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import importlib.util
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["code_digest", "imported_modules", "is_library", "referenced_names", "source_digest"]

_ATTRIBUTES = ("LOAD_ATTR", "LOAD_METHOD")
_GLOBALS = ("LOAD_GLOBAL", "LOAD_NAME")
_INSTALLED = ("site-packages", "dist-packages")


def code_digest(code: types.CodeType, documentation: str | None = None) -> str:
    """SHA-256 (12 digits) of what is executed: instructions, constants, names, signature.

    Args:
      code: the code object of a function.
      documentation: the function's docstring, which is a constant too and does not count.
    """
    return hashlib.sha256(_code(code, documentation).encode()).hexdigest()[:12]


def referenced_names(code: types.CodeType) -> list[tuple[str, ...]]:
    """Globals that the code reads, each with the attributes read from it at once.

    `np.sin(x) * SIGMA` gives `[("SIGMA",), ("np", "sin")]`. Functions and classes that are defined
    inside are searched too.
    """
    return sorted(set(_references(code)))


def imported_modules(function: types.FunctionType) -> list[str]:
    """Full names of the modules that are imported inside the function."""
    package = function.__globals__.get("__package__") or ""
    found = set()
    for code in _nested(function.__code__):
        before: list[Any] = []
        for step in dis.get_instructions(code):
            if step.opname == "IMPORT_NAME":
                # The level and the names of a `from` lie on the stack.
                level = before[-2].argval if len(before) > 1 else 0
                name = str(step.argval)
                if isinstance(level, int) and level and package:
                    name = importlib.util.resolve_name("." * level + name, package)
                found.add(name)
            before.append(step)
    return sorted(found)


def source_digest(module: types.ModuleType) -> str:
    """SHA-256 (12 digits) of a module's file, or its name if there is none."""
    file = getattr(module, "__file__", None)
    if not file or not Path(file).is_file():
        return module.__name__
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:12]


@functools.cache
def is_library(module: str) -> bool:
    """Return whether a module belongs to Python, to jaxgen or to an installed package."""
    top = module.partition(".")[0]
    if top == "jaxgen" or top in sys.stdlib_module_names or top in sys.builtin_module_names:
        return True
    found = sys.modules.get(top)
    places = [getattr(found, "__file__", None), *(getattr(found, "__path__", None) or ())]
    return any(part in _INSTALLED for place in places if place for part in _parts(place))


def _parts(place: str) -> tuple[str, ...]:
    return Path(os.path.abspath(place)).parts


def _code(code: types.CodeType, documentation: str | None = None) -> str:
    constants = list(code.co_consts)
    if documentation is not None and constants[:1] == [documentation]:
        constants[0] = None
    parts = (
        code.co_code.hex(),
        [_constant(constant) for constant in constants],
        code.co_names,
        code.co_freevars,
        code.co_varnames[: code.co_argcount + code.co_kwonlyargcount],
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount),
        code.co_flags & (0x04 | 0x08),  # *args, **kwargs
        getattr(code, "co_exceptiontable", b"").hex(),
    )
    return repr(parts)


def _constant(value: object) -> str:
    if isinstance(value, types.CodeType):
        return _code(value)
    if isinstance(value, tuple):
        return repr([_constant(item) for item in value])
    if isinstance(value, frozenset):
        return repr(sorted(_constant(item) for item in value))
    return f"{type(value).__name__} {value!r}"  # 1, 1.0 and True are three constants


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)


def _references(code: types.CodeType) -> Iterator[tuple[str, ...]]:
    for part in _nested(code):
        chain: tuple[str, ...] = ()
        for step in dis.get_instructions(part):
            if step.opname in _GLOBALS:
                if chain:
                    yield chain
                chain = (str(step.argval),)
            elif chain and step.opname in _ATTRIBUTES:
                chain = (*chain, str(step.argval))
            elif chain and step.opname not in ("PUSH_NULL", "CACHE"):
                yield chain
                chain = ()
        if chain:
            yield chain
