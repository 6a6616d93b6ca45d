"""From a program of foreign operators to the description of a `TensorGraph`.

The readers of `weights_convert.onnx` and `weights_convert.openvino` make a `Program`, whose
operators are ONNX's. `lower` computes in NumPy whatever does not depend on the input (shape
arithmetic above all), works out every shape for one sample, and writes one layer for each
operator that is left. `check` compares the layers with another program's results.
"""

from weights_convert.tensor_graph.lowering import Converted, lower
from weights_convert.tensor_graph.program import Node, Program

__all__ = ["Converted", "Node", "Program", "lower"]
