"""OpenVINO's operators in terms of ONNX's, rewritten when their constants are known.

Those that change shapes are in `weights_convert.openvino.shaping`.

Source: OpenVINO's specification of operation sets 1 to 15.
"""

from __future__ import annotations

from typing import Any

from jaxgen.core.errors import InputError
from weights_convert.openvino import shaping as _shaping  # noqa: F401  (registers its operators)
from weights_convert.openvino.reader import PREFIX
from weights_convert.openvino.rewriting import (
    as_node,
    axes_of,
    flag,
    new_constant,
    numbers_of,
    rewrites,
)
from weights_convert.tensor_graph.lowering import REWRITES, Lowering
from weights_convert.tensor_graph.program import Node

__all__: list[str] = []

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


for _name, _op in _SAME.items():
    REWRITES[PREFIX + _name] = lambda go, node, op=_op: [as_node(node, op)]


@rewrites(*_BROADCAST)
def _broadcast(go: Lowering, node: Node) -> list[Node]:
    if node.attributes.get("auto_broadcast", "numpy") not in ("numpy", "none"):
        raise InputError(f"auto_broadcast: expected numpy; got {node.attributes['auto_broadcast']}")
    return [as_node(node, _BROADCAST[node.op.removeprefix(PREFIX)])]


@rewrites("NotEqual")
def _not_equal(go: Lowering, node: Node) -> list[Node]:
    inner = f"{node.outputs[0]}:equal"
    return [
        as_node(node, "Equal")._replace(outputs=(inner,), name=f"{node.name}:equal"),
        as_node(node, "Not", [inner]),
    ]


@rewrites("Mod")
def _mod(go: Lowering, node: Node) -> list[Node]:
    return [as_node(node, "Mod", fmod=1)]


@rewrites("Round")
def _round(go: Lowering, node: Node) -> list[Node]:
    if node.attributes.get("mode", "half_to_even") != "half_to_even":
        raise InputError("mode: expected half_to_even")
    return [as_node(node, "Round")]


@rewrites("Convert")
def _convert(go: Lowering, node: Node) -> list[Node]:
    kind = node.attributes.get("destination_type", "")
    if kind not in _CASTS:
        raise InputError(f"destination_type: expected one of {', '.join(_CASTS)}; got {kind!r:.40}")
    return [as_node(node, "Cast", to=_CASTS[kind])]


@rewrites("Elu")
def _elu(go: Lowering, node: Node) -> list[Node]:
    return [as_node(node, "Elu", alpha=float(node.attributes.get("alpha", 1.0)))]


@rewrites("HSigmoid")
def _hard_sigmoid(go: Lowering, node: Node) -> list[Node]:
    return [as_node(node, "HardSigmoid", alpha=1 / 6, beta=0.5)]


@rewrites("HardSigmoid")
def _hard_sigmoid_of(go: Lowering, node: Node) -> list[Node]:
    alpha, beta = (float(go.need(node, i, "alpha, beta").reshape(-1)[0]) for i in (1, 2))
    return [as_node(node, "HardSigmoid", node.inputs[:1], alpha=alpha, beta=beta)]


@rewrites("Selu")
def _selu(go: Lowering, node: Node) -> list[Node]:
    alpha, gamma = (float(go.need(node, i, "alpha, lambda").reshape(-1)[0]) for i in (1, 2))
    return [as_node(node, "Selu", node.inputs[:1], alpha=alpha, gamma=gamma)]


@rewrites("Swish")
def _swish(go: Lowering, node: Node) -> list[Node]:
    beta = go.optional(node, 1, "beta")
    alpha = 1.0 if beta is None else float(beta.reshape(-1)[0])
    return [as_node(node, "Swish", node.inputs[:1], alpha=alpha)]


@rewrites("Gelu")
def _gelu(go: Lowering, node: Node) -> list[Node]:
    tanh = node.attributes.get("approximation_mode", "ERF").upper() == "TANH"
    return [as_node(node, "Gelu", approximate="tanh" if tanh else "none")]


@rewrites("Clamp")
def _clamp(go: Lowering, node: Node) -> list[Node]:
    low, high = float(node.attributes["min"]), float(node.attributes["max"])
    return [as_node(node, "Clip", min=low, max=high)]


