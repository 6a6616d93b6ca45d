"""A network that is a list of layers, described by data.

The description is a list of dictionaries, `{"type": "conv", "out": 64, "kernel": 4, ...}`; it
is what `weights_convert.sequential` reads from a text file and what the metadata of a converted
file holds. `LAYERS` lists the types and their settings. The names and the meaning of the
settings are PyTorch's; sizes of inputs follow from the size of the network's input.

Images are `[..., H, W, C]` here and (C, H, W) in PyTorch, which shows where an image becomes
a vector: `flatten` and `unflatten` use PyTorch's order, so that weights need no reordering.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxgen.core.errors import expected
from jaxgen.core.types import Array
from jaxgen.models.conv.layers import Conv, ConvTranspose
from jaxgen.models.ported.blocks import (
    adaptive_avg_pool,
    avg_pool,
    batch_norm,
    max_pool,
    standardise,
    upsample,
)

__all__ = ["LAYERS", "Sequential", "check_layers"]

Shape = tuple[int, ...]
Settings = Mapping[str, Any]

_REQUIRED = object()
_NAMES = ("type", "name", "source")

LAYERS: dict[str, dict[str, Any]] = {
    "linear": {"out": _REQUIRED, "bias": True},
    "conv": {
        "out": _REQUIRED, "kernel": _REQUIRED, "stride": 1, "padding": 0, "groups": 1, "bias": True,
    },
    "conv_transpose": {
        "out": _REQUIRED, "kernel": _REQUIRED, "stride": 1, "padding": 0, "bias": True,
    },
    "batch_norm": {"eps": 1e-5},
    "relu": {},
    "leaky_relu": {"slope": 0.01},
    "elu": {"alpha": 1.0},
    "gelu": {"approximate": False},
    "silu": {},
    "softplus": {},
    "tanh": {},
    "sigmoid": {},
    "softmax": {},
    "log_softmax": {},
    "max_pool": {"kernel": _REQUIRED, "stride": None, "padding": 0, "ceil": False},
    "avg_pool": {"kernel": _REQUIRED, "stride": None, "padding": 0},
    "adaptive_avg_pool": {"size": _REQUIRED},
    "flatten": {},
    "unflatten": {"shape": _REQUIRED},
    "upsample": {"factor": 2},
    "pixel_norm": {"eps": 1e-8},
    "standardise": {"mean": _REQUIRED, "std": _REQUIRED},
    "to_unit": {},
    "from_unit": {},
    "scalar": {},
    "identity": {},
    "dropout": {"p": 0.5},
}  # fmt: skip
"""Type -> settings and their defaults. `to_unit` maps [-1, 1] to [0, 1], `from_unit` back;
`unflatten` takes (C, H, W); `scalar` makes a vector of one element a number; `dropout` does
nothing, as at inference."""

_POINTWISE: dict[str, Callable[[Array, Settings], Array]] = {
    "relu": lambda x, s: jax.nn.relu(x),
    "leaky_relu": lambda x, s: jax.nn.leaky_relu(x, s["slope"]),
    "elu": lambda x, s: jax.nn.elu(x, s["alpha"]),
    "gelu": lambda x, s: jax.nn.gelu(x, approximate=s["approximate"]),
    "silu": lambda x, s: jax.nn.silu(x),
    "softplus": lambda x, s: jax.nn.softplus(x),
    "tanh": lambda x, s: jnp.tanh(x),
    "sigmoid": lambda x, s: jax.nn.sigmoid(x),
    "softmax": lambda x, s: jax.nn.softmax(x),
    "log_softmax": lambda x, s: jax.nn.log_softmax(x),
    "pixel_norm": lambda x, s: x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + s["eps"]),
    "standardise": lambda x, s: standardise(x, s["mean"], s["std"]),
    "to_unit": lambda x, s: 0.5 * x + 0.5,
    "from_unit": lambda x, s: 2.0 * x - 1.0,
    "scalar": lambda x, s: x[..., 0],
    "identity": lambda x, s: x,
    "dropout": lambda x, s: x,
}


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
            module = _make(layer, shape, rngs)
            if module is not None:
                made[layer["name"]] = module
        self.layers = nnx.Dict(made)

    def __call__(self, x: Array) -> Array:
        if x.shape[x.ndim - len(self.input_shape) :] != self.input_shape:
            raise expected("input", f"shape [..., {self.input_shape}]", x.shape)
        lead = x.shape[: x.ndim - len(self.input_shape)]
        for layer in json.loads(self.spec):
            kind = layer["type"]
            if kind in _POINTWISE:
                x = _POINTWISE[kind](x, layer)
            elif kind == "flatten":
                if x.ndim - len(lead) == 3:
                    x = jnp.moveaxis(x, -1, -3).reshape((*lead, -1))
            elif kind == "unflatten":
                x = jnp.moveaxis(x.reshape((*lead, *layer["shape"])), -3, -1)
            elif kind == "max_pool":
                x = max_pool(x, layer["kernel"], layer["stride"], layer["padding"], layer["ceil"])
            elif kind == "avg_pool":
                x = avg_pool(x, layer["kernel"], layer["stride"], layer["padding"])
            elif kind == "adaptive_avg_pool":
                x = adaptive_avg_pool(x, layer["size"])
            elif kind == "upsample":
                x = upsample(x, layer["factor"])
            else:
                x = self.layers[layer["name"]](x)
        return x


def check_layers(
    input_shape: Sequence[int], layers: Sequence[Settings]
) -> tuple[list[dict[str, Any]], list[Shape]]:
    """The layers with all settings filled in, and the shape before each and after the last.

    Raises:
      InputError: naming every layer that is unknown, badly set or does not fit its input.
    """
    shape: Shape = tuple(int(n) for n in input_shape)
    if len(shape) not in (1, 3) or min(shape) < 1:
        raise expected("input_shape", "[features] or [H, W, C]", list(input_shape))
    complete: list[dict[str, Any]] = []
    shapes: list[Shape] = [shape]
    wrong: list[str] = []
    for position, layer in enumerate(layers):
        kind = layer.get("type")
        if kind not in LAYERS:
            known = ", ".join(LAYERS)
            wrong.append(f"layer {position}: unknown type {kind!r}, known: {known}")
            continue
        settings = {key: layer.get(key, default) for key, default in LAYERS[kind].items()}
        missing = [key for key, value in settings.items() if value is _REQUIRED]
        extra = [key for key in layer if key not in settings and key not in _NAMES]
        if missing or extra:
            wrong += [f"layer {position} ({kind}): {key} is missing" for key in missing]
            wrong += [f"layer {position} ({kind}): no setting {key!r}" for key in extra]
            continue
        name = str(layer.get("name", position))
        settings = {"type": kind, "name": name, "source": layer.get("source", name), **settings}
        complete.append(settings)
        try:
            shape = _after(settings, shape)
        except ValueError as error:
            wrong.append(f"layer {position} ({kind}): {error}")
            break
        shapes.append(shape)
    names = [layer["name"] for layer in complete]
    wrong += [
        f"two layers are called {name!r}" for name in {n for n in names if names.count(n) > 1}
    ]
    if wrong:
        raise expected("layers", "a list of known layers that fit each other", "; ".join(wrong))
    return complete, shapes


def _after(layer: Settings, shape: Shape) -> Shape:
    """The shape after a layer."""
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
    if kind not in ("conv", "conv_transpose", "max_pool", "avg_pool", "upsample",
                    "adaptive_avg_pool"):  # fmt: skip
        return shape
    if len(shape) != 3:
        raise ValueError(f"needs an image, but its input has shape {shape}")
    *sides, channels = shape
    if kind == "upsample":
        return (*(n * layer["factor"] for n in sides), channels)
    if kind == "adaptive_avg_pool":
        return (layer["size"], layer["size"], channels)
    kernel, pad = layer["kernel"], layer["padding"]
    stride = layer["stride"] or kernel
    if kind == "conv_transpose":
        sides = [(n - 1) * stride + kernel - 2 * pad for n in sides]
    else:
        over = [n + 2 * pad - kernel for n in sides]
        sides = [n // stride + 1 for n in over]
        if layer.get("ceil"):
            full = [-(-n // stride) + 1 for n in over]
            sides = [
                f - 1 if (f - 1) * stride >= n + pad else f
                for f, n in zip(full, shape, strict=False)
            ]
    if min(sides) < 1:
        raise ValueError(f"nothing is left of an input of shape {shape}")
    return (*sides, channels if kind.endswith("pool") else layer["out"])


def _make(layer: Settings, shape: Shape, rngs: nnx.Rngs) -> nnx.Module | None:
    kind, inputs = layer["type"], shape[-1]
    if kind == "linear":
        return nnx.Linear(inputs, layer["out"], use_bias=layer["bias"], rngs=rngs)
    if kind == "batch_norm":
        return batch_norm(inputs, rngs, layer["eps"])
    if kind == "conv":
        return Conv(
            inputs, layer["out"], layer["kernel"], stride=layer["stride"],
            padding=layer["padding"], groups=layer["groups"], use_bias=layer["bias"], rngs=rngs,
        )  # fmt: skip
    if kind == "conv_transpose":
        return ConvTranspose(
            inputs, layer["out"], layer["kernel"], stride=layer["stride"],
            padding=layer["padding"], use_bias=layer["bias"], rngs=rngs,
        )  # fmt: skip
    return None
