"""What each Caffe layer becomes: one function per layer type, see `weights_convert.caffe.plans`."""

from __future__ import annotations

import math

from jaxgen.core.errors import expected
from weights_convert import layouts
from weights_convert.caffe.plans import (
    DATA,
    DROPPED,
    MAKERS,
    Blob,
    Plan,
    Shape,
    axis_of,
    first_of,
    height_width,
    image_of,
    known_types,
    makes,
    outputs_of,
    parameter,
    plan,
)
from weights_convert.caffe.prototxt import LayerText

__all__ = ["DATA", "DROPPED", "Blob", "Plan", "known_types", "plan"]


@makes("Convolution", "ConvolutionDepthwise", "DepthwiseConvolution", "Deconvolution")
def _convolution(layer: LayerText, bottoms: list[Shape]) -> Plan:
    params, channels = layer.message.convolution_param, image_of(bottoms)[1]
    if params.axis not in (1, -3):
        raise expected("axis", "1", params.axis)
    kernel, groups, outputs = (
        height_width(params, "kernel", None, "kernel_size"),
        params.group,
        outputs_of(params),
    )
    if layer.type in ("ConvolutionDepthwise", "DepthwiseConvolution"):
        groups = channels if not params.HasField("group") else groups
    if groups < 1 or channels % groups or outputs % groups:
        wanted = f"a divisor of {channels} inputs and {outputs} outputs"
        raise expected("group", wanted, groups)
    dilation = list(params.dilation) or [1]
    config = {
        "kernel_size": kernel,
        "stride": height_width(params, "stride", 1),
        "pad": height_width(params, "pad", 0),
        "dilation": dilation * 2 if len(dilation) == 1 else dilation,
        "groups": groups,
    }
    ours = (*kernel, channels // groups, outputs)
    if layer.type == "Deconvolution":
        caffe = (channels, outputs // groups, *kernel)
        blobs = [Blob("kernel", caffe, ours, layouts.deconv(groups))]
    else:
        blobs = [Blob("kernel", (outputs, channels // groups, *kernel), ours, layouts.conv)]
    if params.bias_term:
        blobs.append(parameter("bias", (outputs,)))
    kind = "Deconvolution" if layer.type == "Deconvolution" else "Convolution"
    return Plan(kind, config, tuple(blobs))


@makes("InnerProduct")
def _inner_product(layer: LayerText, bottoms: list[Shape]) -> Plan:
    params, shape = layer.message.inner_product_param, first_of(bottoms)
    axis, outputs = axis_of(params.axis, shape), outputs_of(params)
    inputs = math.prod(shape[axis:])
    spatial = len(shape) == 4 and axis == 1
    after = layouts.dense_after_flatten(*shape[1:]) if spatial else layouts.dense
    if params.transpose:
        caffe, transform = (inputs, outputs), lambda w: after(w.T)
    else:
        caffe, transform = (outputs, inputs), after
    blobs = [Blob("kernel", caffe, (inputs, outputs), transform)]
    if params.bias_term:
        blobs.append(parameter("bias", (outputs,)))
    return Plan("InnerProduct", {"axis": axis, "spatial": spatial}, tuple(blobs))


@makes("Embed")
def _embed(layer: LayerText, bottoms: list[Shape]) -> Plan:
    params = layer.message.embed_param
    if not 1 <= params.input_dim <= 1 << 28:
        raise expected("input_dim", "a positive number", params.input_dim)
    blobs = [parameter("kernel", (params.input_dim, outputs_of(params)))]
    if params.bias_term:
        blobs.append(parameter("bias", (params.num_output,)))
    return Plan("Embed", {}, tuple(blobs))


@makes("LSTM")
def _lstm(layer: LayerText, bottoms: list[Shape]) -> Plan:
    params = layer.message.recurrent_param
    if params.expose_hidden:
        raise expected("expose_hidden", "false", "true", "States start at zero in every call.")
    if len(bottoms) not in (2, 3) or len(bottoms[0]) < 3:
        raise expected("bottoms", "(T, N, ...), marks (T, N) and perhaps a static input", bottoms)
    hidden = outputs_of(params)
    inputs = math.prod(bottoms[0][2:])
    blobs = [
        Blob("kernel", (4 * hidden, inputs), (inputs, 4 * hidden), layouts.dense),
        parameter("bias", (4 * hidden,)),
    ]
    if len(bottoms) == 3:
        n = math.prod(bottoms[2][1:])
        blobs.append(Blob("static_kernel", (4 * hidden, n), (n, 4 * hidden), layouts.dense))
    blobs.append(
        Blob("recurrent_kernel", (4 * hidden, hidden), (hidden, 4 * hidden), layouts.dense)
    )
    return Plan("LSTM", {}, tuple(blobs))


@makes("Pooling")
def _pooling(layer: LayerText, bottoms: list[Shape]) -> Plan:
    params = layer.message.pooling_param
    method = {0: "MAX", 1: "AVE"}.get(params.pool, "STOCHASTIC")
    ceil = params.round_mode == 0 and params.ceil_mode
    stride, pad = height_width(params, "stride", 1), height_width(params, "pad", 0)
    if params.global_pooling:
        if params.kernel_size or params.HasField("kernel_h") or params.HasField("kernel_w"):
            raise expected("kernel_size", "none with global_pooling", "one")
        if stride != [1, 1] or pad != [0, 0]:
            raise expected("global_pooling", "stride 1 and pad 0", f"{stride} and {pad}")
        return Plan("Pooling", {"method": method, "kernel_size": None})
    kernel = height_width(params, "kernel", None, "kernel_size")
    return Plan(
        "Pooling",
        {"method": method, "kernel_size": kernel, "stride": stride, "pad": pad, "ceil": ceil},
    )


@makes("LRN")
def _lrn(layer: LayerText, bottoms: list[Shape]) -> Plan:
    p = layer.message.lrn_param
    within = p.norm_region == 1
    config = {"size": p.local_size, "alpha": p.alpha, "beta": p.beta, "k": p.k, "within": within}
    return Plan("LRN", config)


@makes("BatchNorm")
def _batch_norm(layer: LayerText, bottoms: list[Shape]) -> Plan:
    params, shape = layer.message.batch_norm_param, first_of(bottoms)
    if params.HasField("use_global_stats") and not params.use_global_stats:
        hint = "The output would depend on the rest of the batch; set use_global_stats: true."
        raise expected("use_global_stats", "true or nothing", "false", hint)
    channels = shape[1] if len(shape) > 1 else 1
    # The importer folds the third blob, the factor, into the first two.
    blobs = (parameter("mean", (channels,)), parameter("variance", (channels,)))
    return Plan("BatchNorm", {"eps": params.eps}, blobs)


@makes("Scale", "Bias")
def _scale(layer: LayerText, bottoms: list[Shape]) -> Plan:
    additive = layer.type == "Bias"
    params = layer.message.bias_param if additive else layer.message.scale_param
    shape = first_of(bottoms)
    axis = axis_of(params.axis, shape) if shape else 0
    if len(bottoms) > 1:
        length = len(bottoms[1])
        covered = bottoms[1]
    else:
        length = len(shape) - axis if params.num_axes == -1 else params.num_axes
        covered = shape[axis : axis + length]
    if length < 0 or axis + length > len(shape):
        raise expected("num_axes", f"at most {len(shape) - axis}", length)
    blobs = []
    if len(bottoms) == 1:
        blobs.append(parameter("bias" if additive else "scale", covered))
    if not additive and params.bias_term:
        blobs.append(parameter("bias", covered))
    return Plan(layer.type, {"axis": axis, "additive": additive}, tuple(blobs))


@makes("PReLU")
def _prelu(layer: LayerText, bottoms: list[Shape]) -> Plan:
    shape, shared = first_of(bottoms), layer.message.prelu_param.channel_shared
    if len(shape) < 2:
        raise expected("bottom", "at least two axes", shape)
    return Plan("PReLU", {}, (parameter("slope", () if shared else (shape[1],)),))


@makes("Normalize")
def _normalize(layer: LayerText, bottoms: list[Shape]) -> Plan:
    params, channels = layer.message.norm_param, image_of(bottoms)[1]
    scale = parameter("scale", () if params.channel_shared else (channels,))
    config = {"across_spatial": params.across_spatial, "eps": params.eps}
    return Plan("Normalize", config, (scale,))


@makes("Power")
def _power(layer: LayerText, bottoms: list[Shape]) -> Plan:
    p = layer.message.power_param
    return Plan(
        "Power", {"function": "power", "power": p.power, "scale": p.scale, "shift": p.shift}
    )


@makes("Exp", "Log")
def _exp(layer: LayerText, bottoms: list[Shape]) -> Plan:
    p = layer.message.exp_param if layer.type == "Exp" else layer.message.log_param
    if p.base != -1 and (not math.isfinite(p.base) or p.base <= 0):
        raise expected("base", "-1 (for e) or a positive number", p.base)
    log_base = 1.0 if p.base == -1 else math.log(p.base)
    if layer.type == "Log" and log_base == 0.0:
        raise expected("base", "a base other than 1", p.base)
    config = {"function": layer.type.lower(), "scale": p.scale, "shift": p.shift}
    return Plan(layer.type, {**config, "log_base": log_base})


@makes("Slice")
def _slice(layer: LayerText, bottoms: list[Shape]) -> Plan:
    p = layer.message.slice_param
    axis = p.slice_dim if p.HasField("slice_dim") else p.axis
    return Plan("Slice", {"axis": axis, "points": list(p.slice_point), "tops": len(layer.tops)})


@makes("Concat")
def _concat(layer: LayerText, bottoms: list[Shape]) -> Plan:
    p = layer.message.concat_param
    return Plan("Concat", {"axis": p.concat_dim if p.HasField("concat_dim") else p.axis})


@makes("Reshape")
def _reshape(layer: LayerText, bottoms: list[Shape]) -> Plan:
    p, shape = layer.message.reshape_param, first_of(bottoms)
    dims = list(p.shape.dim)
    if p.axis == 0 and dims and shape and dims[0] == shape[0]:
        dims[0] = 0  # the declared batch size, spelt out: follow the batch instead
    return Plan("Reshape", {"dims": dims, "axis": p.axis, "num_axes": p.num_axes})


@makes("Eltwise")
def _eltwise(layer: LayerText, bottoms: list[Shape]) -> Plan:
    p = layer.message.eltwise_param
    operation = {0: "PROD", 1: "SUM", 2: "MAX"}[p.operation]
    if p.coeff and operation != "SUM":
        raise expected("coeff", f"none with {operation}", "some")
    return Plan("Eltwise", {"operation": operation, "coefficients": list(p.coeff)})


@makes("ArgMax")
def _argmax(layer: LayerText, bottoms: list[Shape]) -> Plan:
    p = layer.message.argmax_param
    if p.top_k < 1:
        raise expected("top_k", "at least 1", p.top_k)
    axis = p.axis if p.HasField("axis") else None
    return Plan("ArgMax", {"axis": axis, "top_k": p.top_k, "out_max_val": p.out_max_val})


@makes("Interp")
def _interp(layer: LayerText, bottoms: list[Shape]) -> Plan:
    p = layer.message.interp_param
    size = [p.height, p.width] if p.height or p.width else None
    config = {"size": size, "zoom": p.zoom_factor, "shrink": p.shrink_factor}
    return Plan("Interp", {**config, "pad_begin": p.pad_beg, "pad_end": p.pad_end})


@makes("Tile")
def _tile(layer: LayerText, bottoms: list[Shape]) -> Plan:
    p = layer.message.tile_param
    if not 1 <= p.tiles <= 1 << 16:
        raise expected("tiles", "a positive number", p.tiles)
    return Plan("Tile", {"axis": p.axis, "tiles": p.tiles})


def _simple(kind: str, group: str | None = None, **names: str) -> None:
    """Register a layer without blobs, whose configuration is its parameters under other names."""

    def maker(layer: LayerText, bottoms: list[Shape]) -> Plan:
        params = getattr(layer.message, group) if group else None
        return Plan(kind, {ours: getattr(params, theirs) for ours, theirs in names.items()})

    MAKERS[kind] = maker


for _kind in ("AbsVal", "BNLL", "Dropout", "Sigmoid", "TanH"):
    _simple(_kind)
_simple("ReLU", "relu_param", slope="negative_slope")
_simple("ELU", "elu_param", alpha="alpha")
_simple("Swish", "swish_param", beta="beta")
_simple("Clip", "clip_param", low="min", high="max")
_simple("Threshold", "threshold_param", threshold="threshold")
_simple("Softmax", "softmax_param", axis="axis")
_simple("Flatten", "flatten_param", axis="axis", end_axis="end_axis")
_simple(
    "MVN", "mvn_param", across_channels="across_channels", variance="normalize_variance", eps="eps"
)


@makes("Crop")
def _crop(layer: LayerText, bottoms: list[Shape]) -> Plan:
    p = layer.message.crop_param
    return Plan("Crop", {"axis": p.axis, "offsets": list(p.offset)})


@makes("Permute")
def _permute(layer: LayerText, bottoms: list[Shape]) -> Plan:
    return Plan("Permute", {"order": list(layer.message.permute_param.order)})


@makes("Reduction")
def _reduction(layer: LayerText, bottoms: list[Shape]) -> Plan:
    p = layer.message.reduction_param
    operation = {1: "SUM", 2: "ASUM", 3: "SUMSQ", 4: "MEAN"}[p.operation]
    return Plan("Reduction", {"operation": operation, "axis": p.axis, "coefficient": p.coeff})


@makes("Split")
def _split(layer: LayerText, bottoms: list[Shape]) -> Plan:
    return Plan("Split", {"tops": len(layer.tops)})
