"""A network that is a list of layers, described by data.

The description is a list of dictionaries, `{"type": "conv", "out": 64, "kernel": 4, ...}`; it
is what `weights_convert.sequential` reads from a text file and what the metadata of a converted
file holds. `sequential_schema.SCHEMA` lists the types and their settings. The names and the
meaning of the settings are PyTorch's; sizes of inputs follow from the size of the network's
input.

Images are `[..., H, W, C]` here and (C, H, W) in PyTorch, which shows where an image becomes
a vector: `flatten` and `unflatten` use PyTorch's order, so that weights need no reordering.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from flax import nnx

from jaxgen.core.errors import expected
from jaxgen.core.types import Array
from jaxgen.models.ported.sequential_layers import (
    FUNCTIONS,
    GroupNorm,
    LayerNorm,
    PReLU,
    make,
    window_count,
)
from jaxgen.models.ported.sequential_schema import SCHEMA, pair, settings_of, sides

__all__ = ["LAYERS", "MOST_LAYERS", "Sequential", "check_layers"]

Shape = tuple[int, ...]
Settings = Mapping[str, Any]

_NAMES = ("type", "name", "source")
MOST_LAYERS = 1_000
_MOST_NUMBERS = 1 << 28
_MOST_PIXELS = 4096

LAYERS = tuple(SCHEMA)
"""The types that a description may have."""


class Sequential(nnx.Module):
    """The layers one after another.

    Args:
      input_shape: shape of one sample, `[features]` or `[H, W, C]`.
      layers: the description; see `LAYERS`. `name` in a layer names it in the weights,
        otherwise its position does; `source`, where its weights came from, is only kept.
    """

    def __init__(self, input_shape: Sequence[int], layers: Sequence[Settings], *, rngs: nnx.Rngs):
        layers, shapes = check_layers(input_shape, layers)
        self.spec = json.dumps(layers)
        self.input_shape, self.output_shape = shapes[0], shapes[-1]
        made = {}
        for layer, shape in zip(layers, shapes, strict=False):
            module = make(layer, shape, rngs)
            if module is not None:
                made[layer["name"]] = module
        self.layers = nnx.Dict(made)

    def __call__(self, x: Array) -> Array:
        """Return the output for one sample, or for a batch of them."""
        if x.shape[x.ndim - len(self.input_shape) :] != self.input_shape:
            raise expected("input", f"shape [..., {self.input_shape}]", x.shape)
        lead = x.ndim - len(self.input_shape)
        for layer in json.loads(self.spec):
            if layer["name"] not in self.layers:
                x = FUNCTIONS[layer["type"]](x, layer, x.ndim - lead)
                continue
            module = self.layers[layer["name"]]
            ranked = isinstance(module, GroupNorm | LayerNorm | PReLU)
            x = module(x, x.ndim - lead) if ranked else module(x)
        return x


def check_layers(
    input_shape: Sequence[int], layers: Sequence[Settings]
) -> tuple[list[dict[str, Any]], list[Shape]]:
    """Return the layers with all settings filled in, and the shape before each and after the last.

    Raises:
      InputError: naming every layer that is unknown, badly set or does not fit its input.
    """
    good = isinstance(input_shape, list | tuple) and all(type(n) is int for n in input_shape)
    shape: Shape = tuple(input_shape) if good else ()
    if len(shape) not in (1, 3) or min(shape) < 1 or math.prod(shape) > _MOST_NUMBERS:
        raise expected("input_shape", "[features] or [H, W, C]", f"{input_shape!r:.80}")
    if not isinstance(layers, list | tuple) or len(layers) > MOST_LAYERS:
        raise expected("layers", f"a list of at most {MOST_LAYERS} layers", f"{len(layers)}")
    complete: list[dict[str, Any]] = []
    shapes: list[Shape] = [shape]
    wrong: list[str] = []
    for position, layer in enumerate(layers):
        kind = layer.get("type") if isinstance(layer, Mapping) else None
        if not isinstance(kind, str) or kind not in SCHEMA:
            known = ", ".join(LAYERS)
            wrong.append(f"layer {position}: unknown type {kind!r:.80}, known: {known}")
            continue
        given = {key: value for key, value in layer.items() if key not in _NAMES}
        settings, mistakes = settings_of(kind, given)
        if mistakes:
            wrong += [f"layer {position} ({kind}): {mistake}" for mistake in mistakes]
            continue
        name = str(layer.get("name", position))
        settings = {"type": kind, "name": name, "source": layer.get("source", name), **settings}
        complete.append(settings)
        if wrong:  # the shape is not known any more
            continue
        try:
            shape = _after(settings, shape)
        except ValueError as error:
            wrong.append(f"layer {position} ({kind}): {error}")
            continue
        shapes.append(shape)
    names = [layer["name"] for layer in complete]
    wrong += [
        f"two layers are called {name!r}" for name in {n for n in names if names.count(n) > 1}
    ]
    if wrong:
        raise expected("layers", "a list of known layers that fit each other", "; ".join(wrong))
    return complete, shapes


def _after(layer: Settings, shape: Shape) -> Shape:
    """Return the shape after a layer, or raise ValueError if it does not fit the shape before."""
    after = _shape(layer, shape)
    if after and min(after) < 1:
        raise ValueError(f"nothing is left of an input of shape {shape}")
    if math.prod(after) > _MOST_NUMBERS:
        raise ValueError(f"its output {after} has over {_MOST_NUMBERS} numbers")
    kind = layer["type"]
    if kind in ("linear", "conv", "conv_transpose"):
        window = pair(layer["kernel"]) if kind != "linear" else ()
        if math.prod((shape[-1], layer["out"], *window)) > _MOST_NUMBERS:
            raise ValueError(f"its weight has over {_MOST_NUMBERS} numbers")
    matrices = kind == "adaptive_avg_pool" or layer.get("mode") == "bilinear"
    if matrices and max(*shape[:2], *after[:2]) > _MOST_PIXELS:
        raise ValueError(f"interpolates more than {_MOST_PIXELS} rows or columns")
    return after


def _shape(layer: Settings, shape: Shape) -> Shape:
    kind = layer["type"]
    if kind == "linear":
        if len(shape) != 1:
            raise ValueError(f"needs a vector, but its input has shape {shape}; flatten it first")
        return (layer["out"],)
    if kind == "flatten":
        return (math.prod(shape),)
    if kind == "scalar":
        if shape != (1,):
            raise ValueError(f"needs a vector of one element, but its input has shape {shape}")
        return ()
    if kind == "unflatten":
        c, h, w = layer["shape"]
        if math.prod(shape) != c * h * w or len(shape) != 1:
            raise ValueError(f"{shape} cannot become (C, H, W) = {(c, h, w)}")
        return (h, w, c)
    if kind in ("prelu", "group_norm", "layer_norm", "hardtanh", "standardise"):
        _check_fit(layer, shape)
        return shape
    if kind == "instance_norm":
        if len(shape) != 3 or shape[0] * shape[1] < 2:
            raise ValueError(f"needs an image of several pixels, but its input has shape {shape}")
        return shape
    return _image_shape(layer, shape) if kind in _ON_IMAGES else shape


_ON_IMAGES = (
    "conv", "conv_transpose", "max_pool", "avg_pool", "upsample", "adaptive_avg_pool",
    "pixel_shuffle", "zero_pad", "constant_pad", "reflection_pad", "replication_pad",
)  # fmt: skip


def _check_fit(layer: Settings, shape: Shape) -> None:
    """Check settings that must agree with the input's channels, or with each other."""
    kind, channels = layer["type"], shape[-1] if shape else 0
    if kind == "prelu" and layer["count"] not in (1, channels):
        raise ValueError(f"count: expected 1 or {channels}; got {layer['count']}")
    if kind == "group_norm" and (channels == 0 or channels % layer["groups"]):
        raise ValueError(f"groups: expected a divisor of {channels}; got {layer['groups']}")
    if kind == "hardtanh" and layer["low"] >= layer["high"]:
        raise ValueError(f"low: expected one below high; got {layer['low']} and {layer['high']}")
    if kind == "standardise" and layer["mean"]:
        sizes = {len(layer["mean"]), len(layer["std"])}
        if sizes != {channels} and sizes != {1}:
            raise ValueError(f"mean and std: expected {channels} numbers each")
    if kind == "layer_norm" and layer["shape"] is not None:
        theirs = list(shape) if len(shape) != 3 else [shape[2], *shape[:2]]
        if layer["shape"] != theirs:
            raise ValueError(f"shape: expected that of the whole input, {theirs}")


