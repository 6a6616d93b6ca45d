"""Read a prototxt: text format, every generation, to one list of layers with their lines.

V1 (`layers { type: CONVOLUTION }`) and V0 (`layers { layer { type: "conv" } }`) layers are
brought to the current form, and the phase rules are applied: what remains is the network
of the TEST phase.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxgen.core.errors import InputError, expected
from weights_convert.caffe.custom_fields import without_custom_fields
from weights_convert.caffe.schema import message_class

__all__ = ["LayerText", "NetText", "read_prototxt"]

_LARGEST = 2 << 20
_DEEPEST = 16
# A quotation without an end is one token up to its line's end: tried again from every quote
# and backslash in it, 48 kB took 7 s.
_TOKEN = re.compile(
    r"""\#[^\n]*|"(?:\\.|[^"\\\n])*+"?|'(?:\\.|[^'\\\n])*+'?|[{}<>:]|\n|[^\s{}<>:"'\#]++"""
)

_V1_TYPES = {
    "ABSVAL": "AbsVal", "ACCURACY": "Accuracy", "ARGMAX": "ArgMax", "BNLL": "BNLL",
    "CONCAT": "Concat", "CONTRASTIVE_LOSS": "ContrastiveLoss", "CONVOLUTION": "Convolution",
    "DATA": "Data", "DECONVOLUTION": "Deconvolution", "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData", "ELTWISE": "Eltwise", "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp", "FLATTEN": "Flatten", "HDF5_DATA": "HDF5Data", "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss", "IM2COL": "Im2col", "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss", "INNER_PRODUCT": "InnerProduct", "LRN": "LRN",
    "MEMORY_DATA": "MemoryData", "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN", "POOLING": "Pooling", "POWER": "Power", "RELU": "ReLU", "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss", "SILENCE": "Silence",
    "SLICE": "Slice", "SOFTMAX": "Softmax", "SOFTMAX_LOSS": "SoftmaxWithLoss", "SPLIT": "Split",
    "TANH": "TanH", "THRESHOLD": "Threshold", "WINDOW_DATA": "WindowData",
}  # fmt: skip
_V0_TYPES = {
    "accuracy": "Accuracy", "bnll": "BNLL", "concat": "Concat", "conv": "Convolution",
    "data": "Data", "dropout": "Dropout", "euclidean_loss": "EuclideanLoss",
    "flatten": "Flatten", "hdf5_data": "HDF5Data", "hdf5_output": "HDF5Output",
    "images": "ImageData", "infogain_loss": "InfogainLoss", "innerproduct": "InnerProduct",
    "lrn": "LRN", "multinomial_logistic_loss": "MultinomialLogisticLoss", "pool": "Pooling",
    "relu": "ReLU", "sigmoid": "Sigmoid", "softmax": "Softmax",
    "softmax_loss": "SoftmaxWithLoss", "split": "Split", "tanh": "TanH",
    "window_data": "WindowData",
}  # fmt: skip
# V0 field -> (parameters of that layer type, field there).
_V0_FIELDS = {
    "Convolution": ("convolution_param", {
        "num_output": "num_output", "biasterm": "bias_term", "pad": "pad",
        "kernelsize": "kernel_size", "group": "group", "stride": "stride",
    }),
    "InnerProduct": ("inner_product_param", {"num_output": "num_output", "biasterm": "bias_term"}),
    "Pooling": ("pooling_param", {
        "pool": "pool", "pad": "pad", "kernelsize": "kernel_size", "stride": "stride",
    }),
    "LRN": ("lrn_param", {"local_size": "local_size", "alpha": "alpha", "beta": "beta", "k": "k"}),
    "Concat": ("concat_param", {"concat_dim": "concat_dim"}),
}  # fmt: skip


