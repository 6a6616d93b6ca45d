"""Images as PNG in `data:` URIs: film strips of chains, grids, maps.

A page stays below its limit however many chains there are: strips are thinned, then chains
left out, then images reduced, and the page says so.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from jaxgen.core.printing import data_uri, png, sheet

__all__ = ["Strips", "grid", "picture", "strips"]

_MOST_FRAMES = 60
# Chains that a strip is kept of, at the least, before images are reduced.
_FEWEST = 4


class Strips(NamedTuple):
    """Film strips of some chains.

    Attributes:
      uris: one PNG a chain, its frames side by side.
      chains: which chains they are.
      draws: which draws they show.
      height, width: of one frame.
    """

    uris: tuple[str, ...]
    chains: np.ndarray
    draws: np.ndarray
    height: int
    width: int


def picture(values: np.ndarray, most: int = 256) -> str:
    """One image as a `data:` URI, reduced where it is larger than can be seen."""
    return data_uri(png(_reduced(values, math.ceil(max(values.shape[:2]) / most))))


def grid(images: np.ndarray, columns: int, most: int = 120_000) -> tuple[str, tuple[int, int]]:
    """Images `[N, H, W, channels]` as one picture with lines between; its size as well."""
    factor = 1
    while True:
        made = sheet(_reduced(images, factor), columns)
        data = png(made)
        if len(data) <= most or min(made.shape[:2]) <= 64:
            return data_uri(data), (made.shape[1], made.shape[0])
        factor *= 2


def strips(images: np.ndarray, budget: int) -> Strips:
    """Film strips of chains `[C, S, H, W, channels]` in at most `budget` bytes of PNG."""
    chains, count = images.shape[:2]
    draws = np.unique(np.linspace(0, count - 1, min(count, _MOST_FRAMES)).round().astype(int))
    factor = math.ceil(max(images.shape[2:4]) / 256)
    while True:
        first = png(_strip(images[0], draws, factor))
        fit = min(chains, int(budget // (1.15 * len(first))))
        if fit >= min(chains, _FEWEST):
            break
        if len(draws) > 12:
            draws = draws[::2]
        elif min(images.shape[2:4]) // factor > 24:
            factor *= 2
        else:
            fit = 1
            break
    which = np.unique(np.linspace(0, chains - 1, fit).round().astype(int))
    made, spent = [], 0
    for chain in which:
        data = png(_strip(images[chain], draws, factor))
        spent += len(data)
        if made and spent > budget:
            break
        made.append(data_uri(data))
    height, width = _reduced(images[0, :1], factor).shape[1:3]
    return Strips(tuple(made), which[: len(made)], draws, height, width)


def _strip(frames: np.ndarray, draws: np.ndarray, factor: int) -> np.ndarray:
    return np.concatenate(list(_reduced(frames[draws], factor)), axis=1)


def _reduced(images: np.ndarray, factor: int) -> np.ndarray:
    """Box averages of factor x factor pixels, of `[..., H, W, channels]`."""
    if factor <= 1:
        return images
    *front, height, width, channels = images.shape
    h, w = max(height // factor, 1), max(width // factor, 1)
    fy, fx = height // h, width // w
    kept = images[..., : h * fy, : w * fx, :]
    return kept.reshape(*front, h, fy, w, fx, channels).mean(axis=(-4, -2))
