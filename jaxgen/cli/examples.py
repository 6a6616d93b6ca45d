"""Fifty real test images that come with the package, so that the demo needs no data set.

They are the first five of each class in the test set of Fashion-MNIST (Xiao, Rasul and
Vollgraf 2017, MIT licence); nobody chose them. `python -m jaxgen.cli.examples FILE` writes
the same file again from the data set.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from jaxgen.data import CLASS_NAMES, Examples, fashion_mnist
from jaxgen.data import examples as shipped

__all__ = ["Examples", "choose", "shipped", "write"]

_EACH = 5
_NOTES = {
    "data": "Fashion-MNIST test set, the first five images of each class",
    "source": "https://github.com/zalandoresearch/fashion-mnist",
    "citation": "Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747",
    "licence": "MIT, Copyright (c) 2017 Zalando SE",
}


def choose(folder: str | None = None) -> Examples:
    """Return the first five test images of each class, in the order of the classes."""
    images, labels = fashion_mnist("test", folder)
    where = np.concatenate([np.flatnonzero(labels == k)[:_EACH] for k in range(len(CLASS_NAMES))])
    return Examples(images[where], labels[where].astype(np.int32), where.astype(np.int32))


def write(path: str | Path, folder: str | None = None) -> None:
    """Write the examples as safetensors, with where they come from."""
    from safetensors.numpy import save_file

    save_file(choose(folder)._asdict(), path, _NOTES)


if __name__ == "__main__":
    write(sys.argv[1])
