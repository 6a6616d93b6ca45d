"""Convert a Caffe network: prototxt and caffemodel to a graph and its arrays.

Weights go by layer name, as in Caffe; but every blob of the file must find its place, or
be ignored by name, and every parameter must be filled.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from jaxgen.core.errors import InputError, expected
from jaxgen.models.caffe.graph import Graph, attribute_of
from jaxgen.models.weights import fill, load_weights
from jaxgen.target.networks import Network, freeze
from weights_convert.caffe.caffemodel import BlobRecord, Caffemodel, blob_key
from weights_convert.caffe.layers import Plan
from weights_convert.caffe.preprocess import Preprocessing, add_preprocessing
from weights_convert.caffe.prototxt import read_prototxt
from weights_convert.caffe.wiring import wire_up
from weights_convert.layouts import fold_caffe_batch_norm
from weights_convert.rules import Rule, apply_rules
from weights_convert.softmax import said
from weights_convert.writing import write_new

__all__ = ["ARCHITECTURE", "Converted", "convert", "load_converted", "save_converted"]

ARCHITECTURE = "graph.Graph"
CONVERTER = "weights_convert.caffe 1"

Shape = tuple[int, ...]


class Converted(NamedTuple):
    """A converted network.

    Attributes:
      description: see `jaxgen.models.caffe.graph`.
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


def convert(
    prototxt: str | os.PathLike[str],
    caffemodel: str | os.PathLike[str] | None,
    *,
    inputs: Mapping[str, Sequence[int]] | None = None,
    outputs: Sequence[str] = (),
    ignore: Iterable[str] = (),
    level: int = 0,
    stages: Sequence[str] = (),
    keep_softmax: bool = False,
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
      level: for `include` and `exclude` rules; the phase is TEST.
      stages: likewise.
      keep_softmax: return probabilities where the network ends in a softmax over classes.
        By default that softmax is cut, unless `outputs` names it: conditions on a class take
        logits. `metadata["output"]` says so.
      preprocessing: makes the network take (or draw) RGB images in [0, 1].
      metadata: further entries, such as `classes` and `licence`.

    Raises:
      InputError: one line naming file, line or blob, and what is wrong.
    """
    net = read_prototxt(prototxt, level=level, stages=stages)
    wired = wire_up(net, inputs=inputs, outputs=outputs, logits=not keep_softmax)
    model = None if caffemodel is None else Caffemodel(caffemodel)
    patterns = [rf"(?:{pattern})(?:\[\d+\])?" for pattern in ignore]
    dropped = [rf"{re.escape(name)}\[\d+\]" for name in wired.skipped]
    arrays = _fill(wired.plans, model, [*patterns, *dropped])
    left_out = [re.compile(pattern) for pattern in [*patterns, *dropped]]
    ignored = [key for key in model or () if any(p.fullmatch(key) for p in left_out)]
    notes = {
        **(metadata or {}),
        "converter": CONVERTER,
        "source": {
            kind: {"name": Path(path).name, "sha256": _digest(path)}
            for kind, path in (("prototxt", prototxt), ("caffemodel", caffemodel))
            if path is not None
        },
    }
    if wired.preprocessing:
        notes["source_preprocessing"] = wired.preprocessing
    if wired.cut:
        notes["output"] = said(wired.cut)
    converted = Converted(wired.description, arrays, notes, tuple(ignored))
    if preprocessing is not None:
        converted = add_preprocessing(converted, preprocessing)
    return converted


def save_converted(
    path: str | os.PathLike[str],
    converted: Converted,
    *,
    sources: Iterable[str | os.PathLike[str]] = (),
    force: bool = False,
) -> None:
    """Write one safetensors file that holds the arrays, the graph and the metadata.

    Args:
      path: the file to write, whose name ends in `.safetensors`.
      converted: the network.
      sources: files that must not be written, such as those that were converted.
      force: whether a file that exists may be replaced.

    Raises:
      InputError: if the file exists and may not be replaced, or is one of the sources.
    """
    arrays = {}
    for key, array in converted.arrays.items():
        layer, _, parameter = key.rpartition(".")
        arrays[f"{attribute_of(layer)}.{parameter}"] = array
    config = {"description": converted.description}
    metadata = {**converted.metadata, "architecture": {"name": ARCHITECTURE, "config": config}}
    write_new(path, arrays, metadata, sources=sources, force=force)


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
