"""Several networks in one file: a description names parts of its graph.

    "variants": {"128": {"outputs": ["image_128"]},
                 "synthesis": {"inputs": [{"name": "w", "shape": [1, 512], "batch_axis": 0}],
                               "outputs": ["image"]}, ...}

A variant keeps only the layers that its outputs depend on, up to its inputs; what it does not
state is the whole network's. So a generator of large images comes with its smaller outputs, its
mapping and its synthesis network, and their weights are stored once. `rename` lets a variant
read one tensor in another's place, such as a fixed label instead of an input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxgen.core.errors import expected

__all__ = ["variant_of", "variants"]


def variants(description: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of a description's parts."""
    found = description.get("variants", {})
    if not isinstance(found, Mapping):
        raise expected("description.variants", "parts by name", repr(found)[:80])
    return tuple(map(str, found))


def variant_of(description: Mapping[str, Any], name: str | None = None) -> dict[str, Any]:
    """Return the description of a part of a graph, or for None of the graph's own outputs.

    Raises:
      InputError: for an unknown part, or one that is malformed.
    """
    part: Any = {}
    if name is not None:
        if name not in variants(description):
            known = ", ".join(variants(description)) or "none"
            hint = "Files of older versions lack newer parts: `jaxgen fetch` makes them anew"
            raise expected("variant", f"one of {known}", repr(name), hint)
        part = description["variants"][name]
    layers = description.get("layers")
    if not isinstance(part, Mapping) or not isinstance(layers, list):
        raise expected(f"description.variants: {name}", "inputs and outputs", repr(part)[:80])
    inputs = part.get("inputs", description.get("inputs"))
    outputs = part.get("outputs", description.get("outputs"))
    rename = part.get("rename", description.get("rename", {}))
    try:
        wanted = set(outputs)
        known = {entry["name"] for entry in inputs}
        kept: list[dict[str, Any]] = []
        for layer in reversed(layers):
            tops = set(layer["tops"]) - known
            if wanted & tops:
                bottoms = [rename.get(b, b) for b in layer["bottoms"]]
                wanted.update(b for b in bottoms if b not in known)
                kept.append({**layer, "bottoms": bottoms})
    except (TypeError, KeyError, AttributeError) as error:
        raise expected(f"description.variants: {name}", "a part of a graph", str(error)) from error
    return {**{k: v for k, v in description.items() if k not in ("variants", "rename")},
            "inputs": [e for e in inputs if e["name"] in wanted | _read(kept)],
            "outputs": list(outputs), "layers": kept[::-1]}  # fmt: skip


def _read(layers: list[dict[str, Any]]) -> set[str]:
    return {bottom for layer in layers for bottom in layer["bottoms"]}
