"""OpenVINO's operators in terms of ONNX's, rewritten when their constants are known.

Source: OpenVINO's specification of operation sets 1 to 15.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxgen.core.errors import InputError
from weights_convert.openvino.reader import PREFIX
from weights_convert.tensor_graph.lowering import REWRITES, Lowering
from weights_convert.tensor_graph.program import Node

__all__: list[str] = []

Rewrite = Callable[[Lowering, Node], Sequence[Node]]

_SAME = {
    "Abs": "Abs", "Ceiling": "Ceil", "Cos": "Cos", "Erf": "Erf", "Exp": "Exp", "Floor": "Floor",
    "HSwish": "HardSwish", "Log": "Log", "LogicalNot": "Not", "Mish": "Mish", "Negative": "Neg",
    "ReLU": "Relu", "Sigmoid": "Sigmoid", "Sign": "Sign", "Sin": "Sin", "SoftPlus": "Softplus",
    "SoftSign": "Softsign", "Sqrt": "Sqrt", "Tanh": "Tanh", "Select": "Where",
    "ShapeOf": "Shape", "Tile": "Tile", "Squeeze": "Squeeze", "Unsqueeze": "Unsqueeze",
    "ConvertLike": "CastLike", "Range": "Range",
}  # fmt: skip
_BROADCAST = {
    "Add": "Add", "Divide": "Div", "Equal": "Equal", "Greater": "Greater",
    "GreaterEqual": "GreaterOrEqual", "Less": "Less", "LessEqual": "LessOrEqual",
    "LogicalAnd": "And", "LogicalOr": "Or", "LogicalXor": "Xor", "Maximum": "Max",
    "Minimum": "Min", "Multiply": "Mul", "Power": "Pow", "SquaredDifference":
    "SquaredDifference", "Subtract": "Sub", "FloorMod": "Mod",
}  # fmt: skip
_REDUCE = ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1",
           "ReduceL2")  # fmt: skip
_PADDINGS = {"explicit": "NOTSET", "same_upper": "SAME_UPPER", "same_lower": "SAME_LOWER",
             "valid": "VALID", "": "NOTSET"}  # fmt: skip
_CASTS = {"f32": 1, "f16": 10, "f64": 11, "bf16": 16, "i64": 7, "i32": 6, "i16": 5, "i8": 3,
          "u8": 2, "u16": 4, "u32": 12, "u64": 13, "boolean": 9}  # fmt: skip


def _rewrites(*names: str) -> Callable[[Rewrite], Rewrite]:
    def add(function: Rewrite) -> Rewrite:
        REWRITES.update({PREFIX + name: function for name in names})
        return function

    return add


def _as(node: Node, op: str, inputs: Sequence[str] | None = None, **attributes: object) -> Node:
    operands = node.inputs if inputs is None else tuple(inputs)
    return node._replace(op=op, inputs=tuple(operands), attributes=attributes)


def _numbers(node: Node, name: str, default: Sequence[int] = ()) -> list[int]:
    text = node.attributes.get(name, "").strip()
    return [int(part) for part in text.split(",")] if text else list(default)


def _flag(node: Node, name: str, default: bool = False) -> bool:
    text = str(node.attributes.get(name, default)).lower()
    if text not in ("true", "false", "1", "0"):
        raise InputError(f"{name}: expected true or false; got {text!r:.40}")
    return text in ("true", "1")


def _axes(go: Lowering, node: Node, index: int, what: str = "axes") -> list[int]:
    return [int(a) for a in go.need(node, index, what).reshape(-1)]


def _at(node: Node, index: int) -> str:
    """Return an operand, or "" where it is missing."""
    return next(iter(node.inputs[index:]), "")


def _new(go: Lowering, node: Node, array: object, what: str) -> str:
    """Return a constant that is made here."""
    name = f"{node.outputs[0]}:{what}"
    go.constants[name] = np.asarray(array)
    return name


for _name, _op in _SAME.items():
    REWRITES[PREFIX + _name] = lambda go, node, op=_op: [_as(node, op)]


@_rewrites(*_BROADCAST)
def _broadcast(go: Lowering, node: Node) -> list[Node]:
    if node.attributes.get("auto_broadcast", "numpy") not in ("numpy", "none"):
        raise InputError(f"auto_broadcast: expected numpy; got {node.attributes['auto_broadcast']}")
    return [_as(node, _BROADCAST[node.op.removeprefix(PREFIX)])]


@_rewrites("NotEqual")
def _not_equal(go: Lowering, node: Node) -> list[Node]:
    inner = f"{node.outputs[0]}:equal"
    return [
        _as(node, "Equal")._replace(outputs=(inner,), name=f"{node.name}:equal"),
        _as(node, "Not", [inner]),
    ]


@_rewrites("Mod")
def _mod(go: Lowering, node: Node) -> list[Node]:
    return [_as(node, "Mod", fmod=1)]


@_rewrites("Round")
def _round(go: Lowering, node: Node) -> list[Node]:
    if node.attributes.get("mode", "half_to_even") != "half_to_even":
        raise InputError("mode: expected half_to_even")
    return [_as(node, "Round")]


@_rewrites("Convert")
def _convert(go: Lowering, node: Node) -> list[Node]:
    kind = node.attributes.get("destination_type", "")
    if kind not in _CASTS:
        raise InputError(f"destination_type: expected one of {', '.join(_CASTS)}; got {kind!r:.40}")
    return [_as(node, "Cast", to=_CASTS[kind])]


@_rewrites("Elu")
def _elu(go: Lowering, node: Node) -> list[Node]:
    return [_as(node, "Elu", alpha=float(node.attributes.get("alpha", 1.0)))]


@_rewrites("HSigmoid")
def _hard_sigmoid(go: Lowering, node: Node) -> list[Node]:
    return [_as(node, "HardSigmoid", alpha=1 / 6, beta=0.5)]


@_rewrites("HardSigmoid")
def _hard_sigmoid_of(go: Lowering, node: Node) -> list[Node]:
    alpha, beta = (float(go.need(node, i, "alpha, beta").reshape(-1)[0]) for i in (1, 2))
    return [_as(node, "HardSigmoid", node.inputs[:1], alpha=alpha, beta=beta)]


@_rewrites("Selu")
def _selu(go: Lowering, node: Node) -> list[Node]:
    alpha, gamma = (float(go.need(node, i, "alpha, lambda").reshape(-1)[0]) for i in (1, 2))
    return [_as(node, "Selu", node.inputs[:1], alpha=alpha, gamma=gamma)]


@_rewrites("Swish")
def _swish(go: Lowering, node: Node) -> list[Node]:
    beta = go.optional(node, 1, "beta")
    alpha = 1.0 if beta is None else float(beta.reshape(-1)[0])
    return [_as(node, "Swish", node.inputs[:1], alpha=alpha)]


@_rewrites("Gelu")
def _gelu(go: Lowering, node: Node) -> list[Node]:
    tanh = node.attributes.get("approximation_mode", "ERF").upper() == "TANH"
    return [_as(node, "Gelu", approximate="tanh" if tanh else "none")]


@_rewrites("Clamp")
def _clamp(go: Lowering, node: Node) -> list[Node]:
    low, high = float(node.attributes["min"]), float(node.attributes["max"])
    return [_as(node, "Clip", min=low, max=high)]


@_rewrites("PReLU")
def _prelu(go: Lowering, node: Node) -> list[Node]:
    slope, rank = go.shape(node.inputs[1]), len(go.shape(node.inputs[0]))
    if len(slope) != 1 or slope == (1,) or rank < 3:
        return [_as(node, "PRelu")]
    # One slope for each channel, axis 1.
    shape = _new(go, node, [slope[0]] + [1] * (rank - 2), "slopes_shape")
    slopes = f"{node.outputs[0]}:slopes"
    return [
        _as(node, "Reshape", [node.inputs[1], shape])._replace(
            outputs=(slopes,), name=f"{node.name}:slopes"
        ),
        _as(node, "PRelu", [node.inputs[0], slopes]),
    ]


@_rewrites("MatMul")
def _matmul(go: Lowering, node: Node) -> list[Node]:
    return [
        _as(node, "MatMul", transpose_a=_flag(node, "transpose_a"),
            transpose_b=_flag(node, "transpose_b"))
    ]  # fmt: skip


@_rewrites("Einsum")
def _einsum(go: Lowering, node: Node) -> list[Node]:
    return [_as(node, "Einsum", equation=node.attributes["equation"])]


def _window(node: Node) -> dict[str, Any]:
    """Strides, dilations and paddings, as ONNX names them."""
    auto = node.attributes.get("auto_pad", "explicit").lower()
    if auto not in _PADDINGS:
        raise InputError(f"auto_pad: expected one of {', '.join(_PADDINGS)}; got {auto!r:.40}")
    found: dict[str, Any] = {"auto_pad": _PADDINGS[auto]}
    for theirs, ours in (("strides", "strides"), ("dilations", "dilations"),
                         ("output_padding", "output_padding")):  # fmt: skip
        if node.attributes.get(theirs):
            found[ours] = _numbers(node, theirs)
    if auto in ("explicit", ""):
        begin, end = _numbers(node, "pads_begin"), _numbers(node, "pads_end")
        found |= {"pads": begin + end} if begin or end else {}
    return found


@_rewrites("Convolution")
def _convolution(go: Lowering, node: Node) -> list[Node]:
    return [_as(node, "Conv", **_window(node))]


@_rewrites("ConvolutionBackpropData", "GroupConvolutionBackpropData")
def _transposed(go: Lowering, node: Node) -> list[Node]:
    attributes = _window(node)
    if len(node.inputs) > 2 and node.inputs[2]:
        shape = _axes(go, node, 2, "output_shape")
        if attributes["auto_pad"] == "NOTSET" and any(attributes.get("pads", ())):
            raise InputError("output_shape: expected none beside explicit paddings")
        attributes["output_shape"] = shape
    if node.op.endswith("GroupConvolutionBackpropData"):
        return _grouped(go, node, "ConvTranspose", attributes)
    return [_as(node, "ConvTranspose", node.inputs[:2], **attributes)]


@_rewrites("GroupConvolution")
def _group_convolution(go: Lowering, node: Node) -> list[Node]:
    return _grouped(go, node, "Conv", _window(node))


def _grouped(go: Lowering, node: Node, op: str, attributes: dict[str, Any]) -> list[Node]:
    """Kernels (groups, A, B, ...) as ONNX's (groups * A, B, ...)."""
    shape = go.shape(node.inputs[1])
    if len(shape) < 4:
        raise InputError(f"kernel: expected (groups, O, I, ...); got {shape}")
    target = _new(go, node, [shape[0] * shape[1], *shape[2:]], "kernel_shape")
    kernel = f"{node.outputs[0]}:kernel"
    return [
        _as(node, "Reshape", [node.inputs[1], target])._replace(
            outputs=(kernel,), name=f"{node.name}:kernel"
        ),
        _as(node, op, [node.inputs[0], kernel], group=shape[0], **attributes),
    ]


