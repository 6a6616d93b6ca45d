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
import re
import struct
from collections.abc import Callable, Mapping
from typing import Any

from jaxgen.core.errors import InputError

__all__ = [
    "MAX_PICKLE_BYTES", "Attributes", "Buildable", "Bytes2", "Forbidden", "PickleError",
    "Placeholder", "forbidden", "load",
]  # fmt: skip

MAX_PICKLE_BYTES = 8 * 1024 * 1024
"""Longest stream read. Ten thousand tensors take 2.5 MB; the weights lie elsewhere."""

_MAX_STEPS = 3_000_000  # a hundred thousand tensors take two and a half million
_MAX_INT_BYTES = 16
_MAX_LINE = 1024
_MAX_KEY = 2**60  # beyond it Python integers collide in a dictionary at will


class PickleError(InputError):
    """A stream that is damaged, too long, or asks for something that is not data."""


class Forbidden(PickleError):
    """A stream that names a global outside the table: it may be an attack."""


class Attributes(dict):
    """What `BUILD` may decorate: a dictionary whose attribute dictionary is dropped."""


class Bytes2(str):
    """Text that Python 2 wrote as bytes; `raw` has them as they stand in the file."""

    raw: bytes = b""


class Placeholder:
    """What the file calls by a name that is not known: nothing was imported, nothing run.

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


class _Unnamed:
    """Stands in for a key of a dictionary that is neither text nor a small number."""

    __slots__ = ("kind",)

    def __init__(self, kind: str):
        self.kind = kind


_HOSTILE = re.compile(
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
    machine = _Machine(memoryview(data).cast("B"), name, allowed, persistent, offset, limit)
    machine.placeholders = placeholders
    return machine.run()


class _Global:
    """A name from the table, on the stack."""

    __slots__ = ("function", "label")

    def __init__(self, function: Callable[..., Any], label: str):
        self.function = function
        self.label = label


class _Machine:
    """The interpreter: a stack, a memo and a position."""

    def __init__(self, data, name, allowed, persistent, offset, limit):
        self.data = data
        self.name = name
        self.allowed = allowed
        self.persistent = persistent
        self.start = self.position = self.opcode_at = offset
        self.limit = limit
        self.end = min(len(data), offset + limit)
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.placeholders = False

    # Reading -------------------------------------------------------------------------

    def fail(self, what: str) -> PickleError:
        return PickleError(f"{self.name}: pickle stream, offset {self.opcode_at}: {what}")

    def take(self, count: int) -> memoryview:
        if count > self.end - self.position:
            if self.end < len(self.data):
                raise self.fail(f"the stream is longer than {self.limit} bytes")
            raise self.fail(f"truncated: {count} bytes wanted, {self.end - self.position} are left")
        self.position += count
        return self.data[self.position - count : self.position]

    def unsigned(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def text(self, count: int) -> str:
        raw = bytes(self.take(count))
        try:
            return raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            return raw.decode("latin-1")

    def text2(self, raw: bytes) -> str:
        """Python 2 wrote `str`, which is bytes: text or the content of arrays, nobody knows."""
        try:
            made = Bytes2(raw.decode("utf-8", "surrogatepass"))
        except UnicodeDecodeError:
            made = Bytes2(raw.decode("latin-1"))
        made.raw = raw
        return made

    def raw_line(self, longest: int = _MAX_LINE) -> bytes:
        """Return the bytes up to the next end of a line, which is passed over."""
        at = self.position
        stop = min(self.end, at + longest)
        while at < stop:
            window = bytes(self.data[at : min(stop, at + 65536)])
            length = window.find(b"\n")
            if length >= 0:
                line = bytes(self.data[self.position : at + length])
                self.position = at + length + 1
                return line
            at += len(window)
        raise self.fail("a text argument without an end")

    def line(self) -> str:
        return self.raw_line().decode("latin-1")

    # The stack -----------------------------------------------------------------------

    def pop(self) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise self.fail("the stack is empty")
        return self.stack.pop()

    def top(self, kind: type, what: str) -> Any:
        floor = self.marks[-1] if self.marks else 0
        if len(self.stack) <= floor or not isinstance(self.stack[-1], kind):
            raise self.fail(f"{what} needs a {kind.__name__} on the stack")
        return self.stack[-1]

    def pop_to_mark(self) -> list[Any]:
        if not self.marks:
            raise self.fail("no mark on the stack")
        floor = self.marks.pop()
        items = self.stack[floor:]
        del self.stack[floor:]
        return items

    def set_items(self, target: dict, items: list[Any]) -> None:
        if len(items) % 2:
            raise self.fail("a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if isinstance(key, str) or (isinstance(key, int) and abs(key) < _MAX_KEY):
                target[key] = value
            elif self.placeholders:  # hashed by identity, so that it costs nothing
                target[_Unnamed(type(key).__name__)] = value
            else:
                raise self.fail(f"a dictionary key of type {type(key).__name__}")

    def find(self, module: object, attribute: object) -> _Global:
        if not (isinstance(module, str) and isinstance(attribute, str)):
            raise self.fail("a global whose name is not text")
        module = {"__builtin__": "builtins"}.get(module, module)
        label = f"{module}.{attribute}"
        function = self.allowed.get((module, attribute))
        if function is None:
            if not self.placeholders or _HOSTILE.fullmatch(label):
                at = f"pickle stream, offset {self.opcode_at}: "
                raise forbidden(self.name, label, at)
            label = label[:200]

            def function(*_arguments: object) -> Placeholder:
                return Placeholder(label)

        return _Global(function, label)

    def reduce(self, function: object, arguments: object) -> Any:
        if not isinstance(function, _Global):
            raise self.fail("REDUCE needs a global")
        if not isinstance(arguments, tuple):
            raise self.fail("REDUCE needs a tuple of arguments")
        try:
            return function.function(*arguments)
        except PickleError as error:
            raise self.fail(f"{function.label}: {error}") from None
        except (TypeError, ValueError, OverflowError):
            raise self.fail(f"{function.label}: arguments that do not fit") from None

    def integer(self, raw: bytes | memoryview) -> int:
        if len(raw) > _MAX_INT_BYTES:
            raise self.fail(f"an integer of {len(raw)} bytes")
        return int.from_bytes(raw, "little", signed=True)

    def decimal(self, text: str) -> int | bool:
        if text in ("00", "01"):
            return text == "01"
        try:
            if len(text) > 40:
                raise ValueError
            return int(text.rstrip("L"))
        except ValueError:
            raise self.fail("an integer that is none") from None

    def remembered(self, index: int) -> Any:
        try:
            return self.memo[index]
        except KeyError:
            raise self.fail(f"memo {index} was never stored") from None

    def store(self, index: int) -> None:
        if not 0 <= index < 2**32:
            raise self.fail("a memo index out of range")
        self.memo[index] = self.top(object, "PUT")

    # The instructions ----------------------------------------------------------------

    def run(self) -> tuple[Any, int]:
        stack = self.stack
        for _ in range(_MAX_STEPS):
            self.opcode_at = self.position
            code = bytes(self.take(1))
            if code == b".":
                value = self.pop()
                if isinstance(value, _Global):
                    raise self.fail("the stream ends with a bare global")
                return value, self.position
            instruction = _INSTRUCTIONS.get(code)
            if instruction is None:
                raise self.fail(f"instruction {code!r} is not allowed in a file of weights")
            instruction(self, stack)
        raise self.fail(f"more than {_MAX_STEPS} instructions")

    # What may be a placeholder -------------------------------------------------------

    def new_object(self, cls: object) -> None:
        """Make an instance of a class without a call: a placeholder, or refuse it."""
        if not isinstance(cls, _Global) or not self.placeholders:
            raise self.fail("an object of a class, which this kind of file has none of")
        self.stack.append(Placeholder(cls.label))


def _protocol(machine: _Machine, stack: list) -> None:
    version = machine.unsigned(1)
    if version > 5:
        raise machine.fail(f"pickle protocol {version}; 0 to 5 are known")


def _append(machine: _Machine, stack: list) -> None:
    value = machine.pop()
    if not _swallowed(machine):
        machine.top(list, "APPEND").append(value)


def _appends(machine: _Machine, stack: list) -> None:
    items = machine.pop_to_mark()
    if not _swallowed(machine):
        machine.top(list, "APPENDS").extend(items)


def _set_item(machine: _Machine, stack: list) -> None:
    value, key = machine.pop(), machine.pop()
    _set_pairs(machine, [key, value], "SETITEM")


def _set_items(machine: _Machine, stack: list) -> None:
    items = machine.pop_to_mark()
    _set_pairs(machine, items, "SETITEMS")


def _set_pairs(machine: _Machine, items: list[Any], what: str) -> None:
    target = machine.top(object, what)
    if isinstance(target, Placeholder):
        if target.items is None:
            target.items = {}
        machine.set_items(target.items, items)
    else:
        machine.set_items(machine.top(dict, what), items)


def _swallowed(machine: _Machine) -> bool:
    """Whether what is added goes to a placeholder, which keeps no list."""
    return isinstance(machine.top(object, "APPEND"), Placeholder)


def _new_object(machine: _Machine, stack: list) -> None:
    machine.pop()
    machine.new_object(machine.pop())


def _new_object_ex(machine: _Machine, stack: list) -> None:
    machine.pop()
    _new_object(machine, stack)


def _instance(machine: _Machine, stack: list) -> None:
    cls = machine.find(machine.line(), machine.line())
    machine.pop_to_mark()
    machine.new_object(cls)


def _object(machine: _Machine, stack: list) -> None:
    items = machine.pop_to_mark()
    machine.new_object(items[0] if items else None)


def _set(machine: _Machine, stack: list) -> None:
    if not machine.placeholders:
        raise machine.fail("a set, which this kind of file has none of")
    stack.append([])


def _frozen_set(machine: _Machine, stack: list) -> None:
    items = machine.pop_to_mark()
    _set(machine, stack)
    stack[-1].extend(items)


def _dict(machine: _Machine, stack: list) -> None:
    target: dict = {}
    machine.set_items(target, machine.pop_to_mark())
    stack.append(target)


def _tuple_of(count: int) -> Callable[[_Machine, list], None]:
    def build(machine: _Machine, stack: list) -> None:
        items = [machine.pop() for _ in range(count)]
        stack.append(tuple(reversed(items)))

    return build


def _stack_global(machine: _Machine, stack: list) -> None:
    attribute, module = machine.pop(), machine.pop()
    stack.append(machine.find(module, attribute))


def _reduce(machine: _Machine, stack: list) -> None:
    arguments, function = machine.pop(), machine.pop()
    stack.append(machine.reduce(function, arguments))


def _build(machine: _Machine, stack: list) -> None:
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


def _persistent(machine: _Machine, stack: list) -> None:
    identifier = machine.pop()
    if machine.persistent is None:
        raise machine.fail("a persistent identifier, which this kind of file has none of")
    try:
        stack.append(machine.persistent(identifier))
    except PickleError as error:
        raise machine.fail(str(error)) from None


def _text_string(machine: _Machine, stack: list) -> None:
    raw = machine.raw_line(machine.limit)
    if len(raw) < 2 or raw[:1] != raw[-1:] or raw[:1] not in b"'\"":
        raise machine.fail("a quoted string that is none")
    try:
        # The escapes of Python 2's repr, as its own unpickler undoes them; no code runs.
        stack.append(machine.text2(codecs.escape_decode(raw[1:-1])[0]))
    except ValueError:
        raise machine.fail("a quoted string that is none") from None


def _unicode_line(machine: _Machine, stack: list) -> None:
    try:
        stack.append(machine.raw_line(machine.limit).decode("raw-unicode-escape"))
    except UnicodeDecodeError:
        raise machine.fail("a text that is none") from None


def _float(machine: _Machine, stack: list) -> None:
    try:
        stack.append(float(machine.line()))
    except ValueError:
        raise machine.fail("a number that is none") from None


def _pop(machine: _Machine, stack: list) -> None:
    if machine.marks and len(stack) == machine.marks[-1]:
        machine.marks.pop()
    else:
        machine.pop()


_INSTRUCTIONS: dict[bytes, Callable[[_Machine, list], Any]] = {
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
