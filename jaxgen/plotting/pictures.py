"""Pictures of draws: labelled grids and mosaics, drawn with Pillow alone.

Images are `[H, W, channels]` floats in [0, 1] with one or three channels. Pixels are
enlarged by repetition, so that a grid shows what the generator made and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxgen.core.errors import expected

__all__ = [
    "ReconstructionRow",
    "class_grid",
    "grid_cells",
    "heat",
    "masked",
    "mosaic",
    "reconstructions",
    "tile",
]

_PAPER, _INK, _FAINT = (255, 255, 255), (24, 24, 27), (113, 113, 122)
_HIDDEN = (56, 104, 140)
# Dark to bright with rising luminance, so that it also reads in grey.
_HEAT = np.array([[8, 8, 24], [66, 22, 110], [190, 52, 92], [246, 140, 40], [255, 246, 190]])
_GAP = 3
_FINER = 4


class ReconstructionRow(NamedTuple):
    """One row of `reconstructions`; images `[H, W, channels]`.

    Attributes:
      label, note: the row's name, and a fainter line under it.
      truth: the whole image, or None where nobody knows it.
      observed: what the sampler was shown, any size (see `masked`).
      mean: posterior mean.
      draws: three draws, or any number that all rows share.
      deviation: standard deviation of each pixel over the draws.
      interval: the ends of each pixel's credible interval, or None; all rows or none have it.
    """

    label: str
    note: str
    truth: np.ndarray | None
    observed: np.ndarray
    mean: np.ndarray
    draws: Sequence[np.ndarray]
    deviation: np.ndarray
    interval: tuple[np.ndarray, np.ndarray] | None = None


def tile(image: np.ndarray, scale: int = 1) -> Image.Image:
    """One image `[H, W, 1 or 3]` in [0, 1] as a picture, each pixel `scale` wide."""
    values = np.asarray(image, np.float32)
    if values.ndim != 3 or values.shape[-1] not in (1, 3):
        raise expected("image", "shape [H, W, 1] or [H, W, 3]", list(values.shape))
    pixels = np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)
    pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    return Image.fromarray(pixels.repeat(scale, 0).repeat(scale, 1))


def masked(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return an image with its hidden pixels in blue: `[H, W, 3]`; mask 1 where observed."""
    seen = np.asarray(mask).reshape(*image.shape[:2], -1)[..., :1] > 0
    return np.where(seen, image, np.asarray(_HIDDEN, np.float32) / 255)


def heat(values: np.ndarray, largest: float) -> np.ndarray:
    """Numbers `[H, W]` from 0 to `largest` as colours `[H, W, 3]` in [0, 1]."""
    position = np.clip(np.asarray(values) / largest, 0, 1)
    stops = np.linspace(0, 1, len(_HEAT))
    return np.stack([np.interp(position, stops, _HEAT[:, k] / 255) for k in range(3)], axis=-1)


def class_grid(
    rows: Sequence[np.ndarray], labels: Sequence[str], *, title: str = "", scale: int = 2
) -> Image.Image:
    """Rows of images, one row a label.

    Args:
      rows: arrays `[N, H, W, channels]`, as many as there are labels.
      labels: the rows' names.
      title: a line above the grid.
      scale: how wide a pixel is drawn.
    """
    if len(rows) != len(labels) or not rows:
        raise expected("labels", f"{len(rows)} names, one for each row", len(labels))
    cells = [[tile(image, scale) for image in row] for row in rows]
    return _table(cells, [(label, "") for label in labels], title=title)


