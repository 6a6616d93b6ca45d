"""The command line: `python -m weights_convert COMMAND ...`.

Exit status: 0 if all went well, 1 if a comparison failed, 2 for input that cannot be used,
with one line that says why, 130 when interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxgen.core.errors import InputError, expected
from weights_convert.report import plain

__all__ = ["main"]

# Command -> (the module with `add_arguments(parser)` and `run(args)`, what it does, aliases).
_COMMANDS = {
    "caffe": ("weights_convert.caffe.command", "convert a Caffe network", ()),
    "torch": (
        "weights_convert.pytorch_command",
        "convert PyTorch weights by a recipe",
        ("pytorch",),
    ),
    "recipes": ("weights_convert.recipes_command", "list recipes and their options", ()),
    "tfjs": ("weights_convert.tfjs", "convert a TensorFlow.js model", ()),
    "onnx": ("weights_convert.onnx.command", "convert an ONNX file", ()),
    "openvino": ("weights_convert.openvino.command", "convert an OpenVINO IR", ()),
    "fetch": ("weights_convert.fetch", "obtain and convert a published network", ()),
}

# Long enough for every mistake of a wrong recipe, short enough for a hostile file.
_LONGEST = 1_000_000
_MOST_ROWS = 5_000


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        args = _parser(_chosen(arguments)).parse_args(arguments)
        return args.run(args)
    except (InputError, ImportError) as error:
        print(f"error: {plain(str(error), _LONGEST)}", file=sys.stderr)
        return 2
    except RecursionError:
        print("error: the file is nested too deeply", file=sys.stderr)
        return 2
    except MemoryError:
        print("error: the file needs more memory than there is", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: a file appears whole or not at all", file=sys.stderr)
        return 130
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {plain(where + (error.strerror or str(error)))}", file=sys.stderr)
        return 2


def _chosen(arguments: Sequence[str]) -> str | None:
    """Return the command that was typed, by its first name; None where none was, as for --help."""
    typed = next((word for word in arguments if not word.startswith("-")), None)
    names = {alias: name for name, (_, _, also) in _COMMANDS.items() for alias in (name, *also)}
    return names.get(typed or "")


def _parser(chosen: str | None) -> argparse.ArgumentParser:
    """Return the parser, with the arguments of the chosen command: importing every converter's
    module takes over a second, and `--help` needs none of them.
    """
    parser = argparse.ArgumentParser(
        prog="python -m weights_convert",
        description="Convert networks of other frameworks to Flax, and prove them equal.",
        epilog="Example: python -m weights_convert onnx model.onnx --out net.safetensors --check",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, about, aliases) in _COMMANDS.items():
        if name != chosen:
            commands.add_parser(name, help=about, aliases=aliases)
            continue
        found = importlib.import_module(module)
        command = commands.add_parser(name, help=about, description=found.__doc__, aliases=aliases)
        found.add_arguments(command)
        command.set_defaults(run=found.run)
    inspect = commands.add_parser("inspect", help="list what a file holds, running nothing in it")
    inspect.add_argument("file", help="a file of any format that is converted here")
    inspect.set_defaults(run=_inspect)
    return parser


def _inspect(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    path = Path(args.file)
    notes, rows = _contents(path)
    table = Table(title=Text(plain(path.name)), title_justify="left")
    for column in ("name", "type", "shape"):
        table.add_column(column)
    for name, kind, shape in rows[:_MOST_ROWS]:
        table.add_row(
            Text(plain(name, 500)),
            Text(plain(kind, 500)),
            " x ".join(str(n) for n in shape) or "scalar",
        )
    console = Console()
    for name, value in notes.items():
        print(plain(f"{name}: {value}", 500))
    console.print(table)
    if len(rows) > _MOST_ROWS:
        print(f"and {len(rows) - _MOST_ROWS} more")
    return 0


def _contents(path: Path) -> tuple[dict[str, Any], list[tuple[str, str, tuple[int, ...]]]]:
    """Return what a file says about itself, and (name, type, shape) of all it holds."""
    if not path.is_file():
        raise expected("FILE", "a file that exists", str(path))
    if path.suffix == ".caffemodel":
        from weights_convert.caffe.command import inspect_rows

        return {}, inspect_rows(path)
    if path.suffix == ".prototxt":
        from weights_convert.caffe.prototxt import read_prototxt

        net = read_prototxt(path)
        blobs = [(name, "input", shape) for name, shape in net.inputs]
        return {"name": net.name}, blobs + [(x.name, x.type, ()) for x in net.layers]
    if path.suffix == ".binaryproto":
        from weights_convert.caffe.caffemodel import read_binaryproto

        return {}, [("mean", "float32", read_binaryproto(path).shape)]
    if path.suffix == ".safetensors":
        notes = _jaxgen_notes(path)
        if notes is not None:
            from jaxgen.models.weights import load_weights

            arrays, _ = load_weights(path)
            return notes, [(k, str(v.dtype), v.shape) for k, v in arrays.items()]
    from weights_convert.torch_files import read_file

    arrays = read_file(path)
    return {}, [(name, str(a.dtype), tuple(a.shape)) for name, a in arrays.items()]


def _jaxgen_notes(path: Path) -> dict[str, Any] | None:
    """Return the metadata of a file that jaxgen wrote; None for other safetensors files."""
    from jaxgen.models.weights import read_metadata

    try:
        return read_metadata(path)
    except InputError:
        return None