@_rewrites("MaxPool", "AvgPool")
def _pool(go: Lowering, node: Node) -> list[Node]:
    rounding = node.attributes.get("rounding_type", "floor")
    if rounding not in ("floor", "ceil", "ceil_torch"):
        raise InputError(f"rounding_type: expected floor or ceil; got {rounding!r:.40}")
    attributes = {**_window(node), "kernel_shape": _numbers(node, "kernel")}
    attributes["ceil_mode"] = int(rounding != "floor")
    average = node.op.endswith("AvgPool")
    if average:
        attributes["count_include_pad"] = int(not _flag(node, "exclude-pad"))
    op = "AveragePool" if average else "MaxPool"
    return [_as(node, op, node.inputs[:1], **attributes)._replace(outputs=node.outputs[:1])]


@_rewrites("Interpolate")
def _interpolate(go: Lowering, node: Node) -> list[Node]:
    found = node.attributes
    if node.attributes["version"] in ("opset1", ""):
        raise InputError("expected opset 4 or newer")
    if any(_numbers(node, "pads_begin") + _numbers(node, "pads_end")):
        raise InputError("pads_begin, pads_end: expected none")
    mode = found.get("mode", "")
    known = {"nearest": "nearest", "linear_onnx": "linear", "linear": "linear", "cubic": "cubic"}
    rank = len(go.shape(node.inputs[0]))
    newer = found["version"] == "opset11"
    places = 2 if newer else 3
    axes = _axes(go, node, places) if len(node.inputs) > places else list(range(rank))
    by_sizes = found.get("shape_calculation_mode", "sizes") == "sizes"
    operand = node.inputs[1 if by_sizes or newer else 2]
    attributes: dict[str, Any] = {
        "mode": known.get(mode, mode),
        "axes": axes,
        "coordinate_transformation_mode": found.get("coordinate_transformation_mode", "half_pixel"),
        "nearest_mode": found.get("nearest_mode", "round_prefer_floor"),
        "antialias": int(_flag(node, "antialias")),
        "cubic_coeff_a": float(found.get("cube_coeff", -0.75)),
    }
    inputs = [node.inputs[0], "", "", operand] if by_sizes else [node.inputs[0], "", operand]
    return [_as(node, "Resize", inputs, **attributes)]


