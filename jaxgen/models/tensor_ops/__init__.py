"""Operators of ONNX and OpenVINO files, and the graph that evaluates them.

`TensorGraph` is the graph module of `jaxgen.models.caffe.graph` with another table of layers: one
small class for each operator, written in the terms of the file, where a tensor is
(N, C, H, W) with N = 1. One file for each kind: `pointwise`, `dense`, `spatial`, `resize`,
`norms`, `shaping`.
"""

from jaxgen.models.tensor_ops.base import OPERATORS, Operator
from jaxgen.models.tensor_ops.graph import FORMAT, TensorGraph

__all__ = ["FORMAT", "OPERATORS", "Operator", "TensorGraph"]
