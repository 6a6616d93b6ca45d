"""Read an OpenVINO IR (version 10 or newer) into a `Program`, trusting nothing in it.

The XML goes through the plain expat parser: a document type or an entity is refused at once, as
are depths, counts and sizes that no network has. The numbers lie in a file of the same name
with the suffix .bin, at offsets that are checked against it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np

from jaxgen.core.errors import InputError, expected
from weights_convert.report import plain
from weights_convert.sniff import refuse
from weights_convert.tensor_graph.program import (
    MOST_NODES,
    Node,
    Program,
    batch_of_one,
    in_order,
)

__all__ = ["PREFIX", "TYPES", "read_openvino"]

PREFIX = "openvino."
TYPES: dict[str, Any] = {
    "f32": np.float32, "f16": np.float16, "f64": np.float64, "bf16": np.uint16, "i64": np.int64,
    "i32": np.int32, "i16": np.int16, "i8": np.int8, "u64": np.uint64, "u32": np.uint32,
    "u16": np.uint16, "u8": np.uint8, "boolean": np.bool_,
}  # fmt: skip
_MOST_XML = 1 << 27
_MOST_ELEMENTS = 1 << 28
_MOST_TAGS = 4_000_000
_DEEPEST = 12
_OLDEST = 10


@dataclass
class Layer:
    """A layer as the XML states it; ports are (id, lengths, tensor name)."""

    id: str
    name: str
    type: str
    version: str
    data: dict[str, str] = field(default_factory=dict)
    inputs: list[tuple[str, list[int]]] = field(default_factory=list)
    outputs: list[tuple[str, list[int]]] = field(default_factory=list)


def read_openvino(
    path: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str] | None = None,
    inputs: Mapping[str, Sequence[int]] | None = None,
    outputs: Sequence[str] = (),
) -> Program:
    """Read an IR.

    Args:
      path: the XML.
      weights: the file of numbers; the default has the XML's name and the suffix .bin.
      inputs: input -> its whole shape for one sample, where the file leaves lengths open.
      outputs: layers whose outputs are returned instead of the network's results; "NAME:1" for
        the second output of a layer.

    Raises:
      InputError: naming file and layer, for a file that is damaged or means harm.
    """
    path = Path(path)
    net, layers, edges = _parse(path)
    binary = Path(weights) if weights is not None else path.with_suffix(".bin")
    names = _tensor_names(layers, path)
    sources: dict[tuple[str, str], str] = {}
    for start, end in edges:
        if start not in names or end in sources:
            raise InputError(f"{path}: an edge from {start} to {end} joins no ports, or a second")
        sources[end] = names[start]
    numbers = _Numbers(binary)
    constants: dict[str, np.ndarray] = {}
    declared: dict[str, list[int | str | None]] = {}
    results: list[str] = []
    nodes: list[Node] = []
    for layer in layers:
        where = (
            f"{path.name}: layer {plain(layer.name, 120)!r} "
            f"({plain(layer.type, 60)}, {plain(layer.version, 40) or 'no opset'})"
        )
        operands = tuple(sources.get((layer.id, port), "") for port, _ in layer.inputs)
        made = tuple(names[layer.id, port] for port, _ in layer.outputs)
        if layer.type in ("Parameter", "Const") and len(made) != 1:
            raise expected(where, "one output", len(made))
        if layer.type == "Parameter":
            declared[made[0]] = _open_lengths(layer, where)
        elif layer.type == "Const":
            constants[made[0]] = numbers.array(layer, where)
        elif layer.type == "Result":
            if len(operands) != 1 or not operands[0]:
                raise expected(where, "one input", len(operands))
            results.append(operands[0])
        else:
            nodes.append(
                Node(layer.name, PREFIX + layer.type, operands, made,
                     {**layer.data, "version": layer.version}, 13, where)
            )  # fmt: skip
    shapes = batch_of_one(path.name, declared, inputs or {})
    ordered = in_order(nodes, [*constants, *shapes], path.name, sort=True)
    known = {name for node in ordered for name in node.outputs} | set(shapes)
    results = list(dict.fromkeys(outputs or results))
    for name in results:
        if name not in known:
            raise expected("--output", f"a layer of {path.name}", repr(plain(name, 80)))
    if not results:
        raise InputError(f"{path}: has no results")
    return Program(net or path.stem, path.name, shapes, constants, ordered, results)


def _tensor_names(layers: Sequence[Layer], path: Path) -> dict[tuple[str, str], str]:
    """(layer, port) -> tensor: the layer's name, with ":i" from the second output on."""
    names: dict[tuple[str, str], str] = {}
    seen: set[str] = set()
    for layer in layers:
        for i, (port, _) in enumerate(layer.outputs):
            name = f"{layer.name}:{i}" if i else layer.name
            if name in seen or (layer.id, port) in names:
                raise InputError(f"{path}: layer {plain(layer.name, 80)!r} occurs twice")
            seen.add(name)
            names[layer.id, port] = name
    return names


