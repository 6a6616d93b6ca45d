"""The command `python -m weights_convert caffe DEPLOY.prototxt WEIGHTS.caffemodel`."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.models.caffe.graph import Graph
from weights_convert import parity
from weights_convert.caffe.caffemodel import Caffemodel, read_binaryproto
from weights_convert.caffe.importer import Converted, convert, save_converted
from weights_convert.caffe.numpy_judge import judged_activations
from weights_convert.caffe.preprocess import (
    PRESETS,
    Preprocessing,
    add_preprocessing,
    from_prototxt,
)
from weights_convert.report import plain, read_classes
from weights_convert.writing import destination

__all__ = ["add_arguments", "inspect_rows", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    add("prototxt", help="the network's definition, best its deploy.prototxt")
    add("caffemodel", help="its weights")
    add("--out", required=True, help="the safetensors file to write")
    add("--force", action="store_true", help="overwrite the output if it exists")
    add("--verify", "--check", action="store_true",
        help="compare every layer with OpenCV's Caffe importer before writing, or with NumPy "
        "where OpenCV is wrong")  # fmt: skip
    add("--against", metavar="NPZ", help="verify against stored activations instead of OpenCV")
    add("--tolerance", type=float, default=parity.TOLERANCE, help="largest error for --verify")
    add("--seed", type=int, default=0, help="of the random input for --verify")
    add("--input", action="append", default=[], metavar="NAME=N,C,H,W", dest="inputs",
        help="the shape of an input that the prototxt leaves open")  # fmt: skip
    add("--output", action="append", default=[], metavar="BLOB", dest="outputs",
        help="return this blob instead of the network's last ones; repeatable")  # fmt: skip
    add(
        "--keep-softmax",
        action="store_true",
        help="return probabilities; by default a last softmax is cut and logits come out",
    )
    add("--ignore", action="append", default=[], metavar="REGEX",
        help="layers of the caffemodel that may be left over; repeatable")  # fmt: skip
    add("--stage", action="append", default=[], dest="stages", help="for include/exclude rules")
    add("--level", type=int, default=0, help="for include/exclude rules")
    add(
        "--preset",
        choices=["prototxt", *sorted(PRESETS)],
        help="preprocessing by name; prototxt: what its data layer declares",
    )
    add("--mean", help="a binaryproto, or numbers such as 104,117,123, for values in 0-255")
    add("--scale", type=float, help="multiplies values in 0-255 after the mean (default 1)")
    add("--channels", choices=("rgb", "bgr", "grey"), help="the network's order (default bgr)")
    add("--generator", action="store_true", help="the network draws images, not reads them")
    add("--licence", help="of the weights, for the record")
    add("--classes", metavar="FILE", help="names of the classes, one a line, for the record")


def run(args: argparse.Namespace) -> int:
    """Carry out the command: 0, or 1 if the parity check fails. InputError is the caller's."""
    from rich.console import Console

    console = Console()
    out = destination(args.out, sources=_sources(args), force=args.force)
    converted = convert(
        args.prototxt,
        args.caffemodel,
        inputs=dict(_shape(text) for text in args.inputs),
        outputs=args.outputs,
        ignore=args.ignore,
        level=args.level,
        stages=args.stages,
        keep_softmax=args.keep_softmax,
        metadata=_record(args),
    )
    preprocessing = _preprocessing(args, converted)
    # Preprocessing comes after the judgement: the judge knows Caffe's blobs only.
    final = converted if preprocessing is None else add_preprocessing(converted, preprocessing)
    if converted.ignored:
        console.print(
            f"left out: {len(converted.ignored)} blobs of ignored layers",
            markup=False,
            soft_wrap=True,
        )
    if "output" in converted.metadata:
        text = f"output: {converted.metadata['output']}; --keep-softmax keeps it"
        console.print(plain(text), markup=False, soft_wrap=True)
    graph = converted.graph
    if args.verify or args.against:
        rows = _judged(args, graph, 1.0 if preprocessing is None else 64.0)
        console.print(parity.parity_table(rows, f"{Path(args.prototxt).name}: parity"))
        judged = [row.error for row in rows if row.error is not None]
        if not judged:
            raise expected("--verify", "layers that the judge knows", "none")
        failed = [row.layer for row in rows if not row.passed]
        worst = f"worst relative error {max(judged):.1e} over {len(judged)} of {len(rows)} layers"
        console.print(worst, markup=False, soft_wrap=True)
        if failed:
            console.print(
                plain(f"FAILED: {', '.join(failed)}; nothing was written"),
                markup=False,
                soft_wrap=True,
            )
            return 1
    else:
        console.print(_summary(converted, graph))
    save_converted(out, final, sources=_sources(args), force=args.force)
    total = sum(array.size for array in final.arrays.values())
    console.print(
        f"wrote {out}: {len(final.arrays)} arrays, {total:,} numbers", markup=False, soft_wrap=True
    )
    return 0