def _image_shape(layer: Settings, shape: Shape) -> Shape:
    kind = layer["type"]
    if len(shape) != 3:
        raise ValueError(f"needs an image, but its input has shape {shape}")
    *size, channels = shape
    if kind == "upsample":
        if layer["align_corners"] and layer["mode"] == "nearest":
            raise ValueError('align_corners: expected false with mode "nearest"')
        return (*(n * f for n, f in zip(size, pair(layer["factor"]), strict=True)), channels)
    if kind == "adaptive_avg_pool":
        return (*pair(layer["size"]), channels)
    if kind == "pixel_shuffle":
        r = layer["factor"]
        if channels % (r * r):
            raise ValueError(f"factor: {channels} channels are no multiple of {r * r}")
        return (size[0] * r, size[1] * r, channels // (r * r))
    if kind.endswith("_pad"):
        left, right, top, bottom = sides(layer["padding"])
        if kind == "reflection_pad" and (
            max(left, right) >= size[1] or max(top, bottom) >= size[0]
        ):
            raise ValueError(f"padding: expected less than the image, {tuple(size)}")
        return (size[0] + top + bottom, size[1] + left + right, channels)
    kernel, stride = pair(layer["kernel"]), pair(layer["stride"] or layer["kernel"])
    padding = pair(layer["padding"])
    each = list(zip(size, kernel, stride, padding, strict=True))
    if kind.endswith("pool"):
        if any(2 * p > k for _, k, _, p in each):
            raise ValueError(f"padding: expected at most half the kernel; got {layer['padding']}")
        ceil = layer["ceil"]
        return (*(window_count(n, k, s, p, ceil) for n, k, s, p in each), channels)
    if channels % layer["groups"] or layer["out"] % layer["groups"]:
        wanted = f"a divisor of {channels} inputs and {layer['out']} outputs"
        raise ValueError(f"groups: expected {wanted}; got {layer['groups']}")
    spread = [d * (k - 1) + 1 for d, k in zip(pair(layer["dilation"]), kernel, strict=True)]
    if kind == "conv":
        counts = [(n + 2 * p - k) // s + 1 for (n, _, s, p), k in zip(each, spread, strict=True)]
        return (*counts, layer["out"])
    more = pair(layer["output_padding"])
    if any(
        m and m >= max(s, d) for m, s, d in zip(more, stride, pair(layer["dilation"]), strict=True)
    ):
        raise ValueError("output_padding: expected less than the stride or the dilation")
    counts = [
        (n - 1) * s - 2 * p + k + m for (n, _, s, p), k, m in zip(each, spread, more, strict=True)
    ]
    return (*counts, layer["out"])
