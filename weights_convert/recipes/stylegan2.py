"""StyleGAN2 generators: state dicts of rosinality/stylegan2-pytorch and of NVIDIA's networks.

NVIDIA's own files are pickled programs, which are refused; save `G_ema.state_dict()`. Models
with class labels, and the clamping of half-precision layers, are not covered.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np

from jaxgen.core.errors import InputError
from weights_convert.layouts import Transform, conv, dense
from weights_convert.recipes import Config, Recipe, State, shape_of

__all__ = ["RECIPE"]

_LR = 0.01  # of the mapping network
_NVIDIA, _ROSINALITY = "nvidia", "rosinality"


def _config(state: State, options: Config) -> dict[str, Any]:
    if "synthesis.b4.const" in state:
        channels, size = [shape_of(state, "synthesis.b4.const", 3, "stylegan2")[0]], 8
        while f"synthesis.b{size}.conv1.weight" in state:
            channels.append(shape_of(state, f"synthesis.b{size}.conv1.weight", 4, "stylegan2")[0])
            size *= 2
        layers, dialect = [f"mapping.fc{i}.weight" for i in range(99)], _NVIDIA
    else:
        channels, i = [shape_of(state, "input.input", 4, "stylegan2")[1]], 1
        while f"convs.{i}.conv.weight" in state:
            channels.append(shape_of(state, f"convs.{i}.conv.weight", 5, "stylegan2")[1])
            i += 2
        layers, dialect = [f"style.{i}.weight" for i in range(1, 99)], _ROSINALITY
    mapping = [key for key in layers if key in state]
    if not mapping:
        raise InputError(f"recipe stylegan2: no mapping network, such as {layers[0]}")
    for key, value in state.items():
        if re.search(r"(blur\.kernel|upsample\.kernel|resample_filter)$", key):
            taps = np.array([1, 3, 3, 1], np.float32)
            wanted = np.outer(taps, taps) / taps.sum() ** 2
            got = np.asarray(value, np.float32)
            if got.shape != wanted.shape or not np.allclose(got / got.sum(), wanted, atol=1e-6):
                raise InputError(f"recipe stylegan2: {key}: a filter other than (1, 3, 3, 1)")
    style, latent = shape_of(state, mapping[0], 2, "stylegan2")
    return {
        "latent": latent,
        "style": style,
        "mapping": len(mapping),
        "channels": channels,
        "dialect": dialect,
    }


def _names(config: Config) -> dict[str, tuple[str, str, str]]:
    """Layer here -> its path there, its noise's key, its strength's key ("" for RGB)."""
    count = len(config["channels"])
    names = {}
    for i in range(count):
        size = 4 * 2**i
        here = f"blocks.{i - 1}." if i else ""
        if config["dialect"] == _NVIDIA:
            there = f"synthesis.b{size}"
            convs = ["conv0", "conv1"] if i else ["conv1"]
            paths = [
                (f"{there}.{c}", f"{there}.{c}.noise_const", f"{there}.{c}.noise_strength")
                for c in convs
            ]
            rgb = f"{there}.torgb"
        else:
            numbers = [2 * i - 2, 2 * i - 1] if i else [-1]
            paths = []
            for n in numbers:
                base = f"convs.{n}" if i else "conv1"
                paths.append((base, f"noises.noise_{n + 1}", f"{base}.noise.weight"))
            rgb = f"to_rgbs.{i - 1}" if i else "to_rgb1"
        for name, path in zip(["conv0", "conv1"] if i else ["conv"], paths, strict=True):
            names[here + name] = path
        names[f"{here}rgb"] = (rgb, "", "")
    return names


def _special(config: Config) -> dict[str, tuple[str, Transform]]:
    nvidia = config["dialect"] == _NVIDIA
    special: dict[str, tuple[str, Transform]] = {
        "const": ("synthesis.b4.const" if nvidia else "input.input", _constant)
    }
    for i in range(config["mapping"]):
        source = f"mapping.fc{i}" if nvidia else f"style.{i + 1}"
        special[f"mapping.{i}.kernel"] = (f"{source}.weight", _equal_dense(_LR))
        special[f"mapping.{i}.bias"] = (f"{source}.bias", lambda b: b * np.float32(_LR))
    for layer, (source, noise, strength) in _names(config).items():
        rgb = not noise
        inner = source if nvidia else f"{source}.conv"
        affine = f"{inner}.{'affine' if nvidia else 'modulation'}"
        bias = f"{source}.bias" if nvidia or rgb else f"{source}.activate.bias"
        # NVIDIA leaves the constant out where demodulation undoes it (all but its epsilon).
        scaled = rgb or not nvidia
        special[f"{layer}.affine.kernel"] = (f"{affine}.weight", _equal_dense(1.0))
        special[f"{layer}.affine.bias"] = (f"{affine}.bias", _identity)
        special[f"{layer}.kernel"] = (f"{inner}.weight", _kernel if scaled else conv)
        special[f"{layer}.bias"] = (bias, lambda b: b.reshape(-1))
        if noise:
            special[f"{layer}.noise"] = (noise, lambda x: x.reshape(x.shape[-2:]))
            special[f"{layer}.noise_strength"] = (strength, lambda x: x.reshape(()))
    return special


def _identity(array: np.ndarray) -> np.ndarray:
    return array


def _constant(array: np.ndarray) -> np.ndarray:
    """([1,] C, 4, 4) to (4, 4, C)."""
    return array.reshape(array.shape[-3:]).transpose(1, 2, 0)


def _kernel(weight: np.ndarray) -> np.ndarray:
    """([1,] O, I, kh, kw) to (kh, kw, I, O), over the square root of the fan-in."""
    weight = weight.reshape(weight.shape[-4:])
    return conv(weight) / np.float32(math.sqrt(weight[0].size))


def _equal_dense(rate: float) -> Transform:
    return lambda weight: dense(weight) * np.float32(rate / math.sqrt(weight.shape[1]))


def _reference(config: Config) -> Any:
    from weights_convert.reference_gans import stylegan2

    if config["dialect"] == _NVIDIA:
        raise InputError("recipe stylegan2: no reference for NVIDIA's names; compare by hand")
    return stylegan2(config["latent"], config["style"], config["mapping"], config["channels"])


RECIPE = Recipe(
    name="stylegan2",
    about="StyleGAN2 generators of rosinality/stylegan2-pytorch, or NVIDIA's state dicts",
    architecture="stylegan2.StyleGAN2",
    config=_config,
    special=_special,
    ignore=lambda options: [
        r".*(blur\.kernel|upsample\.kernel|resample_filter)",
        r"mapping\.w_avg",
    ],
    metadata=lambda config: {
        "preprocessing": "latent standard normal; constant noise; no truncation; not clipped"
    },
    reference=_reference,
    taps=lambda config: {layer: names[0] for layer, names in _names(config).items()},
    reference_output=lambda config, x: 0.5 * x + 0.5,
)
