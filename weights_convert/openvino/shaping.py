"""OpenVINO's operators that move numbers and change shapes, in terms of ONNX's."""

from __future__ import annotations

import numpy as np

from jaxgen.core.errors import InputError
from weights_convert.openvino.reader import PREFIX
from weights_convert.openvino.rewriting import (
    as_node,
    axes_of,
    flag,
    new_constant,
    numbers_of,
    operand,
    rewrites,
)
from weights_convert.tensor_graph.lowering import Lowering
from weights_convert.tensor_graph.program import Node

__all__: list[str] = []


@rewrites("Reshape")
def _reshape(go: Lowering, node: Node) -> list[Node]:
    return [as_node(node, "Reshape", allowzero=int(not flag(node, "special_zero")))]


@rewrites("Transpose")
def _transpose(go: Lowering, node: Node) -> list[Node]:
    order = axes_of(go, node, 1, "order") if len(node.inputs) > 1 else []
    return [as_node(node, "Transpose", node.inputs[:1], **({"perm": order} if order else {}))]


@rewrites("Concat")
def _concat(go: Lowering, node: Node) -> list[Node]:
    return [as_node(node, "Concat", axis=int(node.attributes["axis"]))]


@rewrites("Split")
def _split(go: Lowering, node: Node) -> list[Node]:
    axis = axes_of(go, node, 1, "axis")[0]
    parts = int(node.attributes["num_splits"])
    length = go.shape(node.inputs[0])[axis]
    if parts < 1 or parts != len(node.outputs) or length % parts:
        raise InputError(f"num_splits: expected a divisor of {length}; got {parts}")
    return [as_node(node, "Split", node.inputs[:1], axis=axis, split=[length // parts] * parts)]


@rewrites("VariadicSplit")
def _variadic_split(go: Lowering, node: Node) -> list[Node]:
    axis, lengths = axes_of(go, node, 1, "axis")[0], axes_of(go, node, 2, "lengths")
    if lengths.count(-1) == 1:
        rest = go.shape(node.inputs[0])[axis] - sum(n for n in lengths if n != -1)
        lengths[lengths.index(-1)] = rest
    return [as_node(node, "Split", node.inputs[:1], axis=axis, split=lengths)]


@rewrites("Gather")
def _gather(go: Lowering, node: Node) -> list[Node]:
    if int(node.attributes.get("batch_dims", 0)):
        raise InputError("batch_dims: expected 0")
    return [as_node(node, "Gather", node.inputs[:2], axis=axes_of(go, node, 2, "axis")[0])]


@rewrites("Broadcast")
def _broadcast_to(go: Lowering, node: Node) -> list[Node]:
    if node.attributes.get("mode", "numpy").lower() not in ("numpy", "bidirectional"):
        raise InputError("mode: expected numpy or bidirectional")
    return [as_node(node, "Expand", node.inputs[:2])]


@rewrites("Pad")
def _pad(go: Lowering, node: Node) -> list[Node]:
    pads = new_constant(
        go, node, axes_of(go, node, 1, "pads_begin") + axes_of(go, node, 2, "pads_end"), "pads"
    )
    value = operand(node, 3)
    mode = node.attributes.get("pad_mode", "constant").lower()
    return [as_node(node, "Pad", [node.inputs[0], pads, value], mode=mode)]


@rewrites("DepthToSpace", "SpaceToDepth")
def _depth(go: Lowering, node: Node) -> list[Node]:
    modes = {"blocks_first": "DCR", "depth_first": "CRD"}
    mode = modes[node.attributes.get("mode", "blocks_first").lower()]
    size = int(node.attributes.get("block_size", 1))
    return [as_node(node, node.op.removeprefix(PREFIX), blocksize=size, mode=mode)]


@rewrites("Slice")
def _slice(go: Lowering, node: Node) -> list[Node]:
    # Data, start, stop, step and axes; in ONNX the steps come last.
    data, start, stop, step, *axes = node.inputs
    return [as_node(node, "Slice", [data, start, stop, *(axes or [""]), step])]


@rewrites("StridedSlice")
def _strided_slice(go: Lowering, node: Node) -> list[Node]:
    if any(numbers_of(node, "ellipsis_mask")):
        raise InputError("ellipsis_mask: expected none")
    begin, end = axes_of(go, node, 1, "begin"), axes_of(go, node, 2, "end")
    step = axes_of(go, node, 3, "strides") if operand(node, 3) else [1] * len(begin)
    masks = {
        name: numbers_of(node, f"{name}_mask") + [0] * len(begin)
        for name in ("begin", "end", "new_axis", "shrink_axis")
    }
    shape, axis = go.shape(node.inputs[0]), 0
    rows: list[tuple[int, int, int, int]] = []
    target: list[int] = []
    for i in range(len(begin)):
        if masks["new_axis"][i]:
            target.append(1)
            continue
        length = shape[axis]
        if masks["shrink_axis"][i]:
            first = begin[i] + (length if begin[i] < 0 else 0)
            rows.append((axis, first, first + 1, 1))
        else:
            by = step[i]
            first = (0 if by > 0 else length - 1) if masks["begin"][i] else begin[i]
            last = ((1 << 31) if by > 0 else -(1 << 31)) if masks["end"][i] else end[i]
            rows.append((axis, first, last, by))
            target.append(len(range(*slice(first, last, by).indices(length))))
        axis += 1
    target += shape[axis:]
    cut = f"{node.outputs[0]}:cut"
    operands = [
        new_constant(go, node, np.array([row[i] for row in rows], np.int64), what)
        for i, what in ((1, "starts"), (2, "ends"), (0, "axes"), (3, "steps"))
    ]
    return [
        as_node(node, "Slice", [node.inputs[0], *operands])._replace(
            outputs=(cut,), name=f"{node.name}:cut"
        ),
        as_node(node, "Reshape", [cut, new_constant(go, node, np.array(target, np.int64), "shape")],
            allowzero=1),
    ]  # fmt: skip
