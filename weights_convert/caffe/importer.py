"""Convert a Caffe network: prototxt and caffemodel to a graph and its arrays.

Weights go by layer name, as in Caffe; but every blob of the file must find its place, or
be ignored by name, and every parameter must be filled.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from jaxgen.errors import InputError, expected
from jaxgen.models.graph import FORMAT, Graph, abstract_tops, attribute_of, build_layer
from jaxgen.networks import Network, freeze
from jaxgen.weights import fill, load_weights, save_weights
from weights_convert.caffe.caffemodel import BlobRecord, Caffemodel, blob_key
from weights_convert.caffe.layers import DATA, DROPPED, Plan, plan
from weights_convert.caffe.preprocess import Preprocessing, add_preprocessing
from weights_convert.caffe.prototxt import LayerText, NetText, read_prototxt
from weights_convert.layouts import fold_caffe_batch_norm
from weights_convert.rules import Rule, apply_rules

__all__ = ["ARCHITECTURE", "Converted", "convert", "load_converted", "save_converted", "wire_up"]

ARCHITECTURE = "graph.Graph"
CONVERTER = "weights_convert.caffe 1"
_LARGEST_INPUT = 1 << 28

# Layers that leave axes 0 and 1, time and batch, as they are, for a given `axis`.
_POINTWISE = {"AbsVal", "Dropout", "ELU", "Exp", "Log", "Power", "ReLU", "Sigmoid", "TanH"}
_KEEPS_SEQUENCES: dict[str, Callable[[int], bool]] = {
    **dict.fromkeys({*_POINTWISE, "Eltwise", "Embed", "Scale", "Split"}, lambda axis: True),
    **dict.fromkeys(
        ("Concat", "InnerProduct", "Slice", "Softmax"), lambda axis: axis not in (0, 1)
    ),
}

Shape = tuple[int, ...]


class Converted(NamedTuple):
    """A converted network.

    Attributes:
      description: see `jaxgen.models.graph`.
      arrays: "layer.parameter" -> array in our layout.
      metadata: what is written beside them: source files and their digests, and more.
      ignored: keys of the caffemodel that were left out, on request or by a phase rule.
    """

    description: dict[str, Any]
    arrays: dict[str, np.ndarray]
    metadata: dict[str, Any]
    ignored: tuple[str, ...] = ()

    @property
    def graph(self) -> Graph:
        """The network as a flax module."""
        return Graph(self.description, _nested(self.arrays))

    @property
    def network(self) -> Network:
        """The network, frozen: callable on one sample."""
        return freeze(self.graph)


class Wired(NamedTuple):
    """A network before its weights.

    Attributes:
      description: of the graph.
      plans: layer name -> `Plan`, in order.
      skipped: names of layers that the prototxt has but the TEST phase drops.
    """

    description: dict[str, Any]
    plans: dict[str, Plan]
    skipped: tuple[str, ...]


def convert(
    prototxt: str | os.PathLike[str],
    caffemodel: str | os.PathLike[str] | None,
    *,
    inputs: Mapping[str, Sequence[int]] | None = None,
    outputs: Sequence[str] = (),
    ignore: Iterable[str] = (),
    level: int = 0,
    stages: Sequence[str] = (),
    preprocessing: Preprocessing | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Converted:
    """Convert a Caffe network.

    Args:
      prototxt: the network's definition, best its `deploy.prototxt`.
      caffemodel: its weights; None for a network without any.
      inputs: blob -> full shape (N, C, H, W), for inputs whose shape the prototxt does not
        give, or to change one.
      outputs: blobs to return; the default is every blob that no layer consumes.
      ignore: regular expressions of layer names whose blobs may be left over.
      level, stages: for `include` and `exclude` rules; the phase is TEST.
      preprocessing: makes the network take (or draw) RGB images in [0, 1].
      metadata: further entries, such as `classes` and `licence`.

    Raises:
      InputError: one line naming file, line or blob, and what is wrong.
    """
    net = read_prototxt(prototxt, level=level, stages=stages)
    wired = wire_up(net, inputs=inputs, outputs=outputs)
    model = None if caffemodel is None else Caffemodel(caffemodel)
    patterns = [rf"(?:{pattern})(?:\[\d+\])?" for pattern in ignore]
    dropped = [rf"{re.escape(name)}\[\d+\]" for name in wired.skipped]
    arrays = _fill(wired.plans, model, [*patterns, *dropped])
    ignored = [
        key
        for key in model or ()
        if any(re.fullmatch(pattern, key) for pattern in [*patterns, *dropped])
    ]
    notes = {
        **(metadata or {}),
        "converter": CONVERTER,
        "source": {
            kind: {"name": Path(path).name, "sha256": _digest(path)}
            for kind, path in (("prototxt", prototxt), ("caffemodel", caffemodel))
            if path is not None
        },
    }
    converted = Converted(wired.description, arrays, notes, tuple(ignored))
    if preprocessing is not None:
        converted = add_preprocessing(converted, preprocessing)
    return converted


def save_converted(path: str | os.PathLike[str], converted: Converted) -> None:
    """Write one safetensors file that holds the arrays, the graph and the metadata."""
    arrays = {}
    for key, array in converted.arrays.items():
        layer, _, parameter = key.rpartition(".")
        arrays[f"{attribute_of(layer)}.{parameter}"] = array
    config = {"description": converted.description}
    metadata = {**converted.metadata, "architecture": {"name": ARCHITECTURE, "config": config}}
    save_weights(Path(path), arrays, metadata)


def load_converted(path: str | os.PathLike[str], *, outputs: Sequence[str] = ()) -> Network:
    """Read what `save_converted` wrote, without the prototxt.

    Args:
      path: the file.
      outputs: blobs to return instead of the stored ones.

    Returns:
      The network, callable on one sample: `[H, W, C]` for images.

    Raises:
      InputError: if the file is damaged or is no converted Caffe network.
    """
    arrays, metadata = load_weights(Path(path))
    entry = metadata.get("architecture")
    if not isinstance(entry, dict) or entry.get("name") != ARCHITECTURE:
        hint = "Other networks are loaded by jaxgen.load."
        raise expected(f"{path}: architecture", ARCHITECTURE, repr(entry)[:80], hint)
    config = entry.get("config")
    description = config.get("description") if isinstance(config, dict) else None
    if outputs and isinstance(description, dict):
        description = {**description, "outputs": list(outputs)}
    try:
        graph = nnx.eval_shape(lambda: Graph(description))  # type: ignore[arg-type]
        return freeze(fill(graph, arrays, str(path)))
    except InputError as error:
        raise InputError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error


def wire_up(
    net: NetText,
    *,
    inputs: Mapping[str, Sequence[int]] | None = None,
    outputs: Sequence[str] = (),
) -> Wired:
    """The graph of a network definition: layers in order, their plans and all shapes."""
    declared = dict(net.inputs)
    data = [layer for layer in net.layers if layer.type in DATA]
    dropped = [layer for layer in net.layers if layer.type in DROPPED]
    kept = [layer for layer in net.layers if layer.type not in DATA | DROPPED]
    if not kept:
        raise expected(net.source, "a network with layers", "none in the TEST phase")
    for layer in data:
        declared.update(_data_shapes(layer, net.source))
    for name, shape in (inputs or {}).items():
        if name not in declared:
            known = ", ".join(declared) or "none"
            raise expected(f"inputs: {name}", f"an input of {net.source} ({known})", "another")
        declared[name] = tuple(int(n) for n in shape)
    used = {bottom for layer in kept for bottom in layer.bottoms}
    declared = {name: shape for name, shape in declared.items() if name in used}
    for name, shape in declared.items():
        _check_input(name, shape, net.source)
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
        made = plan(layer, [shapes[b] for b in layer.bottoms], net.source)
        entry = {
            "name": layer.name,
            "type": made.type,
            "bottoms": list(layer.bottoms),
            "tops": list(layer.tops),
            "config": made.config,
            "parameters": {blob.name: list(blob.shape) for blob in made.blobs},
        }
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
        consumed |= set(layer.bottoms) - set(layer.tops)
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
    skipped = tuple(layer.name for layer in [*data, *dropped]) + net.excluded
    return Wired(description, plans, tuple(name for name in skipped if name not in plans))


def _tops(entry: dict[str, Any], made: Plan, bottoms: list[Shape]) -> list[Shape]:
    """A layer's top shapes, from abstract parameters."""
    # A view of one zero has any shape and takes no memory.
    zeros = {
        blob.name: np.broadcast_to(np.zeros((), np.float32), blob.shape) for blob in made.blobs
    }
    layer = build_layer(entry, zeros)
    return abstract_tops(entry["name"], layer, bottoms)


