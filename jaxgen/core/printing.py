"""How results print: a title, a dozen aligned rows, notes; in a notebook pictures as well.

No array is printed unasked: fields show their type and shape, `float32[64,10]`, and numbers as
numbers. What holds placeholders of `jax.jit` prints as well, by its shapes.
"""

from __future__ import annotations

import html
import io
import math
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from jax.core import Tracer

from jaxgen.core.errors import visible
from jaxgen.core.pytree import short

__all__ = ["Rows", "card", "card_html", "data_uri", "number", "png", "prints_short", "sheet"]

T = TypeVar("T")
# (name, text) of each row.
Rows = Sequence[tuple[str, str]]
# A picture in a notebook: at most so many images, enlarged to about so many pixels.
_MOST_IMAGES, _WIDE = 32, 96


def prints_short(cls: type[T]) -> type[T]:
    """Let a NamedTuple print its fields in one line, arrays by their type and shape."""

    def line(self: Any) -> str:
        parts = ", ".join(f"{name}={_field(getattr(self, name))}" for name in self._fields)
        return f"{type(self).__name__}({parts})"

    cls.__repr__ = line  # type: ignore[method-assign]
    return cls


def number(value: Any, form: str = ".2f") -> str:
    """Return a number as text; a placeholder, or what is no number, by its type and shape."""
    if isinstance(value, Tracer) or np.ndim(value):
        return short(value)
    return format(float(value), form)


def card(title: str, rows: Rows, notes: Sequence[str] = ()) -> str:
    """Return a title, aligned rows and the notes: a dozen lines, and no array."""
    width = max((len(name) for name, _ in rows), default=0)
    body = [f"  {name:<{max(width, 11)}} {text}" for name, text in rows]
    return "\n".join([title, *body, *(f"  note: {note}" for note in notes)])


def card_html(
    title: str,
    rows: Rows,
    notes: Sequence[str] = (),
    pictures: Sequence[tuple[str, np.ndarray]] = (),
) -> str:
    """Return the same as HTML, with pictures below: (caption, images `[N, H, W, 1 or 3]`)."""
    left = ' style="text-align:left;vertical-align:top"'
    body = "".join(
        f"<tr><th{left}>{_escaped(name)}</th><td{left}>{_escaped(text)}</td></tr>"
        for name, text in rows
    )
    said = "".join(f"<li>{_escaped(note)}</li>" for note in notes)
    shown = "".join(_figure(caption, images) for caption, images in pictures)
    return (
        f"<div><strong>{_escaped(title)}</strong><table><tbody>{body}</tbody></table>"
        + (f"<ul>{said}</ul>" if said else "")
        + (f'<div style="display:flex;flex-wrap:wrap;gap:12px">{shown}</div>' if shown else "")
        + "</div>"
    )


def sheet(images: np.ndarray, columns: int) -> np.ndarray:
    """Lay images `[N, H, W, channels]` side by side, one pixel of mid grey between."""
    count, height, width, channels = images.shape
    rows = math.ceil(count / columns)
    made = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), 0.5)
    for index, image in enumerate(images):
        y, x = (index // columns) * (height + 1), (index % columns) * (width + 1)
        made[y : y + height, x : x + width] = image
    return made


def png(values: np.ndarray) -> bytes:
    """Return an image `[H, W, 1 or 3]` in [0, 1] as PNG."""
    from PIL import Image

    values = np.nan_to_num(np.asarray(values, np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    pixels = np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)
    made: Any = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    file = io.BytesIO()
    made.save(file, format="PNG", optimize=True)
    return file.getvalue()


def data_uri(data: bytes) -> str:
    """Return a PNG as a `data:` URI."""
    import base64

    return "data:image/png;base64," + base64.b64encode(data).decode("ascii")


def _figure(caption: str, images: np.ndarray) -> str:
    images = np.asarray(images)
    images = images[np.unique(np.linspace(0, len(images) - 1, _MOST_IMAGES).round().astype(int))]
    columns = min(8, len(images))
    made = sheet(images, columns)
    scale = max(1, round(_WIDE / images.shape[1])) if len(images) == 1 else 2
    wide = min(640, scale * made.shape[1])
    return (
        f'<figure style="margin:0"><img alt="{_escaped(caption)}" src="{data_uri(png(made))}" '
        f'style="image-rendering:pixelated;width:{wide}px"><figcaption>{_escaped(caption)}'
        "</figcaption></figure>"
    )


def _field(value: Any) -> str:
    """Return a field in a few characters; a NamedTuple by its name."""
    fields = getattr(value, "_fields", None)
    if fields is not None and isinstance(value, tuple):
        return f"{type(value).__name__}(...)"
    return short(value)


def _escaped(text: str) -> str:
    return html.escape(visible(str(text)))