def _open_lengths(layer: Layer, where: str) -> list[int | str | None]:
    """Return the lengths of an input; None where the file leaves one open."""
    lengths: list[int | str | None] = []
    text = layer.data.get("shape", "").strip("[]{} ")
    for part in text.split(",") if text else []:
        try:
            length = int(part)
        except ValueError:
            length = -1
        lengths.append(length if length > 0 else None)
    if layer.data.get("element_type", "f32") not in TYPES:
        raise expected(f"{where}: element_type", "a type of numbers", layer.data["element_type"])
    return lengths


class _Numbers:
    """The file of numbers, read at checked offsets."""

    def __init__(self, path: Path):
        self.path = path
        self.size = path.stat().st_size if path.is_file() else 0
        self.total = 0

    def array(self, layer: Layer, where: str) -> np.ndarray:
        """Return the numbers of one Const."""
        kind = layer.data.get("element_type", "")
        if kind not in TYPES:
            raise expected(f"{where}: element_type", f"one of {', '.join(TYPES)}", repr(kind)[:80])
        dtype = np.dtype(TYPES[kind]).newbyteorder("<")
        try:
            text = layer.data.get("shape", "").strip()
            shape = tuple(int(n) for n in text.split(",")) if text else ()
            offset, size = int(layer.data["offset"]), int(layer.data["size"])
        except (KeyError, ValueError) as error:
            raise expected(f"{where}: shape, offset, size", "whole numbers", str(error)) from error
        if size and not self.path.is_file():
            hint = "It comes with the XML; if it lies elsewhere, give --weights FILE"
            raise expected("FILE", f"the network's numbers, {self.path}", "no such file", hint)
        count = math.prod(shape)
        if any(n < 0 for n in shape) or len(shape) > 8 or count > _MOST_ELEMENTS:
            raise expected(f"{where}: shape", f"at most {_MOST_ELEMENTS} numbers", str(shape)[:120])
        if size != count * dtype.itemsize:
            raise expected(f"{where}: size", f"{count * dtype.itemsize} bytes", size)
        self.total += size
        # Layers may share bytes, but not to make a bomb of a small file.
        if offset < 0 or offset + size > self.size or self.total > 2 * self.size + (1 << 24):
            raise expected(f"{where}: offset", f"bytes within {self.path.name} ({self.size})",
                           f"{size} at {offset}")  # fmt: skip
        with self.path.open("rb") as file:
            file.seek(offset)
            raw = file.read(size)
        if len(raw) != size:
            raise expected(f"{where}: {self.path.name}", f"{size} bytes at {offset}", len(raw))
        array = np.frombuffer(raw, dtype).reshape(shape)
        if kind == "bf16":
            return (array.astype(np.uint32) << 16).view(np.float32)
        return array


