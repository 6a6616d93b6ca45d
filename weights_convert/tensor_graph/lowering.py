"""Lower a program to a description: fold constants, work out shapes, one layer a node.

Shapes are those of one sample. They are not read from the file, whose annotations may be
missing or wrong, but found by evaluating every layer abstractly as soon as it is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from jaxgen.core.errors import InputError, expected
from jaxgen.models.caffe.description import MOST_LAYERS
from jaxgen.models.caffe.graph import abstract_tops, attribute_of, build_layer
from jaxgen.models.tensor_ops import FORMAT, OPERATORS, TensorGraph
from jaxgen.models.tensor_ops.base import MOST_AXES
from jaxgen.target.networks import Network, freeze
from weights_convert.report import plain
from weights_convert.tensor_graph.folding import FOLDS, MOST_ELEMENTS, fold
from weights_convert.tensor_graph.program import Node, Program, needed
from weights_convert.writing import PathLike, write_new

__all__ = ["ARCHITECTURE", "LOWERINGS", "REWRITES", "Converted", "Lowering", "lower", "lowers"]

ARCHITECTURE = "tensor_ops.TensorGraph"
# Of all folded results together; a chain of small doublings is a bomb too.
_MOST_FOLDED = 1 << 29
_LONGEST_NAME = 400

Shape = tuple[int, ...]


class Converted(NamedTuple):
    """A converted network.

    Attributes:
      description: see `jaxgen.models.tensor_ops.graph`.
      arrays: layer -> parameter -> array.
      metadata: what is written beside them.
      folded: how many nodes were computed away.
      shapes: tensor -> its shape, for one sample, the batch axis first.
    """

    description: dict[str, Any]
    arrays: dict[str, dict[str, np.ndarray]]
    metadata: dict[str, Any]
    folded: int = 0
    shapes: Mapping[str, Shape] = MappingProxyType({})

    @property
    def graph(self) -> TensorGraph:
        """The network as a flax module."""
        return TensorGraph(self.description, self.arrays)

    @property
    def network(self) -> Network:
        """The network, frozen: callable on one sample."""
        return freeze(self.graph)

    @property
    def size(self) -> int:
        """The number of numbers in the arrays."""
        return sum(a.size for layer in self.arrays.values() for a in layer.values())

    @property
    def stored(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays by dotted name and metadata, for `jaxgen.models.weights.save_weights`."""
        flat = {
            f"{attribute_of(layer)}.{name}": array
            for layer, arrays in self.arrays.items()
            for name, array in arrays.items()
        }
        architecture = {"name": ARCHITECTURE, "config": {"description": self.description}}
        return flat, {**self.metadata, "architecture": architecture}

    def save(
        self, path: PathLike, *, sources: Iterable[PathLike] = (), force: bool = False
    ) -> Path:
        """Write one safetensors file that `jaxgen.load` reads; see `writing.write_new`."""
        return write_new(path, *self.stored, sources=sources, force=force)


LOWERINGS: dict[str, Callable[[Lowering, Node], None]] = {}
REWRITES: dict[str, Callable[[Lowering, Node], Sequence[Node]]] = {}
"""Operator of another framework -> the ONNX nodes that do the same."""


