"""A pickle reader that cannot run code: an interpreter of the stream of our own.

Pickle is a small stack language whose `GLOBAL` and `REDUCE` instructions import and call
anything the file names. Here they import nothing: a global is looked up in a table the
caller gives, whose values are functions of ours that build plain data. Every other name is an
error or, if the caller says so, becomes an inert `Placeholder`: checkpoints of training keep
their arguments (`argparse.Namespace`), NumPy scalars and `torch.Size` beside the weights, and
what is not asked for need not be understood. Names of the modules that attacks use are errors
in any case. Memory and time are linear in the length of the stream, which is bounded:
the memo is a dictionary (the C unpickler allocates an array as long as the largest index a
file names), dictionary keys are text or small integers (hashing nested tuples recurses without a
limit, and takes 2^n steps on shared ones), integers are short, and nothing here recurses.

References: the instruction set is that of Python's `pickletools`; protocols 0 to 5.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable, Mapping
from typing import Any

from weights_convert.pickle_machine import Machine
from weights_convert.pickle_values import (
    Attributes,
    Buildable,
    Bytes2,
    Forbidden,
    PickleError,
    Placeholder,
    forbidden,
)

__all__ = [
    "MAX_PICKLE_BYTES", "Attributes", "Buildable", "Bytes2", "Forbidden", "PickleError",
    "Placeholder", "forbidden", "load",
]  # fmt: skip

MAX_PICKLE_BYTES = 8 * 1024 * 1024
"""Longest stream read. Ten thousand tensors take 2.5 MB; the weights lie elsewhere."""


def load(
    data: bytes | memoryview,
    name: str,
    allowed: Mapping[tuple[str, str], Callable[..., Any]],
    persistent: Callable[[Any], Any] | None = None,
    offset: int = 0,
    limit: int | None = None,
    placeholders: bool = False,
) -> tuple[Any, int]:
    """Interpret one pickle stream.

    Args:
      data: the bytes that hold the stream.
      name: what to call the file in errors.
      allowed: `(module, name) -> function`: what a global stands for. `REDUCE` calls the
        function with the arguments from the file, so it must check them.
      persistent: turns a persistent identifier into a value; None forbids them.
      offset: where in `data` the stream begins.
      limit: the longest stream in bytes, `MAX_PICKLE_BYTES`; more only where arrays lie in
        the stream itself. The number of instructions has a limit of its own.
      placeholders: whether names outside `allowed` become inert `Placeholder` objects.

    Returns:
      The value and the offset after the `STOP` instruction.

    Raises:
      Forbidden: a global outside `allowed`; the message names it.
      PickleError: anything else wrong; the message names the offset.
    """
    limit = MAX_PICKLE_BYTES if limit is None else limit
    machine = Machine(memoryview(data).cast("B"), name, allowed, persistent, offset, limit)
    machine.placeholders = placeholders
    return machine.run(_INSTRUCTIONS)


def _protocol(machine: Machine, stack: list[Any]) -> None:
    version = machine.unsigned(1)
    if version > 5:
        raise machine.fail(f"pickle protocol {version}; 0 to 5 are known")


def _append(machine: Machine, stack: list[Any]) -> None:
    value = machine.pop()
    if not _swallowed(machine):
        machine.top(list, "APPEND").append(value)


def _appends(machine: Machine, stack: list[Any]) -> None:
    items = machine.pop_to_mark()
    if not _swallowed(machine):
        machine.top(list, "APPENDS").extend(items)


def _set_item(machine: Machine, stack: list[Any]) -> None:
    value, key = machine.pop(), machine.pop()
    _set_pairs(machine, [key, value], "SETITEM")


def _set_items(machine: Machine, stack: list[Any]) -> None:
    items = machine.pop_to_mark()
    _set_pairs(machine, items, "SETITEMS")


def _set_pairs(machine: Machine, items: list[Any], what: str) -> None:
    target = machine.top(object, what)
    if isinstance(target, Placeholder):
        if target.items is None:
            target.items = {}
        machine.set_items(target.items, items)
    else:
        machine.set_items(machine.top(dict, what), items)


def _swallowed(machine: Machine) -> bool:
    """Return whether what is added goes to a placeholder, which keeps no list."""
    return isinstance(machine.top(object, "APPEND"), Placeholder)


def _new_object(machine: Machine, stack: list[Any]) -> None:
    machine.pop()
    machine.new_object(machine.pop())


def _new_object_ex(machine: Machine, stack: list[Any]) -> None:
    machine.pop()
    _new_object(machine, stack)


def _instance(machine: Machine, stack: list[Any]) -> None:
    cls = machine.find(machine.line(), machine.line())
    machine.pop_to_mark()
    machine.new_object(cls)


def _object(machine: Machine, stack: list[Any]) -> None:
    items = machine.pop_to_mark()
    machine.new_object(items[0] if items else None)


def _set(machine: Machine, stack: list[Any]) -> None:
    if not machine.placeholders:
        raise machine.fail("a set, which this kind of file has none of")
    stack.append([])


def _frozen_set(machine: Machine, stack: list[Any]) -> None:
    items = machine.pop_to_mark()
    _set(machine, stack)
    stack[-1].extend(items)


def _dict(machine: Machine, stack: list[Any]) -> None:
    target: dict[Any, Any] = {}
    machine.set_items(target, machine.pop_to_mark())
    stack.append(target)


def _tuple_of(count: int) -> Callable[[Machine, list[Any]], None]:
    def build(machine: Machine, stack: list[Any]) -> None:
        items = [machine.pop() for _ in range(count)]
        stack.append(tuple(reversed(items)))

    return build


def _stack_global(machine: Machine, stack: list[Any]) -> None:
    attribute, module = machine.pop(), machine.pop()
    stack.append(machine.find(module, attribute))


def _reduce(machine: Machine, stack: list[Any]) -> None:
    arguments, function = machine.pop(), machine.pop()
    stack.append(machine.reduce(function, arguments))


def _build(machine: Machine, stack: list[Any]) -> None:
    state = machine.pop()
    target = machine.top(object, "BUILD")
    if isinstance(target, Placeholder):
        target.state = state
    elif isinstance(target, Buildable):
        try:
            target.build(state)
        except PickleError as error:
            raise machine.fail(str(error)) from None
    elif not isinstance(target, Attributes):  # whose state, version counters, is dropped
        raise machine.fail("BUILD on something that takes no state")


def _persistent(machine: Machine, stack: list[Any]) -> None:
    identifier = machine.pop()
    if machine.persistent is None:
        raise machine.fail("a persistent identifier, which this kind of file has none of")
    try:
        stack.append(machine.persistent(identifier))
    except PickleError as error:
        raise machine.fail(str(error)) from None


def _text_string(machine: Machine, stack: list[Any]) -> None:
    raw = machine.raw_line(machine.limit)
    if len(raw) < 2 or raw[:1] != raw[-1:] or raw[:1] not in b"'\"":
        raise machine.fail("a quoted string that is none")
    try:
        # The escapes of Python 2's repr, as its own unpickler undoes them; no code runs.
        stack.append(machine.text2(codecs.escape_decode(raw[1:-1])[0]))
    except ValueError:
        raise machine.fail("a quoted string that is none") from None


def _unicode_line(machine: Machine, stack: list[Any]) -> None:
    try:
        stack.append(machine.raw_line(machine.limit).decode("raw-unicode-escape"))
    except UnicodeDecodeError:
        raise machine.fail("a text that is none") from None


def _float(machine: Machine, stack: list[Any]) -> None:
    try:
        stack.append(float(machine.line()))
    except ValueError:
        raise machine.fail("a number that is none") from None


def _pop(machine: Machine, stack: list[Any]) -> None:
    if machine.marks and len(stack) == machine.marks[-1]:
        machine.marks.pop()
    else:
        machine.pop()


_INSTRUCTIONS: dict[bytes, Callable[[Machine, list[Any]], Any]] = {
    b"\x80": _protocol,
    b"\x95": lambda m, s: m.take(8),  # FRAME: a hint for buffered readers
    b"(": lambda m, s: m.marks.append(len(s)),
    b"0": _pop,
    b"1": lambda m, s: m.pop_to_mark(),
    b"2": lambda m, s: s.append(m.top(object, "DUP")),
    b"N": lambda m, s: s.append(None),
    b"\x88": lambda m, s: s.append(True),
    b"\x89": lambda m, s: s.append(False),
    b"I": lambda m, s: s.append(m.decimal(m.line())),
    b"L": lambda m, s: s.append(m.decimal(m.line())),
    b"J": lambda m, s: s.append(m.integer(m.take(4))),
    b"K": lambda m, s: s.append(m.unsigned(1)),
    b"M": lambda m, s: s.append(m.unsigned(2)),
    b"\x8a": lambda m, s: s.append(m.integer(m.take(m.unsigned(1)))),
    b"\x8b": lambda m, s: s.append(m.integer(m.take(m.unsigned(4)))),
    b"F": _float,
    b"G": lambda m, s: s.append(struct.unpack(">d", m.take(8))[0]),
    b"S": _text_string,
    b"V": _unicode_line,
    b"T": lambda m, s: s.append(m.text2(bytes(m.take(m.unsigned(4))))),
    b"U": lambda m, s: s.append(m.text2(bytes(m.take(m.unsigned(1))))),
    b"X": lambda m, s: s.append(m.text(m.unsigned(4))),
    b"\x8c": lambda m, s: s.append(m.text(m.unsigned(1))),
    b"\x8d": lambda m, s: s.append(m.text(m.unsigned(8))),
    b"B": lambda m, s: s.append(bytes(m.take(m.unsigned(4)))),
    b"C": lambda m, s: s.append(bytes(m.take(m.unsigned(1)))),
    b"\x8e": lambda m, s: s.append(bytes(m.take(m.unsigned(8)))),
    b"]": lambda m, s: s.append([]),
    b"}": lambda m, s: s.append({}),
    b")": lambda m, s: s.append(()),
    b"l": lambda m, s: s.append(m.pop_to_mark()),
    b"d": _dict,
    b"t": lambda m, s: s.append(tuple(m.pop_to_mark())),
    b"\x85": _tuple_of(1),
    b"\x86": _tuple_of(2),
    b"\x87": _tuple_of(3),
    b"a": _append,
    b"e": _appends,
    b"s": _set_item,
    b"u": _set_items,
    b"p": lambda m, s: m.store(m.decimal(m.line())),
    b"q": lambda m, s: m.store(m.unsigned(1)),
    b"r": lambda m, s: m.store(m.unsigned(4)),
    b"\x94": lambda m, s: m.store(len(m.memo)),
    b"g": lambda m, s: s.append(m.remembered(m.decimal(m.line()))),
    b"h": lambda m, s: s.append(m.remembered(m.unsigned(1))),
    b"j": lambda m, s: s.append(m.remembered(m.unsigned(4))),
    b"c": lambda m, s: s.append(m.find(m.line(), m.line())),
    b"\x93": _stack_global,
    b"R": _reduce,
    b"b": _build,
    b"\x81": _new_object,
    b"\x92": _new_object_ex,
    b"i": _instance,
    b"o": _object,
    b"\x8f": _set,
    b"\x90": _appends,
    b"\x91": _frozen_set,
    b"\x96": lambda m, s: s.append(bytes(m.take(m.unsigned(8)))),
    b"Q": _persistent,
}
