"""Read an ONNX file into a `Program`, trusting nothing in it.

The protocol buffer is parsed by the `onnx` package; its numbers are read here, after every
size is checked. Data outside the file is read only from a plain file name in the same folder.
Functions of the model are put in place of the nodes that call them, their sum counted before.
"""

from __future__ import annotations

import importlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.core.errors import InputError, expected
from weights_convert.report import plain
from weights_convert.sniff import refuse
from weights_convert.tensor_graph.folding import ONNX_TYPES
from weights_convert.tensor_graph.program import (
    MOST_NODES,
    Node,
    Program,
    batch_of_one,
    in_order,
)

__all__ = ["onnx_package", "parse", "read_onnx"]

# Protocol buffers end at 2 GiB.
_MOST_BYTES = (1 << 31) - 1
_MOST_ELEMENTS = 1 << 28
_MOST_TOTAL = 1 << 31
_OLDEST, _BFLOAT16 = 7, 16
_FIELDS = {1: "float_data", 11: "double_data", 7: "int64_data", 12: "uint64_data",
           13: "uint64_data"}  # fmt: skip


def read_onnx(
    path: str | os.PathLike[str],
    *,
    inputs: Mapping[str, Sequence[int]] | None = None,
    outputs: Sequence[str] = (),
) -> Program:
    """Read an ONNX model.

    Args:
      path: the file.
      inputs: input -> its whole shape for one sample, where the file leaves lengths open.
      outputs: tensors to return instead of the model's outputs.

    Raises:
      ImportError: if the `onnx` package is not installed, saying how to get it.
      InputError: naming file, node or tensor, for a file that is damaged or means harm.
    """
    path = Path(path)
    model = parse(path)
    opset = _opset(model, path)
    graph = model.graph
    if len(graph.node) > MOST_NODES:
        raise expected(str(path), f"at most {MOST_NODES} nodes", len(graph.node))
    if len(graph.sparse_initializer):
        raise InputError(f"{path}: sparse tensors are not read; export dense ones")
    reader = _Tensors(path)
    constants: dict[str, np.ndarray] = {}
    for tensor in graph.initializer:
        if not tensor.name or tensor.name in constants:
            raise expected(f"{path}: initializer", "a name of its own", repr(tensor.name)[:80])
        constants[tensor.name] = reader.array(tensor, f"tensor {plain(tensor.name, 80)!r}")
    declared = {i.name: _lengths(i, path) for i in graph.input if i.name not in constants}
    shapes = batch_of_one(path.name, declared, inputs or {})
    nodes: list[Node] = []
    for i, proto in enumerate(graph.node):
        node = _node(proto, i, opset, path, reader)
        if node.op == "Constant":
            value = _constant(node)
            if len(node.outputs) != 1 or node.outputs[0] in constants:
                raise InputError(f"{node.where}: expected one output of its own")
            constants[node.outputs[0]] = value
        else:
            nodes.append(node)
    ordered = in_order(nodes, [*constants, *shapes], path.name)
    made = {name for node in ordered for name in node.outputs if name} | set(shapes)
    results = list(outputs) or [o.name for o in graph.output]
    for name in results:
        if name not in made:
            raise expected("--output", f"a tensor of {path.name}", repr(plain(name, 80)))
    if not results:
        raise InputError(f"{path}: has no outputs")
    whole = tuple(
        i.name for i in graph.input
        if i.name in shapes and i.type.tensor_type.elem_type not in (1, 10, 11, _BFLOAT16)
    )  # fmt: skip
    title = graph.name or path.stem
    return Program(title, path.name, shapes, constants, ordered, results, whole)


