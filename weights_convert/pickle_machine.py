"""The machine of `weights_convert.restricted_pickle`: a stack, a memo, a position in a stream."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from weights_convert.pickle_values import (
    HOSTILE,
    Bytes2,
    PickleError,
    Placeholder,
    Unnamed,
    forbidden,
)

__all__ = ["Global", "Instruction", "Machine"]

_MAX_STEPS = 3_000_000  # a hundred thousand tensors take two and a half million
_MAX_INT_BYTES = 16
_MAX_LINE = 1024
_MAX_KEY = 2**60  # beyond it Python integers collide in a dictionary at will

Instruction: TypeAlias = Callable[["Machine", list[Any]], Any]


class Global:
    """A name from the table, on the stack."""

    __slots__ = ("function", "label")

    def __init__(self, function: Callable[..., Any], label: str):
        self.function = function
        self.label = label


class Machine:
    """The interpreter: a stack, a memo and a position."""

    def __init__(
        self,
        data: memoryview,
        name: str,
        allowed: Mapping[tuple[str, str], Callable[..., Any]],
        persistent: Callable[[Any], Any] | None,
        offset: int,
        limit: int,
    ) -> None:
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
        """Return an error that names the offset."""
        return PickleError(f"{self.name}: pickle stream, offset {self.opcode_at}: {what}")

    def take(self, count: int) -> memoryview:
        """Take bytes of the stream."""
        if count > self.end - self.position:
            if self.end < len(self.data):
                raise self.fail(f"the stream is longer than {self.limit} bytes")
            raise self.fail(f"truncated: {count} bytes wanted, {self.end - self.position} are left")
        self.position += count
        return self.data[self.position - count : self.position]

    def unsigned(self, size: int) -> int:
        """Take an unsigned integer of this many bytes."""
        return int.from_bytes(self.take(size), "little")

    def text(self, count: int) -> str:
        """Take UTF-8 text of this many bytes."""
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
        """Take a line of text."""
        return self.raw_line().decode("latin-1")

    # The stack -----------------------------------------------------------------------

    def pop(self) -> Any:
        """Take the top of the stack."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise self.fail("the stack is empty")
        return self.stack.pop()

    def top(self, kind: type, what: str) -> Any:
        """Return the top of the stack, which must be of a type."""
        floor = self.marks[-1] if self.marks else 0
        if len(self.stack) <= floor or not isinstance(self.stack[-1], kind):
            raise self.fail(f"{what} needs a {kind.__name__} on the stack")
        return self.stack[-1]

    def pop_to_mark(self) -> list[Any]:
        """Take everything above the last mark."""
        if not self.marks:
            raise self.fail("no mark on the stack")
        floor = self.marks.pop()
        items = self.stack[floor:]
        del self.stack[floor:]
        return items

    def set_items(self, target: dict[Any, Any], items: list[Any]) -> None:
        """Put keys and values, one after the other, into a dictionary."""
        if len(items) % 2:
            raise self.fail("a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if isinstance(key, str) or (isinstance(key, int) and abs(key) < _MAX_KEY):
                target[key] = value
            elif self.placeholders:  # hashed by identity, so that it costs nothing
                target[Unnamed(type(key).__name__)] = value
            else:
                raise self.fail(f"a dictionary key of type {type(key).__name__}")

    def find(self, module: object, attribute: object) -> Global:
        """Look a global up in the table; nothing is imported."""
        if not (isinstance(module, str) and isinstance(attribute, str)):
            raise self.fail("a global whose name is not text")
        module = {"__builtin__": "builtins"}.get(module, module)
        label = f"{module}.{attribute}"
        function = self.allowed.get((module, attribute))
        if function is None:
            if not self.placeholders or HOSTILE.fullmatch(label):
                at = f"pickle stream, offset {self.opcode_at}: "
                raise forbidden(self.name, label, at)
            label = label[:200]
            return Global(lambda *_arguments: Placeholder(label), label)
        return Global(function, label)

    def reduce(self, function: object, arguments: object) -> Any:
        """Call the function of a global with arguments from the file."""
        if not isinstance(function, Global):
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
        """Return a signed integer of at most 16 bytes."""
        if len(raw) > _MAX_INT_BYTES:
            raise self.fail(f"an integer of {len(raw)} bytes")
        return int.from_bytes(raw, "little", signed=True)

    def decimal(self, text: str) -> int | bool:
        """Return an integer, or a truth value, written in decimal."""
        if text in ("00", "01"):
            return text == "01"
        try:
            if len(text) > 40:
                raise ValueError
            return int(text.rstrip("L"))
        except ValueError:
            raise self.fail("an integer that is none") from None

    def remembered(self, index: int) -> Any:
        """Return what was stored in the memo."""
        try:
            return self.memo[index]
        except KeyError:
            raise self.fail(f"memo {index} was never stored") from None

    def store(self, index: int) -> None:
        """Store the top of the stack in the memo."""
        if not 0 <= index < 2**32:
            raise self.fail("a memo index out of range")
        self.memo[index] = self.top(object, "PUT")

    # The instructions ----------------------------------------------------------------

    def run(self, instructions: Mapping[bytes, Instruction]) -> tuple[Any, int]:
        """Run the stream to its end; returns the value, and the offset after it."""
        stack = self.stack
        for _ in range(_MAX_STEPS):
            self.opcode_at = self.position
            code = bytes(self.take(1))
            if code == b".":
                value = self.pop()
                if isinstance(value, Global):
                    raise self.fail("the stream ends with a bare global")
                return value, self.position
            instruction = instructions.get(code)
            if instruction is None:
                raise self.fail(f"instruction {code!r} is not allowed in a file of weights")
            instruction(self, stack)
        raise self.fail(f"more than {_MAX_STEPS} instructions")

    # What may be a placeholder -------------------------------------------------------

    def new_object(self, cls: object) -> None:
        """Make an instance of a class without a call: a placeholder, or refuse it."""
        if not isinstance(cls, Global) or not self.placeholders:
            raise self.fail("an object of a class, which this kind of file has none of")
        self.stack.append(Placeholder(cls.label))
