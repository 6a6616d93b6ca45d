"""Images and masks from files: checked before they are decoded, never unpickled.

Both come back as float32 arrays `[H, W, channels]` and `[H, W]`. The size of a picture is
read from its header and compared before its pixels take any memory.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgen.core.errors import expected
from jaxgen.target.conditions.checks import check_image

__all__ = ["Picture", "read_image", "read_mask", "read_photo"]

_FORMATS = ("PNG", "JPEG")
_HALVES = ("lower-half", "upper-half", "left-half", "right-half")
_MOST_BYTES = 1 << 26


class Picture(NamedTuple):
    """An image and where it came from.

    Attributes:
      image: `[H, W, channels]` in [0, 1].
      mask: `[H, W]`, 1 where the picture was opaque; None for a picture without alpha.
      name: for labels and summaries.
    """

    image: np.ndarray
    mask: np.ndarray | None
    name: str


def read_image(
    text: str, sizes: Sequence[tuple[int, int]], channels: int, data_dir: str | None = None
) -> Picture:
    """Read the image that a command line names.

    Args:
      text: the path of a PNG, JPEG or npy file; `example:12`, one of the fifty that come
        with the package; or `test:1234`, of the Fashion-MNIST test set.
      sizes: the heights and widths that are welcome.
      channels: 1 or 3; pictures are converted, arrays are not.
      data_dir: the folder of Fashion-MNIST, see `jaxgen.data.fashion_mnist`.

    Raises:
      InputError: naming IMAGE and what is wrong with it.
    """
    kind, _, index = text.partition(":")
    if kind in ("example", "test") and not Path(text).exists():
        picture = _numbered(kind, index, data_dir)
    elif Path(text).suffix.lower() == ".npy":
        picture = Picture(_unit(_array("IMAGE", text)), None, Path(text).name)
    else:
        picture = _decode(text, sizes, channels)
    if picture.image.ndim == 2:
        picture = picture._replace(image=picture.image[..., None])
    shapes = [(*size, channels) for size in sizes]
    if picture.image.shape not in shapes:
        wanted = " or ".join(str(list(shape)) for shape in shapes)
        found = picture.image.shape
        first = found[1:] + found[:1] in shapes  # channels first, as PyTorch has them
        hint = "Transpose it: channels come last" if first else "Resize it first"
        raise expected("IMAGE", f"shape {wanted}", list(found), hint)
    check_image("IMAGE", picture.image, picture.image.shape)
    return picture


def read_photo(text: str) -> Picture:
    """Read a photograph of any size, in colour.

    Args:
      text: the path of a PNG or JPEG file; transparent pixels were never seen.

    Raises:
      InputError: naming IMAGE and what is wrong with it.
    """
    with _opened("IMAGE", text) as picture:
        picture = _pixels("IMAGE", text, picture)
        mask = None
        if picture.has_transparency_data:
            alpha = np.asarray(picture.convert("RGBA"))[..., 3]
            mask = None if alpha.min() == 255 else (alpha == 255).astype(np.float32)
        return Picture(_unit(np.asarray(picture.convert("RGB"))), mask, Path(text).name)


def read_mask(text: str, size: tuple[int, int]) -> np.ndarray:
    """Read the mask that a command line names: `[H, W]`, 1 where observed.

    Args:
      text: `lower-half`, `upper-half`, `left-half`, `right-half` or `box:row,column,height,
        width` (what is hidden), or the path of a PNG, JPEG (white is observed) or npy file
        (1 is observed).
      size: height and width of the image.

    Raises:
      InputError: naming --mask and what is wrong with it.
    """
    height, width = size
    mask = np.ones(size, np.float32)
    if text.startswith("box:"):
        row, column, tall, wide = _box(text, size)
        mask[row : row + tall, column : column + wide] = 0
    elif text in _HALVES:
        hidden = {
            "lower-half": np.s_[height // 2 :, :],
            "upper-half": np.s_[: height // 2, :],
            "left-half": np.s_[:, : width // 2],
            "right-half": np.s_[:, width // 2 :],
        }
        mask[hidden[text]] = 0
    elif Path(text).suffix.lower() == ".npy":
        mask = _array("--mask", text)
        if mask.shape == (*size, 1):
            mask = mask[..., 0]
        if mask.shape != size:
            raise expected("--mask", f"shape {list(size)} like the image", list(mask.shape))
        if not np.all((mask == 0) | (mask == 1)):
            raise expected("--mask", "0 (hidden) or 1 (observed) everywhere", "other values")
    elif not Path(text).suffix:
        hint = f"Named masks: {', '.join(_HALVES)}, box:row,column,height,width"
        raise expected("--mask", "a mask's name or file", repr(text), hint)
    else:
        with _opened("--mask", text) as picture:
            _check_size("--mask", picture, [size])
            picture = _pixels("--mask", text, picture)
            mask = _light(picture)
            if picture.has_transparency_data:  # what is transparent is hidden
                mask &= np.asarray(picture.convert("RGBA"))[..., 3] >= 128
    return mask.astype(np.float32)


def _light(picture: Any) -> np.ndarray:
    """Which pixels are in the lighter half of the picture's range, of 8 or of 16 bits."""
    if picture.mode.startswith("I"):  # convert("L") would clip
        return np.asarray(picture) >= 1 << 15
    return np.asarray(picture.convert("RGB").convert("L")) >= 128