def parse(path: Path) -> Any:
    """Return the model as a protocol buffer, its functions put in place."""
    onnx = onnx_package()
    from google.protobuf.message import DecodeError

    if not path.is_file():
        if path.is_dir() and (other := refuse(path, "an ONNX file")) is not None:
            raise other
        raise expected("FILE", "an ONNX file that exists", str(path))
    size = path.stat().st_size
    if size > _MOST_BYTES:
        raise expected(str(path), f"at most {_MOST_BYTES} bytes", size)
    model = onnx.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except (DecodeError, ValueError, RuntimeError) as error:
        other = refuse(path, "an ONNX model", besides="an ONNX graph")
        if other is not None:
            raise other from None
        raise expected(str(path), "an ONNX model", f"not one ({str(error)[:120]})") from error
    if not model.HasField("graph") or not len(model.opset_import):
        if (other := refuse(path, "an ONNX model", besides="an ONNX graph")) is not None:
            raise other
        raise expected(str(path), "an ONNX model with a graph and opsets", "neither")
    if len(model.functions):
        _check_functions(model, path)
        inliner = onnx_package("onnx.inliner")
        try:
            model = inliner.inline_local_functions(model)
        except (ValueError, RuntimeError) as error:
            raise InputError(f"{path}: functions: {plain(str(error), 200)}") from error
    return model