@_rewrites("BatchNormInference")
def _batch_norm(go: Lowering, node: Node) -> list[Node]:
    inputs = list(node.inputs)
    if node.attributes["version"] == "opset1":  # gamma, beta, data, mean, variance
        inputs = [inputs[2], inputs[0], inputs[1], *inputs[3:]]
    epsilon = float(node.attributes.get("epsilon", node.attributes.get("eps", 1e-5)))
    return [_as(node, "BatchNormalization", inputs, epsilon=epsilon)]


@_rewrites("MVN")
def _mvn(go: Lowering, node: Node) -> list[Node]:
    found, rank = node.attributes, len(go.shape(node.inputs[0]))
    if len(node.inputs) > 1:
        axes = _axes(go, node, 1)
    else:
        axes = list(range(1 if _flag(node, "across_channels") else 2, rank))
    outside = found.get("eps_mode", "inside_sqrt").lower() != "inside_sqrt"
    return [
        _as(node, "MVN", node.inputs[:1], axes=axes, epsilon=float(found.get("eps", 1e-9)),
            scale=_flag(node, "normalize_variance", True), outside=outside)
    ]  # fmt: skip


@_rewrites("NormalizeL2")
def _normalize(go: Lowering, node: Node) -> list[Node]:
    maximum = node.attributes.get("eps_mode", "add").lower() == "max"
    return [
        _as(node, "LpNormalization", node.inputs[:1], axes=_axes(go, node, 1), p=2,
            epsilon=float(node.attributes["eps"]), maximum=maximum)
    ]  # fmt: skip


