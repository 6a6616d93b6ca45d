"""The command line: `jaxgen demo`, `sample`, `inpaint`, `superres`, `train`, `models`, `fetch`.

Results go to stdout and into a folder, progress to stderr. A command exits with 0, with 2
for input it cannot use (one line on stderr, nothing written), or with 130 when interrupted.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Sequence

from jaxgen.cli import demo, fetch, inpaint, models, sample, superres, train
from jaxgen.cli.options import Parser
from jaxgen.errors import InputError, expected

__all__ = ["main"]

_COMMANDS = {
    "demo": demo,
    "sample": sample,
    "inpaint": inpaint,
    "superres": superres,
    "train": train,
    "models": models,
    "fetch": fetch,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        options = _parse(arguments)
        return options.run(options)
    except SystemExit as stop:  # --help and --version, which argparse ends by itself
        return int(stop.code or 0)
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: no results were written", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `jaxgen models | head`
        sys.stderr.close()
        return 0


def _parse(arguments: list[str]):
    from jaxgen import __version__

    parser = Parser(
        prog="jaxgen",
        description="Samples from the posterior of a pretrained generator.",
        epilog="Example: jaxgen demo --out my-run",
    )
    parser.add_argument("--version", action="version", version=f"jaxgen {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", parser_class=Parser)
    for name, module in _COMMANDS.items():
        module.add(commands, name)
    if not arguments:
        raise expected("COMMAND", f"one of {', '.join(_COMMANDS)}", "nothing", "See jaxgen --help")
    if not arguments[0].startswith("-") and arguments[0] not in _COMMANDS:
        near = difflib.get_close_matches(arguments[0], _COMMANDS, 1, 0.4)
        hint = f"Did you mean {near[0]!r}?" if near else ""
        raise expected("COMMAND", f"one of {', '.join(_COMMANDS)}", repr(arguments[0]), hint)
    return parser.parse_args(arguments)