def onnx_package(name: str = "onnx") -> Any:
    """Return the `onnx` package, which is optional, or one of its modules.

    Raises:
      ImportError: saying how to get it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError("reading ONNX needs a package: pip install onnx") from error


def _check_functions(model: Any, path: Path) -> None:
    """Refuse functions that call themselves, or would grow beyond the limit of nodes."""
    bodies = {(f.domain, f.name): f for f in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(key: tuple[str, str], depth: int) -> int:
        if depth > 50:
            raise InputError(f"{path}: functions nest deeper than 50, or call themselves")
        if key not in sizes:
            total = 0
            for node in bodies[key].node:
                callee = (node.domain, node.op_type)
                total += size(callee, depth + 1) if callee in bodies else 1
                if total > MOST_NODES:
                    raise InputError(f"{path}: functions grow beyond {MOST_NODES} nodes")
            sizes[key] = total
        return sizes[key]

    total = 0
    for node in model.graph.node:
        callee = (node.domain, node.op_type)
        total += size(callee, 0) if callee in bodies else 1
        if total > MOST_NODES:
            raise InputError(f"{path}: functions grow beyond {MOST_NODES} nodes")


def _opset(model: Any, path: Path) -> int:
    for entry in model.opset_import:
        if entry.domain in ("", "ai.onnx"):
            if entry.version < _OLDEST:
                hint = "Convert it by onnx.version_converter."
                raise expected(f"{path}: opset", f"{_OLDEST} or newer", entry.version, hint)
            return int(entry.version)
    raise expected(f"{path}: opset_import", "a version of ai.onnx", "none")


def _lengths(value: Any, path: Path) -> list[int | str | None]:
    kind = value.type
    where = f"{path}: input {plain(value.name, 80)!r}"
    if not value.name or not kind.HasField("tensor_type"):
        raise expected(where, "a named tensor", kind.WhichOneof("value") or "no type")
    if kind.tensor_type.elem_type not in ONNX_TYPES:
        raise expected(f"{where}: type", "numbers", kind.tensor_type.elem_type)
    return [
        int(d.dim_value) if d.HasField("dim_value") and d.dim_value > 0 else (d.dim_param or None)
        for d in kind.tensor_type.shape.dim
    ]


def _node(proto: Any, index: int, opset: int, path: Path, reader: _Tensors) -> Node:
    domain = proto.domain if proto.domain not in ("", "ai.onnx") else ""
    op = f"{domain}.{proto.op_type}" if domain else proto.op_type
    name = proto.name or next((o for o in proto.output if o), "") or f"{op}_{index}"
    version = f"opset {opset}" if not domain else f"domain {domain}"
    title = f"node {plain(name, 120)!r} ({plain(op, 80)}, {version})"
    where = f"{path.name}: {title}"
    attributes: dict[str, Any] = {}
    for attribute in proto.attribute:
        attributes[attribute.name] = _attribute(attribute, where, reader)
    return Node(name, op, tuple(proto.input), tuple(proto.output), attributes, opset, where)


def _attribute(proto: Any, where: str, reader: _Tensors) -> Any:
    """Return a number, text, list or array; graphs and the like are noted by their kind."""
    kind = proto.type
    if proto.ref_attr_name:
        raise InputError(f"{where}: {plain(proto.name, 80)}: refers to a function's argument")
    if kind == proto.FLOAT:
        return float(proto.f)
    if kind == proto.INT:
        return int(proto.i)
    if kind == proto.STRING:
        return proto.s.decode("utf-8", "replace")
    if kind == proto.TENSOR:
        return reader.array(proto.t, f"{where}: {plain(proto.name, 80)}", absolute=True)
    if kind == proto.FLOATS:
        return [float(x) for x in proto.floats]
    if kind == proto.INTS:
        return [int(x) for x in proto.ints]
    if kind == proto.STRINGS:
        return [s.decode("utf-8", "replace") for s in proto.strings]
    raise InputError(f"{where}: {plain(proto.name, 80)}: graphs inside nodes are not converted")


def _constant(node: Node) -> np.ndarray:
    for name, dtype in (("value", None), ("value_float", np.float32), ("value_int", np.int64),
                        ("value_floats", np.float32), ("value_ints", np.int64)):  # fmt: skip
        if name in node.attributes:
            return np.asarray(node.attributes[name], dtype)
    raise InputError(f"{node.where}: expected a value of numbers; got {list(node.attributes)[:3]}")


class _Tensors:
    """Arrays of tensors, each size checked, and their sum."""

    def __init__(self, path: Path):
        self.path, self.total = path, 0

    def array(self, proto: Any, what: str, absolute: bool = False) -> np.ndarray:
        """Return the numbers of one TensorProto."""
        where = what if absolute else f"{self.path}: {what}"
        if proto.data_type not in ONNX_TYPES:
            raise expected(f"{where}: data_type", "a type of numbers", proto.data_type)
        shape = tuple(int(n) for n in proto.dims)
        count = math.prod(shape)
        if any(n < 0 for n in shape) or len(shape) > 8 or count > _MOST_ELEMENTS:
            raise expected(f"{where}: dims", f"at most {_MOST_ELEMENTS} numbers", str(shape)[:120])
        bfloat = proto.data_type == _BFLOAT16
        dtype = np.dtype(np.uint16 if bfloat else ONNX_TYPES[proto.data_type]).newbyteorder("<")
        self.total += count * dtype.itemsize
        if self.total > _MOST_TOTAL:
            raise InputError(f"{self.path}: its tensors have over {_MOST_TOTAL} bytes")
        if proto.data_location == proto.EXTERNAL:
            raw = self._external(proto, where, count * dtype.itemsize)
        elif proto.HasField("raw_data"):
            raw = proto.raw_data
        else:
            values = getattr(proto, _FIELDS.get(proto.data_type, "int32_data"))
            if len(values) != count:
                raise expected(f"{where}: data", f"{count} numbers", len(values))
            if proto.data_type == 10 or bfloat:  # halves are kept as their bits
                bits = np.array(values, np.uint16)
                return self._widened(bits, shape, bfloat)
            return np.array(values, ONNX_TYPES[proto.data_type]).reshape(shape)
        if len(raw) != count * dtype.itemsize:
            raise expected(f"{where}: raw_data", f"{count * dtype.itemsize} bytes", len(raw))
        array = np.frombuffer(raw, dtype)
        return self._widened(array, shape, True) if bfloat else array.reshape(shape)

    def _widened(self, bits: np.ndarray, shape: tuple[int, ...], bfloat: bool) -> np.ndarray:
        if bfloat:
            return (bits.astype(np.uint32) << 16).view(np.float32).reshape(shape)
        return bits.view(np.float16).reshape(shape)

    def _external(self, proto: Any, where: str, size: int) -> bytes:
        """Return the bytes of a tensor from a file beside the model."""
        entries = {e.key: e.value for e in proto.external_data}
        name = entries.get("location", "")
        if not name or Path(name).name != name or name in (".", "..") or "\\" in name:
            raise expected(f"{where}: location", "a plain file name", repr(plain(name, 80)))
        file = self.path.parent / name
        if file.is_symlink() or not file.is_file():
            raise expected(f"{where}: location", "a file beside the model", plain(str(file), 200))
        try:
            offset, length = int(entries.get("offset", 0)), int(entries.get("length", size))
        except ValueError as error:
            raise expected(
                f"{where}: offset, length", "whole numbers", str(entries)[:80]
            ) from error
        if length != size or not 0 <= offset <= file.stat().st_size - size:
            got = f"{length} bytes at {offset} of {file.stat().st_size}"
            raise expected(f"{where}: {plain(name, 80)}", f"{size} bytes within the file", got)
        with file.open("rb") as stream:
            stream.seek(offset)
            return stream.read(size)
