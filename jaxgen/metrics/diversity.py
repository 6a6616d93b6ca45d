"""How different the images of one class are from each other.

The lower the mean structural similarity between two of them, the more diverse they are:
Odena, Olah & Shlens (ICML 2017) with multi-scale SSIM, Nguyen et al. (CVPR 2017, Table S3).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.errors import expected
from jaxgen.metrics.reconstruction import ssim
from jaxgen.types import Array

__all__ = [
    "DiversityResult",
    "jackknife_standard_error",
    "pairwise_similarity",
    "within_class_diversity",
]


class DiversityResult(NamedTuple):
    """The diversity of one set of images.

    Attributes:
      diversity: 1 minus the mean similarity over all pairs; 0 for copies of one image.
      standard_error: its jackknife standard error over images, taken as independent.
    """

    diversity: Array
    standard_error: Array


@partial(jax.jit, static_argnames=("similarity", "batch_size"))
def pairwise_similarity(
    images: Array,
    similarity: Callable[[Array, Array], Array] = ssim,
    *,
    batch_size: int = 64,
) -> Array:
    """The similarity of every pair of images, a symmetric matrix with ones on its diagonal.

    Each pair is computed once; no more than `batch_size` pairs are held at a time.

    Args:
      images: `[n, H, W, channels]`, n at least 2.
      similarity: symmetric function of two images, 1 for equal ones: `ssim` or `ms_ssim`.
      batch_size: pairs computed at once.

    Returns:
      `[n, n]`.
    """
    images = jnp.asarray(images)
    if images.ndim != 4 or images.shape[0] < 2:
        raise expected("images", "at least 2 images [n, H, W, channels]", f"shape {images.shape}")
    if batch_size < 1:
        raise expected("batch_size", "at least 1", batch_size)
    count = images.shape[0]
    rows, columns = np.triu_indices(count, k=1)
    pairs = jnp.asarray(rows, jnp.int32), jnp.asarray(columns, jnp.int32)
    values = jax.lax.map(
        lambda pair: similarity(images[pair[0]], images[pair[1]]), pairs, batch_size=batch_size
    )
    upper = jnp.zeros((count, count), values.dtype).at[pairs].set(values)
    return upper + upper.T + jnp.eye(count, dtype=values.dtype)


@partial(jax.jit, static_argnames=("similarity", "batch_size"))
def within_class_diversity(
    images: Array,
    similarity: Callable[[Array, Array], Array] = ssim,
    *,
    batch_size: int = 64,
) -> DiversityResult:
    """`1 - mean_{i<j} similarity(x_i, x_j)` over all pairs of the images of one class.

    The pairs share images, so their spread is no standard error; the jackknife leaves out
    one image at a time. It assumes independent images: for draws along one chain, thin
    them or take one per chain.

    Args:
      images: `[n, H, W, channels]`, n at least 3, all of one class.
      similarity: see `pairwise_similarity`.
      batch_size: pairs computed at once.
    """
    if jnp.ndim(images) != 4 or jnp.shape(images)[0] < 3:
        raise expected(
            "images",
            "at least 3 images [n, H, W, channels]",
            f"shape {jnp.shape(images)}",
            "The standard error leaves out one image and needs a pair among the others.",
        )
    matrix = pairwise_similarity(images, similarity, batch_size=batch_size)
    count = matrix.shape[0]
    partners = jnp.sum(matrix, axis=1) - 1.0  # sum over each image's pairs
    total = jnp.sum(partners) / 2
    value = 1.0 - total / (count * (count - 1) / 2)
    without_one = 1.0 - (total - partners) / ((count - 1) * (count - 2) / 2)
    return DiversityResult(value, jackknife_standard_error(without_one))


def jackknife_standard_error(leave_one_out: Array) -> Array:
    """The jackknife standard error of a statistic of n independent items.

    `sqrt((n - 1) / n * sum_i (t_i - mean t)^2)`, `t_i` being the statistic without item i.
    Source: Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), Eq. 11.5.

    Args:
      leave_one_out: `[n]`, or `[n, ...]` for several statistics at once.
    """
    count = leave_one_out.shape[0]
    return jnp.sqrt((count - 1.0) * jnp.var(leave_one_out, axis=0))
