"""The command line: `jaxgen demo`, `sample`, `inpaint`, `superres`, `loglik`, `train`, ...

Results go to stdout and into a folder, progress to stderr. A command exits with 0, with 2
for input it cannot use (one line on stderr, nothing written), or with 130 when interrupted
(143 by SIGTERM), after a checkpoint from which --resume goes on.

Parsers import neither JAX nor anything that does, so that `--help`, `--version`, a wrong word
and `completion` answer at once; a command imports what it needs when it runs.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from jaxgen.cli import (
    completion,
    config,
    demo,
    doctor,
    fetch,
    inpaint,
    loglik,
    models,
    report,
    sample,
    superres,
    train,
)
from jaxgen.cli.options import Parser, typed
from jaxgen.core.errors import InputError, expected, visible
from jaxgen.core.leaving import leave

__all__ = ["commands", "entry", "main"]

# Devices that share a core wait for each other when they gather their chains. On a busy
# machine that may take longer than the 40 seconds after which XLA would end the process.
_PATIENCE = (
    "--xla_cpu_collective_call_warn_stuck_timeout_seconds=600 "
    "--xla_cpu_collective_call_terminate_timeout_seconds=864000"
)

_COMMANDS = {
    "demo": demo,
    "sample": sample,
    "inpaint": inpaint,
    "superres": superres,
    "loglik": loglik,
    "report": report,
    "train": train,
    "models": models,
    "fetch": fetch,
    "doctor": doctor,
    "completion": completion,
}


def entry() -> NoReturn:
    """Run the command of this process, and end the process with its exit code."""
    leave(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if not _only_asks(arguments):
            _use_every_core()
        options = _parse(arguments)
        typed(arguments)
        return options.run(options)
    except SystemExit as stop:
        # Interrupted, Preempted, or argparse after --help and --version.
        if getattr(stop, "folder", None) is not None:
            word = "interrupted" if isinstance(stop, KeyboardInterrupt) else "terminated"
            print(f"{word}: {_how_to_go_on(stop.folder)}", file=sys.stderr)  # type: ignore[attr-defined]
        return int(stop.code or 0)
    except InputError as error:
        print(f"error: {visible(' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: no results were written", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `jaxgen models | head`
        sys.stderr.close()
        return 0
    finally:
        writing = sys.modules.get("jaxgen.report.output_folder")
        if writing is not None:  # else no folder can have been taken
            writing.release()


def _only_asks(arguments: Sequence[str]) -> bool:
    """Return whether a command line computes nothing: help, the version, a script of completion."""
    asks = {"-h", "--help", "--version"}
    return not arguments or arguments[0] == "completion" or not asks.isdisjoint(arguments)


def _how_to_go_on(run: Path) -> str:
    out = os.path.relpath(str(run.parent).removesuffix(".partial"))
    return f"the same command with --out {out} --resume resumes from here"


def _use_every_core() -> None:
    """One XLA device for each core: a small program runs on one core of each."""
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" in flags:
        return
    if "collective_call" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {_PATIENCE}".strip()
    import jax

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with contextlib.suppress(RuntimeError):  # JAX has started already
        jax.config.update("jax_num_cpu_devices", cores or 1)


def commands() -> dict[str, Parser]:
    """Every command's parser, by its name."""
    return _parsers()[1]


def _parsers() -> tuple[Parser, dict[str, Parser]]:
    from jaxgen.core.version import __version__

    parser = Parser(
        prog="jaxgen",
        description="Draw samples from the posterior of a pretrained image generator.",
        epilog="Example: jaxgen demo --out my-run",
    )
    parser.add_argument("--version", action="version", version=f"jaxgen {__version__}")
    choices = parser.add_subparsers(metavar="COMMAND", parser_class=Parser)
    for name, module in _COMMANDS.items():
        module.add(choices, name)
        config.add_config(choices.choices[name])
    return parser, dict(choices.choices)


def _parse(arguments: list[str]):
    parser, known = _parsers()
    if not arguments:
        raise expected("COMMAND", f"one of {', '.join(known)}", "nothing", "See jaxgen --help")
    name, *typed = arguments
    if name.startswith("-"):
        return parser.parse_args(arguments)
    if name not in known:
        near = difflib.get_close_matches(name, known, 1, 0.4)
        hint = f"Did you mean {near[0]!r}?" if near else "See jaxgen --help"
        raise expected("COMMAND", f"one of {', '.join(known)}", repr(name), hint)
    if any(word.split("=")[0] == "--config" for word in typed):
        typed = config.with_file(name, known[name], commands()[name], typed)
    options = known[name].parse_args(typed)
    # What a run was does not depend on where it was said.
    vars(options).pop("config")
    target = vars(options).pop("save_config")
    if target is not None:
        config.save(target, name, known[name], options)
    return options
