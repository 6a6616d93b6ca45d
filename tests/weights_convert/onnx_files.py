"""ONNX models of a few nodes, and how one of them is converted and judged."""

# ruff: noqa: E402  (the package is optional)

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from weights_convert.onnx.judge import onnx_tensors
from weights_convert.onnx.reader import read_onnx
from weights_convert.tensor_graph import lower
from weights_convert.tensor_graph.check import compared, random_tensors


def model(nodes, inputs, outputs, constants=None, opset=18, **fields):
    """A ModelProto: nodes are (op, inputs, outputs, attributes), inputs name -> shape."""
    helper = onnx.helper
    protos = [
        helper.make_node(op, i.split(), o.split(), name=f"{op.lower()}_{n}", **attributes)
        for n, (op, i, o, attributes) in enumerate(nodes)
    ]
    graph = helper.make_graph(
        protos,
        "small",
        [helper.make_tensor_value_info(n, 1, shape) for n, shape in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs.split()],
        [onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in (constants or {}).items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10, **fields
    )


def write(path, proto):
    """Write a model; the path."""
    path.write_bytes(proto.SerializeToString())
    return path


def parity(path, tolerance=1e-5, seed=0, spread=1.0, **options):
    """Convert a file and compare all layers: (the conversion, the rows)."""
    program = read_onnx(path, **options)
    converted = lower(program)
    inputs = random_tensors(program.inputs, seed, spread)
    rows, _ = compared(
        converted.graph, inputs, lambda xs, names: onnx_tensors(path, xs, names), tolerance
    )
    return converted, rows
