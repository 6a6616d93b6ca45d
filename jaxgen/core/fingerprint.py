"""Fingerprints: what a run is made of, as names and short texts that can be compared.

A run may only go on as what it was. Its settings become a flat dict: numbers and texts as
they are, arrays as their type, shape and digest, objects by their attributes. Functions and
the user's classes count by their code, and by what the code depends on: closures, defaults,
the object a method is bound to, and the globals it reads, through all functions of the user's
own modules. Installed packages count by name: their versions are noted with a run. Two dicts say
by themselves in what two runs differ.

Not seen: what a function reads through `getattr` with a computed name, files, and modules
that are imported by a module that is itself imported inside a function.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import random
import sys
import types
from collections.abc import Mapping, Set
from typing import Any

import jax
import numpy as np

from jaxgen.core.code import (
    code_digest,
    imported_modules,
    is_library,
    referenced_names,
)
from jaxgen.core.errors import expected
from jaxgen.core.types import ArrayTree
from jaxgen.core.values import (
    attributes_of,
    cached_names,
    digest_of,
    in_library,
    is_own_module,
    is_plain,
    is_tree,
    join,
    module_text,
    name_of,
    placeless,
    sha,
    short_text,
)

__all__ = ["describe", "difference", "digest"]

# Arrays up to this size are shown; containers of more arrays than that are summed up.
_SMALL = 8
_MANY = 32
# Objects inside objects, beyond which Python itself gives up.
_DEEP = 120
_ARRAYS = (jax.Array, np.ndarray, np.generic)
_FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial)
_BUILT_IN = (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType)
# Random generators of the host differ in every process, and no run depends on them.
_BY_TYPE = (random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator)
# What Python puts into a class by itself.
_OF_CLASSES = {
    *("__module__", "__qualname__", "__dict__", "__weakref__", "__doc__", "__annotations__"),
    *("__dataclass_fields__", "__dataclass_params__", "__match_args__", "__parameters__"),
    *("__firstlineno__", "__static_attributes__", "__abstractmethods__", "_abc_impl"),
    *("__slots__", "__annotate__", "__annotate_func__", "__annotations_cache__"),
    *("__orig_bases__", "__type_params__", "__protocol_attrs__", "_is_protocol"),
}
_OF_DATACLASSES = {"__init__", "__repr__", "__eq__", "__hash__", "__setattr__", "__delattr__"}


def describe(value: object, name: str = "") -> dict[str, str]:
    """`{dotted name: text}` for nested dataclasses, containers, arrays, objects and functions.

    Raises:
      InputError: for objects nested more deeply than Python can follow.
    """
    return _Describer().describe(value, name)


def difference(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return a line for each name in which two descriptions differ."""
    lines = []
    for name in sorted(old.keys() | new.keys()):
        was, now = placeless(old.get(name, "nothing")), placeless(new.get(name, "nothing"))
        if was != now:
            lines.append(f"{name} was {was}, is {now}")
    return lines


def digest(tree: object) -> str:
    """Return a tree of arrays in one line: how many numbers, and the SHA-256 of all."""
    return _Describer().sum(tree)


