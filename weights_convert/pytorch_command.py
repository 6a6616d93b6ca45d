"""The command `python -m weights_convert torch FILE --recipe NAME --out NEW.safetensors`."""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

from jaxgen.core.errors import InputError, expected
from weights_convert.pytorch import Converted, convert, verify
from weights_convert.recipes import RECIPES, listing
from weights_convert.report import plain
from weights_convert.torch_files import read_file, release_pages
from weights_convert.writing import destination, write_new

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add = parser.add_argument
    add("file", help=".pth, .pt, .th, .ckpt or .safetensors")
    add("--recipe", help=f"one of {', '.join(RECIPES)}; `recipes NAME` lists its options")
    add("--out", help="the safetensors file to write, never the source")
    add("--force", action="store_true", help="overwrite the output if it exists")
    add("--key", help="where in a checkpoint the state dict is, as in ema.model")
    add("--prefix", default="", help="take the entries whose names begin so, as in generator")
    add("--buffers", metavar="KEY", help="another state dict of the checkpoint, for entries that "
        "the first lacks: an average of parameters has no statistics of BatchNorm")  # fmt: skip
    add("--ignore", action="append", default=[], metavar="REGEX",
        help="entries that may be left over; repeatable")  # fmt: skip
    add("--set", action="append", default=[], metavar="NAME=VALUE", dest="options",
        help="an option of the recipe; VALUE is JSON or text")  # fmt: skip
    add("--keep-softmax", action="store_true", help="return probabilities; by default a last "
        "softmax is cut and logits come out")  # fmt: skip
    add("--licence", help="the licence of the weights, for the record")
    add("--verify", "--check", action="store_true", help="compare with torch, layer by layer, "
        "before writing; the reference shares the recipe's assumptions")  # fmt: skip
    add("--against", metavar="PAIRS.npz|MODULE.py:NET", help="compare with outputs that the source "
        "computed, or with its own class, whose code is run")  # fmt: skip
    add("--tolerance", type=float, default=1e-5, help="largest error of a comparison")
    add("--list", action="store_true", help="list the file's tensors and stop")


def run(args: argparse.Namespace) -> int:
    """Carry out the command; the exit status. InputError is for the caller to print."""
    if args.list:
        for name, array in read_file(args.file, args.key).items():
            print(f"{plain(name, 500)}  {array.dtype}  {tuple(array.shape)}")
        return 0
    if not args.recipe:
        print("\n".join(f"{name:<20} {about}" for name, about in listing()))
        raise InputError("--recipe: expected one of the recipes above")
    if not (args.out or args.verify or args.against):
        raise InputError("--out: expected a file to write, or --check, or --against")
    if not (math.isfinite(args.tolerance) and args.tolerance > 0):
        raise expected("--tolerance", "a positive number", args.tolerance)
    options = dict(_option(text) for text in args.options)
    read = [args.file]
    if args.against:
        read.append(args.against.rpartition(":")[0] if _is_module(args.against) else args.against)
    if isinstance(options.get("description"), str):
        read.append(options["description"])
    if args.out:
        destination(args.out, sources=read, force=args.force)
    done = convert(
        args.file, args.recipe, options=options, key=args.key, prefix=args.prefix,
        buffers=args.buffers, ignore=args.ignore, keep_softmax=args.keep_softmax,
        licence=args.licence,
    )  # fmt: skip
    _say(args, done)
    record: dict[str, Any] = {}
    for what, rows in _comparisons(args, done):
        worst = max(row.error for row in rows)
        if not worst <= args.tolerance:
            print(f"FAILED: {what}: {worst:.1e} is above {args.tolerance:g}; nothing was written")
            return 1
        record[what] = {"largest_error": float(f"{worst:.2e}"), "layers": len(rows)}
    if args.out:
        release_pages(done.state)
        metadata = {**done.metadata, **({"verified": record} if record else {})}
        write_new(args.out, done.arrays, metadata, sources=read, force=args.force)
        print(f"wrote {plain(args.out)}")
    return 0


def _say(args: argparse.Namespace, done: Converted) -> None:
    """Print what was read, and what was taken for granted because the file does not say it."""
    count = sum(array.size for array in done.arrays.values())
    print(
        f"{plain(args.file)}: {len(done.state)} tensors -> {len(done.arrays)} arrays, "
        f"{count:,} numbers"
    )
    if "output" in done.metadata:
        print(plain(f"output: {done.metadata['output']}; --keep-softmax keeps it"))
    if done.metadata["assumed"]:
        print("assumed, because the file does not say it (set by --set, prove by --against):")
        for name, value in done.metadata["assumed"].items():
            print(plain(f"  {name}: {value}", 500))


def _comparisons(args: argparse.Namespace, done: Converted):
    """Yield (what it was compared with, its rows), each printed."""
    from weights_convert.torch_parity import table

    if args.verify:
        rows = verify(done)
        print(plain_lines(table(rows)))
        if not args.against:
            print(
                "the reference was built from the recipe: it proves the arithmetic, not what was "
                "assumed; --against proves both"
            )
        yield "a reference built from the recipe", rows
    if not args.against:
        return
    from weights_convert.against import compare_with_pairs, load_module

    if _is_module(args.against):
        rows = verify(done, against=load_module(args.against))
        what = f"the source's own class, {args.against.rpartition(':')[2]}"
    else:
        rows = compare_with_pairs(done, args.against)
        what = "outputs that the source computed"
    print(plain_lines(table(rows)))
    yield what, rows


def _is_module(text: str) -> bool:
    return ".py:" in text


def plain_lines(text: str) -> str:
    """Several lines, each without control characters."""
    return "\n".join(plain(line, 500) for line in text.split("\n"))


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise expected("--set", "NAME=VALUE", repr(text))
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value