def lowers(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function the lowering of operators."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        LOWERINGS.update(dict.fromkeys(names, function))
        return function

    return add


class Lowering:
    """A conversion under way: what is known of every tensor, and the layers made so far."""

    def __init__(self, program: Program):
        self.program = program
        self.constants: dict[str, np.ndarray] = dict(program.constants)
        self.shapes: dict[str, Shape] = {}
        self.entries: list[dict[str, Any]] = []
        self.arrays: dict[str, dict[str, np.ndarray]] = {}
        self.folded = 0
        self._numbers = 0
        self._same: dict[str, str] = {}
        self._names: set[str] = set()

    def step(self, node: Node) -> None:
        """Take one node: rewrite it, compute it, or make a layer of it.

        Raises:
          InputError: naming the node.
        """
        try:
            if node.op in REWRITES:
                for simpler in REWRITES[node.op](self, node):
                    self.step(simpler)
            elif not self._fold(node):
                LOWERINGS[node.op](self, node)
        except InputError as error:
            where = "" if str(error).startswith(node.where) else f"{node.where}: "
            raise InputError(f"{where}{error}") from error
        except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
            reason = f"{type(error).__name__}: {str(error)[:200]}"
            raise InputError(f"{node.where}: cannot be converted, {reason}") from error

    def _fold(self, node: Node) -> bool:
        """Compute a node that does not depend on the input; whether it was one."""
        operands = [self.constant(name) if name else None for name in node.inputs]
        results: list[np.ndarray] | None = None
        if node.op in ("Shape", "Size"):
            results = [_measure(node, self.shape(node.inputs[0]))]
        elif all(x is not None for x, name in zip(operands, node.inputs, strict=True) if name):
            results = fold(node, operands)
        if results is None:
            return False
        if len(results) < len(node.outputs):
            raise expected("outputs", str(len(results)), len(node.outputs))
        self._numbers += sum(x.size for x in results)
        if self._numbers > _MOST_FOLDED or any(x.size > MOST_ELEMENTS for x in results):
            raise InputError(f"constants grow beyond {_MOST_FOLDED} numbers")
        self.constants.update(zip(node.outputs, results, strict=False))
        self.folded += 1
        return True

    def constant(self, name: str) -> np.ndarray | None:
        """Return the array of a tensor that does not depend on the input, or None."""
        return self.constants.get(name)

    def need(self, node: Node, index: int, what: str) -> np.ndarray:
        """Return an operand that has to be constant.

        Raises:
          InputError: naming the node, if it is missing or depends on the input.
        """
        name = node.inputs[index] if index < len(node.inputs) else ""
        found = self.constant(name)
        if found is None:
            got = "one that depends on the network's input" if name else "none"
            raise InputError(f"{node.where}: {what}: expected a constant; got {got}")
        return found

    def optional(self, node: Node, index: int, what: str) -> np.ndarray | None:
        """Return an operand that has to be constant if it is there."""
        there = index < len(node.inputs) and node.inputs[index]
        return self.need(node, index, what) if there else None

    def shape(self, name: str) -> Shape:
        """Return the shape of any tensor that is known by now."""
        if name in self.constants:
            return tuple(int(n) for n in self.constants[name].shape)
        return self.shapes[self._same.get(name, name)]

    def alias(self, node: Node, name: str) -> None:
        """Let the node's first output be another name of a tensor."""
        found = self.constant(name)
        if found is not None:
            self.constants[node.outputs[0]] = found
        else:
            self._same[node.outputs[0]] = self._same.get(name, name)

    def emit(
        self,
        node: Node,
        type: str,
        operands: Sequence[str],
        config: Mapping[str, Any] | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
        *,
        outputs: Sequence[str] | None = None,
        name: str | None = None,
    ) -> None:
        """Add a layer; operands that are constants become its arrays.

        Raises:
          InputError: naming the node, if the operands do not fit the layer.
        """
        config, arrays = dict(config or {}), dict(arrays or {})
        bottoms: list[str] = []
        for i, operand in enumerate(operands):
            found = self.constant(operand)
            if found is None:
                bottoms.append(self._same.get(operand, operand))
            else:
                arrays[f"input{i}"] = found
                config["constants"] = [*config.get("constants", []), i]
        entry = {
            "name": self._title(name or node.name),
            "type": type,
            "bottoms": bottoms,
            "tops": list(node.outputs if outputs is None else outputs),
            "config": config,
            "parameters": {key: list(array.shape) for key, array in arrays.items()},
        }
        if len(self.entries) >= MOST_LAYERS:
            raise expected(self.program.source, f"at most {MOST_LAYERS} layers", "more")
        try:
            shapes = self._tops(entry)
        except InputError as error:
            raise InputError(f"{node.where}: {error}") from error
        if len(shapes) != len(entry["tops"]):
            raise expected(f"{node.where}: outputs", f"{len(shapes)}", len(entry["tops"]))
        # An output that nobody asked for has no name; a layer's tops all have.
        for i, (top, shape) in enumerate(zip(entry["tops"], shapes, strict=True)):
            title = top or f"{entry['name']}:{i}"
            entry["tops"][i] = title
            self.shapes[title] = shape
        self.entries.append(entry)
        self.arrays[entry["name"]] = {
            key: np.array(array, np.float32, order="C") for key, array in arrays.items()
        }

    def _tops(self, entry: dict[str, Any]) -> list[Shape]:
        # A view of one zero has any shape and takes no memory.
        zeros = {
            key: np.broadcast_to(np.zeros((), np.float32), shape)
            for key, shape in entry["parameters"].items()
        }
        layer = build_layer(entry, zeros, OPERATORS)
        layer.batch_in = layer.batch_out = ()
        bottoms = [self.shapes[b] for b in entry["bottoms"]]
        return abstract_tops(entry["name"], layer, bottoms, MOST_AXES)

    def _title(self, name: str) -> str:
        title = base = plain(name, _LONGEST_NAME)
        count = 1
        while title in self._names:
            count += 1
            title = f"{base}_{count}"
        self._names.add(title)
        return title


def lower(program: Program, metadata: Mapping[str, Any] | None = None) -> Converted:
    """Convert a program.

    Raises:
      InputError: naming file, node, type and opset, for an operator that is not known or
        operands that do not fit; all unknown operators are named together.
    """
    # Importing the lowerings registers them.
    from weights_convert.tensor_graph import operators, shapes, spatial  # noqa: F401

    nodes = needed(program.nodes, program.outputs)
    state = Lowering(program)
    state.shapes.update(program.inputs)
    for node in nodes:
        if not _known(node.op):
            raise _unknown(program, nodes)
        state.step(node)
    outputs = [_finished(state, name) for name in program.outputs]
    description = {
        "format": FORMAT,
        "name": plain(program.name, _LONGEST_NAME),
        "inputs": [
            {
                "name": name,
                "shape": list(shape),
                "batch_axis": 0 if shape and shape[0] == 1 else None,
            }
            for name, shape in program.inputs.items()
        ],
        "layers": state.entries,
        "outputs": outputs,
    }
    return Converted(
        description, state.arrays, dict(metadata or {}), state.folded, dict(state.shapes)
    )


def _measure(node: Node, shape: Shape) -> np.ndarray:
    if node.op == "Size":
        return np.array(math.prod(shape), np.int64)
    start, end = node.attributes.get("start", 0), node.attributes.get("end")
    return np.array(shape[start:end], np.int64)


def _finished(state: Lowering, name: str) -> str:
    """Return the tensor of an output; a layer of its own where it is an input or another's name."""
    where = f"{state.program.source}: output {plain(name, 80)!r}"
    if name in state.constants:
        raise InputError(f"{where}: does not depend on the network's input")
    made = {top for entry in state.entries for top in entry["tops"]}
    if name not in made:
        node = Node(f"{name}:out", "Identity", (name,), (name,), {}, 0, where)
        source = state._same.get(name, name)
        if source == name:  # an input, handed on as it is
            node = node._replace(outputs=(f"{name}:out",))
        state._same.pop(name, None)
        state.emit(node._replace(inputs=(source,)), "Identity", [source])
        return node.outputs[0]
    return name


def _known(op: str) -> bool:
    return op in LOWERINGS or op in FOLDS or op in REWRITES or op in ("Shape", "Size")


def _unknown(program: Program, nodes: Sequence[Node]) -> InputError:
    """All operators of the program that nobody here knows, in one error."""
    others = {n.op: n for n in nodes if not _known(n.op)}
    named = "; ".join(n.where for n in list(others.values())[:20])
    return InputError(
        f"{program.source}: {len(others)} operators are not known here: {named}. "
        "Cut the network before them by --output TENSOR, or export it in other operators"
    )
