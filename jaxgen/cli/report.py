"""`jaxgen report`: a run's folder as one page to look at."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from jaxgen.cli.options import Commands, Parser, add_talk

__all__ = ["add"]


def add(commands: Commands, name: str) -> None:
    """Add the command to a parser."""
    parser: Parser = commands.add_parser(
        name,
        help="a page with the pictures, diagnostics and verdicts of a run",
        description="Write one HTML file, which needs no network, from the folder of a run: "
        "draws, film strips of chains, annealing, mixing, credible maps, and what it all comes "
        "to in plain words. It takes what jaxgen.sample(folder=) and the tasks write as well.",
        epilog="Example: jaxgen report runs/demo --out demo.html",
    )
    parser.add_argument("folder", metavar="RUN", help="the folder of a finished run")
    parser.add_argument("--out", metavar="FILE", help="the page to write (RUN.html beside RUN)")
    parser.add_argument("--force", action="store_true", help="replace a file that is no report")
    add_talk(parser, json="print the verdicts as JSON", quiet="print the page's name only")
    parser.set_defaults(run=_run)


def _run(options: Namespace) -> int:
    from pathlib import Path

    from jaxgen.report.reading import read
    from jaxgen.report.verdicts import examine
    from jaxgen.report.writing import check_free, default_path, write

    out = default_path(options.folder) if options.out is None else Path(options.out)
    run = read(options.folder)
    check_free(out, force=options.force)
    parts = examine(run)
    path = write(run, out, force=options.force, parts=parts)
    if options.quiet and not options.json:
        print(path)
    else:
        _say(parts, path, as_json=options.json)
    return 0


def _say(parts: Any, path: Any, *, as_json: bool) -> None:
    import json

    from jaxgen.report.output_folder import plain

    if as_json:
        verdicts = {part.entry.name: [v._asdict() for v in part.verdicts] for part in parts}
        print(json.dumps(plain({"report": path, "verdicts": verdicts}), indent=2))
        return
    for part in parts:
        verdict = part.verdicts[0]
        print(f"{part.entry.label}: {verdict.words} ({verdict.reason})")
        if verdict.try_next:
            print(f"  try next: {verdict.try_next}")
    print(path)
