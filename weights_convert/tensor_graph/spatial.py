"""Lowerings of convolutions, pooling and resizing: paddings by every rule of ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxgen.core.errors import InputError
from weights_convert.layouts import conv as conv_layout
from weights_convert.layouts import deconv
from weights_convert.tensor_graph.folding import listed
from weights_convert.tensor_graph.lowering import Lowering, lowers
from weights_convert.tensor_graph.program import Node

__all__: list[str] = []


@lowers("Conv")
def _conv(go: Lowering, node: Node) -> None:
    shape = _spatial(go, node)
    kernel = _window(go, node, go.shape(node.inputs[1])[2:])
    stride, dilation = _each(node, "strides", shape), _each(node, "dilations", shape)
    config = {
        "stride": _both(stride, 1),
        "dilation": _both(dilation, 1),
        "pads": _four(_pads(node, shape, kernel, stride, dilation)),
        "groups": int(node.attributes.get("group", 1)),
    }
    _emit(go, node, "Conv", config)


@lowers("ConvTranspose")
def _conv_transpose(go: Lowering, node: Node) -> None:
    shape = _spatial(go, node)
    kernel = _window(go, node, go.shape(node.inputs[1])[2:])
    stride, dilation = _each(node, "strides", shape), _each(node, "dilations", shape)
    more = list(node.attributes.get("output_padding", [0] * len(shape)))
    pads = list(node.attributes.get("pads", [0] * 2 * len(shape)))
    auto = node.attributes.get("auto_pad", "NOTSET")
    wanted = listed(node, "output_shape", None)
    if wanted is None and auto in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [n * s for n, s in zip(shape, stride, strict=True)]
    if auto == "VALID":
        pads = [0] * 2 * len(shape)
    elif wanted is not None:
        pads = [0] * 2 * len(shape)
        for i, length in enumerate(list(wanted)[-len(shape) :]):
            extent = dilation[i] * (kernel[i] - 1) + 1
            total = stride[i] * (shape[i] - 1) + more[i] + extent - int(length)
            begin = total // 2 if auto == "SAME_UPPER" else total - total // 2
            pads[i], pads[i + len(shape)] = begin, total - begin
    config = {
        "stride": _both(stride, 1),
        "dilation": _both(dilation, 1),
        "pads": _four(pads),
        "more": _both(more, 0),
        "groups": int(node.attributes.get("group", 1)),
    }
    _emit(go, node, "ConvTranspose", config)


@lowers("MaxPool", "AveragePool")
def _pool(go: Lowering, node: Node) -> None:
    shape = _spatial(go, node)
    kernel = _window(go, node, node.attributes["kernel_shape"])
    stride, dilation = _each(node, "strides", shape), _each(node, "dilations", shape)
    config = {
        "method": "max" if node.op == "MaxPool" else "average",
        "kernel_size": _both(kernel, 1),
        "stride": _both(stride, 1),
        "dilation": _both(dilation, 1),
        "pads": _four(_pads(node, shape, kernel, stride, dilation)),
        "ceil": bool(node.attributes.get("ceil_mode", 0)),
        "count_padding": bool(node.attributes.get("count_include_pad", 0)),
    }
    go.emit(node, "Pool", node.inputs[:1], config, outputs=node.outputs[:1])


@lowers("Resize", "Upsample")
def _resize(go: Lowering, node: Node) -> None:
    found, shape = node.attributes, go.shape(node.inputs[0])
    mode = str(found.get("mode", "nearest")).replace("bilinear", "linear")
    old = node.op == "Upsample" or node.opset < 11
    scales = go.optional(node, 1 if old else 2, "scales")
    sizes = None if old else go.optional(node, 3, "sizes")
    if old and scales is None:
        scales = found.get("scales")
    axes = [a % len(shape) for a in found.get("axes", range(len(shape)))]
    if sizes is not None and np.size(sizes):
        if found.get("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise InputError("keep_aspect_ratio_policy: expected stretch")
        lengths = [int(n) for n in np.asarray(sizes).reshape(-1)]
        ratios = [n / shape[a] for n, a in zip(lengths, axes, strict=True)]
    elif scales is not None and np.size(scales):
        ratios = [float(s) for s in np.asarray(scales).reshape(-1)]
        lengths = [int(np.floor(shape[a] * s)) for s, a in zip(ratios, axes, strict=True)]
    else:
        raise InputError("scales: expected scales or sizes; got neither")
    places = "asymmetric" if old else found.get("coordinate_transformation_mode", "half_pixel")
    changed = [i for i, a in enumerate(axes) if lengths[i] != shape[a] or ratios[i] != 1.0]
    config: dict[str, Any] = {
        "axes": [axes[i] for i in changed],
        "lengths": [lengths[i] for i in changed],
        "scales": [ratios[i] for i in changed],
        "mode": mode,
        "places": places,
        "rounding": "floor" if old else found.get("nearest_mode", "round_prefer_floor"),
        "a": float(found.get("cubic_coeff_a", -0.75)),
        "exclude_outside": bool(found.get("exclude_outside", 0)),
        "antialias": bool(found.get("antialias", 0)),
    }
    go.emit(node, "Resize", node.inputs[:1], config)


def _emit(go: Lowering, node: Node, kind: str, config: dict[str, Any]) -> None:
    """Emit a convolution: constant kernel and bias as arrays of the layer, others as operands."""
    groups, arrays, operands = config["groups"], {}, [node.inputs[0]]
    kernel = go.constant(node.inputs[1])
    if kernel is None:
        operands.append(node.inputs[1])
    else:
        kernel = kernel[:, :, None] if kernel.ndim == 3 else kernel
        if kernel.ndim != 4 or (kind == "ConvTranspose" and kernel.shape[0] % groups):
            raise InputError(f"W: {kernel.shape} is no kernel of {groups} groups")
        transform = conv_layout if kind == "Conv" else deconv(groups)
        arrays["kernel"] = transform(np.asarray(kernel, np.float32))
    if len(node.inputs) > 2 and node.inputs[2]:
        bias = go.constant(node.inputs[2])
        if bias is None:
            operands.append(node.inputs[2])
        else:
            arrays["bias"] = np.asarray(bias, np.float32).reshape(-1)
            if kernel is not None and arrays["bias"].size != arrays["kernel"].shape[3]:
                raise InputError(f"B: expected {arrays['kernel'].shape[3]} numbers")
    if go.constant(operands[0]) is not None:
        raise InputError("X: expected a tensor that depends on the input; got a constant")
    go.emit(node, kind, operands, config, arrays)


def _spatial(go: Lowering, node: Node) -> tuple[int, ...]:
    shape = go.shape(node.inputs[0])[2:]
    if len(shape) not in (1, 2):
        raise InputError(f"X: expected one or two spatial axes; got {len(shape)}")
    return shape


def _window(go: Lowering, node: Node, kernel: Sequence[int]) -> list[int]:
    if len(kernel) != len(_spatial(go, node)):
        raise InputError(f"kernel: expected one length for each spatial axis; got {list(kernel)}")
    return [int(k) for k in kernel]


def _each(node: Node, name: str, shape: Sequence[int]) -> list[int]:
    values = [int(n) for n in node.attributes.get(name) or [1] * len(shape)]
    if len(values) != len(shape) or min(values) < 1:
        raise InputError(f"{name}: expected {len(shape)} positive numbers; got {values}")
    return values


def _pads(
    node: Node,
    shape: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> list[int]:
    """Begins, then ends."""
    auto = node.attributes.get("auto_pad", "NOTSET")
    rank = len(shape)
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = [0] * 2 * rank
        for i, n in enumerate(shape):
            extent = dilation[i] * (kernel[i] - 1) + 1
            total = max((-(-n // stride[i]) - 1) * stride[i] + extent - n, 0)
            begin = total // 2 if auto == "SAME_UPPER" else total - total // 2
            pads[i], pads[i + rank] = begin, total - begin
        return pads
    if auto not in ("NOTSET", "VALID", ""):
        raise InputError(f"auto_pad: expected NOTSET, SAME_UPPER, SAME_LOWER or VALID; got {auto}")
    pads = listed(node, "pads", None) if auto != "VALID" else None
    pads = pads or [0] * 2 * rank
    if len(pads) != 2 * rank:
        raise InputError(f"pads: expected {2 * rank} numbers; got {pads}")
    return pads


def _both(values: Sequence[int], other: int) -> list[int]:
    """For rows and columns: a single axis is the columns'."""
    return [other, *map(int, values)] if len(values) == 1 else [int(n) for n in values]


def _four(pads: Sequence[int]) -> list[int]:
    """Top, left, bottom, right."""
    return [0, int(pads[0]), 0, int(pads[1])] if len(pads) == 2 else [int(p) for p in pads]
