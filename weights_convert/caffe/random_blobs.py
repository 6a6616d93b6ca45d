"""Caffemodels with random weights, to prove a conversion where no weights are to be had.

The weights are scaled so that activations neither vanish nor explode: a convolution's by
the square root of two over its inputs, as He et al. (2015) do, a matrix's by that of one
over them, which keeps the logits before a softmax moderate.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from weights_convert.caffe.layers import Plan

__all__ = ["random_blobs", "write_caffemodel"]


def random_blobs(plans: Mapping[str, Plan], seed: int = 0) -> dict[str, list[np.ndarray]]:
    """Layer -> blobs in Caffe's layout, for the plans of `wiring.wire_up`."""
    rng = np.random.default_rng(seed)
    blobs: dict[str, list[np.ndarray]] = {}
    for name, made in plans.items():
        arrays = []
        for blob in made.blobs:
            array = rng.standard_normal(blob.caffe, np.float32)
            if blob.name.endswith("kernel"):
                gain = 2.0 if len(blob.shape) == 4 else 1.0
                array *= np.float32(math.sqrt(gain / max(math.prod(blob.shape[:-1]), 1)))
            elif blob.name == "variance":
                array = np.abs(array) + np.float32(0.5)
            elif blob.name in ("scale", "slope"):
                array = np.float32(1.0) + np.float32(0.2) * array
            else:
                array *= np.float32(0.1)
            arrays.append(np.asarray(array, np.float32))
        if made.type == "BatchNorm":
            arrays = [a * np.float32(2.5) for a in arrays] + [np.full(1, 2.5, np.float32)]
        if arrays:
            blobs[name] = arrays
    return blobs


def write_caffemodel(
    path: str | os.PathLike[str], blobs: Mapping[str, Sequence[np.ndarray]], name: str = "net"
) -> None:
    """Write blobs as a caffemodel of the current format, without a second copy in memory."""
    with Path(path).open("wb") as file:
        file.write(_field(1, name.encode()))
        for layer, arrays in blobs.items():
            heads = []
            for array in arrays:
                dims = b"".join(_varint(n) for n in array.shape)
                shape = _field(7, _field(1, dims) if array.shape else b"")
                head = shape + _varint(5 << 3 | 2) + _varint(4 * array.size)
                heads.append(_varint(7 << 3 | 2) + _varint(len(head) + 4 * array.size) + head)
            title = _field(1, layer.encode())
            length = len(title) + sum(
                len(h) + 4 * a.size for h, a in zip(heads, arrays, strict=True)
            )
            file.write(_varint(100 << 3 | 2) + _varint(length) + title)
            for head, array in zip(heads, arrays, strict=True):
                file.write(head)
                file.write(np.ascontiguousarray(array, "<f4").data)


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
