"""Images as PNG in `data:` URIs: film strips of chains, grids, maps.

A page stays below its limit however many chains there are: strips are thinned, then chains
left out, then images reduced, and the page says so.
"""

from __future__ import annotations

import base64
import io
import math
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Strips", "bytes_of", "grid", "picture", "strips", "uri"]

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


def uri(png: bytes) -> str:
    """A PNG as a `data:` URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def bytes_of(values: np.ndarray) -> bytes:
    """An image `[H, W, 1 or 3]` in [0, 1] as PNG."""
    from PIL import Image

    values = np.nan_to_num(np.asarray(values, np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    pixels = np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)
    made: Any = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    file = io.BytesIO()
    made.save(file, format="PNG", optimize=True)
    return file.getvalue()


def picture(values: np.ndarray, most: int = 256) -> str:
    """One image as a `data:` URI, reduced where it is larger than can be seen."""
    return uri(bytes_of(_reduced(values, math.ceil(max(values.shape[:2]) / most))))


def grid(images: np.ndarray, columns: int, most: int = 120_000) -> tuple[str, tuple[int, int]]:
    """Images `[N, H, W, channels]` as one picture with lines between; its size as well."""
    factor = 1
    while True:
        made = _grid(_reduced(images, factor), columns)
        png = bytes_of(made)
        if len(png) <= most or min(made.shape[:2]) <= 64:
            return uri(png), (made.shape[1], made.shape[0])
        factor *= 2


def strips(images: np.ndarray, budget: int) -> Strips:
    """Film strips of chains `[C, S, H, W, channels]` in at most `budget` bytes of PNG."""
    chains, count = images.shape[:2]
    draws = np.unique(np.linspace(0, count - 1, min(count, _MOST_FRAMES)).round().astype(int))
    factor = math.ceil(max(images.shape[2:4]) / 256)
    while True:
        first = bytes_of(_strip(images[0], draws, factor))
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
        png = bytes_of(_strip(images[chain], draws, factor))
        spent += len(png)
        if made and spent > budget:
            break
        made.append(uri(png))
    height, width = _reduced(images[0, :1], factor).shape[1:3]
    return Strips(tuple(made), which[: len(made)], draws, height, width)


def _strip(frames: np.ndarray, draws: np.ndarray, factor: int) -> np.ndarray:
    return np.concatenate(list(_reduced(frames[draws], factor)), axis=1)


def _grid(images: np.ndarray, columns: int) -> np.ndarray:
    """Images side by side, one pixel of mid grey between."""
    count, height, width, channels = images.shape
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), 0.5)
    for index, image in enumerate(images):
        y, x = (index // columns) * (height + 1), (index % columns) * (width + 1)
        sheet[y : y + height, x : x + width] = image
    return sheet


def _reduced(images: np.ndarray, factor: int) -> np.ndarray:
    """Box averages of factor x factor pixels, of `[..., H, W, channels]`."""
    if factor <= 1:
        return images
    *front, height, width, channels = images.shape
    h, w = max(height // factor, 1), max(width // factor, 1)
    fy, fx = height // h, width // w
    kept = images[..., : h * fy, : w * fx, :]
    return kept.reshape(*front, h, fy, w, fx, channels).mean(axis=(-4, -2))