@rewrites("PReLU")
def _prelu(go: Lowering, node: Node) -> list[Node]:
    slope, rank = go.shape(node.inputs[1]), len(go.shape(node.inputs[0]))
    if len(slope) != 1 or slope == (1,) or rank < 3:
        return [as_node(node, "PRelu")]
    # One slope for each channel, axis 1.
    shape = new_constant(go, node, [slope[0]] + [1] * (rank - 2), "slopes_shape")
    slopes = f"{node.outputs[0]}:slopes"
    return [
        as_node(node, "Reshape", [node.inputs[1], shape])._replace(
            outputs=(slopes,), name=f"{node.name}:slopes"
        ),
        as_node(node, "PRelu", [node.inputs[0], slopes]),
    ]


@rewrites("MatMul")
def _matmul(go: Lowering, node: Node) -> list[Node]:
    return [
        as_node(node, "MatMul", transpose_a=flag(node, "transpose_a"),
            transpose_b=flag(node, "transpose_b"))
    ]  # fmt: skip


@rewrites("Einsum")
def _einsum(go: Lowering, node: Node) -> list[Node]:
    return [as_node(node, "Einsum", equation=node.attributes["equation"])]


def _window(node: Node) -> dict[str, Any]:
    """Strides, dilations and paddings, as ONNX names them."""
    auto = node.attributes.get("auto_pad", "explicit").lower()
    if auto not in _PADDINGS:
        raise InputError(f"auto_pad: expected one of {', '.join(_PADDINGS)}; got {auto!r:.40}")
    found: dict[str, Any] = {"auto_pad": _PADDINGS[auto]}
    for theirs, ours in (("strides", "strides"), ("dilations", "dilations"),
                         ("output_padding", "output_padding")):  # fmt: skip
        if node.attributes.get(theirs):
            found[ours] = numbers_of(node, theirs)
    if auto in ("explicit", ""):
        begin, end = numbers_of(node, "pads_begin"), numbers_of(node, "pads_end")
        found |= {"pads": begin + end} if begin or end else {}
    return found


@rewrites("Convolution")
def _convolution(go: Lowering, node: Node) -> list[Node]:
    return [as_node(node, "Conv", **_window(node))]


@rewrites("ConvolutionBackpropData", "GroupConvolutionBackpropData")
def _transposed(go: Lowering, node: Node) -> list[Node]:
    attributes = _window(node)
    if len(node.inputs) > 2 and node.inputs[2]:
        shape = axes_of(go, node, 2, "output_shape")
        if attributes["auto_pad"] == "NOTSET" and any(attributes.get("pads", ())):
            raise InputError("output_shape: expected none beside explicit paddings")
        attributes["output_shape"] = shape
    if node.op.endswith("GroupConvolutionBackpropData"):
        return _grouped(go, node, "ConvTranspose", attributes)
    return [as_node(node, "ConvTranspose", node.inputs[:2], **attributes)]


@rewrites("GroupConvolution")
def _group_convolution(go: Lowering, node: Node) -> list[Node]:
    return _grouped(go, node, "Conv", _window(node))


def _grouped(go: Lowering, node: Node, op: str, attributes: dict[str, Any]) -> list[Node]:
    """Kernels (groups, A, B, ...) as ONNX's (groups * A, B, ...)."""
    shape = go.shape(node.inputs[1])
    if len(shape) < 4:
        raise InputError(f"kernel: expected (groups, O, I, ...); got {shape}")
    target = new_constant(go, node, [shape[0] * shape[1], *shape[2:]], "kernel_shape")
    kernel = f"{node.outputs[0]}:kernel"
    return [
        as_node(node, "Reshape", [node.inputs[1], target])._replace(
            outputs=(kernel,), name=f"{node.name}:kernel"
        ),
        as_node(node, op, [node.inputs[0], kernel], group=shape[0], **attributes),
    ]


@rewrites("MaxPool", "AvgPool")
def _pool(go: Lowering, node: Node) -> list[Node]:
    rounding = node.attributes.get("rounding_type", "floor")
    if rounding not in ("floor", "ceil", "ceil_torch"):
        raise InputError(f"rounding_type: expected floor or ceil; got {rounding!r:.40}")
    attributes = {**_window(node), "kernel_shape": numbers_of(node, "kernel")}
    attributes["ceil_mode"] = int(rounding != "floor")
    average = node.op.endswith("AvgPool")
    if average:
        attributes["count_include_pad"] = int(not flag(node, "exclude-pad"))
    op = "AveragePool" if average else "MaxPool"
    return [as_node(node, op, node.inputs[:1], **attributes)._replace(outputs=node.outputs[:1])]


