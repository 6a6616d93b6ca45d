"""Draws of images summed up as they come, so that none needs to be kept.

`folding(misses)` is a `reduce` for `jaxgen.sample`: each chain's mean and squared
deviations (Welford's update, `jaxgen.diagnostics.moments`), a histogram of every pixel for its
quantiles, what the images miss of the observation, and each chain's last draw. Memory does not
grow with the number of draws, and a run that is stopped goes on from the sums it had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.printing import prints_short
from jaxgen.core.types import ArrayTree
from jaxgen.diagnostics.moments import Moments, add

__all__ = ["BINS", "StreamedDraws", "folding", "histogram_quantiles"]

# Of a pixel between 0 and 1: quantiles are good to one grey level.
BINS = 256


@prints_short
class StreamedDraws(NamedTuple):
    """Sums over the draws so far.

    Attributes:
      moments: each chain's, `[C, H, W, channels]`.
      counts: `[BINS, H, W, channels]`, of all chains; values beyond [0, 1] count at the ends.
      misses: `[C]` sum over draws of the mean squared residual.
      scales: `[C]` sum over draws of the noise level, in units of the condition's.
      last: the last draw of each chain, {"position": ..., "image": ...}.
    """

    moments: Moments
    counts: np.ndarray
    misses: np.ndarray
    scales: np.ndarray
    last: dict[str, Any]


def folding(
    misses: Callable[[Any], tuple[Any, Any]],
) -> Callable[[StreamedDraws | None, Any], StreamedDraws]:
    """Return a `reduce` for draws that `jaxgen.images` collects.

    Args:
      misses: images `[N, H, W, channels]` -> (mean squared residual, noise scale), each `[N]`.
    """

    def fold(sums: StreamedDraws | None, kept: ArrayTree) -> StreamedDraws:
        images = np.asarray(kept["image"])  # [n, C, H, W, channels]
        count, chains = images.shape[:2]
        flat = images.reshape(-1, *images.shape[2:])
        missed, scale = (np.asarray(x, np.float64).reshape(count, chains) for x in misses(flat))
        counts = np.zeros((BINS, *images.shape[2:]), np.int32) if sums is None else sums.counts
        return StreamedDraws(
            moments=add(None if sums is None else sums.moments, images, np.ones((count, chains))),
            counts=_count(counts, flat),
            misses=missed.sum(axis=0) + (0.0 if sums is None else sums.misses),
            scales=scale.sum(axis=0) + (0.0 if sums is None else sums.scales),
            last=jax.tree.map(lambda x: np.asarray(x)[-1], kept),
        )

    return fold


def histogram_quantiles(counts: np.ndarray, probabilities: Sequence[float]) -> np.ndarray:
    """Quantiles of what was counted, `[P, ...]`, to within one bin's width.

    As `jaxgen.diagnostics.moments.quantiles`: the k-th of n draws stands for the probability
    k / (n + 1). Draws are taken to lie evenly within their bin.

    Args:
      counts: `[BINS, ...]` over [0, 1], the same number of draws everywhere.
      probabilities: each between 0 and 1.
    """
    wanted = np.asarray(probabilities, np.float64)
    if wanted.ndim != 1 or not np.all((wanted > 0) & (wanted < 1)):
        raise expected("probabilities", "numbers between 0 and 1", probabilities)
    bins = len(counts)
    flat = counts.reshape(bins, -1)
    up_to = np.cumsum(flat, axis=0)
    total = up_to[-1]
    result = np.empty((len(wanted), flat.shape[1]), np.float32)
    for i, probability in enumerate(wanted):
        rank = np.clip(probability * (total + 1), 1, np.maximum(total, 1))
        at = np.sum(up_to < rank, axis=0)
        inside = np.take_along_axis(flat, at[None], 0)[0]
        before = np.take_along_axis(up_to, at[None], 0)[0] - inside
        result[i] = (at + (rank - before - 0.5) / inside) / bins
    return result.reshape(len(wanted), *counts.shape[1:])


def _count(counts: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Return counts with images `[N, ...]` added; a new array, for the old one may be saved."""
    counts = counts.copy()
    flat = counts.reshape(BINS, -1)
    columns = np.arange(flat.shape[1])
    for image in images.reshape(len(images), -1):
        flat[np.clip((image * BINS).astype(np.int64), 0, BINS - 1), columns] += 1
    return counts