def reconstructions(
    rows: Sequence[ReconstructionRow],
    *,
    title: str = "",
    observed: str = "observed",
    scale: int = 3,
) -> Image.Image:
    """Return a row for each image: truth, what was observed, posterior mean, draws, deviation.

    Rows with an interval also show an image of its lower and one of its upper ends.

    Args:
      rows: what to draw.
      title: a line above.
      observed: heading of the second column.
      scale: how wide a pixel is drawn.
    """
    if not rows:
        raise expected("rows", "at least one reconstruction", "none")
    # One scale for all rows, so that rows can be compared: tenths, at most the 0.5 that is
    # the largest standard deviation a number in [0, 1] can have.
    spread = [np.sqrt(np.mean(np.square(row.deviation), axis=-1)) for row in rows]
    largest = min(0.5, max(0.1, math.ceil(10 * max(float(s.max()) for s in spread) - 1e-6) / 10))
    size = (scale * rows[0].mean.shape[1], scale * rows[0].mean.shape[0])
    cells = []
    for row, deviation in zip(rows, spread, strict=True):
        truth = _unknown(size) if row.truth is None else tile(row.truth, scale)
        shown = tile(row.observed).resize(size, Image.Resampling.NEAREST)
        draws = [tile(draw, scale) for draw in row.draws]
        last = tile(heat(deviation, largest), scale)
        ends = [] if row.interval is None else [tile(end, scale) for end in row.interval]
        cells.append([truth, shown, tile(row.mean, scale), *draws, *ends, last])
    headings = ["truth", observed, "posterior mean"]
    headings += [f"sample {k + 1}" for k in range(len(rows[0].draws))]
    headings += [] if rows[0].interval is None else ["lower end", "upper end"]
    labels = [(row.label, row.note) for row in rows]
    table = _table(cells, labels, title=title, headings=[*headings, "std. deviation"])
    return _with_bar(table, largest)