def _numbered(kind: str, index: str, data_dir: str | None) -> Picture:
    if kind == "example":
        from jaxgen.cli.examples import shipped

        images = shipped().images
    else:
        from jaxgen.data import fashion_mnist

        images = fashion_mnist("test", data_dir).images
    if not index.isdecimal() or int(index) >= len(images):
        raise expected("IMAGE", f"{kind}:0 to {kind}:{len(images) - 1}", f"{kind}:{index}")
    return Picture(_unit(images[int(index)]), None, f"{kind} {int(index)}")


def _decode(text: str, sizes: Sequence[tuple[int, int]], channels: int) -> Picture:
    with _opened("IMAGE", text) as picture:
        _check_size("IMAGE", picture, sizes)
        picture = _pixels("IMAGE", text, picture)
        mask = None
        if picture.has_transparency_data:
            alpha = np.asarray(picture.convert("RGBA"))[..., 3]
            # What shines through a soft edge is a mixture: only opaque pixels count.
            mask = None if alpha.min() == 255 else (alpha == 255).astype(np.float32)
        if picture.mode.startswith("I"):  # 16 bits of grey, which convert("L") would clip
            grey = np.asarray(picture, np.float32)[..., None] / 65535.0
            image = np.repeat(grey, channels, -1)
        else:
            if picture.mode in ("P", "PA"):
                picture = picture.convert("RGBA")
            pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
            image = _unit(pixels.reshape(*pixels.shape[:2], channels))
    return Picture(image, mask, Path(text).name)


def _opened(argument: str, text: str) -> Any:
    """Open a picture: its header is read, and its pixels are not."""
    from PIL import Image, UnidentifiedImageError

    path = Path(text)
    if not path.is_file():
        hint = "Or give example:0 to example:49" if argument == "IMAGE" else ""
        raise expected(argument, "a file that exists", text, hint)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return Image.open(path, formats=_FORMATS)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise expected(argument, "a picture of a sane size", f"{text}: {error}") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise expected(argument, "a PNG, JPEG or npy file", f"{text}, unreadable") from error


def _check_size(argument: str, picture: Any, sizes: Sequence[tuple[int, int]]) -> None:
    width, height = picture.size
    if _lies_on_its_side(picture):
        width, height = height, width
    if (height, width) not in [tuple(size) for size in sizes]:
        wanted = " or ".join(f"{width} x {height}" for height, width in sizes)
        raise expected(argument, f"{wanted} pixels", f"{width} x {height}", "Resize it first")


def _lies_on_its_side(picture: Any) -> bool:
    """Return whether the camera notes (EXIF) that the picture is to be turned by a right angle."""
    try:
        return picture.getexif().get(0x0112) in (5, 6, 7, 8)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError):
        return False  # notes that cannot be read


def _pixels(argument: str, text: str, picture: Any) -> Any:
    """Read the pixels of a picture, turned as the camera has noted."""
    from PIL import ImageOps

    try:
        picture.load()
        return ImageOps.exif_transpose(picture)
    except (OSError, SyntaxError, ValueError) as error:
        raise expected(argument, "a whole picture", f"{text}: {error}") from error


def _array(argument: str, text: str) -> np.ndarray:
    path = Path(text)
    if not path.is_file():
        raise expected(argument, "a file that exists", text)
    if path.stat().st_size > _MOST_BYTES:
        raise expected(argument, f"at most {_MOST_BYTES >> 20} MiB", f"{path.stat().st_size} bytes")
    try:
        # Mapped, so that a header that promises more than the file holds takes no memory.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TypeError) as error:
        raise expected(argument, "an npy file of numbers", f"{text}, unreadable") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fub" + "i":
        raise expected(argument, "an npy file of numbers", f"{text}, of another type")
    return np.array(array)


def _unit(pixels: np.ndarray) -> np.ndarray:
    """Bytes 0..255 to [0, 1]; floats stay, and are checked with the condition."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / 255.0
    return pixels.astype(np.float32)


def _box(text: str, size: tuple[int, int]) -> tuple[int, int, int, int]:
    parts = text.removeprefix("box:").split(",")
    if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts):
        raise expected("--mask", "box:row,column,height,width", text)
    row, column, tall, wide = (int(part) for part in parts)
    if tall < 1 or wide < 1 or row + tall > size[0] or column + wide > size[1]:
        raise expected("--mask", f"a box inside {size[0]} rows and {size[1]} columns", text)
    return row, column, tall, wide
