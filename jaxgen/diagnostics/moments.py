"""Means, variances and quantiles of draws: streamed where draws need not be kept.

`Moments` is a weighted mean and sum of squares that chunks of draws are added to (Chan,
Golub & LeVeque 1983, Eq. 2.1; West 1979 for weights), in float64 on the host. Kept apart for
each chain, they can be weighed afterwards (`pooled`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxgen.core.errors import expected
from jaxgen.core.printing import prints_short
from jaxgen.core.tracing import namespace

__all__ = ["Moments", "add", "merge", "pooled", "quantiles", "weighted_quantiles"]

# Numbers that are sorted together.
_AT_ONCE = 1 << 18


@prints_short
class Moments(NamedTuple):
    """A weighted mean and sum of squared deviations.

    Attributes:
      weight: the weights' sum so far: `[]`, or `[C]` where chains are kept apart.
      mean: `[...]` (or `[C, ...]`).
      square: sum of weight * (x - mean)^2, of the same shape.
    """

    weight: np.ndarray
    mean: np.ndarray
    square: np.ndarray

    @property
    def variance(self) -> np.ndarray:
        """square / weight: that of the draws, not an estimate for more of them."""
        return self.square / _like(self.weight, self.square)

    @property
    def deviation(self) -> np.ndarray:
        """The root of `variance`."""
        return np.sqrt(self.variance)


def add(moments: Moments | None, draws: ArrayLike, weights: ArrayLike | None = None) -> Moments:
    """Moments with `draws` `[N, ...]` added, each with its weight `[N]` (or `[N, C]`).

    With draws `[N, C, ...]` and weights `[N, C]`, chains are kept apart.
    """
    x = np.asarray(draws, np.float64)
    w = np.ones(x.shape[:1]) if weights is None else np.asarray(weights, np.float64)
    if w.shape != x.shape[: w.ndim] or w.ndim < 1:
        raise expected("weights", f"shape {x.shape[:1]} like the draws", w.shape)
    total = w.sum(axis=0)
    safe = _like(np.where(total > 0, total, 1.0), x[0])
    mean = np.sum(_like(w, x) * x, axis=0) / safe
    square = np.sum(_like(w, x) * (x - mean) ** 2, axis=0)
    new = Moments(total, mean, square)
    return new if moments is None else merge(moments, new)


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of both sets of draws together."""
    weight = a.weight + b.weight
    safe = np.where(weight > 0, weight, 1.0)
    share = _like(b.weight / safe, a.mean)
    step = b.mean - a.mean
    return Moments(
        weight,
        a.mean + share * step,
        a.square + b.square + _like(a.weight, a.mean) * share * step**2,
    )


def pooled(chains: Moments, weights: ArrayLike | None = None) -> Moments:
    """Chains `[C, ...]` as one sample, chain i with `weights[i]` (equal by default)."""
    count = len(chains.weight)
    w = np.full(count, 1 / count) if weights is None else np.asarray(weights, np.float64)
    mean = np.tensordot(w, chains.mean, 1) / w.sum()
    square = np.tensordot(w, chains.variance + (chains.mean - mean) ** 2, 1)
    return Moments(w.sum(), mean, square)


def quantiles(
    draws: ArrayLike, probabilities: Sequence[float], weights: ArrayLike | None = None
) -> np.ndarray:
    """Quantiles over the first axis by the Weibull plotting position: `[P, ...]`.

    The k-th of n sorted draws stands for the probability k / (n + 1), so that an interval
    between two of them holds a new draw as often as it says. (NumPy's default positions
    make a 90% interval of 64 draws an 87% one.) With weights the positions are W_k n / (n +
    1), W_k the cumulated weights and n their effective sample size; equal weights give the
    same as none.

    Args:
      draws: `[N, ...]`.
      probabilities: each between 0 and 1.
      weights: `[N]`, or None.
    """
    x = np.asarray(draws)
    wanted = np.asarray(probabilities, np.float64)
    if wanted.ndim != 1 or not np.all((wanted > 0) & (wanted < 1)):
        raise expected("probabilities", "numbers between 0 and 1", probabilities)
    w = None if weights is None else np.asarray(weights, np.float64)
    if w is not None and w.shape != x.shape[:1]:
        raise expected("weights", f"shape {x.shape[:1]} like the draws", w.shape)
    flat = x.reshape(len(x), -1)
    result = np.empty((len(wanted), flat.shape[1]), x.dtype)
    # Some columns at a time: sorting copies, and weights take several arrays as large as these.
    width = max(1, _AT_ONCE // max(1, len(x)))
    for first in range(0, flat.shape[1], width):
        part = flat[:, first : first + width]
        if w is None:
            found = np.quantile(part, wanted, axis=0, method="weibull")
        else:
            found = weighted_quantiles(part, wanted, w)
        result[:, first : first + width] = found
    return result.reshape(len(wanted), *x.shape[1:])


def weighted_quantiles(x: Any, probabilities: np.ndarray, weights: Any) -> Any:
    """`quantiles` with weights `[N]`, in NumPy or inside a transformation of JAX."""
    xp = namespace(x, weights)
    w = weights / weights.sum()
    flat = x.reshape(len(x), -1)
    order = xp.argsort(flat, axis=0)
    flat = xp.take_along_axis(flat, order, axis=0)
    effective = 1.0 / xp.sum(w**2)
    position = xp.cumsum(w[order], axis=0) * effective / (effective + 1)
    result = []
    for probability in probabilities:
        above = xp.minimum(xp.sum(position < probability, axis=0), len(x) - 1)
        below = xp.maximum(above - 1, 0)
        at = [xp.take_along_axis(position, k[None], 0)[0] for k in (below, above)]
        value = [xp.take_along_axis(flat, k[None], 0)[0] for k in (below, above)]
        gap = xp.where(at[1] > at[0], at[1] - at[0], 1.0)
        share = xp.clip((probability - at[0]) / gap, 0.0, 1.0)
        result.append(value[0] + share * (value[1] - value[0]))
    return xp.stack(result).reshape(len(result), *x.shape[1:])


def _like(weight: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Weights with axes of length 1 appended, to multiply x."""
    return np.reshape(weight, (*np.shape(weight), *(1,) * (np.ndim(x) - np.ndim(weight))))
