"""The plan of a Caffe layer: its configuration, and where its blobs go.

`plan` turns a layer's parameters and the shapes of its bottoms, in Caffe's order, into an
entry for `jaxgen.models.caffe.graph` and the list of blobs that Caffe would hold for it: their
shapes there, their names and shapes here and the transforms between. What each layer type
becomes is in `weights_convert.caffe.layers`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxgen.core.errors import InputError, expected
from weights_convert import layouts
from weights_convert.caffe.prototxt import LayerText

__all__ = [
    "DATA", "DROPPED", "MAKERS", "Blob", "Plan", "Shape", "axis_of", "first_of", "height_width",
    "image_of", "known_types", "makes", "outputs_of", "parameter", "plan",
]  # fmt: skip

# Layers whose tops are inputs, and layers that the TEST phase of a network goes without.
DATA = frozenset(
    {"AnnotatedData", "Data", "DummyData", "HDF5Data", "ImageData", "Input", "MemoryData"}
    | {"WindowData"}
)
DROPPED = frozenset(
    {"Accuracy", "ContrastiveLoss", "EuclideanLoss", "HDF5Output", "HingeLoss", "InfogainLoss"}
    | {"MultinomialLogisticLoss", "SigmoidCrossEntropyLoss", "Silence", "SoftmaxWithLoss"}
)

Shape = tuple[int, ...]


class Blob(NamedTuple):
    """A parameter: `caffe` shape in the file, `shape` and `name` in the layer."""

    name: str
    caffe: Shape
    shape: Shape
    transform: layouts.Transform


class Plan(NamedTuple):
    """A layer's type and configuration in the graph, and its blobs in Caffe's order."""

    type: str
    config: dict[str, Any]
    blobs: tuple[Blob, ...] = ()


Maker = Callable[[LayerText, list[Shape]], Plan]
MAKERS: dict[str, Maker] = {}


def known_types() -> tuple[str, ...]:
    """All layer types that can be converted."""
    return tuple(sorted({*MAKERS, *DATA, *DROPPED}))


def plan(layer: LayerText, bottoms: list[Shape], source: str) -> Plan:
    """Return what a layer becomes.

    Raises:
      InputError: naming file, line, layer and its type.
    """
    where = f"{source}:{layer.line}: layer {layer.name!r}"
    cut = " ".join(f"--output {bottom}" for bottom in layer.bottoms) or "--output BLOB"
    if layer.type not in MAKERS:
        raise InputError(
            f"{where} has unknown type {layer.type!r}; known: {', '.join(MAKERS)}. To convert "
            f"what comes before it, cut the network there: {cut}"
        )
    if layer.custom:
        raise InputError(
            f"{where} ({layer.type}) has no field named {', '.join(layer.custom)} in Caffe itself; "
            "if that does not change what the layer computes, delete it. To convert what comes "
            f"before the layer, cut the network there: {cut}"
        )
    try:
        return MAKERS[layer.type](layer, bottoms)
    except InputError as error:
        raise InputError(f"{where} ({layer.type}): {error}") from error


def makes(*types: str) -> Callable[[Maker], Maker]:
    """Return a decorator that registers what makes the plans of layer types."""

    def add(maker: Maker) -> Maker:
        MAKERS.update(dict.fromkeys(types, maker))
        return maker

    return add


def parameter(name: str, shape: Shape) -> Blob:
    """Return a blob that is stored as Caffe has it."""
    return Blob(name, shape, shape, layouts.identity)


def image_of(bottoms: list[Shape]) -> Shape:
    """Return the shape of the first bottom, which must have four axes."""
    if not bottoms or len(bottoms[0]) != 4:
        raise expected("bottom", "(N, C, H, W)", bottoms[0] if bottoms else "none")
    return bottoms[0]


def first_of(bottoms: list[Shape]) -> Shape:
    """Return the shape of the first bottom."""
    if not bottoms:
        raise expected("bottom", "at least one", "none")
    return bottoms[0]


def height_width(
    params: Any, name: str, default: int | None, repeated: str | None = None
) -> list[int]:
    """Return a pair given as name_h and name_w, as one number for both, or as two."""
    high, wide = params.HasField(f"{name}_h"), params.HasField(f"{name}_w")
    values = list(getattr(params, repeated or name))
    if high or wide:
        if values or not (high and wide):
            raise expected(name, f"{name}_h and {name}_w, or {repeated or name}", "a mixture")
        return [getattr(params, f"{name}_h"), getattr(params, f"{name}_w")]
    if not values and default is None:
        raise expected(f"{repeated or name}", "a number", "nothing")
    if len(values) > 2:
        raise expected(f"{repeated or name}", "one or two numbers", f"{len(values)}")
    return values * 2 if len(values) == 1 else values or [default, default]  # type: ignore[return-value]


def outputs_of(params: Any) -> int:
    """Return the number of outputs, checked."""
    if not 1 <= params.num_output <= 1 << 24:
        raise expected("num_output", "a positive number", params.num_output)
    return params.num_output


def axis_of(axis: int, shape: Shape) -> int:
    """Return an axis counted from the front, checked."""
    if not -len(shape) <= axis < len(shape):
        raise expected("axis", f"{-len(shape)} to {len(shape) - 1}", axis)
    return axis % len(shape)
