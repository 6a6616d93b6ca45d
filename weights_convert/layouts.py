"""Named, pure transforms from Caffe's and PyTorch's array layouts to Flax's.

Both sources keep images as (C, H, W), convolution kernels as (O, I/g, kh, kw), transposed
convolution kernels as (I, O/g, kh, kw) and matrices as (O, I). Here images are (H, W, C),
kernels (kh, kw, I/g, O) and matrices (I, O). A matrix that reads a flattened image, or
writes one, must also have that image's order of elements changed: forgetting it keeps
every shape right and every number wrong.

All functions take and return NumPy arrays and keep the dtype. `TRANSFORMS` names those
that need no arguments, for use in `weights_convert.rules`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType

import numpy as np

from jaxgen.core.errors import expected

__all__ = [
    "TRANSFORMS",
    "Transform",
    "chw_to_hwc",
    "conv",
    "deconv",
    "dense",
    "dense_after_flatten",
    "dense_before_reshape",
    "fold_caffe_batch_norm",
    "hwc_to_chw",
    "identity",
    "swap_input_channels",
    "vector_before_reshape",
]

Transform = Callable[[np.ndarray], np.ndarray]


def identity(array: np.ndarray) -> np.ndarray:
    """Return the array as it is."""
    return array


def conv(kernel: np.ndarray) -> np.ndarray:
    """(O, I/g, kh, kw) to (kh, kw, I/g, O), for any number g of groups."""
    _rank("kernel", kernel, 4)
    return np.ascontiguousarray(kernel.transpose(2, 3, 1, 0))


def deconv(groups: int = 1) -> Transform:
    """(I, O/g, kh, kw) to the (kh, kw, I/g, O) kernel of the equivalent convolution.

    A transposed convolution of stride s and padding p is the convolution, with the kernel
    turned by 180 degrees, of the input dilated by s and padded by k - 1 - p. The result
    also fits `flax.nnx.ConvTranspose` with `transpose_kernel=False`.
    """

    def transform(kernel: np.ndarray) -> np.ndarray:
        _rank("kernel", kernel, 4)
        inputs, outputs, height, width = kernel.shape
        if groups < 1 or inputs % groups:
            raise expected("kernel", f"inputs that {groups} groups divide", kernel.shape)
        parts = kernel.reshape(groups, inputs // groups, outputs, height, width)
        turned = parts.transpose(3, 4, 1, 0, 2)[::-1, ::-1]
        return np.ascontiguousarray(turned).reshape(height, width, inputs // groups, -1)

    return transform


def dense(matrix: np.ndarray) -> np.ndarray:
    """(O, I) to (I, O)."""
    _rank("matrix", matrix, 2)
    return np.ascontiguousarray(matrix.T)


def dense_after_flatten(channels: int, height: int, width: int) -> Transform:
    """(O, C*H*W) to (H*W*C, O): a matrix that reads a flattened (C, H, W) image."""

    def transform(matrix: np.ndarray) -> np.ndarray:
        _rank("matrix", matrix, 2)
        _length("matrix columns", matrix.shape[1], channels, height, width)
        parts = matrix.reshape(-1, channels, height, width).transpose(2, 3, 1, 0)
        return np.ascontiguousarray(parts).reshape(-1, matrix.shape[0])

    return transform


def dense_before_reshape(channels: int, height: int, width: int) -> Transform:
    """(C*H*W, I) to (I, H*W*C): a matrix whose output becomes a (C, H, W) image."""

    def transform(matrix: np.ndarray) -> np.ndarray:
        _rank("matrix", matrix, 2)
        _length("matrix rows", matrix.shape[0], channels, height, width)
        parts = matrix.reshape(channels, height, width, -1).transpose(3, 1, 2, 0)
        return np.ascontiguousarray(parts).reshape(matrix.shape[1], -1)

    return transform


def vector_before_reshape(channels: int, height: int, width: int) -> Transform:
    """(C*H*W,) to (H*W*C,): the bias that goes with `dense_before_reshape`."""

    def transform(vector: np.ndarray) -> np.ndarray:
        _rank("vector", vector, 1)
        _length("vector", vector.shape[0], channels, height, width)
        return chw_to_hwc(vector.reshape(channels, height, width)).reshape(-1)

    return transform


def chw_to_hwc(array: np.ndarray) -> np.ndarray:
    """(..., C, H, W) to (..., H, W, C)."""
    if array.ndim < 3:
        raise expected("array", "at least 3 axes", f"shape {array.shape}")
    return np.ascontiguousarray(np.moveaxis(array, -3, -1))


def hwc_to_chw(array: np.ndarray) -> np.ndarray:
    """(..., H, W, C) to (..., C, H, W)."""
    if array.ndim < 3:
        raise expected("array", "at least 3 axes", f"shape {array.shape}")
    return np.ascontiguousarray(np.moveaxis(array, -1, -3))


def swap_input_channels(kernel: np.ndarray) -> np.ndarray:
    """Reverse a (kh, kw, I, O) kernel's inputs: a network of BGR images then takes RGB."""
    _rank("kernel", kernel, 4)
    return np.ascontiguousarray(kernel[:, :, ::-1, :])


def fold_caffe_batch_norm(
    mean: np.ndarray, variance: np.ndarray, factor: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Caffe's running sums of means and variances, divided by their factor; 0 gives zeros.

    Caffe's BatchNorm stores sums that decay, and in a third blob of one element the sum of
    their weights.
    """
    if factor.size != 1:
        raise expected("factor", "one element", f"shape {factor.shape}")
    weight = float(factor.reshape(()))
    scale = np.float32(0.0 if weight == 0.0 else 1.0 / weight)
    return mean * scale, variance * scale


TRANSFORMS: MappingProxyType[str, Transform] = MappingProxyType(
    {
        "chw_to_hwc": chw_to_hwc,
        "conv": conv,
        "deconv": deconv(1),
        "dense": dense,
        "identity": identity,
    }
)


def _rank(name: str, array: np.ndarray, rank: int) -> None:
    if array.ndim != rank:
        raise expected(name, f"{rank} axes", f"shape {array.shape}")


def _length(name: str, length: int, channels: int, height: int, width: int) -> None:
    if length != channels * height * width:
        raise expected(name, f"{channels} x {height} x {width} elements", length)
