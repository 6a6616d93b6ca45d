"""The command `python -m weights_convert onnx FILE.onnx`."""

from __future__ import annotations

import argparse

from weights_convert.tensor_graph import command

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("file", help="the ONNX file")
    command.add_arguments(parser, "onnxruntime, or onnx's reference")


def run(args: argparse.Namespace) -> int:
    """Carry out the command; the exit status. InputError is for the caller to print."""
    from weights_convert.onnx.judge import onnx_tensors
    from weights_convert.onnx.reader import read_onnx

    shapes, outputs = command.shapes_of(args.inputs), args.outputs
    program = read_onnx(args.file, inputs=shapes, outputs=outputs)
    return command.convert(
        args, program, lambda inputs, names: onnx_tensors(args.file, inputs, names), "onnx"
    )
