"""The description of a graph, checked: it may come from a file of strangers.

See `jaxgen.models.caffe.graph` for what a description is.
"""

from __future__ import annotations

import json
import math
from typing import Any

from jaxgen.core.errors import expected

__all__ = ["FORMAT", "MOST_AXES", "MOST_ELEMENTS", "MOST_LAYERS", "checked"]

FORMAT = "caffe-graph-1"
MOST_AXES = 8
MOST_ELEMENTS = 1 << 28
MOST_LAYERS = 4_000


def checked(text: str, format: str = FORMAT) -> dict[str, Any]:
    """Parse a description and check its form: it may come from a file of strangers."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise expected("description", "a JSON document", f"not JSON ({error})") from error
    if not isinstance(document, dict) or document.get("format") != format:
        got = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise expected("description", f"format {format!r}", repr(got))
    for field in ("inputs", "layers", "outputs"):
        if not isinstance(document.get(field), list):
            raise expected(f"description.{field}", "a list", type(document.get(field)).__name__)
    if len(document["layers"]) > MOST_LAYERS:
        raise expected("description.layers", f"at most {MOST_LAYERS}", len(document["layers"]))
    known: set[str] = set()
    for i, entry in enumerate(document["inputs"]):
        _check_input(i, entry, format)
        known.add(entry["name"])
    seen: set[str] = set()
    for i, entry in enumerate(document["layers"]):
        _check_layer(i, entry)
        if entry["name"] in seen:
            raise expected("description.layers", "different names", f"{entry['name']!r} twice")
        seen.add(entry["name"])
        for bottom in entry["bottoms"]:
            if bottom not in known:
                wanted = "a blob that an input or an earlier layer makes"
                raise expected(f"layer {entry['name']!r}: bottom", wanted, repr(bottom))
        known.update(entry["tops"])
    if not document["outputs"] or not all(isinstance(name, str) for name in document["outputs"]):
        raise expected("description.outputs", "names of blobs", document["outputs"])
    for name in document["outputs"]:
        if name not in known:
            raise expected("description.outputs", "blobs that some layer makes", repr(name))
    return document


def _check_input(i: int, entry: Any, format: str) -> None:
    field = f"description.inputs[{i}]"
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise expected(field, "an object with a name and a shape", repr(entry)[:80])
    shape = entry.get("shape")
    if (
        not isinstance(shape, list)
        or not all(type(n) is int and n >= 1 for n in shape)
        or len(shape) > (4 if format == FORMAT else MOST_AXES)
        or math.prod(shape) > MOST_ELEMENTS
    ):
        most = "four" if format == FORMAT else "eight"
        raise expected(f"{field}.shape", f"up to {most} positive lengths", repr(shape)[:80])
    batch = entry.get("batch_axis", 0)
    if batch is not None and (
        type(batch) is not int or not 0 <= batch < len(shape) or shape[batch] != 1
    ):
        raise expected(f"{field}.batch_axis", "an axis of length 1, or null", repr(batch)[:80])


def _check_layer(i: int, entry: Any) -> None:
    field = f"description.layers[{i}]"
    if not isinstance(entry, dict):
        raise expected(field, "an object", repr(entry)[:80])
    for key in ("name", "type"):
        if not isinstance(entry.get(key), str) or not entry[key]:
            raise expected(f"{field}.{key}", "a name", repr(entry.get(key))[:80])
    for key in ("bottoms", "tops"):
        names = entry.get(key)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise expected(f"{field}.{key}", "a list of names", repr(names)[:80])
    if not isinstance(entry.get("config", {}), dict):
        raise expected(f"{field}.config", "an object", repr(entry["config"])[:80])
    shapes = entry.get("parameters", {})
    if not isinstance(shapes, dict) or not all(
        isinstance(shape, list)
        and all(type(n) is int and 0 <= n <= MOST_ELEMENTS for n in shape)
        and len(shape) <= MOST_AXES
        and math.prod(shape) <= MOST_ELEMENTS
        for shape in shapes.values()
    ):
        raise expected(f"{field}.parameters", "shapes by name", repr(shapes)[:80])
