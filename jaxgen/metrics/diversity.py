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

from jaxgen.core.errors import expected
from jaxgen.core.types import Array
from jaxgen.metrics.reconstruction import ms_ssim, ssim

__all__ = [
    "ClassSimilarity",
    "DiversityResult",
    "class_similarity",
    "jackknife_standard_error",
    "pairwise_similarity",
    "share_of_diverse_classes",
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


class ClassSimilarity(NamedTuple):
    """Similarity of the images of each class.

    Attributes:
      by_class: `[K]` the mean similarity between pairs of a class's images; NaN for a class
        of fewer than two.
      mean, deviation: over the classes that have pairs, as in PPGN's Table S3.
    """

    by_class: np.ndarray
    mean: float
    deviation: float


@partial(jax.jit, static_argnames=("similarity", "batch_size"))
def pairwise_similarity(
    images: Array,
    similarity: Callable[[Array, Array], Array] = ssim,
    *,
    batch_size: int = 64,
) -> Array:
    """Return the similarity of every pair of images, a symmetric matrix with ones on its diagonal.

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


def class_similarity(
    images: Array,
    labels: Array,
    num_classes: int,
    similarity: Callable[[Array, Array], Array] = ms_ssim,
    *,
    batch_size: int = 64,
) -> ClassSimilarity:
    """Mean MS-SSIM between the images of a class, class by class: low means diverse.

    Source: Odena, Olah & Shlens (ICML 2017), Sec. 4.2, who draw 100 random pairs a class;
    here all pairs count.

    Args:
      images: `[n, H, W, channels]`.
      labels: `[n]`, the class of each, from 0 to `num_classes - 1`.
      num_classes: K.
      similarity: see `pairwise_similarity`.
      batch_size: likewise.
    """
    kept = np.asarray(labels)
    if kept.shape != (np.shape(images)[0],):
        raise expected("labels", f"{np.shape(images)[0]} numbers, one for each image", kept.shape)
    values = np.full(num_classes, np.nan)
    for label in range(num_classes):
        rows = np.flatnonzero(kept == label)
        if len(rows) >= 2:
            matrix = np.asarray(
                pairwise_similarity(jnp.asarray(images)[rows], similarity, batch_size=batch_size)
            )
            values[label] = matrix[np.triu_indices(len(rows), k=1)].mean()
    known = values[np.isfinite(values)]
    if not known.size:
        raise expected("labels", "a class of at least two images", "none")
    return ClassSimilarity(values, float(known.mean()), float(known.std()))


def share_of_diverse_classes(generated: np.ndarray, real: np.ndarray) -> float:
    """Return the "percent of classes" rule, as a share.

    The share of classes whose mean similarity is below that of the least diverse class of
    real images (Odena et al. 2017, Sec. 4.2; Nguyen et al. 2017, Table S3).

    Args:
      generated: `[K]` similarities, `ClassSimilarity.by_class`. Classes that are NaN
        in `generated` were not drawn often enough, and do not count.
      real: likewise.
    """
    ours = np.asarray(generated)
    known, limits = ours[np.isfinite(ours)], np.asarray(real)[np.isfinite(np.asarray(real))]
    if not known.size or not limits.size:
        raise expected("generated, real", "at least one class each", (known.size, limits.size))
    return float(np.mean(known < limits.max()))


def jackknife_standard_error(leave_one_out: Array) -> Array:
    """Return the jackknife standard error of a statistic of n independent items.

    `sqrt((n - 1) / n * sum_i (t_i - mean t)^2)`, `t_i` being the statistic without item i.
    Source: Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), Eq. 11.5.

    Args:
      leave_one_out: `[n]`, or `[n, ...]` for several statistics at once.
    """
    count = leave_one_out.shape[0]
    return jnp.sqrt((count - 1.0) * jnp.var(leave_one_out, axis=0))