def _parse(path: Path) -> tuple[str, list[Layer], list[tuple[tuple[str, str], tuple[str, str]]]]:
    """Return the network's name, its layers and edges ((layer, port) to (layer, port))."""
    if not path.is_file():
        if path.is_dir() and (other := refuse(path, "an OpenVINO XML")) is not None:
            raise other
        raise expected("FILE", "an OpenVINO XML that exists", str(path))
    if path.suffix == ".bin" and path.with_suffix(".xml").is_file():
        hint = f"Give {path.with_suffix('.xml').name}: it finds its numbers beside it"
        raise expected(str(path), "the network's XML", "its numbers", hint)
    size = path.stat().st_size
    if size > _MOST_XML:
        raise expected(str(path), f"at most {_MOST_XML} bytes", size)
    found = _Document(path)
    parser = expat.ParserCreate()
    parser.StartElementHandler = found.start
    parser.EndElementHandler = found.end
    parser.CharacterDataHandler = found.text
    parser.StartDoctypeDeclHandler = found.refuse
    parser.EntityDeclHandler = found.refuse
    try:
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        # What begins as XML does is one that was cut off, not another kind of file.
        kind = "an OpenVINO network (.xml)"
        begins = path.read_bytes()[:64].lstrip().startswith(b"<")
        if not begins and (other := refuse(path, "an OpenVINO XML", besides=kind)) is not None:
            raise other from None
        raise expected(str(path), "an OpenVINO XML", f"no XML ({error})") from error
    if not found.seen_net:
        raise expected(str(path), "an OpenVINO XML", "another document")
    return found.name, found.layers, found.edges


class _Document:
    """A handler that keeps what the parser reports."""

    def __init__(self, path: Path):
        self.path, self.name = path, ""
        self.layers: list[Layer] = []
        self.edges: list[tuple[tuple[str, str], tuple[str, str]]] = []
        self.seen_net = False
        self._stack: list[str] = []
        self._tags = 0
        self._text = ""

    def refuse(self, *_: object) -> None:
        """No document type and no entity is read."""
        raise InputError(f"{self.path}: a document type or entity, which no OpenVINO XML has")

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """Take the beginning of an element."""
        self._tags += 1
        if len(self._stack) >= _DEEPEST or self._tags > _MOST_TAGS:
            raise InputError(f"{self.path}: deeper than {_DEEPEST} or over {_MOST_TAGS} elements")
        place = tuple(self._stack)
        self._stack.append(tag)
        self._text = ""
        if not place:
            self._net(tag, attributes)
        elif place == ("net", "layers") and tag == "layer":
            if len(self.layers) >= 2 * MOST_NODES:
                raise InputError(f"{self.path}: over {2 * MOST_NODES} layers")
            name = attributes.get("name") or f"layer_{attributes.get('id', '')}"
            self.layers.append(
                Layer(attributes.get("id", ""), name, attributes.get("type", ""),
                      attributes.get("version", ""))
            )  # fmt: skip
        elif place == ("net", "edges") and tag == "edge":
            ends = [attributes.get(k, "") for k in
                    ("from-layer", "from-port", "to-layer", "to-port")]  # fmt: skip
            self.edges.append(((ends[0], ends[1]), (ends[2], ends[3])))
        elif place[:3] == ("net", "layers", "layer") and tag in ("body", "then_body", "else_body"):
            layer = self.layers[-1]
            raise InputError(
                f"{self.path}: layer {plain(layer.name, 80)!r} ({plain(layer.type, 60)}): "
                "networks inside layers are not converted"
            )
        elif place == ("net", "layers", "layer") and tag == "data":
            self.layers[-1].data.update(attributes)
        elif place == ("net", "layers", "layer", "input") and tag == "port":
            self.layers[-1].inputs.append((attributes.get("id", ""), []))
        elif place == ("net", "layers", "layer", "output") and tag == "port":
            self.layers[-1].outputs.append((attributes.get("id", ""), []))

    def end(self, tag: str) -> None:
        """Take the end of an element."""
        place = tuple(self._stack)
        self._stack.pop()
        if tag == "dim" and place[:3] == ("net", "layers", "layer") and len(place) == 6:
            ports = self.layers[-1].inputs if place[3] == "input" else self.layers[-1].outputs
            try:
                ports[-1][1].append(int(self._text))
            except ValueError:
                ports[-1][1].append(-1)

    def text(self, data: str) -> None:
        """Text between elements, of which only lengths are of interest."""
        if len(self._text) < 100:
            self._text += data

    def _net(self, tag: str, attributes: dict[str, str]) -> None:
        if tag != "net":
            raise expected(str(self.path), "an OpenVINO XML", f"a document of {plain(tag, 40)!r}")
        version = attributes.get("version", "")
        if not version.isdigit() or int(version) < _OLDEST:
            raise expected(f"{self.path}: version", f"{_OLDEST} or newer", repr(version)[:40])
        self.seen_net, self.name = True, attributes.get("name", "")