def _fill(
    plans: Mapping[str, Plan], model: Caffemodel | None, ignore: Sequence[str]
) -> dict[str, np.ndarray]:
    """Every parameter from its blob, by rules; all mistakes in one error."""
    rules: list[Rule] = []
    target: dict[str, Shape] = {}
    shapes: dict[str, Shape] = {}
    norms: set[str] = set()
    for name, made in plans.items():
        if made.type == "BatchNorm" and model and model.layers.get(name, 0) == 3:
            norms.add(name)
        for i, blob in enumerate(made.blobs):
            key = blob_key(name, i)
            shapes[key] = blob.caffe
            target[f"{name}.{blob.name}"] = blob.shape
            rules.append(
                Rule(re.escape(key), f"{name}.{blob.name}".replace("\\", r"\\"), blob.transform)
            )
    source = _Source(model, shapes, norms) if model else {}
    where = model.path.name if model else "caffemodel"
    return apply_rules(rules, source, target, ignore=ignore, where=where)


class _Source(Mapping[str, np.ndarray]):
    """A caffemodel in the shapes that its network expects, with BatchNorm factors folded."""

    def __init__(self, model: Caffemodel, shapes: Mapping[str, Shape], norms: set[str]):
        self.model, self.shapes = model, shapes
        self.norms = norms
        self.factors = {blob_key(name, 2) for name in norms}

    def __getitem__(self, key: str) -> np.ndarray:
        array = _reshaped(self.model[key], self.model.records[key], self.shapes.get(key))
        name, _, index = key.rpartition("[")
        if name in self.norms and index in ("0]", "1]"):
            factor = self.model[blob_key(name, 2)]
            array, _ = fold_caffe_batch_norm(array, array, factor)
        return array

    def __iter__(self):
        return (key for key in self.model if key not in self.factors)

    def __len__(self) -> int:
        return len(self.model) - len(self.factors)