class _Describer:
    """One description; the bytes of an array and the code of a function are read once."""

    def __init__(self) -> None:
        # By identity, together with the object: an identity is only its own while it lives.
        self._known: dict[tuple[str, int], tuple[Any, str]] = {}
        self._open: set[int] = set()
        self._open_classes: set[int] = set()

    def describe(self, value: object, name: str) -> dict[str, str]:
        """Everything that the value consists of."""
        if isinstance(value, _ARRAYS):
            return {name: self._once("array", value, _array)}
        if isinstance(value, bytes | bytearray):
            return {name: f"{len(value)} bytes sha256 {sha([bytes(value)])[:16]}"}
        if is_plain(value):
            return {name: short_text(value)}
        if isinstance(value, types.ModuleType):
            return {name: self._once("module", value, module_text)}
        if isinstance(value, _BY_TYPE):
            return {name: type(value).__qualname__}
        if isinstance(value, logging.Logger):
            return {name: f"logger {value.name}"}
        if id(value) in self._open:  # a function that calls itself, an object that holds itself
            return {name: f"{name_of(value)}, itself"}
        if len(self._open) >= _DEEP:
            shown = ".".join(name.split(".")[:4])
            got = f"{shown}..., nested more than {_DEEP} times"
            raise expected("run", "objects that can be compared", got, "Give a simpler object")
        self._open.add(id(value))
        try:
            return self._parts(value, name)
        finally:
            self._open.discard(id(value))

    def _parts(self, value: object, name: str) -> dict[str, str]:
        if isinstance(value, type):
            return {name: self._class(value)}
        if isinstance(value, functools.partial):
            parts = {"function": value.func, "args": value.args, "keywords": value.keywords}
            return self._items(list(parts.items()), name)
        if isinstance(value, types.MethodType):
            return self.describe(value.__func__, name) | self.describe(
                value.__self__, join(name, "self")
            )
        if isinstance(value, types.FunctionType):
            return self._function(value, name)
        if isinstance(value, staticmethod | classmethod):
            return self.describe(value.__func__, name)
        if isinstance(value, property):
            return self._items([("get", value.fget), ("set", value.fset)], name)
        if isinstance(value, functools.cached_property):
            return self.describe(value.func, name)
        if isinstance(value, _BUILT_IN):
            return self._built_in(value, name)
        wrapped = getattr(value, "__wrapped__", None) if callable(value) else None
        if wrapped is not None and in_library(type(value)):
            inner = self.describe(wrapped, name)  # jit and the like
            inner |= {name: f"{type(value).__qualname__} of {inner.get(name, '')}"}
            own = {k: v for k, v in attributes_of(value).items() if v is not wrapped}
            public = sorted(key for key in own if not key.startswith("_"))  # such as a derivative
            return inner | self._items([(key, own[key]) for key in public], name)
        items = _container(value)
        if items is not None:
            if is_tree(value) and self._only_arrays(value):
                return {name: self.sum(value)}
            own = {} if in_library(type(value)) else {name: self._class(type(value))}
            if not items:
                return own or {name: f"empty {type(value).__qualname__}"}
            return own | self._items(items, name)
        if dataclasses.is_dataclass(value):
            return self._short_if_theirs(value, self._dataclass(value, name), name)
        if is_tree(value):  # such as a network's parameter, in its wrapping
            return {name: self.sum(value)}
        return self._short_if_theirs(value, self._object(value, name), name)

    def _short_if_theirs(self, value: object, found: dict[str, str], name: str) -> dict[str, str]:
        """One line for an object of an installed package, whose insides say nothing to a user."""
        module = type(value).__module__ or ""
        if len(found) < 2 or module.partition(".")[0] == "jaxgen" or not is_library(module):
            return found
        return {name: f"{type(value).__qualname__} sha256 {_summary(found, name)}"}

    def _items(self, items: list[tuple[str, Any]], name: str) -> dict[str, str]:
        result: dict[str, str] = {}
        for key, item in items:
            result |= self.describe(item, join(name, key))
        return result

    def _function(self, value: types.FunctionType, name: str) -> dict[str, str]:
        """Code, closure, defaults, attributes; for the user's own also the globals it reads."""
        home = str(value.__globals__.get("__name__", ""))
        title = f"{value.__module__}.{value.__qualname__}"
        ours = home.partition(".")[0] == "jaxgen"
        if ours or not is_library(home):
            title += f" sha256 {code_digest(value.__code__, value.__doc__)}"
        result = {name: title}
        for variable, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            try:
                content = cell.cell_contents
            except ValueError:
                content = "not set"
            result |= self.describe(content, join(name, f"closure.{variable}"))
        result |= self._defaults(value, name)
        for key in sorted(value.__dict__.keys() - {"__wrapped__"}):
            if not is_library(home):
                result |= self.describe(value.__dict__[key], join(name, f"attribute.{key}"))
        if not is_library(home):
            result |= self._globals(value, name)
        return result

    def _defaults(self, value: types.FunctionType, name: str) -> dict[str, str]:
        code, defaults = value.__code__, value.__defaults__ or ()
        names = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
        pairs = dict(zip(names, defaults, strict=True)) | (value.__kwdefaults__ or {})
        items = [(f"default.{key}", pairs[key]) for key in sorted(pairs)]
        return self._items(items, name)

    def _globals(self, value: types.FunctionType, name: str) -> dict[str, str]:
        """Return a line for each global that the code reads."""
        result: dict[str, str] = {}
        built_in = value.__globals__.get("__builtins__", {})
        built_in = built_in if isinstance(built_in, dict) else vars(built_in)
        for first, *attributes in referenced_names(value.__code__):
            if first in value.__globals__:
                found, path = value.__globals__[first], [first]
            elif first in built_in:
                continue
            else:
                result[join(name, f"global.{first}")] = "not defined"
                continue
            for attribute in attributes:
                if not is_own_module(found) or not hasattr(found, attribute):
                    break
                found, path = getattr(found, attribute), [*path, attribute]
            result[join(name, f"global.{'.'.join(path)}")] = self._line(found)
        for module in imported_modules(value):
            found = sys.modules.get(module)
            if found is not None:
                result[join(name, f"import.{module}")] = self._line(found)
        return result

    def _class(self, value: type) -> str:
        """Return a class by its name; one of the user's also by its methods and constants."""
        title = f"{value.__module__}.{value.__qualname__}"
        if in_library(value):
            return title
        if id(value) in self._open_classes:  # its methods name the class itself
            return title
        self._open_classes.add(id(value))
        try:
            return f"{title} sha256 {self._once('class', value, self._class_digest)}"
        finally:
            self._open_classes.discard(id(value))

    def _class_digest(self, value: type) -> str:
        result: dict[str, str] = {}
        for base in value.__mro__:
            if in_library(base):
                result |= {f"base {base.__module__}.{base.__qualname__}": "library"}
                continue
            skipped = _OF_CLASSES | (_OF_DATACLASSES if dataclasses.is_dataclass(base) else set())
            for key, item in sorted(vars(base).items()):
                if key not in skipped and not isinstance(item, types.GetSetDescriptorType):
                    result |= self.describe(item, f"{base.__qualname__}.{key}")
        return _summary(result)

    def _dataclass(self, value: Any, name: str) -> dict[str, str]:
        library = in_library(type(value))
        title = type(value).__qualname__ if library else self._class(type(value))
        result = {name or "type": title}
        fields = dataclasses.fields(value)
        # A remark is nothing that changes what is computed.
        remarks = {field.name for field in fields if field.metadata.get("remark")}
        names = [field.name for field in fields if field.name not in remarks]
        more = {key for key in getattr(value, "__dict__", {}) if not key.startswith("_")}
        for key in [*names, *sorted(more - remarks - set(names) - cached_names(type(value)))]:
            if hasattr(value, key):
                result |= self.describe(getattr(value, key), join(name, key))
        return result

    def _object(self, value: object, name: str) -> dict[str, str]:
        """Return an object by its class and attributes."""
        attributes = attributes_of(value)
        title = self._class(type(value))
        if attributes:
            return {name: title} | self._items(sorted(attributes.items()), name)
        if not in_library(type(value)):
            return {name: title}
        text = repr(value)
        if " at 0x" not in text:
            return {name: short_text(value)}
        try:  # objects written in C say by what they can be made again
            parts = value.__reduce_ex__(4)
        except Exception:
            return {name: title}
        if isinstance(parts, str):
            return {name: f"{title} {parts}"}
        return {name: title} | self._items([("args", parts[1]), ("state", parts[2:3])], name)

    def _built_in(self, value: Any, name: str) -> dict[str, str]:
        owner = getattr(value, "__self__", None)
        result = {name: f"{getattr(value, '__module__', None)}.{value.__qualname__}"}
        if owner is None or isinstance(owner, types.ModuleType):
            return result
        return result | self.describe(owner, join(name, "self"))

    def _line(self, value: object) -> str:
        """Return a value in one line: as it is where that is short, else its name and digest."""
        found = self.describe(value, "")
        if set(found) <= {""}:
            return found.get("", "empty")
        return f"{name_of(value)} sha256 {_summary(found)}"

    def _only_arrays(self, value: object) -> bool:
        """Return whether a container holds nothing but arrays, and too many to list."""
        parts = jax.tree.leaves(value, is_leaf=dataclasses.is_dataclass)
        return len(parts) > _MANY and all(isinstance(part, _ARRAYS) for part in parts)

    def sum(self, value: object) -> str:
        """Return a tree of arrays in one line; its structure counts as well."""
        leaves, structure = jax.tree.flatten(value)
        texts = [
            self._once("array", leaf, _array)
            if isinstance(leaf, _ARRAYS)
            else repr(sorted(self.describe(leaf, "").items()))
            for leaf in leaves
        ]
        texts.append(self._structure(structure))
        count = sum(np.size(leaf) for leaf in leaves if isinstance(leaf, _ARRAYS))
        return f"{count} numbers sha256 {sha([text.encode() for text in texts])[:16]}"

    def _structure(self, structure: ArrayTree) -> str:
        data = structure.node_data()
        kind, extra = ("leaf", ()) if data is None else data
        inner = [self._structure(child) for child in structure.children()]
        return repr((name_of(kind), sorted(self.describe(extra, "").items()), inner))

    def _once(self, kind: str, value: Any, function: Any) -> str:
        place = (kind, id(value))
        if place not in self._known:
            self._known[place] = (value, function(value))
        return self._known[place][1]


