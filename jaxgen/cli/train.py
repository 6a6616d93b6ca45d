"""`jaxgen train`: train a network again from its recipe."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from pathlib import Path

from jaxgen.cli.options import Commands, Parser, add_talk, nearest, whole

__all__ = ["add"]


def add(commands: Commands, name: str) -> None:
    """Add the command to a parser."""
    parser: Parser = commands.add_parser(
        name,
        help="train a network again from its recipe",
        description="Train a network of `jaxgen models` from its recipe. A run that was stopped "
        "resumes from its checkpoint in --out.",
        epilog="Example: jaxgen train fashion-mnist/cnn --out weights",
    )
    parser.add_argument("name", metavar="NAME", help="as in `jaxgen models`")
    parser.add_argument(
        "--out",
        metavar="DIR",
        default="weights",
        help="folder of the weights and checkpoints (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=whole(0, 2**32 - 1),
        help="integer that fixes all random numbers (default: the recipe's)",
    )
    parser.add_argument(
        "--steps", type=whole(1), help="number of updates of the parameters (default: the recipe's)"
    )
    parser.add_argument(
        "--snapshots", metavar="N,N,...", help="also write a GAN after these numbers of updates"
    )
    parser.add_argument(
        "--text", metavar="FILE", help="for text/...: a sentence on each line, in UTF-8"
    )
    parser.add_argument(
        "--vocabulary", type=whole(3), metavar="N", help="for text/...: the most frequent words"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="the four idx files of Fashion-MNIST")
    parser.add_argument("--force", action="store_true", help="replace weights that are there")
    add_talk(parser)
    parser.set_defaults(run=_run)


def _run(options: Namespace) -> int:
    import jaxgen.sequences.recipes  # noqa: F401 (text/... joins the table)
    from jaxgen.core.errors import expected
    from jaxgen.sampler.checkpoint.folder import Preempted
    from jaxgen.train import RECIPES, run

    if options.name not in RECIPES:
        raise nearest("NAME", options.name, RECIPES)
    of_text = options.name.startswith("text/")
    if of_text and options.text is None:
        raise expected("--text", "a file with a sentence on each line", "none")
    for option in ("text", "vocabulary"):
        if getattr(options, option) is not None and not of_text:
            hint = "Only text/... is learned from it"
            raise expected(
                f"--{option}", f"none for {options.name}", getattr(options, option), hint
            )
    if Path(options.out).exists() and not Path(options.out).is_dir():
        raise expected("--out", "a folder", f"{options.out}, a file")
    name = options.name.replace("/", "_").replace("-", "_")
    if options.name == "toy2d/gan":  # its weights are named by their number of updates
        name += f"_{options.steps or RECIPES[options.name].steps}"
    weights = Path(options.out) / f"{name}.safetensors"
    if weights.exists() and not options.force:
        raise expected("--out", "no weights of that name yet", str(weights), "Give --force")
    try:
        snapshots = [int(text) for text in (options.snapshots or "").split(",") if text]
    except ValueError as error:
        raise expected("--snapshots", "whole numbers, as in 500,1500", options.snapshots) from error
    begun = time.monotonic()

    def progress(step: int, metrics: dict[str, float]) -> None:
        if not options.quiet:
            values = " · ".join(f"{name} {value:.4g}" for name, value in metrics.items())
            total = options.steps or RECIPES[options.name].steps
            seconds = time.monotonic() - begun
            line = f"{step}/{total} updates · {values} · {seconds:.0f} s"
            print(line, file=sys.stderr, flush=True)

    try:
        paths = run(
            options.name,
            out=options.out,
            seed=options.seed,
            steps=options.steps,
            data_dir=options.data_dir,
            text=options.text,
            vocabulary=options.vocabulary,
            snapshots=snapshots,
            progress=progress,
        )
    except (KeyboardInterrupt, Preempted) as stop:
        word, code = ("terminated", 143) if isinstance(stop, Preempted) else ("interrupted", 130)
        print(f"{word}: the same command resumes from its checkpoint", file=sys.stderr)
        return code
    if options.json:
        print(json.dumps({"name": options.name, "files": [str(path) for path in paths]}))
    else:
        print("\n".join(str(path) for path in paths))
    return 0
