"""How close one image is to another: MSE, PSNR, SSIM and multi-scale SSIM.

Every function compares ONE image `[H, W, channels]` with one reference of the same shape;
`jax.vmap` does batches. Pixels are in [0, 1] unless `data_range` says otherwise.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.types import Array

__all__ = ["Closeness", "Regions", "ms_ssim", "ms_ssim_scales", "mse", "psnr", "regions", "ssim"]

_K1, _K2 = 0.01, 0.03
_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_WINDOW, _SIGMA, _SMALLEST = 11, 1.5, 7


def mse(image: Array, reference: Array, mask: Array | None = None) -> Array:
    """Mean squared error, over all pixels or over those a mask counts.

    `sum(mask * (image - reference)^2) / sum(mask)`

    Args:
      image: `[H, W, channels]`.
      reference: likewise.
      mask: weight of each pixel, booleans or non-negative numbers, `[H, W]`, `[H, W, 1]`
        or `[H, W, channels]`. With `m` being 1 where a pixel was observed, `m` gives the
        error on the observed pixels and `1 - m` that on the hidden ones. The latter is
        what judges an inpainting: over all pixels the observed ones dominate.

    Returns:
      A scalar; NaN for a mask that counts no pixel.
    """
    image, reference = _pair(image, reference)
    square = (image - reference) ** 2
    if mask is None:
        return jnp.mean(square)
    weight = _weight(mask, square)
    return jnp.sum(weight * square) / jnp.sum(weight)


def psnr(
    image: Array, reference: Array, mask: Array | None = None, *, data_range: float = 1.0
) -> Array:
    """Peak signal-to-noise ratio in dB: `10 log10(data_range^2 / mse)`.

    Infinite for equal images; `mask` as in `mse`.
    """
    return 10.0 * jnp.log10(data_range**2 / mse(image, reference, mask))


@partial(jax.jit, static_argnames="window_size")
def ssim(
    image: Array,
    reference: Array,
    mask: Array | None = None,
    *,
    data_range: float = 1.0,
    window_size: int = 7,
) -> Array:
    """Structural similarity, averaged over windows and channels, at most 1.

    `(2 mx my + C1)(2 sxy + C2) / ((mx^2 + my^2 + C1)(sx^2 + sy^2 + C2))`, with
    `C1 = (0.01 data_range)^2`, `C2 = (0.03 data_range)^2`, uniform square windows inside
    the image and sample covariances (divided by N - 1): the defaults of
    `skimage.metrics.structural_similarity`, whose `channel_axis=-1` it equals. It is also
    the "MSSIM" of Fang & Schwing (2019), who call it on 8-bit images.

    Source: Wang, Bovik, Sheikh & Simoncelli (IEEE TIP 2004), Eq. 13.

    Args:
      image: `[H, W, channels]`.
      reference: likewise.
      mask: weight of the window around each pixel, as in `mse`; windows that do not fit into
        the image have none. NaN for a mask that counts no window.
      data_range: largest minus smallest possible value.
      window_size: odd side of the window in pixels.

    Raises:
      InputError: if the window is even or does not fit into the image.
    """
    image, reference = _pair(image, reference)
    if window_size < 3 or window_size % 2 == 0 or window_size > min(image.shape[:2]):
        raise expected(
            "window_size",
            f"an odd number from 3 to the shorter side, {min(image.shape[:2])} px",
            window_size,
        )
    taps = np.full(window_size, 1.0 / window_size)
    count = window_size**2
    luminance, contrast = _similarity_maps(
        image, reference, taps, data_range, correction=count / (count - 1)
    )
    if mask is None:
        return jnp.mean(luminance * contrast)
    edge = window_size // 2
    weight = _weight(mask, image)[edge : image.shape[0] - edge, edge : image.shape[1] - edge]
    return jnp.sum(weight * luminance * contrast) / jnp.sum(weight)


class Closeness(NamedTuple):
    """`mse`, `psnr` and `ssim` of one region; scalars, NaN for a region without a pixel."""

    mse: Array
    psnr: Array
    ssim: Array


class Regions(NamedTuple):
    """Errors of an image where it was hidden, where it was seen, and over all pixels.

    Attributes:
      hidden: what judges a completion.
      observed: how well what was seen is met.
      whole: all pixels, as the co-generation paper reports; the observed ones dominate.
    """

    hidden: Closeness
    observed: Closeness
    whole: Closeness


def regions(
    image: Array, reference: Array, mask: Array, *, data_range: float = 1.0, window_size: int = 7
) -> Regions:
    """MSE, PSNR and SSIM of the hidden pixels, the observed ones and all of them.

    Args:
      image: `[H, W, channels]`.
      reference: likewise.
      mask: 1 where observed, `[H, W]`, `[H, W, 1]` or `[H, W, channels]`.
      data_range: as in `ssim`, whose windows belong to their middle pixel.
      window_size: likewise.
    """
    mask = jnp.asarray(mask).astype(jnp.float32)

    def close(where: Array | None) -> Closeness:
        return Closeness(
            mse(image, reference, where),
            psnr(image, reference, where, data_range=data_range),
            ssim(image, reference, where, data_range=data_range, window_size=window_size),
        )

    return Regions(close(1.0 - mask), close(mask), close(None))


def ms_ssim_scales(height: int, width: int) -> int:
    """Return the number of scales that `ms_ssim` uses by default: 1 to 5.

    As many halvings as leave at least 7 pixels on the shorter side: 3 at 28 and 32 px,
    4 at 64 px, 5 from 112 px on.
    """
    scales, side = 1, min(height, width)
    while scales < len(_SCALE_WEIGHTS) and side // 2 >= _SMALLEST:
        scales, side = scales + 1, side // 2
    return scales


@partial(jax.jit, static_argnames="num_scales")
def ms_ssim(
    image: Array, reference: Array, *, data_range: float = 1.0, num_scales: int | None = None
) -> Array:
    """Multi-scale structural similarity, in [0, 1].

    `l_M^{a_M} prod_j cs_j^{a_j}` over scales `j = 1..M`, where `cs` is the mean of SSIM's
    contrast-structure factor at a scale, the last scale has the mean of the full SSIM, and
    each scale halves the image by 2 x 2 averages. Gaussian windows of 11 pixels
    with sigma 1.5, population covariances; one value for each channel, then their mean.

    Source: Wang, Simoncelli & Bovik (Asilomar 2003), Eq. 7 and its five exponents.

    Notes:
      The published index needs 176 px for its five scales of 11-pixel windows. For smaller
      images two things change, and values are then comparable only between images of the
      same size: the number of scales drops (`ms_ssim_scales`: 3 at 28 and 32 px, 4 at 64),
      the first M exponents being renormalised to sum to 1; and where a scale is narrower
      than 11 px the window shrinks to fit, sigma in proportion. A negative mean `cs` counts
      as 0, since its power would not be real.

    Args:
      image: `[H, W, channels]`.
      reference: likewise.
      data_range: largest minus smallest possible value.
      num_scales: 1 to 5; None for `ms_ssim_scales(H, W)`.

    Raises:
      InputError: for too many scales, or if the smallest scale would have no pixel.
    """
    image, reference = _pair(image, reference)
    side = min(image.shape[:2])
    if num_scales is None:
        num_scales = ms_ssim_scales(*image.shape[:2])
    largest = min(len(_SCALE_WEIGHTS), side.bit_length())
    if not 1 <= num_scales <= largest:
        raise expected("num_scales", f"1 to {largest} for images of {side} px", num_scales)
    weights = np.asarray(_SCALE_WEIGHTS[:num_scales])
    weights = weights / weights.sum()
    index = jnp.ones(image.shape[-1], image.dtype)
    for scale, weight in enumerate(weights):
        if scale:
            image, reference = _halve(image), _halve(reference)
        luminance, contrast = _similarity_maps(
            image, reference, _gaussian_taps(min(image.shape[:2])), data_range, correction=1.0
        )
        last = scale == num_scales - 1
        factor = jnp.mean(luminance * contrast if last else contrast, axis=(0, 1))
        index = index * jnp.maximum(factor, 0.0) ** float(weight)
    return jnp.mean(index)


def _similarity_maps(
    image: Array, reference: Array, taps: np.ndarray, data_range: float, correction: float
) -> tuple[Array, Array]:
    """Return the luminance and the contrast-structure factor of SSIM in every window."""
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    # Covariances do not depend on an offset. Taking the mean away first keeps their
    # float32 rounding error far below C2 in flat bright regions.
    origin_x = jnp.mean(image, axis=(0, 1), keepdims=True)
    origin_y = jnp.mean(reference, axis=(0, 1), keepdims=True)
    x, y = image - origin_x, reference - origin_y
    stack = jnp.stack([x, y, x * x, y * y, x * y])
    mean_x, mean_y, square_x, square_y, product = _window_mean(stack, taps)
    variances = correction * (square_x - mean_x**2 + square_y - mean_y**2)
    covariance = correction * (product - mean_x * mean_y)
    mean_x, mean_y = mean_x + origin_x, mean_y + origin_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance, (2 * covariance + c2) / (variances + c2)


def _window_mean(maps: Array, taps: np.ndarray) -> Array:
    """Separable weighted mean over every window that fits, `[n, H, W, c] -> [n, H', W', c]`."""
    for axis in (1, 2):
        length = maps.shape[axis] - len(taps) + 1
        shifted = [
            float(tap) * jax.lax.slice_in_dim(maps, start, start + length, axis=axis)
            for start, tap in enumerate(taps)
        ]
        maps = sum(shifted[1:], shifted[0])
    return maps


def _gaussian_taps(side: int) -> np.ndarray:
    """Return the window of `ms_ssim`: 11 taps of sigma 1.5, shrunk where the image is narrower."""
    size = min(_WINDOW, side)
    offsets = np.arange(size) - (size - 1) / 2
    taps = np.exp(-0.5 * (offsets * _WINDOW / (size * _SIGMA)) ** 2)
    return taps / taps.sum()


def _halve(image: Array) -> Array:
    """2 x 2 averages; an odd last row or column is left out."""
    height, width, channels = image.shape
    image = image[: height // 2 * 2, : width // 2 * 2]
    return image.reshape(height // 2, 2, width // 2, 2, channels).mean(axis=(1, 3))


def _weight(mask: Array, square: Array) -> Array:
    """Return a mask broadcast to `[H, W, channels]`, as numbers."""
    mask = jnp.asarray(mask)
    if mask.ndim == 2:
        mask = mask[..., None]
    if mask.shape not in (square.shape, (*square.shape[:2], 1)):
        raise expected("mask", f"[H, W], [H, W, 1] or {square.shape}", f"shape {mask.shape}")
    return jnp.broadcast_to(mask, square.shape).astype(square.dtype)


def _pair(image: Array, reference: Array) -> tuple[Array, Array]:
    """Return both images as floats; raise `InputError` unless they have the same image shape."""
    image, reference = jnp.asarray(image), jnp.asarray(reference)
    if image.ndim != 3:
        raise expected(
            "image", "one image [H, W, channels]", f"shape {image.shape}", "Use jax.vmap."
        )
    if reference.shape != image.shape:
        raise expected("reference", f"the image's shape {image.shape}", f"shape {reference.shape}")
    for name, array in (("image", image), ("reference", reference)):
        if not jnp.issubdtype(array.dtype, jnp.floating):
            raise expected(name, "floats", array.dtype, "Divide 8-bit images by 255.")
    return image, reference
