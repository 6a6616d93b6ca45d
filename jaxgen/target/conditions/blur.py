"""Gaussian blur of images, for the operator `GaussianBlur` and the regularizer `BlurPenalty`.

    y[h, w] = sum_k sum_l g_k g_l x[h + k, w + l],  g_k proportional to exp(-k^2 / (2 sigma^2))

The sum over both axes is done one axis after the other, since the window is a product.
The operator repeats the edge and cuts off at 3 sigma; the regularizer mirrors the border and
cuts off at 4 sigma, as `scipy.ndimage.gaussian_filter` does by default.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.types import Array

__all__ = ["gaussian_window", "separable"]


def gaussian_window(sigma: float, radius: int) -> np.ndarray:
    """Return the normalised window g, `[2 radius + 1]` in float64.

    Args:
      sigma: standard deviation in pixels, above 0.
      radius: where the window is cut off, in pixels.
    """
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return taps / taps.sum()


def separable(image: Array, taps: Array, border: Literal["edge", "symmetric"]) -> Array:
    """Convolve both axes of an image with one window, in full precision.

    Args:
      image: `[H, W, channels]`.
      taps: `[2 r + 1]`, symmetric.
      border: how `jnp.pad` continues the image: its edge repeated, or mirrored.

    Returns:
      `[H, W, channels]`.
    """
    radius = taps.shape[0] // 2
    blurred = jnp.moveaxis(image, -1, 0)[..., None]  # channels as a batch: [c, H, W, 1]
    for axis in (1, 2):
        pad = [(0, 0)] * 4
        pad[axis] = (radius, radius)
        shape = [1, 1, 1, 1]
        shape[axis - 1] = taps.shape[0]
        blurred = jax.lax.conv_general_dilated(
            jnp.pad(blurred, pad, mode=border),
            taps.reshape(shape),
            window_strides=(1, 1),
            padding="VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,
        )
    return jnp.moveaxis(blurred[..., 0], 0, -1)
