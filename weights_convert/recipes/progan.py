"""Progressive GAN generators as in facebookresearch/pytorch_GAN_zoo (and torch.hub's PGAN).

Its layers multiply output and bias by sqrt(2 / fan_in) when they run; here that goes into the
weights. Of the layers to RGB only the last is used once the network has grown.
"""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np

from jaxgen.core.errors import InputError
from weights_convert.layouts import Transform, conv, dense_before_reshape, vector_before_reshape
from weights_convert.recipes import Config, Recipe, State, shape_of

__all__ = ["RECIPE"]


def _config(state: State, options: Config) -> dict[str, Any]:
    state = _prepare(state, {})
    wide, latent = shape_of(state, "formatLayer.weight", 2, "progan")
    scales = {int(m[1]) for key in state if (m := re.match(r"scaleLayers\.(\d+)\.", key))}
    if scales != set(range(len(scales))) or wide % 16:
        raise InputError(f"recipe progan: scales {sorted(scales)}, format layer of {wide}")
    channels = [wide // 16] + [
        shape_of(state, f"scaleLayers.{i}.1.weight", 4, "progan")[0] for i in sorted(scales)
    ]
    rgb = shape_of(state, f"toRGBLayers.{len(scales)}.weight", 4, "progan")
    return {"latent": latent, "channels": channels, "colours": rgb[0], "slope": 0.2}


def _special(config: Config) -> dict[str, tuple[str, Transform]]:
    channels = config["channels"]
    first = channels[0]
    plan = {
        "dense": ("formatLayer", config["latent"], dense_before_reshape(first, 4, 4),
                  vector_before_reshape(first, 4, 4)),
        "conv": ("groupScale0.0", 9 * first, conv, _same),
        "rgb": (f"toRGBLayers.{len(channels) - 1}", channels[-1], conv, _same),
    }  # fmt: skip
    for i, (before, after) in enumerate(itertools.pairwise(channels)):
        plan[f"blocks.{i}.conv0"] = (f"scaleLayers.{i}.0", 9 * before, conv, _same)
        plan[f"blocks.{i}.conv1"] = (f"scaleLayers.{i}.1", 9 * after, conv, _same)
    special: dict[str, tuple[str, Transform]] = {}
    for layer, (source, fan_in, weight, bias) in plan.items():
        scale = math.sqrt(2.0 / fan_in)
        special[f"{layer}.kernel"] = (f"{source}.weight", _scaled(scale, weight))
        special[f"{layer}.bias"] = (f"{source}.bias", _scaled(scale, bias))
    return special


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _scaled(scale: float, transform: Transform) -> Transform:
    return lambda array: transform(array) * np.float32(scale)


def _prepare(state: State, config: Config) -> State:
    """Drop `.module`, which some versions write into names, and smaller sizes' layers to RGB."""
    state = {key.replace(".module.", "."): value for key, value in state.items()}
    last = len(config.get("channels", ())) - 1
    return {
        key: value
        for key, value in state.items()
        if last < 0 or not (m := re.match(r"toRGBLayers\.(\d+)\.", key)) or int(m[1]) >= last
    }


def _reference(config: Config) -> Any:
    from weights_convert.reference_gans import progan

    return progan(config["latent"], config["channels"], config["colours"])


RECIPE = Recipe(
    name="progan",
    about="Progressive GAN generators of pytorch_GAN_zoo and torch.hub",
    architecture="progan.ProGAN",
    config=_config,
    special=_special,
    prepare=_prepare,
    metadata=lambda config: {"preprocessing": "latent standard normal; image not clipped"},
    reference=_reference,
    taps=lambda config: {"dense": ""},  # its pixels come in another order
    reference_output=lambda config, x: 0.5 * x + 0.5,
)
