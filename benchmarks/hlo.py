"""What stands in the text of a compiled program: its collectives, loops and calls to the host.

XLA prints a module as computations, one after the other, which `while`, `conditional`, `call`
and `fusion` operations name. How many loops stand around an operation tells how often it runs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Operation", "collectives", "host_calls", "operations"]

# The head of a computation, an operation (`%name = shape kind(...)`), an array's shape, and what
# an operation calls.
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_OPERATION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\(")
_ARRAY = re.compile(r"\b(pred|bf16|[a-z]+\d+\w*)\[([\d,]*)\]")
_CALLED = re.compile(
    r"(?:body|condition|to_apply|calls|branch_computations|(?:true|false)_computation)="
    r"(\{[^}]*\}|%?[\w.\-]+)"
)
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_COLLECTIVES = re.compile(
    r"(all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute|collective-broadcast)"
    r"(-start)?$"
)


class Operation(NamedTuple):
    """One operation of a compiled program.

    Attributes:
      kind: as XLA names it, as in "all-gather".
      num_bytes: of what it returns.
      loops: how many `while` loops stand around it.
      in_branch: whether it stands in a branch of a `conditional`.
      in_fusion: whether it stands in a fusion.
      cycles: XLA's own estimate, where it prints one (for TPU), else 0.
      line: its line of the text.
    """

    kind: str
    num_bytes: int
    loops: int
    in_branch: bool
    in_fusion: bool
    cycles: int
    line: str


def operations(text: str) -> Iterator[Operation]:
    """Yield every operation that the program's entry reaches, once for each place it stands in."""
    computations, entry = _computations(text)

    def walk(name: str, loops: int, in_branch: bool, in_fusion: bool) -> Iterator[Operation]:
        for line in computations[name]:
            found = _OPERATION.match(line)
            if found is None:
                continue
            shape, kind = found[2], found[3]
            cycles = _CYCLES.search(line)
            estimate = int(cycles[1]) if cycles else 0
            yield Operation(kind, _bytes(shape, kind), loops, in_branch, in_fusion, estimate, line)
            for called in _CALLED.findall(line):
                for inner in re.findall(r"[\w.\-]+", called):
                    if inner in computations:
                        yield from walk(
                            inner,
                            loops + (kind == "while"),
                            in_branch or kind == "conditional",
                            in_fusion or kind == "fusion",
                        )

    yield from walk(entry, 0, False, False)


def collectives(text: str) -> list[Operation]:
    """Return the operations by which devices tell each other something."""
    return [x for x in operations(text) if _COLLECTIVES.match(x.kind)]


def host_calls(text: str) -> list[Operation]:
    """Return the operations that hand something to the host, or take it from there."""
    kinds = {"infeed", "outfeed", "send", "recv"}
    return [x for x in operations(text) if x.kind in kinds or "callback" in x.line]


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Return every computation's lines by its name, and the name of the entry."""
    computations: dict[str, list[str]] = {}
    entry, lines = "", None
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head is not None:
            lines = computations.setdefault(head[2], [])
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            lines = None
        elif lines is not None:
            lines.append(line)
    return computations, entry


def _bytes(shape: str, kind: str) -> int:
    """Bytes of what an operation returns. Started collectives return what they were given, too."""
    arrays = _ARRAY.findall(shape)
    if kind.endswith("-start"):
        arrays = arrays[len(arrays) // 2 :]
    return sum(
        _size(dtype) * math.prod(int(n) for n in dims.split(",") if n) for dtype, dims in arrays
    )


def _size(dtype: str) -> int:
    bits = re.search(r"\d+", dtype)
    return 1 if bits is None else max(1, int(bits[0]) // 8)
