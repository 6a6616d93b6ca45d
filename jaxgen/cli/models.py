"""`jaxgen models`: the pretrained networks that `jaxgen.load` knows."""

from __future__ import annotations

import json
import sys
from typing import Any

from jaxgen.cli.options import Parser, add_talk
from jaxgen.core.errors import InputError

__all__ = ["add"]


def add(commands: Any, name: str) -> None:
    """Add the command to a parser."""
    parser: Parser = commands.add_parser(
        name,
        help="list the pretrained networks",
        description="List the pretrained networks: kind, shapes, size, licence and figures.",
        epilog="Example: jaxgen models --json",
    )
    add_talk(parser, json="print JSON, metadata included", quiet="print names only")
    parser.set_defaults(run=_run)


def _run(options: Any) -> int:
    if options.quiet and not options.json:
        print("\n".join(_names()))
        return 0
    entries = [_entry(name) for name in _names()]
    if options.json:
        print(json.dumps(entries, indent=2))
    else:
        _print_table(entries)
    return 0


def _names() -> tuple[str, ...]:
    from jaxgen.models.catalogue import FETCHABLE
    from jaxgen.models.registry import TRAINABLE, available

    return (*available(), *TRAINABLE, *FETCHABLE)


def _entry(name: str) -> dict[str, Any]:
    from jaxgen.models.catalogue import PARTS
    from jaxgen.models.registry import describe

    try:
        info = describe(name)
    except InputError as error:  # not here, or damaged: listed, with the reason
        return {"name": name, "installed": False, "reason": str(error)}
    return {
        "name": name,
        "parts": [f"{name}/{part}" for part in PARTS.get(name, ())],
        "installed": True,
        "kind": info.kind,
        "input_shape": list(info.input_shape),
        "output_shape": list(info.output_shape),
        "parameters": info.size,
        "licence": info.metadata.get("licence"),
        "figures": info.metadata.get("figures", {}),
        "metadata": info.metadata,
    }


def _print_table(entries: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout)
    if not sys.stdout.isatty():
        console.width = 160
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("name", "kind", "shapes", "parameters", "licence", "figures"):
        right = heading == "parameters"
        table.add_column(heading, justify="right" if right else "left", no_wrap=heading == "name")
    for entry in entries:
        if not entry["installed"]:
            table.add_row(entry["name"], "-", "", "", "", entry["reason"], style="dim")
            continue
        table.add_row(
            entry["name"],
            entry["kind"],
            f"{entry['input_shape']} -> {entry['output_shape']}",
            f"{entry['parameters']:,}",
            str(entry["licence"]),
            ", ".join(
                [f"{k} {_short(v)}" for k, v in entry["figures"].items()]
                + ([f"parts: {', '.join(entry['parts'])}"] if entry["parts"] else [])
            ),
        )
    console.print(table, markup=False, highlight=False)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
