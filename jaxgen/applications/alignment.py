"""A photograph of a face in the frame of FFHQ, by three points in it.

Generators of faces know them in one frame. That of FFHQ (Karras, Laine & Aila 2019, and their
published script) is a square: with e the vector from the left eye to the right one in the
picture, and m that from the middle of the eyes to the middle of the mouth,

    x ~ e - rot90(m),   |x| = max(2.0 |e|, 1.8 |m|),   y = rot90(x),   centre = eyes + 0.1 m,

and the square has the corners centre -+ x -+ y. A square that reaches over the picture's edge has
pixels that nobody has seen: they are hidden, like those below a mask.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxgen.core.errors import expected

__all__ = ["align_face", "face_frame"]

# Points at which one pixel is read, in each direction.
_POINTS = 4


def face_frame(
    left_eye: Sequence[float], right_eye: Sequence[float], mouth: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return centre, x and y `[2]` of the square: half its sides, in pixels (column, row).

    Args:
      left_eye: column and row of the eye on the left of the picture.
      right_eye: of the other one.
      mouth: of the middle of the mouth.

    Raises:
      InputError: for points that are not numbers, or eyes in the same place.
    """
    points = [np.asarray(p, np.float64) for p in (left_eye, right_eye, mouth)]
    if any(p.shape != (2,) or not np.all(np.isfinite(p)) for p in points):
        raise expected("landmarks", "column and row of two eyes and the mouth", points)
    left, right, lips = points
    eyes = 0.5 * (left + right)
    across, down = right - left, lips - eyes
    if np.hypot(*across) < 1 or np.hypot(*down) < 1:
        raise expected("landmarks", "eyes and mouth at least a pixel apart", points)
    x = across + np.array([down[1], -down[0]])
    if np.hypot(*x) < 1e-9:
        raise expected("landmarks", "the left eye of the picture first", points)
    x = x / np.hypot(*x) * max(2.0 * np.hypot(*across), 1.8 * np.hypot(*down))
    return eyes + 0.1 * down, x, np.array([-x[1], x[0]])


def align_face(
    image: np.ndarray,
    left_eye: Sequence[float],
    right_eye: Sequence[float],
    mouth: Sequence[float],
    size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a face in the frame of FFHQ `[size, size, channels]`, and 1 where it was seen.

    Every pixel is the mean of 16 points, read between pixels linearly.

    Args:
      image: `[H, W, channels]`.
      left_eye: see `face_frame`.
      right_eye: likewise.
      mouth: likewise.
      size: of the square, in pixels.

    Raises:
      InputError: for points that cannot be used.
    """
    centre, x, y = face_frame(left_eye, right_eye, mouth)
    fine = size * _POINTS
    along = (np.arange(fine) + 0.5) / fine * 2 - 1
    column = centre[0] + along[None] * x[0] + along[:, None] * y[0]
    row = centre[1] + along[None] * x[1] + along[:, None] * y[1]
    height, width = image.shape[:2]
    # The centre of the first pixel is at 0.5.
    inside = (column >= 0) & (column <= width) & (row >= 0) & (row <= height)
    across = np.clip(column - 0.5, 0, width - 1)
    down = np.clip(row - 0.5, 0, height - 1)
    i, j = np.floor(down).astype(int), np.floor(across).astype(int)
    below, beside = np.minimum(i + 1, height - 1), np.minimum(j + 1, width - 1)
    s, t = (down - i)[..., None], (across - j)[..., None]
    found = (1 - s) * ((1 - t) * image[i, j] + t * image[i, beside])
    found = found + s * ((1 - t) * image[below, j] + t * image[below, beside])
    blocks = (size, _POINTS, size, _POINTS)
    aligned = found.reshape(*blocks, -1).mean((1, 3)).astype(np.float32)
    seen = inside.reshape(blocks).all((1, 3)).astype(np.float32)
    return aligned, seen