@_rewrites("LRN")
def _lrn(go: Lowering, node: Node) -> list[Node]:
    if len(node.inputs) > 1 and _axes(go, node, 1) != [1]:
        raise InputError("axes: expected [1]")
    found = {k: float(node.attributes[k]) for k in ("alpha", "beta", "bias")}
    return [_as(node, "LRN", node.inputs[:1], size=int(node.attributes["size"]), **found)]


@_rewrites("SoftMax", "Softmax", "LogSoftmax")
def _softmax(go: Lowering, node: Node) -> list[Node]:
    op = "LogSoftmax" if node.op.endswith("LogSoftmax") else "Softmax"
    return [_as(node, op, axis=int(node.attributes.get("axis", 1)))]


@_rewrites(*_REDUCE)
def _reduce(go: Lowering, node: Node) -> list[Node]:
    keep = int(_flag(node, "keep_dims"))
    return [_as(node, node.op.removeprefix(PREFIX), keepdims=keep, noop_with_empty_axes=1)]


@_rewrites("Reshape")
def _reshape(go: Lowering, node: Node) -> list[Node]:
    return [_as(node, "Reshape", allowzero=int(not _flag(node, "special_zero")))]


@_rewrites("Transpose")
def _transpose(go: Lowering, node: Node) -> list[Node]:
    order = _axes(go, node, 1, "order") if len(node.inputs) > 1 else []
    return [_as(node, "Transpose", node.inputs[:1], **({"perm": order} if order else {}))]