def grid_cells(points: np.ndarray, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Assign the points of a plane to the cells of a regular grid, so that near points stay near.

    Each axis of the points is stretched to [0, 1], where the cells' centres are as well:
    g = (row / (R - 1), column / (C - 1)). The assignment is the one-to-one pi with the least

        sum_i |u_i - g_pi(i)|^2

    over points u (the linear assignment problem; time grows with the third power of their
    number, a second for about 2000). It puts an embedding of images, such as t-SNE's, in
    order for `mosaic`.

    Args:
      points: `[N, 2]`, (x, y): x goes along the columns, y down the rows.
      shape: (R, C), with at least N cells; the smallest square by default.

    Returns:
      `[N, 2]` integers (row, column), no two rows alike.

    Raises:
      InputError: for points that are not finite or not in a plane, or too few cells.
    """
    # Scipy's optimisation takes a while to import; jax itself needs scipy, so it is there.
    from scipy.optimize import linear_sum_assignment

    values = np.asarray(points, np.float64)
    if values.ndim != 2 or values.shape[1] != 2 or not len(values):
        raise expected("points", "shape [N, 2]", list(values.shape))
    if not np.all(np.isfinite(values)):
        raise expected("points", "finite numbers", "some that are not")
    if shape is None:
        side = math.isqrt(len(values) - 1) + 1
        shape = (side, side)
    rows, columns = shape
    if min(shape) < 1 or rows * columns < len(values):
        raise expected("shape", f"at least {len(values)} cells", f"{rows} x {columns}")
    low, extent = values.min(axis=0), np.ptp(values, axis=0)
    # Points that do not differ along an axis lie in its middle.
    unit = np.where(extent > 0, (values - low) / np.where(extent > 0, extent, 1.0), 0.5)[:, ::-1]
    cells = np.indices(shape).reshape(2, -1).T
    centres = np.where(np.array(shape) > 1, cells / np.maximum(np.array(shape) - 1, 1), 0.5)
    cost = np.sum((unit[:, None] - centres[None]) ** 2, axis=-1)
    _, chosen = linear_sum_assignment(cost)  # its first answer is 0, 1, .. N - 1
    return cells[chosen]


def mosaic(
    images: np.ndarray, cells: np.ndarray, *, title: str = "", scale: int = 1
) -> Image.Image:
    """Images edge to edge, each in its cell; cells without an image stay blank.

    Args:
      images: `[N, H, W, channels]`.
      cells: `[N, 2]` (row, column), as `grid_cells` gives them.
      title: a line above.
      scale: how wide a pixel is drawn.

    Raises:
      InputError: if the cells are not as many as the images, or two images share one.
    """
    places = np.asarray(cells)
    if places.shape != (len(images), 2) or not len(images):
        raise expected("cells", f"shape [{len(images)}, 2]", list(places.shape))
    if len(np.unique(places, axis=0)) < len(places) or places.min() < 0:
        raise expected("cells", "a cell of its own for each image", "cells that are shared")
    pictures = [tile(image, scale) for image in images]
    width, height = pictures[0].size
    rows, columns = places.max(axis=0) + 1
    top = 32 if title else 0
    wide = max(columns * width, math.ceil(_length(title, 16)) + 16 if title else 0)
    sheet = Image.new("RGB", (int(wide), int(top + rows * height)), _PAPER)
    for picture, (row, column) in zip(pictures, places, strict=True):
        sheet.paste(picture, (int(column) * width, top + int(row) * height))
    if title:
        _write(sheet, (8, 8), title, 16, anchor="la")
    return sheet


def _table(
    cells: Sequence[Sequence[Image.Image]],
    labels: Sequence[tuple[str, str]],
    *,
    title: str = "",
    headings: Sequence[str] = (),
) -> Image.Image:
    """Pictures of one size in rows, with labels on the left and headings above."""
    width, height = cells[0][0].size
    small, normal, large = 12, 14, 16
    left = 16 + max(max(_length(label, normal), _length(note, small)) for label, note in labels)
    left, right = math.ceil(left), 8
    top = 8 + (28 if title else 0) + (20 if headings else 0)
    columns = max(len(row) for row in cells)
    wide = left + columns * (width + _GAP) + right
    if title:
        wide = max(wide, math.ceil(_length(title, large)) + 16)
    sheet = Image.new("RGB", (wide, top + len(cells) * (height + _GAP) + 8), _PAPER)
    if title:
        _write(sheet, (8, 10), title, large, anchor="la")
    for column, heading in enumerate(headings):
        middle = left + column * (width + _GAP) + width / 2
        size = _fitting(heading, width + _GAP)
        _write(sheet, (middle, top - 7), heading, size, anchor="ms")
    for index, (row, (label, note)) in enumerate(zip(cells, labels, strict=True)):
        y = top + index * (height + _GAP)
        middle = y + height / 2
        _write(sheet, (left - 8, middle - 2), label, normal, anchor="rs" if note else "rm")
        if note:
            _write(sheet, (left - 8, middle + 4), note, small, anchor="rt", colour=_FAINT)
        for column, cell in enumerate(row):
            sheet.paste(cell, (left + column * (width + _GAP), y))
    return sheet


def _with_bar(sheet: Image.Image, largest: float) -> Image.Image:
    """Add the colour scale of the last column below a table."""
    bar = (160, 10)
    result = Image.new("RGB", (sheet.width, sheet.height + 42), _PAPER)
    result.paste(sheet, (0, 0))
    draw = ImageDraw.Draw(result)
    x, y = sheet.width - bar[0] - 16, sheet.height + 6
    ramp = np.broadcast_to(np.linspace(0, largest, bar[0]), bar[::-1])
    result.paste(tile(heat(ramp, largest)), (x, y))
    for fraction in (0.0, 0.5, 1.0):
        text = f"{fraction * largest:.2g}"
        draw.line([x + fraction * (bar[0] - 1), y + bar[1], x + fraction * (bar[0] - 1), y + 13])
        _write(result, (x + fraction * (bar[0] - 1), y + 15), text, 12, anchor="mt")
    caption = "standard deviation of a pixel over the draws (black 0, white 1)"
    _write(result, (x - 12, y + bar[1] / 2), caption, 12, anchor="rm")
    return result


def _unknown(size: tuple[int, int]) -> Image.Image:
    cell = Image.new("RGB", size, (228, 228, 231))
    _write(cell, (size[0] / 2, size[1] / 2), "?", 24, anchor="mm", colour=_FAINT)
    return cell


def _fitting(text: str, width: int) -> int:
    return next((size for size in (14, 13, 12, 11) if _length(text, size) <= width), 10)


def _length(text: str, size: int) -> float:
    return _font(size * _FINER).getlength(text) / _FINER


def _write(
    sheet: Image.Image,
    position: tuple[float, float],
    text: str,
    size: int,
    *,
    anchor: str,
    colour: tuple[int, int, int] = _INK,
) -> None:
    """Draw a line of text finely and reduce it: small letters keep their spacing."""
    x, y = round(position[0]), round(position[1])
    reach = math.ceil(_length(text, size)) + size
    box = (max(x - reach, 0), max(y - 2 * size, 0), x + reach, y + 2 * size)
    fine = Image.new("L", (_FINER * (box[2] - box[0]), _FINER * (box[3] - box[1])))
    place = (_FINER * (x - box[0]), _FINER * (y - box[1]))
    ImageDraw.Draw(fine).text(place, text, 255, _font(size * _FINER), anchor=anchor)
    sheet.paste(colour, box[:2], fine.reduce(_FINER))


def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)  # Pillow's own, since 10.1
    return font
