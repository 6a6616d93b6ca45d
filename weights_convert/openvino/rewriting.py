"""How an operator of OpenVINO is rewritten: a registry, and what the rewriting functions share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from jaxgen.core.errors import InputError
from weights_convert.openvino.reader import PREFIX
from weights_convert.tensor_graph.lowering import REWRITES, Lowering
from weights_convert.tensor_graph.program import Node

__all__ = [
    "Rewrite", "as_node", "axes_of", "flag", "new_constant", "numbers_of", "operand", "rewrites",
]  # fmt: skip

Rewrite = Callable[[Lowering, Node], Sequence[Node]]


def rewrites(*names: str) -> Callable[[Rewrite], Rewrite]:
    """Return a decorator that registers a function for operators of these names."""

    def add(function: Rewrite) -> Rewrite:
        REWRITES.update({PREFIX + name: function for name in names})
        return function

    return add


def as_node(node: Node, op: str, inputs: Sequence[str] | None = None, **attributes: object) -> Node:
    """Return a node with another operator, and its inputs unless others are given."""
    operands = node.inputs if inputs is None else tuple(inputs)
    return node._replace(op=op, inputs=tuple(operands), attributes=attributes)


def numbers_of(node: Node, name: str, default: Sequence[int] = ()) -> list[int]:
    """Return an attribute that is a list of integers."""
    text = node.attributes.get(name, "").strip()
    return [int(part) for part in text.split(",")] if text else list(default)


def flag(node: Node, name: str, default: bool = False) -> bool:
    """Return an attribute that is true or false."""
    text = str(node.attributes.get(name, default)).lower()
    if text not in ("true", "false", "1", "0"):
        raise InputError(f"{name}: expected true or false; got {text!r:.40}")
    return text in ("true", "1")


def axes_of(go: Lowering, node: Node, index: int, what: str = "axes") -> list[int]:
    """Return an operand that is a constant list of axes."""
    return [int(a) for a in go.need(node, index, what).reshape(-1)]


def operand(node: Node, index: int) -> str:
    """Return an operand, or "" where it is missing."""
    return next(iter(node.inputs[index:]), "")


def new_constant(go: Lowering, node: Node, array: object, what: str) -> str:
    """Return a constant that is made here."""
    name = f"{node.outputs[0]}:{what}"
    go.constants[name] = np.asarray(array)
    return name
