"""Wire a network definition up: its graph, every shape and what each layer's blobs must be.

Caffe's rules: a blob is known by its name, a layer may write its own bottom, layers run in
the order of the file, and blobs that no layer consumes are the network's outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxgen.core.errors import InputError, expected
from jaxgen.models.caffe.description import MOST_ELEMENTS, MOST_LAYERS
from jaxgen.models.caffe.graph import FORMAT, abstract_tops, build_layer
from weights_convert.caffe.layers import DATA, DROPPED, Plan, plan
from weights_convert.caffe.preprocess import declared_preprocessing
from weights_convert.caffe.prototxt import LayerText, NetText
from weights_convert.softmax import cut_from_graph

__all__ = ["Wired", "wire_up"]

_LARGEST_INPUT = 1 << 28
_MOST_ENDS = 4_096

# Layers that leave axes 0 and 1, time and batch, as they are, for a given `axis`.
_POINTWISE = {"AbsVal", "Dropout", "ELU", "Exp", "Log", "Power", "ReLU", "Sigmoid", "TanH"}
_KEEPS_SEQUENCES: dict[str, Callable[[int], bool]] = {
    **dict.fromkeys({*_POINTWISE, "Eltwise", "Embed", "Scale", "Split"}, lambda axis: True),
    **dict.fromkeys(
        ("Concat", "InnerProduct", "Slice", "Softmax"), lambda axis: axis not in (0, 1)
    ),
}

Shape = tuple[int, ...]


class Wired(NamedTuple):
    """A network before its weights.

    Attributes:
      description: of the graph.
      plans: layer name -> `Plan`, in order.
      skipped: names of layers that the prototxt has but the graph goes without.
      cut: names of the softmax layers at the end that were cut, on request.
      preprocessing: what data layers say that they do to images; see `declared_preprocessing`.
    """

    description: dict[str, Any]
    plans: dict[str, Plan]
    skipped: tuple[str, ...]
    cut: tuple[str, ...] = ()
    preprocessing: dict[str, Any] | None = None


def wire_up(
    net: NetText,
    *,
    inputs: Mapping[str, Sequence[int]] | None = None,
    outputs: Sequence[str] = (),
    logits: bool = False,
) -> Wired:
    """Return the graph of a network definition: layers in order, their plans and all shapes.

    With `logits`, and where no outputs are named, a softmax over classes at the end is cut.
    """
    data = [layer for layer in net.layers if layer.type in DATA]
    dropped = [layer for layer in net.layers if layer.type in DROPPED]
    kept = [layer for layer in net.layers if layer.type not in DATA | DROPPED]
    if len(kept) > MOST_LAYERS:
        raise expected(net.source, f"at most {MOST_LAYERS} layers", len(kept))
    if not kept:
        raise expected(net.source, "a network with layers", "none in the TEST phase")
    outputs = _blobs(outputs, kept)
    needed = _needed(kept, outputs)
    unneeded = [layer for layer in kept if layer.name not in needed]
    kept = [layer for layer in kept if layer.name in needed]
    declared = _declared(net, data, kept, inputs or {})
    shapes: dict[str, Shape] = dict(declared)
    origin: dict[str, str] = {}
    consumed: set[str] = set()
    plans: dict[str, Plan] = {}
    entries: list[dict[str, Any]] = []
    for layer in kept:
        where = f"{net.source}:{layer.line}: layer {layer.name!r}"
        if layer.name in plans or not layer.name:
            raise expected(where, "a name of its own", "none" if not layer.name else "a second use")
        for bottom in layer.bottoms:
            if bottom not in shapes:
                raise expected(f"{where}: bottom {bottom!r}", _made_by(bottom, dropped), "nothing")
        if len(layer.bottoms) + len(layer.tops) > _MOST_ENDS:
            raise expected(where, f"at most {_MOST_ENDS} bottoms and tops", "more")
        made = plan(layer, [shapes[b] for b in layer.bottoms], net.source)
        entry = {
            "name": layer.name,
            "type": made.type,
            "bottoms": list(layer.bottoms),
            "tops": list(layer.tops),
            "config": made.config,
            "parameters": {blob.name: list(blob.shape) for blob in made.blobs},
        }
        largest = max((math.prod(blob.shape) for blob in made.blobs), default=0)
        if largest > MOST_ELEMENTS:
            raise expected(f"{where}: weights", f"at most {MOST_ELEMENTS} numbers", largest)
        try:
            tops = _tops(entry, made, [shapes[b] for b in layer.bottoms])
        except InputError as error:
            raise InputError(f"{net.source}:{layer.line}: {error}") from error
        if len(tops) != len(layer.tops):
            raise expected(f"{where}: top", f"{len(tops)}", len(layer.tops))
        for top in layer.tops:
            if top in shapes and top not in layer.bottoms:
                by = origin.get(top, "the inputs")
                raise expected(f"{where}: top {top!r}", "a new name", f"one that {by} uses")
        # What a layer writes anew, even in place, nobody has read yet.
        consumed = (consumed | set(layer.bottoms)) - set(layer.tops)
        shapes.update(zip(layer.tops, tops, strict=True))
        origin.update(dict.fromkeys(layer.tops, layer.name))
        plans[layer.name] = made
        entries.append(entry)
    results = list(outputs) or [name for name in origin if name not in consumed]
    for name in results:
        if name not in origin:
            raise expected("outputs", f"blobs of {net.source}", repr(name))
    batch = _batch_axes(entries, declared)
    description = {
        "format": FORMAT,
        "name": net.name,
        "inputs": [
            {
                "name": name,
                "shape": [1 if a == batch[name] else n for a, n in enumerate(shape)],
                "batch_axis": batch[name],
            }
            for name, shape in declared.items()
        ],
        "layers": entries,
        "outputs": results,
    }
    cut: tuple[str, ...] = ()
    if logits and not outputs:
        description, cut = cut_from_graph(description, shapes)
    skipped = tuple(layer.name for layer in [*data, *dropped, *unneeded]) + net.excluded
    skipped = tuple(name for name in skipped if name not in plans)
    return Wired(description, plans, skipped, cut, declared_preprocessing(data))


def _blobs(outputs: Sequence[str], layers: Sequence[LayerText]) -> list[str]:
    """Return the blobs asked for; a layer's name stands for its tops, unless a blob has it."""
    tops = {layer.name: layer.tops for layer in layers}
    blobs = {top for layer in layers for top in layer.tops}
    return [
        blob for name in outputs for blob in ((name,) if name in blobs else tops.get(name, (name,)))
    ]