def _summary(found: Mapping[str, str], name: str = "") -> str:
    """Return a digest of a description, the same under whatever name it stands."""
    items = sorted((key.removeprefix(name), placeless(text)) for key, text in found.items())
    return sha([repr(items).encode()])[:12]


def _array(value: object) -> str:
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        words = np.asarray(jax.random.key_data(value))
        shown = words.tolist() if words.size <= _SMALL else f"sha256 {digest_of(words)}"
        return f"key {shown}"
    array = np.asarray(value)
    if array.dtype == object:
        parts = [repr(sorted(describe(item).items())).encode() for item in array.ravel()]
        return f"object{list(array.shape)} sha256 {sha(parts)[:16]}"
    if array.size <= _SMALL:
        return f"{array.dtype}{list(array.shape)} {array.tolist()}"
    return f"{array.dtype}{list(array.shape)} sha256 {digest_of(array)}"


def _container(value: object) -> list[tuple[str, Any]] | None:
    """Return a container's named parts, or None."""
    if isinstance(value, Mapping):
        return [(str(key), value[key]) for key in sorted(value, key=str)]
    if isinstance(value, list | tuple):
        names = getattr(value, "_fields", range(len(value)))
        return [(str(key), item) for key, item in zip(names, value, strict=True)]
    if isinstance(value, Set):
        items = sorted(value, key=lambda item: repr(sorted(describe(item).items())))
        return [(str(key), item) for key, item in enumerate(items)]
    return None