@rewrites("Interpolate")
def _interpolate(go: Lowering, node: Node) -> list[Node]:
    found = node.attributes
    if node.attributes["version"] in ("opset1", ""):
        raise InputError("expected opset 4 or newer")
    if any(numbers_of(node, "pads_begin") + numbers_of(node, "pads_end")):
        raise InputError("pads_begin, pads_end: expected none")
    mode = found.get("mode", "")
    known = {"nearest": "nearest", "linear_onnx": "linear", "linear": "linear", "cubic": "cubic"}
    rank = len(go.shape(node.inputs[0]))
    newer = found["version"] == "opset11"
    places = 2 if newer else 3
    axes = axes_of(go, node, places) if len(node.inputs) > places else list(range(rank))
    by_sizes = found.get("shape_calculation_mode", "sizes") == "sizes"
    operand = node.inputs[1 if by_sizes or newer else 2]
    attributes: dict[str, Any] = {
        "mode": known.get(mode, mode),
        "axes": axes,
        "coordinate_transformation_mode": found.get("coordinate_transformation_mode", "half_pixel"),
        "nearest_mode": found.get("nearest_mode", "round_prefer_floor"),
        "antialias": int(flag(node, "antialias")),
        "cubic_coeff_a": float(found.get("cube_coeff", -0.75)),
    }
    inputs = [node.inputs[0], "", "", operand] if by_sizes else [node.inputs[0], "", operand]
    return [as_node(node, "Resize", inputs, **attributes)]


@rewrites("BatchNormInference")
def _batch_norm(go: Lowering, node: Node) -> list[Node]:
    inputs = list(node.inputs)
    if node.attributes["version"] == "opset1":  # gamma, beta, data, mean, variance
        inputs = [inputs[2], inputs[0], inputs[1], *inputs[3:]]
    epsilon = float(node.attributes.get("epsilon", node.attributes.get("eps", 1e-5)))
    return [as_node(node, "BatchNormalization", inputs, epsilon=epsilon)]


@rewrites("MVN")
def _mvn(go: Lowering, node: Node) -> list[Node]:
    found, rank = node.attributes, len(go.shape(node.inputs[0]))
    if len(node.inputs) > 1:
        axes = axes_of(go, node, 1)
    else:
        axes = list(range(1 if flag(node, "across_channels") else 2, rank))
    outside = found.get("eps_mode", "inside_sqrt").lower() != "inside_sqrt"
    return [
        as_node(node, "MVN", node.inputs[:1], axes=axes, epsilon=float(found.get("eps", 1e-9)),
            scale=flag(node, "normalize_variance", True), outside=outside)
    ]  # fmt: skip


@rewrites("NormalizeL2")
def _normalize(go: Lowering, node: Node) -> list[Node]:
    maximum = node.attributes.get("eps_mode", "add").lower() == "max"
    return [
        as_node(node, "LpNormalization", node.inputs[:1], axes=axes_of(go, node, 1), p=2,
            epsilon=float(node.attributes["eps"]), maximum=maximum)
    ]  # fmt: skip


@rewrites("LRN")
def _lrn(go: Lowering, node: Node) -> list[Node]:
    if len(node.inputs) > 1 and axes_of(go, node, 1) != [1]:
        raise InputError("axes: expected [1]")
    found = {k: float(node.attributes[k]) for k in ("alpha", "beta", "bias")}
    return [as_node(node, "LRN", node.inputs[:1], size=int(node.attributes["size"]), **found)]


@rewrites("SoftMax", "Softmax", "LogSoftmax")
def _softmax(go: Lowering, node: Node) -> list[Node]:
    op = "LogSoftmax" if node.op.endswith("LogSoftmax") else "Softmax"
    return [as_node(node, op, axis=int(node.attributes.get("axis", 1)))]


@rewrites(*_REDUCE)
def _reduce(go: Lowering, node: Node) -> list[Node]:
    keep = int(flag(node, "keep_dims"))
    return [as_node(node, node.op.removeprefix(PREFIX), keepdims=keep, noop_with_empty_axes=1)]
