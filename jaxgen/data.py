"""Data: Fashion-MNIST from its idx files, and the ring of five Gaussians.

Fashion-MNIST (Xiao, Rasul and Vollgraf 2017, MIT licence): 60 000 training and 10 000
test images, 28 x 28 grey, ten classes. Nothing is downloaded: the four `.gz` files come
with Debian's `dataset-fashion-mnist`, or from a folder that the caller names.
"""

from __future__ import annotations

import gzip
import math
import os
import zlib
from importlib.resources import files
from pathlib import Path
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.printing import prints_short
from jaxgen.core.types import Array, PRNGKey

__all__ = [
    "CLASS_NAMES",
    "NONE_OF_THESE",
    "RING_VARIANCE",
    "Examples",
    "Images",
    "examples",
    "fashion_mnist",
    "fashion_mnist_available",
    "read_idx",
    "ring_modes",
    "to_unit",
    "toy_ring",
]

CLASS_NAMES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
NONE_OF_THESE = "none of these"
"""The class beside them, of a classifier that knows what no garment is."""

VARIABLE = "JAXGEN_FASHION_MNIST"
DEBIAN_FOLDER = "/usr/share/datasets/fashion-mnist"
RING_VARIANCE = 0.002
_FILES = {"train": "train", "test": "t10k"}
_MOST_BYTES = 1 << 30


@prints_short
class Images(NamedTuple):
    """Images `[N, 28, 28, 1]`, uint8 in 0..255 (see `to_unit`), and labels `[N]`, int32."""

    images: np.ndarray
    labels: np.ndarray


def fashion_mnist(split: Literal["train", "test"] = "train", folder: str | None = None) -> Images:
    """Read one split of Fashion-MNIST.

    Args:
      split: "train" (60 000 images) or "test" (10 000).
      folder: where the four idx files lie (`.gz` or not); by default the environment
        variable JAXGEN_FASHION_MNIST, else Debian's folder.

    Raises:
      InputError: if the files are absent (with how to get them), damaged or foreign.
    """
    if split not in _FILES:
        raise expected("split", '"train" or "test"', repr(split))
    root = _folder(folder)
    images = read_idx(_file(root, f"{_FILES[split]}-images-idx3-ubyte"))
    labels = read_idx(_file(root, f"{_FILES[split]}-labels-idx1-ubyte"))
    if images.ndim != 3 or images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
        raise expected(
            f"{root} ({split})",
            "images [N, 28, 28] and labels [N]",
            f"{list(images.shape)} and {list(labels.shape)}",
        )
    if labels.size and labels.max() > 9:
        raise expected(f"{root} ({split})", "labels 0 to 9", int(labels.max()))
    return Images(images[..., None], labels.astype(np.int32))


def fashion_mnist_available(folder: str | None = None) -> bool:
    """Return whether all four files of Fashion-MNIST are there."""
    root = _folder(folder)
    names = [f"{p}-{kind}" for p in _FILES.values() for kind in ("images-idx3", "labels-idx1")]
    return all((root / f"{n}-ubyte.gz").is_file() or (root / f"{n}-ubyte").is_file() for n in names)


def to_unit(images: np.ndarray | Array) -> Array:
    """Bytes 0..255 to float32 in [0, 1]."""
    return jnp.asarray(images, jnp.float32) / 255.0


def read_idx(path: str | Path) -> np.ndarray:
    """Read an idx file of unsigned bytes, gzipped or not.

    The header is checked before memory is taken, and never more is unpacked than the
    header says, so a truncated file or a gzip bomb ends in an error of one line.

    Raises:
      InputError: naming the file and what is wrong with it.
    """
    path = Path(path)
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            magic = file.read(4)
            if len(magic) != 4 or magic[:2] != b"\0\0" or magic[2] != 8 or not 1 <= magic[3] <= 4:
                raise expected(str(path), "an idx file of bytes (00 00 08 ndim)", magic.hex(" "))
            sizes = file.read(4 * magic[3])
            if len(sizes) != 4 * magic[3]:
                raise expected(str(path), f"{magic[3]} sizes", "the end of the file")
            shape = [int.from_bytes(sizes[i : i + 4], "big") for i in range(0, len(sizes), 4)]
            count = math.prod(shape)
            if count > _MOST_BYTES:
                raise expected(str(path), f"at most {_MOST_BYTES} bytes", f"sizes {shape}")
            data = bytearray()
            while len(data) <= count:  # one byte more than promised shows what is left over
                chunk = file.read(min(1 << 20, count + 1 - len(data)))
                if not chunk:
                    break
                data += chunk
    except OSError as error:  # gzip.BadGzipFile is one
        raise expected(str(path), "a readable idx file", error) from error
    except (EOFError, zlib.error) as error:
        raise expected(str(path), "a whole gzip file", error, "Fetch it again.") from error
    if len(data) != count:
        got = "fewer" if len(data) < count else "more"
        raise expected(str(path), f"{count} bytes for sizes {shape}", got, "Fetch it again.")
    return np.frombuffer(bytes(data), np.uint8).reshape(shape)


def ring_modes() -> Array:
    """Return the five modes of `toy_ring`, `[5, 2]`: on the unit circle, the first at (1, 0)."""
    angle = 2.0 * jnp.pi * jnp.arange(5) / 5
    return jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def toy_ring(key: PRNGKey, n: int) -> Array:
    """Draw from five equal Gaussians on the unit circle, covariance 0.002 I: `[n, 2]`.

    The data of Fang and Schwing's two-dimensional example, as their code has it (the
    paper says 0.02). The key is consumed.
    """
    which, noise = jax.random.split(key)
    modes = ring_modes()[jax.random.randint(which, (n,), 0, 5)]
    return modes + jnp.sqrt(RING_VARIANCE) * jax.random.normal(noise, (n, 2))


def _folder(folder: str | None) -> Path:
    return Path(folder or os.environ.get(VARIABLE) or DEBIAN_FOLDER)


def _file(root: Path, name: str) -> Path:
    for path in (root / f"{name}.gz", root / name):
        if path.is_file():
            return path
    raise expected(
        "Fashion-MNIST",
        f"{name}.gz in {root}",
        "no such file",
        "Run `apt-get install dataset-fashion-mnist`, or point "
        f"{VARIABLE} at a folder that holds the four idx .gz files.",
    )


@prints_short
class Examples(NamedTuple):
    """Images `[N, 28, 28, 1]` uint8, labels `[N]`, and indices in the test set `[N]`."""

    images: np.ndarray
    labels: np.ndarray
    indices: np.ndarray


def examples() -> Examples:
    """Return the fifty test images of Fashion-MNIST that come with the package.

    They are the first five of each class (Xiao, Rasul and Vollgraf 2017, MIT licence).
    """
    from safetensors.numpy import load_file

    path = files("jaxgen") / "shipped" / "fashion_mnist_examples.safetensors"
    return Examples(**load_file(str(path)))