@_rewrites("Concat")
def _concat(go: Lowering, node: Node) -> list[Node]:
    return [_as(node, "Concat", axis=int(node.attributes["axis"]))]


@_rewrites("Split")
def _split(go: Lowering, node: Node) -> list[Node]:
    axis = _axes(go, node, 1, "axis")[0]
    parts = int(node.attributes["num_splits"])
    length = go.shape(node.inputs[0])[axis]
    if parts < 1 or parts != len(node.outputs) or length % parts:
        raise InputError(f"num_splits: expected a divisor of {length}; got {parts}")
    return [_as(node, "Split", node.inputs[:1], axis=axis, split=[length // parts] * parts)]


@_rewrites("VariadicSplit")
def _variadic_split(go: Lowering, node: Node) -> list[Node]:
    axis, lengths = _axes(go, node, 1, "axis")[0], _axes(go, node, 2, "lengths")
    if lengths.count(-1) == 1:
        rest = go.shape(node.inputs[0])[axis] - sum(n for n in lengths if n != -1)
        lengths[lengths.index(-1)] = rest
    return [_as(node, "Split", node.inputs[:1], axis=axis, split=lengths)]


@_rewrites("Gather")
def _gather(go: Lowering, node: Node) -> list[Node]:
    if int(node.attributes.get("batch_dims", 0)):
        raise InputError("batch_dims: expected 0")
    return [_as(node, "Gather", node.inputs[:2], axis=_axes(go, node, 2, "axis")[0])]


@_rewrites("Broadcast")
def _broadcast_to(go: Lowering, node: Node) -> list[Node]:
    if node.attributes.get("mode", "numpy").lower() not in ("numpy", "bidirectional"):
        raise InputError("mode: expected numpy or bidirectional")
    return [_as(node, "Expand", node.inputs[:2])]


@_rewrites("Pad")
def _pad(go: Lowering, node: Node) -> list[Node]:
    pads = _new(go, node, _axes(go, node, 1, "pads_begin") + _axes(go, node, 2, "pads_end"), "pads")
    value = _at(node, 3)
    mode = node.attributes.get("pad_mode", "constant").lower()
    return [_as(node, "Pad", [node.inputs[0], pads, value], mode=mode)]


@_rewrites("DepthToSpace", "SpaceToDepth")
def _depth(go: Lowering, node: Node) -> list[Node]:
    modes = {"blocks_first": "DCR", "depth_first": "CRD"}
    mode = modes[node.attributes.get("mode", "blocks_first").lower()]
    size = int(node.attributes.get("block_size", 1))
    return [_as(node, node.op.removeprefix(PREFIX), blocksize=size, mode=mode)]


@_rewrites("Slice")
def _slice(go: Lowering, node: Node) -> list[Node]:
    # Data, start, stop, step and axes; in ONNX the steps come last.
    data, start, stop, step, *axes = node.inputs
    return [_as(node, "Slice", [data, start, stop, *(axes or [""]), step])]


@_rewrites("StridedSlice")
def _strided_slice(go: Lowering, node: Node) -> list[Node]:
    if any(_numbers(node, "ellipsis_mask")):
        raise InputError("ellipsis_mask: expected none")
    begin, end = _axes(go, node, 1, "begin"), _axes(go, node, 2, "end")
    step = _axes(go, node, 3, "strides") if _at(node, 3) else [1] * len(begin)
    masks = {
        name: _numbers(node, f"{name}_mask") + [0] * len(begin)
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
        _new(go, node, np.array([row[i] for row in rows], np.int64), what)
        for i, what in ((1, "starts"), (2, "ends"), (0, "axes"), (3, "steps"))
    ]
    return [
        _as(node, "Slice", [node.inputs[0], *operands])._replace(
            outputs=(cut,), name=f"{node.name}:cut"
        ),
        _as(node, "Reshape", [cut, _new(go, node, np.array(target, np.int64), "shape")],
            allowzero=1),
    ]  # fmt: skip
