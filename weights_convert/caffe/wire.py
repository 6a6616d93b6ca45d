"""The protocol buffer wire format, walked without trust and without copies.

A caffemodel is a few thousand bytes of structure around hundreds of megabytes of numbers.
`fields` yields where each field of a message lies, so that the numbers are read straight
from the file, one blob at a time, and a length that points outside the message is found
before anything is allocated. Nesting is as deep as the caller walks and no deeper.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from typing import NamedTuple

from jaxgen.core.errors import InputError

__all__ = [
    "BYTES", "FIXED32", "FIXED64", "VARINT", "Budget", "Field", "fields", "signed", "varint",
]  # fmt: skip

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_MOST_FIELDS = 1_000_000


class Budget:
    """The number of fields that a whole file may have; real files have a few thousand."""

    def __init__(self, fields: int = _MOST_FIELDS):
        self.left = fields

    def spend(self, where: str) -> None:
        """Count one field.

        Raises:
          InputError: if there are too many.
        """
        self.left -= 1
        if self.left < 0:
            raise InputError(f"{where}: over {_MOST_FIELDS} fields in the file; not a Caffe model")


class Field(NamedTuple):
    """A field of a message: its content lies at `start` to `end`, or is the varint `value`."""

    number: int
    wire_type: int
    start: int
    end: int
    value: int = 0


def varint(
    data: bytes | memoryview | mmap.mmap, position: int, end: int, where: str
) -> tuple[int, int]:
    """Decode a varint: (value, position after it).

    Raises:
      InputError: naming the offset, if it is cut off or longer than ten bytes.
    """
    value = shift = 0
    for at in range(position, min(position + 10, end)):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at + 1
        shift += 7
    problem = "is truncated" if end - position < 10 else "is longer than ten bytes"
    raise InputError(f"{where}: a number at byte {position} {problem}; the file is damaged")


def signed(value: int) -> int:
    """Return a varint as the int64 that it stands for."""
    return value - (1 << 64) if value >= 1 << 63 else value


def fields(
    data: bytes | memoryview | mmap.mmap,
    start: int,
    end: int,
    where: str,
    budget: Budget | None = None,
) -> Iterator[Field]:
    """Yield the fields of the message at `start` to `end` of a bytes-like object.

    Args:
      data: anything indexed like bytes, such as an mmap.
      start: where the message begins.
      end: where it ends.
      where: file and field names for errors.
      budget: shared by all messages of a file.

    Raises:
      InputError: naming file, field and offset, if the message is not well formed.
    """
    position = start
    budget = budget or Budget()
    while position < end:
        budget.spend(where)
        at = position
        tag, position = varint(data, position, end, where)
        number, wire_type = tag >> 3, tag & 7
        if not 1 <= number < 1 << 29:
            raise InputError(f"{where}: bad field number {number} at byte {at}; file damaged")
        if wire_type == VARINT:
            value, after = varint(data, position, end, where)
            yield Field(number, wire_type, position, after, value)
        else:
            value = 0
            if wire_type == BYTES:
                length, position = varint(data, position, end, where)
            elif wire_type in (FIXED32, FIXED64):
                length = 4 if wire_type == FIXED32 else 8
            else:
                raise InputError(f"{where}: bad wire type {wire_type} at byte {at}; file damaged")
            after = position + length
            if after > end:
                raise InputError(
                    f"{where}: field {number} at byte {at} claims {length} bytes, "
                    f"{end - position} are left; the file is truncated or damaged"
                )
            yield Field(number, wire_type, position, after)
        position = after
