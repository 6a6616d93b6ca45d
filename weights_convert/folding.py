"""Spectral and weight normalisation folded into the weights that they stand for.

In evaluation mode both are constants of the file. Old and new spellings of PyTorch:

    weight_orig, weight_u, weight_v              w = weight_orig / (u . W v)
    parametrizations.weight.original, .0._u, _v  the same
    weight_g, weight_v                           w = v * g / |v|
    parametrizations.weight.original0, .original1    the same, g first

W is the weight as a matrix whose rows are its axis `dim`: 0, but 1 for transposed convolutions.
|v| is the norm over the axes where g has length one.

References: Miyato et al., 2018, "Spectral normalization for generative adversarial networks";
Salimans and Kingma, 2016, "Weight normalization". The names are those that
`torch.nn.utils.spectral_norm`, `weight_norm` and their `parametrizations` write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from jaxgen.core.errors import InputError

__all__ = ["folded"]

_NEW = re.compile(r"(?:(.*)\.)?parametrizations\.(\w+)\.(original[01]?|0\._u|0\._v)")
_UNDO = "remove it in torch (torch.nn.utils.parametrize.remove_parametrizations) and save again"


def folded(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the state dict with plain weights, each where the first of its parts stood.

    Raises:
      InputError: for a parametrisation of another kind, parts that do not fit, or a square
        transposed convolution for which the file does not say along which axis it was
        normalised.
    """
    state, parts = _one_spelling(state)
    result: dict[str, np.ndarray] = {}
    for key, value in state.items():
        base = parts.get(key)
        if base is None:
            result[key] = value
        elif base not in result:
            result[base] = _weight(state, base)
    return result


def _one_spelling(
    state: Mapping[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the state dict with the old names, and part -> the weight that it belongs to."""
    renamed: dict[str, np.ndarray] = {}
    for key, value in state.items():
        if "parametrizations." not in key:
            renamed[key] = value
            continue
        match = _NEW.fullmatch(key)
        if match is None:
            raise InputError(
                f"{key}: a parametrisation that is neither spectral nor weight normalisation; "
                f"{_UNDO}"
            )
        path, name, part = match.groups()
        suffix = {
            "original": "_orig", "0._u": "_u", "0._v": "_v", "original0": "_g", "original1": "_v",
        }[part]  # fmt: skip
        renamed[f"{path}.{name}{suffix}" if path else f"{name}{suffix}"] = value
    parts: dict[str, str] = {}
    for key in renamed:
        for suffix, others in (("_orig", ("_u", "_v")), ("_g", ("_v",))):
            base = key.removesuffix(suffix)
            whole = [f"{base}{other}" for other in others]
            if base != key and base not in renamed and all(k in renamed for k in whole):
                parts |= dict.fromkeys([key, *whole], base)
    return renamed, parts


def _weight(state: Mapping[str, np.ndarray], base: str) -> np.ndarray:
    if f"{base}_g" in state:
        g, v = (np.asarray(state[f"{base}_{part}"], np.float64) for part in "gv")
        scalar = g.size == 1 and g.ndim == 0
        if not scalar and (
            g.ndim != v.ndim or any(a not in (1, b) for a, b in zip(g.shape, v.shape, strict=True))
        ):
            raise InputError(f"{base}: weight_norm's g {g.shape} does not fit v {v.shape}")
        axes = tuple(i for i in range(v.ndim) if scalar or g.shape[i] == 1)
        norm = np.sqrt((v * v).sum(axes, keepdims=True))
        if not norm.all():
            raise InputError(f"{base}: weight_norm divides by a norm of zero")
        return (v * (g / norm)).astype(np.float32)
    weight, u, v = (np.asarray(state[f"{base}_{part}"], np.float64) for part in ("orig", "u", "v"))
    sigma = _largest(base, weight, u.reshape(-1), v.reshape(-1))
    return (weight / sigma).astype(np.float32)


def _largest(base: str, weight: np.ndarray, u: np.ndarray, v: np.ndarray) -> float:
    """u . W v, for the axis that u and v fit."""
    found: list[tuple[float, float]] = []
    for dim in range(min(weight.ndim, 2)):
        matrix = np.moveaxis(weight, dim, 0).reshape(weight.shape[dim], -1)
        if matrix.shape != (u.size, v.size):
            continue
        image = matrix @ v
        length = float(np.linalg.norm(image))
        # u is W v of an earlier step, normalised: nearly so for the right axis.
        found.append((float(np.linalg.norm(image / max(length, 1e-30) - u)), float(u @ image)))
    if not found:
        raise InputError(
            f"{base}: spectral_norm's u and v of {u.size} and {v.size} numbers do not fit a "
            f"weight of shape {weight.shape}"
        )
    found.sort()
    if len(found) == 2 and found[0][0] > 0.3 * found[1][0]:
        raise InputError(
            f"{base}: spectral_norm of a square weight {weight.shape}; u and v do not say along "
            f"which axis: {_UNDO}"
        )
    if not found[0][1]:
        raise InputError(f"{base}: spectral_norm divides by zero")
    return found[0][1]
