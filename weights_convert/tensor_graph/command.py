"""What the commands `onnx` and `openvino` have in common."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxgen.core.errors import expected
from weights_convert import parity
from weights_convert.report import plain, read_classes
from weights_convert.softmax import cut_from_tensors, said
from weights_convert.tensor_graph.check import Judge, compared, random_tensors
from weights_convert.tensor_graph.images import Images, with_images, with_vectors
from weights_convert.tensor_graph.lowering import Converted, lower
from weights_convert.tensor_graph.program import Program
from weights_convert.writing import destination

__all__ = ["add_arguments", "convert", "digest", "logits", "shapes_of"]


def add_arguments(parser: argparse.ArgumentParser, judge: str) -> None:
    """Add the arguments that do not depend on the format."""
    add = parser.add_argument
    add("--out", required=True, help="the safetensors file to write")
    add("--force", action="store_true", help="overwrite the output if it exists")
    add("--check", "--verify", action="store_true", dest="check",
        help=f"compare every layer with {judge}, before writing")  # fmt: skip
    add("--tolerance", type=float, default=parity.TOLERANCE, help="largest error for --check")
    add("--seed", type=int, default=0, help="of the random input for --check")
    add("--spread", type=float, default=1.0, help="deviation of the random input for --check")
    add("--input", action="append", default=[], metavar="NAME=1,C,H,W", dest="inputs",
        help="the shape of an input, for one sample, that the file leaves open")  # fmt: skip
    add("--output", action="append", default=[], metavar="TENSOR", dest="outputs",
        help="return this tensor instead of the network's outputs; repeatable")  # fmt: skip
    add("--keep-softmax", action="store_true", help="return probabilities; by default a last "
        "softmax is cut and logits come out")  # fmt: skip
    add("--mean", metavar="R,G,B", help="subtracted from images in [0, 1] first")
    add("--std", metavar="R,G,B", help="divides what is left; with one number for all channels")
    add("--bgr", action="store_true", help="the network's images are BGR")
    add("--span", metavar="LOW,HIGH",
        help="a generator's darkest and lightest numbers, such as --span=-1,1")  # fmt: skip
    add("--kind", help="generator, classifier, encoder ...: for the record")
    add("--licence", help="of the weights, for the record")
    add("--classes", metavar="FILE", help="names of the classes, one a line, for the record")


def shapes_of(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Input -> shape, from NAME=1,C,H,W."""
    shapes = {}
    for text in texts:
        name, _, numbers = text.rpartition("=")
        try:
            shapes[name] = tuple(int(part) for part in numbers.split(","))
        except ValueError as error:
            raise expected("--input", "NAME=1,C,H,W", repr(text)) from error
    return shapes


def convert(
    args: argparse.Namespace,
    program: Program,
    judge: Judge,
    converter: str,
    files: Sequence[str | Path] = (),
) -> int:
    """Convert, check if asked, write; 0, or 1 if the check fails."""
    from rich.console import Console

    console = Console()
    sources = [args.file, *files]
    out = destination(args.out, sources=sources, force=args.force)
    images = _images(args)
    converted = lower(program, _record(args, converter, files or [args.file]))
    if args.check:
        graph = converted.graph
        inputs = random_tensors(program.inputs, args.seed, args.spread, program.whole)
        rows, who = compared(graph, inputs, judge, args.tolerance)
        console.print(parity.parity_table(rows, f"{Path(args.file).name} by {who}"))
        errors = [row.error for row in rows if row.error is not None]
        if not errors:
            raise expected("--check", "layers that the judge knows", "none")
        worst = f"worst relative error {max(errors):.1e} over {len(errors)} of {len(rows)} layers"
        console.print(f"{worst}, by {who}", markup=False, soft_wrap=True)
        failed = [row.layer for row in rows if not row.passed]
        if failed:
            text = f"FAILED: {', '.join(failed)}; nothing was written"
            console.print(plain(text), markup=False, soft_wrap=True)
            return 1
        figures = {"worst_layer_error": max(errors), "judge": who}
        converted = converted._replace(metadata={**converted.metadata, "parity": figures})
    if not args.keep_softmax and not args.outputs:
        converted = logits(converted)
        if "output" in converted.metadata:
            text = f"output: {converted.metadata['output']}; --keep-softmax keeps it"
            console.print(plain(text), markup=False, soft_wrap=True)
    final = with_vectors(converted)
    final = final if images is None else with_images(final, images)
    final.graph  # noqa: B018  (refuse before writing what does not fit)
    final.save(out, sources=sources, force=args.force)
    count = len(final.description["layers"])
    text = f"wrote {out}: {count} layers, {final.size:,} numbers; {final.folded} nodes folded"
    console.print(text, markup=False, soft_wrap=True)
    return 0


def logits(converted: Converted) -> Converted:
    """Cut a softmax over classes at the end, and say so in the metadata."""
    description, cut = cut_from_tensors(converted.description, converted.shapes)
    if not cut:
        return converted
    metadata = {**converted.metadata, "output": said(cut)}
    kept = {layer["name"] for layer in description["layers"]}
    arrays = {name: array for name, array in converted.arrays.items() if name in kept}
    return converted._replace(description=description, arrays=arrays, metadata=metadata)


def digest(path: str | Path) -> str:
    """Return the SHA-256 of a file."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _images(args: argparse.Namespace) -> Images | None:
    if args.span is not None and (args.mean is not None or args.std is not None):
        raise expected("--span", "no --mean or --std, which are for images read", "both")
    if args.span is None and args.mean is None and args.std is None and not args.bgr:
        return None
    span = None
    if args.span is not None:
        low_high = _numbers("--span", args.span)
        if len(low_high) != 2:
            raise expected("--span", "two numbers such as -1,1", repr(args.span))
        span = (low_high[0], low_high[1])
    return Images(
        _numbers("--mean", args.mean or "0"), _numbers("--std", args.std or "1"), args.bgr, span
    )


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise expected(name, "numbers such as 0.485,0.456,0.406", repr(text)) from error


def _record(
    args: argparse.Namespace, converter: str, files: Sequence[str | Path]
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "converter": f"weights_convert.{converter} 1",
        "source": {Path(f).suffix[1:] or "file": {"name": Path(f).name, "sha256": digest(f)}
                   for f in files},
    }  # fmt: skip
    if args.kind or args.span is not None:
        record["kind"] = args.kind or "generator"
    if args.licence:
        record["licence"] = args.licence
    if args.classes:
        record["classes"] = read_classes(args.classes)
    return record
