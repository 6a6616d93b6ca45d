"""BigGAN-deep generators (128, 256, 512) of huggingface/pytorch-pretrained-BigGAN.

The file keeps statistics for 51 levels of truncation; the option `truncation` picks one, with
that package's own interpolation, and `label` the class that the network draws.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from jaxgen.core.errors import InputError, expected
from weights_convert.layouts import Transform, conv
from weights_convert.recipes import Config, Option, Recipe, State, shape_of

__all__ = ["RECIPE", "at_truncation", "without_spectral_norm"]


def without_spectral_norm(state: State) -> dict[str, np.ndarray]:
    """`weight_orig / (u . W v)` as `weight`, for every layer that has the three.

    W is `weight_orig` as a matrix, one row for each output.
    """
    result: dict[str, np.ndarray] = {}
    for key, value in state.items():
        base = re.sub(r"_(orig|u|v)$", "", key)
        parts = [state.get(f"{base}_{part}") for part in ("orig", "u", "v")]
        if base == key or any(part is None for part in parts):
            result[key] = value
        elif key.endswith("_orig"):
            matrix = value.reshape(value.shape[0], -1)
            if parts[1].shape != matrix.shape[:1] or parts[2].shape != matrix.shape[1:]:  # type: ignore[union-attr]
                raise InputError(f"{base}: its u and v do not fit a matrix of {matrix.shape}")
            result[base] = value / np.float32(parts[1] @ (matrix @ parts[2]))
    return result


def at_truncation(table: np.ndarray, truncation: float) -> np.ndarray:
    """One row of a table of statistics at 0, 1/50, ..., 1, interpolated as the package does."""
    coefficient, start = math.modf(truncation / (1.0 / (len(table) - 1)))
    row = table[int(start)]
    if coefficient != 0.0:
        row = row * np.float32(coefficient) + table[int(start) + 1] * np.float32(1 - coefficient)
    return row


def _config(state: State, options: Config) -> dict[str, Any]:
    truncation, label = options.get("truncation", 1.0), options.get("label", 0)
    if type(truncation) not in (int, float) or not 0.0 < truncation <= 1.0:
        raise expected("truncation", "a number above 0, at most 1", repr(truncation))
    latent, classes = shape_of(state, "embeddings.weight", 2, "biggan-deep")
    if type(label) is not int or not 0 <= label < classes:
        raise expected("label", f"a class from 0 to {classes - 1}", repr(label))
    width = shape_of(state, "generator.conv_to_rgb.weight_orig", 4, "biggan-deep")[0]
    numbers = sorted(
        {int(m[1]) for k in state if (m := re.match(r"generator\.layers\.(\d+)\.", k))}
    )
    found = [n for n in numbers if f"generator.layers.{n}.gamma" in state]
    if len(found) != 1 or numbers != list(range(len(numbers))):
        raise InputError(f"recipe biggan-deep: layers {numbers}, attention at {found}")
    layers = []
    for n in numbers:
        if n == found[0]:
            continue
        base = f"generator.layers.{n}.conv"
        inputs = shape_of(state, f"{base}_0.weight_orig", 4, "biggan-deep")[1]
        outputs = shape_of(state, f"{base}_3.weight_orig", 4, "biggan-deep")[0]
        layers.append([len(layers) % 2, inputs, outputs])  # every second block doubles the size
    return {
        "layers": layers,
        "width": width,
        "attention": found[0],
        "latent": latent,
        "classes": classes,
        "label": label,
        "epsilon": 1e-4,
        "truncation": float(truncation),
    }


def _source(path: str, config: Config) -> str:
    parts = path.split(".")
    if parts[0] == "embeddings":
        return path
    if parts[0] == "attention":
        return f"generator.layers.{config['attention']}.snconv1x1_{parts[1]}"
    if parts[0] == "blocks":
        number = int(parts[1])
        number += number >= config["attention"]
        return ".".join(["generator", "layers", str(number), *parts[2:]])
    return f"generator.{path}"


def _special(config: Config) -> dict[str, tuple[str, Transform]]:
    special: dict[str, tuple[str, Transform]] = {
        "attention.gamma": (f"generator.layers.{config['attention']}.gamma", lambda x: x),
        # The layer to RGB has as many outputs as inputs, of which three are used.
        "rgb.kernel": ("generator.conv_to_rgb.weight", lambda w: conv(w[:3])),
        "rgb.bias": ("generator.conv_to_rgb.bias", lambda b: b[:3]),
    }

    def at(table: np.ndarray) -> np.ndarray:
        return at_truncation(table, config["truncation"])

    for i in range(len(config["layers"])):
        for j in range(4):
            source = _source(f"blocks.{i}.bn_{j}", config)
            special[f"blocks.{i}.bn_{j}.mean"] = (f"{source}.running_means", at)
            special[f"blocks.{i}.bn_{j}.var"] = (f"{source}.running_vars", at)
    special["bn.mean"] = ("generator.bn.running_means", at)
    special["bn.var"] = ("generator.bn.running_vars", at)
    return special


def _reference(config: Config) -> Any:
    from weights_convert.reference_gans import biggan_deep

    return biggan_deep(config)


RECIPE = Recipe(
    name="biggan-deep",
    about="BigGAN-deep generators of pytorch-pretrained-BigGAN",
    architecture="biggan.BigGANDeep",
    config=_config,
    source=_source,
    special=_special,
    prepare=lambda state, config: without_spectral_norm(state),
    options={
        "truncation": Option("level of the statistics, above 0 and at most 1", 1.0),
        "label": Option("class to draw", 0),
    },
    assumed=lambda config, options: {
        name: config[name] for name in ("truncation", "label", "epsilon") if name not in options
    },
    folds=False,
    metadata=lambda config: {
        "preprocessing": f"latent: a standard normal truncated at 2, times {config['truncation']}"
    },
    reference=_reference,
    taps=lambda config: {"rgb": ""},  # three of its channels are kept
    reference_output=lambda config, x: 0.5 * x + 0.5,
)
