"""`python -m jaxgen.train NAME --out FOLDER`: train a network again from its recipe."""

from __future__ import annotations

import argparse
import json
import sys
import time

from jaxgen.errors import InputError
from jaxgen.train.recipes import RECIPES, run


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and train; a line of JSON per chunk of updates."""
    parser = argparse.ArgumentParser(prog="python -m jaxgen.train", description=__doc__)
    parser.add_argument("name", help=", ".join(RECIPES))
    parser.add_argument("--out", required=True, help="folder for weights and checkpoint")
    parser.add_argument("--seed", type=int, help="another seed than the recipe's")
    parser.add_argument("--steps", type=int, help="another number of updates")
    parser.add_argument("--data-dir", help="folder with the four idx files of Fashion-MNIST")
    options = parser.parse_args(arguments)
    start = time.monotonic()

    def progress(step: int, metrics: dict[str, float]) -> None:
        line = {"step": step, "seconds": round(time.monotonic() - start, 1)}
        print(json.dumps({**line, **{k: round(v, 4) for k, v in metrics.items()}}), flush=True)

    try:
        paths = run(
            options.name,
            out=options.out,
            seed=options.seed,
            steps=options.steps,
            data_dir=options.data_dir,
            progress=progress,
        )
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    for path in paths:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