def _needed(layers: Sequence[LayerText], outputs: Sequence[str]) -> set[str]:
    """Return the layers that some output depends on; all of them where no output is named."""
    if not outputs:
        return {layer.name for layer in layers}
    wanted, found = set(outputs), set()
    for layer in reversed(layers):
        if wanted & set(layer.tops):
            found.add(layer.name)
            wanted = (wanted - set(layer.tops)) | set(layer.bottoms)
    return found


def _declared(
    net: NetText,
    data: Sequence[LayerText],
    kept: Sequence[LayerText],
    given: Mapping[str, Sequence[int]],
) -> dict[str, Shape]:
    """Return the inputs in use and their shapes: declared, by data layers, or given."""
    declared = dict(net.inputs)
    for layer in data:
        declared.update(_data_shapes(layer, net.source))
    for name, shape in given.items():
        if name not in declared:
            known = ", ".join(declared) or "none"
            raise expected(f"inputs: {name}", f"an input of {net.source} ({known})", "another")
        declared[name] = tuple(int(n) for n in shape)
    used = {bottom for layer in kept for bottom in layer.bottoms}
    declared = {name: shape for name, shape in declared.items() if name in used}
    found = declared_preprocessing(data) or {}
    for name, shape in declared.items():
        _check_input(name, shape, net.source, int(found.get("crop", 227)))
    return declared


def _tops(entry: dict[str, Any], made: Plan, bottoms: list[Shape]) -> list[Shape]:
    """Return a layer's top shapes, from abstract parameters."""
    # A view of one zero has any shape and takes no memory.
    zeros = {
        blob.name: np.broadcast_to(np.zeros((), np.float32), blob.shape) for blob in made.blobs
    }
    layer = build_layer(entry, zeros)
    return abstract_tops(entry["name"], layer, bottoms)


def _data_shapes(layer: LayerText, source: str) -> dict[str, Shape]:
    """Return the tops of a data layer and the shapes it states, () where it states none."""
    message, tops = layer.message, layer.tops
    shapes: list[Shape] = []
    if layer.type == "Input":
        shapes = [tuple(s.dim) for s in message.input_param.shape]
    elif layer.type == "DummyData":
        p = message.dummy_data_param
        shapes = [tuple(s.dim) for s in p.shape] or list(
            zip(p.num, p.channels, p.height, p.width, strict=False)
        )
    elif layer.type == "MemoryData":
        p = message.memory_data_param
        shapes = [(p.batch_size, p.channels, p.height, p.width), (p.batch_size,)][: len(tops)]
    if len(shapes) == 1:
        shapes *= len(tops)
    if shapes and len(shapes) != len(tops):
        where = f"{source}:{layer.line}: layer {layer.name!r}: shape"
        raise expected(where, f"1 or {len(tops)}", len(shapes))
    return dict(zip(tops, shapes or [()] * len(tops), strict=True))


def _check_input(name: str, shape: Shape, source: str, side: int) -> None:
    if not shape:
        size = f"1,3,{side},{side}"
        hint = f"Give it: --input {name}={size}, or inputs={{{name!r}: ({size})}}."
        raise expected(f"{source}: input {name!r}", "a shape", "none", hint)
    count = 1
    for n in shape:
        count *= max(int(n), 0)
    if len(shape) > 4 or not 1 <= count <= _LARGEST_INPUT:
        wanted = f"up to 4 positive lengths, at most {_LARGEST_INPUT} numbers"
        raise expected(f"{source}: input {name!r}", wanted, shape)


def _made_by(bottom: str, dropped: Sequence[LayerText]) -> str:
    for layer in dropped:
        if bottom in layer.tops:
            return f"a layer that runs at test time, not {layer.name!r} ({layer.type})"
    return "an input or an earlier layer that makes it"


def _batch_axes(
    entries: Sequence[Mapping[str, Any]], declared: Mapping[str, Shape]
) -> dict[str, int | None]:
    """Return the batch axis of each input: the second for sequences (T, N, ...), else the first.

    Where a network folds frames into the batch and unfolds them before an LSTM, no axis of
    the frames is the batch's: then all inputs are whole blobs of the declared sizes.
    """
    sequences: set[str] = set()
    for entry in reversed(entries):
        if entry["type"] == "LSTM":
            sequences |= set(entry["bottoms"][:2])
        elif sequences & set(entry["tops"]):
            axis = entry["config"].get("axis", 1)
            keeps = _KEEPS_SEQUENCES.get(entry["type"], lambda axis: False)
            if not keeps(axis):
                return dict.fromkeys(declared)
            sequences |= set(entry["bottoms"])
    return {
        name: 1 if name in sequences and len(shape) > 1 else 0 for name, shape in declared.items()
    }
