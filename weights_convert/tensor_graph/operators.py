"""Lowerings of pointwise operators, matrix products, normalisations and reductions."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxgen.core.errors import InputError
from weights_convert.tensor_graph.folding import listed
from weights_convert.tensor_graph.lowering import Lowering, lowers
from weights_convert.tensor_graph.program import Node

__all__: list[str] = []

_SAME = (
    "Abs", "And", "Ceil", "Cos", "Div", "Equal", "Erf", "Exp", "Floor", "Greater",
    "GreaterOrEqual", "HardSwish", "Less", "LessOrEqual", "Log", "Max", "Min", "Mish", "Mul",
    "Add", "Neg", "Not", "Or", "PRelu", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin",
    "Softplus", "Softsign", "Sqrt", "SquaredDifference", "Sub", "Tanh", "Where", "Xor",
)  # fmt: skip


@lowers(*_SAME)
def _same(go: Lowering, node: Node) -> None:
    go.emit(node, node.op, node.inputs)


@lowers("Identity")
def _identity(go: Lowering, node: Node) -> None:
    go.alias(node, node.inputs[0])


@lowers("Dropout")
def _dropout(go: Lowering, node: Node) -> None:
    training = go.optional(node, 2, "training_mode")
    if training is not None and bool(training.reshape(-1)[0]):
        raise InputError("training_mode: expected a network exported for inference")
    go.alias(node, node.inputs[0])


@lowers("Cast")
def _cast(go: Lowering, node: Node) -> None:
    kind = node.attributes.get("to")
    if kind in (1, 10, 11, 16):
        go.alias(node, node.inputs[0])
    elif kind == 9:
        go.emit(node, "Truth", node.inputs)
    elif kind in (2, 3, 4, 5, 6, 7, 12, 13):
        go.emit(node, "Truncate", node.inputs)
    else:
        raise InputError(f"to: expected a type of numbers; got {kind}")


@lowers("CastLike")
def _cast_like(go: Lowering, node: Node) -> None:
    like = go.constant(node.inputs[1])
    if like is not None and not np.issubdtype(like.dtype, np.floating):
        raise InputError("target_type: expected a floating type")
    go.alias(node, node.inputs[0])


@lowers("Sum")
def _sum(go: Lowering, node: Node) -> None:
    go.emit(node, "Add", node.inputs)


@lowers("Mean")
def _mean(go: Lowering, node: Node) -> None:
    total, share = f"{node.outputs[0]}:sum", f"{node.outputs[0]}:share"
    go.emit(node, "Add", node.inputs, outputs=[total], name=f"{node.name}:sum")
    go.constants[share] = np.array(1 / len(node.inputs), np.float32)
    go.emit(node, "Mul", [total, share])


@lowers("Mod")
def _mod(go: Lowering, node: Node) -> None:
    go.emit(node, "Mod", node.inputs, {"truncated": bool(node.attributes.get("fmod", 0))})


@lowers("Pow")
def _pow(go: Lowering, node: Node) -> None:
    power = go.constant(node.inputs[1])
    rank = len(go.shape(node.inputs[0]))
    if power is not None and power.size == 1 and power.ndim <= rank:
        go.emit(node, "Power", node.inputs[:1], {"power": float(power.reshape(-1)[0])})
    else:
        go.emit(node, "Pow", node.inputs)


@lowers("LeakyRelu")
def _leaky(go: Lowering, node: Node) -> None:
    go.emit(node, "LeakyRelu", node.inputs, {"slope": float(node.attributes.get("alpha", 0.01))})


@lowers("Elu", "Selu", "Celu")
def _elu(go: Lowering, node: Node) -> None:
    alpha = float(node.attributes.get("alpha", 1.6732632423543772 if node.op == "Selu" else 1.0))
    config = {"alpha": alpha}
    if node.op == "Selu":
        config["gamma"] = float(node.attributes.get("gamma", 1.0507009873554805))
    if node.op == "Celu":
        config["width"] = alpha
    go.emit(node, "Elu", node.inputs, config)


@lowers("HardSigmoid")
def _hard_sigmoid(go: Lowering, node: Node) -> None:
    found = node.attributes
    config = {"alpha": float(found.get("alpha", 0.2)), "beta": float(found.get("beta", 0.5))}
    go.emit(node, "HardSigmoid", node.inputs, config)


@lowers("Swish")
def _swish(go: Lowering, node: Node) -> None:
    go.emit(node, "Swish", node.inputs[:1], {"beta": float(node.attributes.get("alpha", 1.0))})


@lowers("Gelu")
def _gelu(go: Lowering, node: Node) -> None:
    approximate = node.attributes.get("approximate", "none") == "tanh"
    go.emit(node, "Gelu", node.inputs, {"approximate": approximate})


@lowers("ThresholdedRelu")
def _thresholded(go: Lowering, node: Node) -> None:
    threshold = float(node.attributes.get("alpha", 1.0))
    go.emit(node, "ThresholdedRelu", node.inputs, {"threshold": threshold})


@lowers("Clip")
def _clip(go: Lowering, node: Node) -> None:
    config: dict[str, Any] = {}
    for index, name, key in ((1, "min", "low"), (2, "max", "high")):
        bound = go.optional(node, index, name)
        bound = node.attributes.get(name) if bound is None else bound
        value = None if bound is None else float(np.asarray(bound).reshape(-1)[0])
        # Older files bound by the largest floats where they mean no bound.
        if value is not None and abs(value) < 3e38:
            config[key] = value
    go.emit(node, "Clip", node.inputs[:1], config)


@lowers("Gemm")
def _gemm(go: Lowering, node: Node) -> None:
    found = node.attributes
    config = {
        "alpha": float(found.get("alpha", 1.0)),
        "beta": float(found.get("beta", 1.0)),
        "transpose_a": bool(found.get("transA", 0)),
        "transpose_b": bool(found.get("transB", 0)),
    }
    operands = [name for name in node.inputs if name]
    weights = go.constant(operands[1])
    if weights is not None and weights.ndim == 2 and config["transpose_b"]:
        # Kept as (I, O), as all matrices of jaxgen are.
        operands[1] = _kept(go, node, weights.T, "matrix")
        config["transpose_b"] = False
    go.emit(node, "Gemm", operands, config)


@lowers("MatMul")
def _matmul(go: Lowering, node: Node) -> None:
    config = {
        "transpose_a": bool(node.attributes.get("transpose_a", 0)),
        "transpose_b": bool(node.attributes.get("transpose_b", 0)),
    }
    operands = list(node.inputs)
    weights = go.constant(operands[1])
    if weights is not None and weights.ndim == 2 and config["transpose_b"]:
        operands[1] = _kept(go, node, weights.T, "matrix")
        config["transpose_b"] = False
    go.emit(node, "MatMul", operands, config)


@lowers("Einsum")
def _einsum(go: Lowering, node: Node) -> None:
    go.emit(node, "Einsum", node.inputs, {"equation": node.attributes["equation"]})


@lowers("BatchNormalization")
def _batch_norm(go: Lowering, node: Node) -> None:
    if node.attributes.get("training_mode", 0):
        raise InputError("training_mode: expected a network exported for inference")
    names = ("scale", "B", "input_mean", "input_var")
    scale, shift, mean, variance = (
        go.need(node, i + 1, name).astype(np.float64) for i, name in enumerate(names)
    )
    epsilon = float(node.attributes.get("epsilon", 1e-5))
    if not np.all(variance + epsilon > 0):
        raise InputError("input_var: expected positive numbers")
    factor = scale / np.sqrt(variance + epsilon)
    _affine(go, node, node.inputs[0], factor, shift - mean * factor, outputs=node.outputs[:1])


@lowers("InstanceNormalization")
def _instance_norm(go: Lowering, node: Node) -> None:
    axes = list(range(2, len(go.shape(node.inputs[0]))))
    config = {"axes": axes, "epsilon": float(node.attributes.get("epsilon", 1e-5))}
    inner = f"{node.outputs[0]}:normal"
    go.emit(node, "Normalization", node.inputs[:1], config, outputs=[inner],
            name=f"{node.name}:normal")  # fmt: skip
    _affine(go, node, inner, go.need(node, 1, "scale"), go.need(node, 2, "B"))


@lowers("LayerNormalization", "RMSNormalization")
def _layer_norm(go: Lowering, node: Node) -> None:
    rank = len(go.shape(node.inputs[0]))
    first = node.attributes.get("axis", -1) % rank
    config = {
        "axes": list(range(first, rank)),
        "epsilon": float(node.attributes.get("epsilon", 1e-5)),
        "centre": node.op == "LayerNormalization",
    }
    rest = [name for name in node.inputs[1:] if name]
    inner = f"{node.outputs[0]}:normal" if rest else node.outputs[0]
    go.emit(node, "Normalization", node.inputs[:1], config, outputs=[inner],
            name=f"{node.name}:normal" if rest else None)  # fmt: skip
    if rest:
        go.emit(node, "Scaled", [inner, *rest], outputs=node.outputs[:1])


@lowers("GroupNormalization")
def _group_norm(go: Lowering, node: Node) -> None:
    groups, channels = int(node.attributes["num_groups"]), go.shape(node.inputs[0])[1]
    config = {"groups": groups, "epsilon": float(node.attributes.get("epsilon", 1e-5))}
    scale, shift = go.need(node, 1, "scale"), go.need(node, 2, "bias")
    if node.opset < 21:  # one number for each group, not for each channel
        scale, shift = (np.repeat(x, channels // groups) for x in (scale, shift))
    inner = f"{node.outputs[0]}:normal"
    go.emit(node, "GroupNormalization", node.inputs[:1], config, outputs=[inner],
            name=f"{node.name}:normal")  # fmt: skip
    _affine(go, node, inner, scale, shift)


@lowers("MeanVarianceNormalization", "MVN")
def _mvn(go: Lowering, node: Node) -> None:
    found = node.attributes
    config = {
        "axes": list(found.get("axes", (0, 2, 3))),
        "epsilon": float(found.get("epsilon", 1e-9)),
        "scale": bool(found.get("scale", True)),
        # ONNX's function adds its epsilon to the deviation.
        "outside": bool(found.get("outside", True)),
    }
    go.emit(node, "Normalization", node.inputs[:1], config)


@lowers("LpNormalization")
def _lp_norm(go: Lowering, node: Node) -> None:
    found = node.attributes
    config: dict[str, Any] = {
        "axes": list(found.get("axes", [found.get("axis", -1)])),
        "p": int(found.get("p", 2)),
        "epsilon": float(found.get("epsilon", 0.0)),
        "maximum": bool(found.get("maximum", False)),
    }
    go.emit(node, "LpNormalization", node.inputs[:1], config)


@lowers("LRN")
def _lrn(go: Lowering, node: Node) -> None:
    found = node.attributes
    config = {
        "size": int(found["size"]),
        "alpha": float(found.get("alpha", 1e-4)),
        "beta": float(found.get("beta", 0.75)),
        "bias": float(found.get("bias", 1.0)),
    }
    go.emit(node, "LRN", node.inputs[:1], config)


@lowers("Softmax", "LogSoftmax")
def _softmax(go: Lowering, node: Node) -> None:
    rank = len(go.shape(node.inputs[0]))
    axis = node.attributes.get("axis", 1 if node.opset < 13 else -1)
    # Before opset 13 a softmax is over all axes from the given one on.
    axes = list(range(axis % rank, rank)) if node.opset < 13 else [axis]
    go.emit(node, "Softmax", node.inputs, {"axes": axes, "log": node.op == "LogSoftmax"})


@lowers("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1",
        "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp")  # fmt: skip
def _reduce(go: Lowering, node: Node) -> None:
    rank = len(go.shape(node.inputs[0]))
    axes = listed(node, "axes", go.optional(node, 1, "axes"))
    if not axes and node.attributes.get("noop_with_empty_axes", 0):
        go.alias(node, node.inputs[0])
        return
    config = {
        "method": node.op,
        "axes": [a % rank for a in axes] if axes else list(range(rank)),
        "keep": bool(node.attributes.get("keepdims", 1)),
    }
    go.emit(node, node.op, node.inputs[:1], config)


@lowers("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(go: Lowering, node: Node) -> None:
    method = "ReduceMean" if node.op == "GlobalAveragePool" else "ReduceMax"
    axes = list(range(2, len(go.shape(node.inputs[0]))))
    go.emit(node, method, node.inputs, {"method": method, "axes": axes, "keep": True})


@lowers("ArgMax", "ArgMin")
def _argmax(go: Lowering, node: Node) -> None:
    found = node.attributes
    if found.get("select_last_index", 0):
        raise InputError("select_last_index: expected 0; of equal numbers the first is taken")
    config = {
        "axis": int(found.get("axis", 0)),
        "keep": bool(found.get("keepdims", 1)),
        "smallest": node.op == "ArgMin",
    }
    go.emit(node, node.op, node.inputs, config)


def _affine(
    go: Lowering,
    node: Node,
    operand: str,
    scale: np.ndarray,
    shift: np.ndarray,
    outputs: Any = None,
) -> None:
    operands = [operand, _kept(go, node, scale.reshape(-1), "scale"),
                _kept(go, node, shift.reshape(-1), "shift")]  # fmt: skip
    go.emit(node, "Affine", operands, outputs=outputs)


def _kept(go: Lowering, node: Node, array: np.ndarray, what: str) -> str:
    """Return a constant that is made here, under a name of its own."""
    name = f"{node.outputs[0]}:{what}"
    go.constants[name] = np.ascontiguousarray(array, np.float32)
    return name