def _reshaped(array: np.ndarray, record: BlobRecord, shape: Shape | None) -> np.ndarray:
    """Legacy blobs have four axes whatever they hold: drop leading ones where they fit."""
    if shape is None or array.shape == shape:
        return array
    padded = (1,) * (array.ndim - len(shape)) + shape
    # (1,) also stands for a scalar: releases of Caffe differ there.
    if (record.legacy and array.shape == padded) or (shape == () and array.shape == (1,)):
        return array.reshape(shape)
    return array


def _data_shapes(layer: LayerText, source: str) -> dict[str, Shape]:
    """The tops of a data layer and the shapes it states, () where it states none."""
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


def _check_input(name: str, shape: Shape, source: str) -> None:
    if not shape:
        hint = f"Give it: --input {name}=1,3,227,227, or inputs={{{name!r}: (1, 3, 227, 227)}}."
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
    """The batch axis of each input: the second for sequences (T, N, ...), else the first.

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


def _nested(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """From "layer.parameter" to layer, then parameter; layers may have dots in their names."""
    nested: dict[str, dict[str, np.ndarray]] = {}
    for key, array in arrays.items():
        layer, _, parameter = key.rpartition(".")
        nested.setdefault(layer, {})[parameter] = array
    return nested


def _digest(path: str | os.PathLike[str]) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