def _sources(args: argparse.Namespace) -> list[str]:
    """Every file that the command reads."""
    named = (args.prototxt, args.caffemodel, args.against, args.mean, args.classes)
    return [name for name in named if name]


def inspect_rows(path: Path) -> list[tuple[str, str, tuple[int, ...]]]:
    """(blob, type, shape) of everything in a caffemodel, without reading the numbers."""
    names = {"<f2": "float16", "<f4": "float32", "<f8": "float64"}
    return [(key, names[r.dtype], r.shape) for key, r in Caffemodel(path).records.items()]


def _judged(args: argparse.Namespace, graph: Graph, spread: float) -> list[parity.LayerParity]:
    inputs = parity.random_inputs(graph, args.seed, spread)
    notes: dict[str, str] = {}
    if args.against:
        judge: Any = parity.stored_activations(args.against)
        inputs = _stored_inputs(graph, judge)
    else:
        blobs = {
            name: parity.to_blob(x, axis)
            for name, x, axis in zip(graph.input_names, inputs, graph.batch_axes, strict=True)
        }
        judge, notes = judged_activations(
            args.prototxt, args.caffemodel, blobs, level=args.level, stages=args.stages
        )
    ours = parity.graph_activations(graph, inputs)
    return parity.compare(graph, ours, judge, args.tolerance, notes)


def _stored_inputs(graph: Graph, judge: dict[str, tuple[np.ndarray, ...]]) -> list[np.ndarray]:
    """Return the inputs that stored activations hold under the inputs' names."""
    inputs = []
    for name, shape in zip(graph.input_names, graph.sample_shapes, strict=True):
        if name not in judge:
            raise expected("--against", f"the input {name!r} among the arrays", ", ".join(judge))
        blob = judge[name][0]
        sample = np.moveaxis(blob[0], 0, -1) if blob.ndim == 4 else blob[0]
        if sample.shape != shape:
            raise expected(f"--against: {name}", f"one sample of {shape}", blob.shape)
        inputs.append(sample)
    return inputs


def _summary(converted: Converted, graph: Graph) -> Any:
    """Return a table of layers, the shapes of their tops and their numbers of parameters."""
    from rich.table import Table
    from rich.text import Text

    samples = [jax.ShapeDtypeStruct(shape, np.float32) for shape in graph.sample_shapes]
    tops = jax.eval_shape(lambda *xs: graph.activations(*xs), *samples)
    table = Table(
        title=Text(plain(converted.description["name"] or "network")), title_justify="left"
    )
    for column in ("layer", "type", "shape", "parameters"):
        table.add_column(column, justify="right" if column == "parameters" else "left")
    for layer in converted.description["layers"]:
        count = sum(math.prod(shape) for shape in layer["parameters"].values())
        shape = " x ".join(str(n) for n in tops[layer["name"]][0].shape) or "scalar"
        table.add_row(
            Text(plain(layer["name"])), layer["type"], shape, f"{count:,}" if count else ""
        )
    return table


def _preprocessing(args: argparse.Namespace, converted: Converted) -> Preprocessing | None:
    given = (args.mean, args.scale, args.channels)
    found = converted.metadata.get("source_preprocessing")
    if args.preset is None and all(value is None for value in given) and not args.generator:
        if found:
            words = ", ".join(f"{name} {value}" for name, value in found.items())
            print(plain(f"the prototxt declares preprocessing ({words}), which was recorded but "
                        "not applied: --preset prototxt applies it", 2000))  # fmt: skip
        return None
    if args.preset == "prototxt":
        inputs = converted.description["inputs"]
        shape = inputs[0]["shape"] if inputs else []
        base = from_prototxt(found, shape[1] if len(shape) == 4 else 0)
        if found and "mean_file" in found and args.mean is None:
            hint = f"The prototxt names {found['mean_file']!r}: give that file."
            raise expected("--mean", "the mean that the prototxt names", "none", hint)
    else:
        base = PRESETS[args.preset] if args.preset else Preprocessing(mean=())
    changes: dict[str, Any] = {}
    if args.mean is not None:
        changes["mean"] = _mean(args.mean)
    if args.scale is not None:
        changes["scale"] = args.scale
    if args.channels is not None:
        changes["channels"] = args.channels
    if args.generator:
        changes["draws"] = True
    return base._replace(**changes)


def _mean(text: str) -> Any:
    if Path(text).is_file():
        return read_binaryproto(text)
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        wanted = "a binaryproto that exists, or numbers such as 104,117,123"
        raise expected("--mean", wanted, repr(text)) from error


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, numbers = text.partition("=")
    try:
        return name, tuple(int(part) for part in numbers.split(","))
    except ValueError as error:
        raise expected("--input", "NAME=N,C,H,W", repr(text)) from error


def _record(args: argparse.Namespace) -> dict[str, Any]:
    record: dict[str, Any] = {}
    if args.licence:
        record["licence"] = args.licence
    if args.classes:
        record["classes"] = read_classes(args.classes)
    return record
