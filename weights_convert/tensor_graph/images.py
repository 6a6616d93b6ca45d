"""Preprocessing as part of the network: images are RGB in [0, 1] outside.

A classifier gets a first layer scale * x + shift, one number of each for every channel, with
the channels turned round for BGR; a generator a last one that brings its images to [0, 1];
one whose latent comes as an image of one pixel takes a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxgen.core.errors import expected
from weights_convert.tensor_graph.lowering import Converted

__all__ = ["Images", "with_images", "with_vectors"]


class Images(NamedTuple):
    """The difference between a network's images and RGB in [0, 1].

    Attributes:
      mean, deviation: of images in [0, 1] in RGB order: the network sees (x - mean) / deviation.
      bgr: whether the network's order is BGR.
      span: what a generator's darkest and lightest numbers are, such as (-1, 1); None for a
        network that reads images.
    """

    mean: Sequence[float] = (0.0,)
    deviation: Sequence[float] = (1.0,)
    bgr: bool = False
    span: tuple[float, float] | None = None


def with_images(converted: Converted, images: Images) -> Converted:
    """Return the network with such images on its one end.

    Raises:
      InputError: if it has several inputs (or outputs), or the numbers do not fit.
    """
    description = dict(converted.description)
    layers = list(description["layers"])
    arrays = dict(converted.arrays)
    names = {layer["name"] for layer in layers}
    if images.span is None:
        ends = description["inputs"]
        shape = ends[0]["shape"]
        if len(ends) != 1 or len(shape) != 4:
            raise expected("--mean, --std, --bgr", "a network of one image", f"{len(ends)} inputs")
        channels, inner = shape[1], ends[0]["name"]
        mean, deviation = (_numbers(name, values, channels) for name, values in (
            ("--mean", images.mean), ("--std", images.deviation)))  # fmt: skip
        if not (deviation > 0).all():
            raise expected("--std", "positive numbers", list(images.deviation))
        scale, shift = 1 / deviation, -mean / deviation
        outer = "image" if inner != "image" else "image:outside"
        description["inputs"] = [{**ends[0], "name": outer}]
        first = _affine("from_image", outer, inner, scale, shift, names, arrays)
        made = [first]
        if images.bgr:
            first["tops"] = [f"{inner}:rgb"]
            made.append(_turned("to_bgr", f"{inner}:rgb", inner, channels, names))
        description["layers"] = [*made, *layers]
    else:
        ends = description["outputs"]
        low, high = images.span
        if len(ends) != 1:
            raise expected("--span", "a network of one output", f"{len(ends)}: {ends}"[:200])
        if not low < high:
            raise expected("--span", "two numbers, the lower first", f"{low},{high}")
        name = ends[0]
        if images.bgr:
            layers.append(_turned("from_bgr", name, f"{name}:rgb", 3, names))
            name = f"{name}:rgb"
        # One number for all channels: their count is not known here.
        scale = {"input1": np.float32(1 / (high - low)).reshape(())}
        scale["input2"] = np.float32(-low / (high - low)).reshape(())
        title = _free("to_image", names)
        arrays[title] = {k: np.asarray(v) for k, v in scale.items()}
        layers.append({
            "name": title, "type": "Scaled", "bottoms": [name], "tops": ["image:0-1"],
            "config": {"constants": [1, 2]}, "parameters": {"input1": [], "input2": []},
        })  # fmt: skip
        description["layers"], description["outputs"] = layers, ["image:0-1"]
    record = images._asdict()
    metadata = {**converted.metadata, "preprocessing": record}
    return converted._replace(description=description, arrays=arrays, metadata=metadata)


def with_vectors(converted: Converted) -> Converted:
    """Return the network with vectors for inputs that are images of one pixel, (1, D, 1, 1)."""
    description = dict(converted.description)
    names = {layer["name"] for layer in description["layers"]}
    inputs, made = [], []
    for entry in description["inputs"]:
        shape = entry["shape"]
        if len(shape) == 4 and shape[0] == 1 and shape[2:] == [1, 1] and shape[1] > 1:
            outer = f"{entry['name']}:vector"
            made.append({
                "name": _free(f"from_vector_{entry['name']}", names), "type": "Reshape",
                "bottoms": [outer], "tops": [entry["name"]], "config": {"shape": list(shape)},
                "parameters": {},
            })  # fmt: skip
            entry = {**entry, "name": outer, "shape": shape[:2]}
        inputs.append(entry)
    description["inputs"] = inputs
    description["layers"] = [*made, *description["layers"]]
    return converted._replace(description=description)


def _affine(
    title: str,
    bottom: str,
    top: str,
    scale: np.ndarray,
    shift: np.ndarray,
    names: set[str],
    arrays: dict[str, dict[str, np.ndarray]],
) -> dict[str, Any]:
    name = _free(title, names)
    arrays[name] = {"input1": scale.astype(np.float32), "input2": shift.astype(np.float32)}
    return {
        "name": name, "type": "Affine", "bottoms": [bottom], "tops": [top],
        "config": {"constants": [1, 2]},
        "parameters": {"input1": [scale.size], "input2": [shift.size]},
    }  # fmt: skip


def _turned(title: str, bottom: str, top: str, channels: int, names: set[str]) -> dict[str, Any]:
    return {
        "name": _free(title, names), "type": "Gather", "bottoms": [bottom], "tops": [top],
        "config": {"axis": 1, "indices": list(range(channels))[::-1], "shape": [channels]},
        "parameters": {},
    }  # fmt: skip


def _numbers(name: str, values: Sequence[float], count: int) -> np.ndarray:
    array = np.asarray(values, np.float64).reshape(-1)
    array = np.broadcast_to(array, (count,)) if array.size == 1 else array
    if array.shape != (count,) or not np.isfinite(array).all():
        raise expected(name, f"1 or {count} finite numbers", list(values))
    return array


def _free(name: str, names: set[str]) -> str:
    while name in names:
        name += "_"
    names.add(name)
    return name
