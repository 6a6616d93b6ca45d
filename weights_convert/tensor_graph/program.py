"""A network as a file of another framework states it: nodes in order, and constants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxgen.core.errors import InputError, expected
from weights_convert.report import plain

__all__ = ["MOST_NODES", "Node", "Program", "batch_of_one", "in_order", "needed"]

MOST_NODES = 20_000
_MOST_AXES = 8
_MOST_ELEMENTS = 1 << 28

Shape = tuple[int, ...]


class Node(NamedTuple):
    """One operator.

    Attributes:
      name: of its own, never empty.
      op: an ONNX operator's name.
      inputs, outputs: tensors by name; "" for an optional input that is missing.
      attributes: name -> number, text, list of numbers, or array.
      opset: the version of ONNX's operators that is meant.
      where: file, node, type and opset, for errors.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int
    where: str


class Program(NamedTuple):
    """A network before its conversion.

    Attributes:
      name: what the file calls it.
      source: the file's name, for errors.
      inputs: tensor -> shape (N, C, H, W), N = 1.
      constants: tensor -> array.
      nodes: each after those whose results it takes.
      outputs: tensors.
      whole: the inputs that hold whole numbers, such as labels.
    """

    name: str
    source: str
    inputs: Mapping[str, Shape]
    constants: Mapping[str, np.ndarray]
    nodes: Sequence[Node]
    outputs: Sequence[str]
    whole: tuple[str, ...] = ()


def batch_of_one(
    source: str,
    declared: Mapping[str, Sequence[int | str | None]],
    given: Mapping[str, Sequence[int]],
) -> dict[str, Shape]:
    """Return the inputs' shapes for one sample.

    Args:
      source: the file's name.
      declared: input -> lengths; a name or None for a length that the file leaves open.
      given: input -> whole shape, from the user.

    Returns:
      Input -> shape. A shape that the user gives is taken as it is.

    Raises:
      InputError: naming the input, for a length that is open and not the first, a first length
        other than one in the file, or a shape that is absurd.
    """
    for name in given:
        if name not in declared:
            known = ", ".join(declared) or "none"
            raise expected(f"--input {name}", f"an input of {source} ({known})", "another")
    shapes: dict[str, Shape] = {}
    for name, lengths in declared.items():
        shape = tuple(given.get(name, lengths))
        hint = f"Give the shape to take for one sample: --input {plain(name, 80)}=1,3,224,224."
        where = f"{source}: input {plain(name, 80)!r}"
        if shape and name not in given and not isinstance(shape[0], int):
            shape = (1, *shape[1:])
        if not all(isinstance(n, int) and n >= 1 for n in shape):
            raise expected(where, "positive lengths", str(shape)[:200], hint)
        whole: Shape = tuple(int(n) for n in shape if isinstance(n, int))
        count = 1
        for n in whole:
            count *= n
        if len(whole) > _MOST_AXES or count > _MOST_ELEMENTS:
            wanted = f"at most {_MOST_AXES} axes and {_MOST_ELEMENTS} numbers"
            raise expected(where, wanted, str(whole)[:200])
        if name not in given and len(whole) > 1 and whole[0] != 1:
            # A batch that the exporter fixed, or an input that has no batch: not ours to say.
            raise expected(where, "one sample, a first length of 1", str(whole), hint)
        shapes[name] = whole
    return shapes


def in_order(
    nodes: Iterable[Node], known: Iterable[str], source: str, *, sort: bool = False
) -> list[Node]:
    """Return the nodes, each after those that it takes from; sorted first if asked.

    Raises:
      InputError: naming node and tensor, if a tensor is made twice, by nobody, or in a cycle.
    """
    nodes = list(nodes)
    if len(nodes) > MOST_NODES:
        raise expected(source, f"at most {MOST_NODES} nodes", len(nodes))
    maker: dict[str, int] = {}
    made = set(known)
    for i, node in enumerate(nodes):
        for name in node.outputs:
            if name and (name in maker or name in made):
                raise InputError(f"{node.where}: makes {plain(name, 80)!r} a second time")
            maker[name] = i
    if sort:
        nodes = _sorted(nodes, maker)
    for node in nodes:
        for name in node.inputs:
            if name and name not in made:
                why = "comes later, or in a cycle" if name in maker else "nothing makes"
                raise InputError(f"{node.where}: takes {plain(name, 80)!r}, which {why}")
        made.update(node.outputs)
    return nodes


def needed(nodes: Sequence[Node], outputs: Iterable[str]) -> list[Node]:
    """Only those nodes that some output depends on."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted & set(node.outputs):
            wanted.update(node.inputs)
            kept.append(node)
    return kept[::-1]


def _sorted(nodes: list[Node], maker: Mapping[str, int]) -> list[Node]:
    """Kahn's algorithm; what is in a cycle comes last."""
    waits = [len({maker[n] for n in node.inputs if n in maker}) for node in nodes]
    takers: dict[int, list[int]] = {}
    for i, node in enumerate(nodes):
        for j in {maker[n] for n in node.inputs if n in maker}:
            takers.setdefault(j, []).append(i)
    ready = [i for i in range(len(nodes) - 1, -1, -1) if not waits[i]]
    order: list[int] = []
    while ready:
        i = ready.pop()
        order.append(i)
        for j in takers.get(i, ()):
            waits[j] -= 1
            if not waits[j]:
                ready.append(j)
    done = set(order)
    return [nodes[i] for i in order] + [node for i, node in enumerate(nodes) if i not in done]
