"""The command `python -m weights_convert openvino FILE.xml`."""

from __future__ import annotations

import argparse
from pathlib import Path

from weights_convert.tensor_graph import command

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("file", help="the network's XML")
    parser.add_argument("--weights", metavar="FILE", help="its numbers, if not beside the XML")
    command.add_arguments(parser, "OpenVINO")


def run(args: argparse.Namespace) -> int:
    """Carry out the command; the exit status. InputError is for the caller to print."""
    # Importing the rewrites registers them.
    from weights_convert.openvino import operators  # noqa: F401
    from weights_convert.openvino.judge import openvino_tensors
    from weights_convert.openvino.reader import read_openvino

    shapes = command.shapes_of(args.inputs)
    program = read_openvino(args.file, weights=args.weights, inputs=shapes, outputs=args.outputs)
    binary = Path(args.weights) if args.weights else Path(args.file).with_suffix(".bin")
    return command.convert(
        args,
        program,
        lambda inputs, names: openvino_tensors(args.file, inputs, names, args.weights),
        "openvino",
        [args.file, binary],
    )
