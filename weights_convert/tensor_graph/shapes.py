"""Lowerings of operators that arrange numbers anew: every shape becomes plain numbers."""

from __future__ import annotations

import math

import numpy as np

from jaxgen.core.errors import InputError
from weights_convert.tensor_graph.folding import listed, resolved_shape, slices
from weights_convert.tensor_graph.lowering import Lowering, lowers
from weights_convert.tensor_graph.program import Node

__all__: list[str] = []

# A description is JSON in the header of the file: long lists belong into arrays.
_MOST_INDICES = 1 << 18


@lowers("Reshape")
def _reshape(go: Lowering, node: Node) -> None:
    target = listed(node, "shape", go.optional(node, 1, "shape"))
    shape = resolved_shape(
        go.shape(node.inputs[0]), target or [], bool(node.attributes.get("allowzero", 0))
    )
    _to_shape(go, node, shape)


@lowers("Flatten")
def _flatten(go: Lowering, node: Node) -> None:
    shape = go.shape(node.inputs[0])
    axis = int(node.attributes.get("axis", 1))
    axis = axis + len(shape) if axis < 0 else axis
    _to_shape(go, node, [math.prod(shape[:axis]), math.prod(shape[axis:])])


@lowers("Squeeze")
def _squeeze(go: Lowering, node: Node) -> None:
    shape = go.shape(node.inputs[0])
    axes = listed(node, "axes", go.optional(node, 1, "axes"))
    gone = [i for i, n in enumerate(shape) if n == 1] if axes is None else axes
    gone = {_axis(a, len(shape)) for a in gone}
    if any(shape[a] != 1 for a in gone):
        raise InputError(f"axes: expected axes of length 1 of {shape}; got {sorted(gone)}")
    _to_shape(go, node, [n for i, n in enumerate(shape) if i not in gone])


@lowers("Unsqueeze")
def _unsqueeze(go: Lowering, node: Node) -> None:
    shape = list(go.shape(node.inputs[0]))
    axes = listed(node, "axes", go.optional(node, 1, "axes")) or []
    rank = len(shape) + len(axes)
    for axis in sorted(_axis(a, rank) for a in axes):
        shape.insert(axis, 1)
    _to_shape(go, node, shape)


@lowers("Transpose")
def _transpose(go: Lowering, node: Node) -> None:
    rank = len(go.shape(node.inputs[0]))
    order = [_axis(a, rank) for a in node.attributes.get("perm") or range(rank - 1, -1, -1)]
    go.emit(node, "Transpose", node.inputs[:1], {"order": order})


@lowers("Concat")
def _concat(go: Lowering, node: Node) -> None:
    go.emit(node, "Concat", node.inputs, {"axis": int(node.attributes["axis"])})


@lowers("Split")
def _split(go: Lowering, node: Node) -> None:
    axis, shape = int(node.attributes.get("axis", 0)), go.shape(node.inputs[0])
    lengths = listed(node, "split", go.optional(node, 1, "split"))
    if lengths is None:
        parts = len(node.outputs)
        longest = -(-shape[_axis(axis, len(shape))] // parts)
        whole = shape[_axis(axis, len(shape))]
        lengths = [min(longest, max(whole - i * longest, 0)) for i in range(parts)]
    go.emit(node, "Split", node.inputs[:1], {"axis": axis, "lengths": lengths})


@lowers("Slice")
def _slice(go: Lowering, node: Node) -> None:
    starts, ends, axes, steps = (
        listed(node, name, go.optional(node, i + 1, name))
        for i, name in enumerate(("starts", "ends", "axes", "steps"))
    )
    starts, ends = starts or [], ends or []
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    begin, lengths, by = slices(go.shape(node.inputs[0]), starts, ends, axes, steps)
    go.emit(node, "Slice", node.inputs[:1], {"starts": begin, "lengths": lengths, "steps": by})


@lowers("Gather")
def _gather(go: Lowering, node: Node) -> None:
    axis = int(node.attributes.get("axis", 0))
    indices = go.constant(node.inputs[1])
    if indices is None:
        go.emit(node, "Gather", node.inputs, {"axis": axis})
        return
    if indices.size > _MOST_INDICES:
        raise InputError(f"indices: expected at most {_MOST_INDICES}; got {indices.size}")
    config = {
        "axis": axis,
        "indices": [int(i) for i in indices.reshape(-1)],
        "shape": list(indices.shape),
    }
    go.emit(node, "Gather", node.inputs[:1], config)


@lowers("Expand")
def _expand(go: Lowering, node: Node) -> None:
    target = [int(n) for n in go.need(node, 1, "shape").reshape(-1)]
    go.emit(node, "Expand", node.inputs[:1], {"shape": target})


@lowers("Tile")
def _tile(go: Lowering, node: Node) -> None:
    repeats = [int(n) for n in go.need(node, 1, "repeats").reshape(-1)]
    go.emit(node, "Tile", node.inputs[:1], {"repeats": repeats})


@lowers("Pad")
def _pad(go: Lowering, node: Node) -> None:
    rank = len(go.shape(node.inputs[0]))
    pads = listed(node, "pads", go.optional(node, 1, "pads"))
    pads = pads if pads is not None else listed(node, "paddings", None)
    axes = listed(node, "axes", go.optional(node, 3, "axes"))
    axes = list(range(rank)) if axes is None else [_axis(a, rank) for a in axes]
    if pads is None or len(pads) != 2 * len(axes):
        raise InputError(f"pads: expected {2 * len(axes)} numbers; got {pads}")
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        before[axis], after[axis] = pads[i], pads[i + len(axes)]
    value = go.optional(node, 2, "constant_value")
    value = node.attributes.get("value", 0.0) if value is None else np.reshape(value, -1)[0]
    config = {
        "before": before,
        "after": after,
        "mode": node.attributes.get("mode", "constant"),
        "value": float(value),
    }
    go.emit(node, "Pad", node.inputs[:1], config)


@lowers("DepthToSpace")
def _depth_to_space(go: Lowering, node: Node) -> None:
    mode = node.attributes.get("mode", "DCR")
    if mode not in ("DCR", "CRD"):
        raise InputError(f"mode: expected DCR or CRD; got {mode!r}")
    config = {"size": int(node.attributes["blocksize"]), "columns": mode == "CRD"}
    go.emit(node, "DepthToSpace", node.inputs, config)


@lowers("SpaceToDepth")
def _space_to_depth(go: Lowering, node: Node) -> None:
    columns = node.attributes.get("mode", "DCR") == "CRD"
    config = {"size": int(node.attributes["blocksize"]), "columns": columns, "inverse": True}
    go.emit(node, "SpaceToDepth", node.inputs, config)


def _to_shape(go: Lowering, node: Node, shape: list[int]) -> None:
    go.emit(node, "Reshape", node.inputs[:1], {"shape": [int(n) for n in shape]})


def _axis(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise InputError(f"axis: expected {-rank} to {rank - 1}; got {axis}")
    return int(axis) % rank