class LayerText(NamedTuple):
    """One layer of the TEST phase.

    Attributes:
      name, type, bottoms, tops: as in the current format.
      message: a `LayerParameter` with the layer's own parameters.
      line: where the layer begins in the file.
      custom: its fields that Caffe itself does not know.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    message: Any
    line: int
    custom: tuple[str, ...] = ()


class NetText(NamedTuple):
    """A network as its prototxt gives it.

    Attributes:
      name: of the network, perhaps empty.
      inputs: (blob, shape) of inputs that are declared outside layers.
      layers: those of the TEST phase, in order.
      excluded: names of the layers that the phase rules exclude.
      source: the file's name.
    """

    name: str
    inputs: tuple[tuple[str, tuple[int, ...]], ...]
    layers: tuple[LayerText, ...]
    excluded: tuple[str, ...]
    source: str


def read_prototxt(
    path: str | os.PathLike[str], *, level: int = 0, stages: Sequence[str] = ()
) -> NetText:
    """Read a network definition and keep what the TEST phase has.

    Args:
      path: the prototxt.
      level: the rest of the network state that `include`/`exclude` rules look at.
      stages: likewise.

    Raises:
      InputError: naming file, line and field.
    """
    path = Path(path)
    text = _read_text(path)
    lines = _layer_lines(text, path.name)
    text, custom = without_custom_fields(text, _TOKEN)
    net = _parse(text, path.name)
    if net.layer and net.layers:
        raise expected(path.name, "`layer` or `layers` blocks", "both; Caffe refuses this too")
    level = level or net.state.level
    stages = [*stages, *net.state.stage]
    layers: list[LayerText] = []
    excluded: list[str] = []
    pads: dict[str, tuple[str, int]] = {}
    for index, message in enumerate(net.layer or net.layers):
        line = lines[index]
        where = f"{path.name}:{line}"
        include, exclude = message.include, message.exclude
        if include and exclude:
            raise expected(where, "include or exclude rules", "both")
        meets = [_meets(rule, level, stages) for rule in (include or exclude)]
        upgraded = message if net.layer else _upgrade(message, where, pads)
        if upgraded is None:
            continue
        if (include and not any(meets)) or (exclude and any(meets)):
            excluded.append(upgraded.name)
            continue
        if not upgraded.type:
            raise expected(f"{where}: layer {upgraded.name!r}: type", "a layer type", "nothing")
        layers.append(
            LayerText(
                upgraded.name,
                upgraded.type,
                tuple(upgraded.bottom),
                tuple(upgraded.top),
                upgraded,
                line,
                custom.get(index, ()),
            )
        )
    return NetText(net.name, _inputs(net, path.name), tuple(layers), tuple(excluded), path.name)


def _read_text(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise expected(str(path), "a prototxt", "no plain file")
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if len(raw) > _LARGEST:
        raise expected(str(path), f"a prototxt of at most {_LARGEST >> 20} MiB", "a larger file")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        hint = "Is it the caffemodel? The prototxt comes first."
        raise expected(str(path), "text", f"bytes that are not UTF-8 at {error.start}", hint) from (
            error
        )


def _layer_lines(text: str, source: str) -> list[int]:
    """Return the line of every top-level layer block; bounds the nesting on the way."""
    lines: list[int] = []
    line, depth, word = 1, 0, ""
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token == "\n":
            line += 1
        elif token in "{<":
            if depth == 0 and word in ("layer", "layers"):
                lines.append(line)
            depth += 1
            if depth > _DEEPEST:
                raise InputError(f"{source}:{line}: blocks nest deeper than {_DEEPEST} levels")
        elif token in "}>":
            depth -= 1
        elif token != ":" and not token.startswith("#"):
            word = token
    return lines


def _parse(text: str, source: str) -> Any:
    net_class = message_class("NetParameter")
    from google.protobuf import text_format

    try:
        return text_format.Parse(text, net_class())
    except text_format.ParseError as error:
        line, column = error.GetLine() or 1, error.GetColumn() or 1
        reason = re.sub(r"^\d+:\d+ ?: ", "", str(error).splitlines()[0])
        # The library quotes the whole line first, which may be the whole file.
        reason = re.sub(r"^'.*': (?=\S)", "", reason)[-300:].replace('"caffe.', '"')
        if "LayerTypes.LayerType" in reason:
            known = ", ".join(sorted(_V1_TYPES))
            reason = f"{_layer_at(text, line)} has an unknown type: {reason} Known: {known}"
        elif "has no field named" in reason:
            reason += "; if that field does not change what the network computes, delete it"
        raise InputError(f"{source}:{line}:{column}: {reason}") from error
    except (ValueError, TypeError, RecursionError, OverflowError) as error:
        raise InputError(f"{source}: not a prototxt ({str(error).splitlines()[0]})") from error


def _layer_at(text: str, line: int) -> str:
    """In words, the layer whose block holds a line: the nearest name around it."""
    rows = text.split("\n")
    opening = max(i for i in range(line) if i == 0 or re.match(r"\s*layers?\s*[:{]", rows[i]))
    match = re.search(r"\bname\s*:\s*[\"']([^\"'\n]{1,200})", "\n".join(rows[opening : line + 50]))
    return f"layer {match.group(1)!r}" if match else "a layer"


def _inputs(net: Any, source: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    names, dims, shapes = list(net.input), list(net.input_dim), list(net.input_shape)
    if dims and shapes:
        raise expected(f"{source}: input", "input_dim or input_shape", "both")
    if dims and len(dims) != 4 * len(names):
        raise expected(f"{source}: input_dim", f"4 numbers for each of {len(names)} inputs",
                       f"{len(dims)}")  # fmt: skip
    if shapes and len(shapes) != len(names):
        raise expected(f"{source}: input_shape", f"{len(names)}, one an input", len(shapes))
    if dims:
        return tuple((name, tuple(dims[4 * i : 4 * i + 4])) for i, name in enumerate(names))
    if shapes:
        return tuple((n, tuple(s.dim)) for n, s in zip(names, shapes, strict=True))
    return tuple((name, ()) for name in names)


def _meets(rule: Any, level: int, stages: Sequence[str]) -> bool:
    """Return whether the state (TEST, level, stages) meets a NetStateRule."""
    return not (
        (rule.HasField("phase") and rule.phase != 1)
        or (rule.HasField("min_level") and level < rule.min_level)
        or (rule.HasField("max_level") and level > rule.max_level)
        or any(stage not in stages for stage in rule.stage)
        or any(stage in stages for stage in rule.not_stage)
    )


def _upgrade(old: Any, where: str, pads: dict[str, tuple[str, int]]) -> Any:
    """Return a V1 or V0 layer as a LayerParameter; None for V0 padding, kept in `pads`."""
    if old.HasField("layer"):
        return _upgrade_v0(old, where, pads)
    name = old.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number[old.type].name
    if name not in _V1_TYPES:
        raise expected(f"{where}: layer {old.name!r}: type", "a layer type", name)
    new = message_class("LayerParameter")(
        name=old.name, type=_V1_TYPES[name], bottom=old.bottom, top=old.top
    )
    known = new.DESCRIPTOR.fields_by_name
    for field, value in old.ListFields():
        if field.name.endswith("_param") and field.name in known:
            getattr(new, field.name).CopyFrom(value)
    return new


def _upgrade_v0(old: Any, where: str, pads: dict[str, tuple[str, int]]) -> Any:
    v0 = old.layer
    if v0.type == "padding":
        if len(old.bottom) != 1 or len(old.top) != 1:
            raise expected(f"{where}: padding", "one bottom and one top", "others")
        pads[old.top[0]] = (old.bottom[0], v0.pad)
        return None
    if v0.type not in _V0_TYPES:
        raise InputError(f"{where}: layer {v0.name!r} has unknown V0 type {v0.type!r}")
    new = message_class("LayerParameter")(
        name=v0.name, type=_V0_TYPES[v0.type], bottom=old.bottom, top=old.top
    )
    for theirs, ours in (("scale", "scale"), ("meanfile", "mean_file"), ("cropsize", "crop_size")):
        if v0.HasField(theirs):
            setattr(new.transform_param, ours, getattr(v0, theirs))
    group, names = _V0_FIELDS.get(new.type, ("", {}))
    for source, target in names.items():
        if v0.HasField(source):
            params, value = getattr(new, group), getattr(v0, source)
            repeated = params.DESCRIPTOR.fields_by_name[target].is_repeated
            getattr(params, target).append(value) if repeated else setattr(params, target, value)
    for i, bottom in enumerate(new.bottom):
        if bottom in pads:
            if new.type != "Convolution":
                raise expected(
                    f"{where}: bottom {bottom!r}", "a convolution after padding", new.type
                )
            new.bottom[i], pad = pads[bottom]
            del new.convolution_param.pad[:]
            new.convolution_param.pad.append(pad)
    return new
