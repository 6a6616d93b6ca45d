"""Convergence of chains: R-hat, effective sample sizes, and Monte Carlo errors.

Rank-normalised split R-hat and effective sizes of the bulk and of the tails (Vehtari, Gelman,
Simpson, Carpenter & Buerkner 2021). Shapes: draws `[C, S, ...]` of C chains and S draws each.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxgen.core.errors import expected
from jaxgen.core.printing import prints_short

__all__ = ["ESS", "effective_sizes", "mean_sizes", "split_rhat"]


@prints_short
class ESS(NamedTuple):
    """Effective sample sizes, one for each quantity: of the bulk, and of the 5% tails."""

    bulk: np.ndarray
    tail: np.ndarray


def split_rhat(draws: ArrayLike) -> np.ndarray:
    """Rank-normalised split R-hat of `[C, S, ...]` draws, one for each quantity.

    NaN where S < 4 or a quantity does not vary.
    """
    x, shape = _flat(draws)
    if x.shape[1] < 4:
        return np.full(shape, np.nan)
    x = _split(x)
    bulk = _rhat(_normal_scores(x))
    folded = _rhat(_normal_scores(np.abs(x - np.median(x, axis=(0, 1)))))
    return np.maximum(bulk, folded).reshape(shape)


def effective_sizes(draws: ArrayLike) -> ESS:
    """Bulk and tail effective sample sizes of `[C, S, ...]` draws.

    The tail's is the smaller one of those of the indicators x <= q05 and x <= q95.
    """
    x, shape = _flat(draws)
    if x.shape[1] < 4:
        return ESS(np.full(shape, np.nan), np.full(shape, np.nan))
    bulk = _ess(_normal_scores(_split(x)))
    low, high = np.quantile(x, [0.05, 0.95], axis=(0, 1))
    tails = [_ess(_split((x <= q).astype(np.float64))) for q in (low, high)]
    return ESS(bulk.reshape(shape), np.fmin(*tails).reshape(shape))


def mean_sizes(draws: ArrayLike) -> np.ndarray:
    """Effective sample size of `[C, S, ...]` draws for their mean, one for each quantity.

    Of the values themselves where `effective_sizes` looks at their ranks: the Monte Carlo standard
    error of a mean is the standard deviation over its square root.
    """
    x, shape = _flat(draws)
    if x.shape[1] < 4:
        return np.full(shape, np.nan)
    return _ess(_split(x)).reshape(shape)


def _flat(draws: ArrayLike) -> tuple[np.ndarray, tuple[int, ...]]:
    x = np.asarray(draws, np.float64)
    if x.ndim < 2:
        raise expected("draws", "[chains, draws, ...]", list(x.shape))
    return x.reshape(*x.shape[:2], -1), x.shape[2:]


def _split(x: np.ndarray) -> np.ndarray:
    """Halves of chains as chains of their own, a middle draw left out: `[2 C, S // 2, K]`."""
    half = x.shape[1] // 2
    return np.concatenate([x[:, :half], x[:, -half:]])


def _normal_scores(x: np.ndarray) -> np.ndarray:
    """Phi^-1((rank - 3/8) / (N + 1/4)), ranks over all chains, ties sharing their mean."""
    flat = x.reshape(-1, x.shape[-1])
    count = flat.shape[0]
    order = np.argsort(flat, axis=0, kind="stable")
    ordered = np.take_along_axis(flat, order, 0)
    new = np.concatenate([np.ones((1, flat.shape[1]), bool), np.diff(ordered, axis=0) != 0])
    place = np.arange(1, count + 1)[:, None]
    # The first and the last place of each run of equal values.
    first = np.maximum.accumulate(np.where(new, place, 0), axis=0)
    last_flag = np.concatenate([new[1:], np.ones((1, flat.shape[1]), bool)])
    last = np.minimum.accumulate(np.where(last_flag, place, count + 1)[::-1], axis=0)[::-1]
    ranks = np.empty_like(flat)
    np.put_along_axis(ranks, order, 0.5 * (first + last), 0)
    scores = jax.scipy.special.ndtri(jnp.asarray((ranks - 0.375) / (count + 0.25)))
    return np.asarray(scores, np.float64).reshape(x.shape)


def _rhat(x: np.ndarray) -> np.ndarray:
    count = x.shape[1]
    within = x.var(axis=1, ddof=1).mean(0)
    between = x.mean(axis=1).var(axis=0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.sqrt((count - 1) / count + between / within)
    return np.where(within > 0, ratio, np.where(between > 0, np.inf, np.nan))


def _ess(x: np.ndarray) -> np.ndarray:
    """Effective sample size of `[M, N, K]`, by Geyer's initial monotone sequence."""
    chains, count, _ = x.shape
    centred = x - x.mean(1, keepdims=True)
    padded = 1 << (2 * count - 1).bit_length()
    spectrum = np.abs(np.fft.rfft(centred, padded, axis=1)) ** 2
    covariance = np.fft.irfft(spectrum, padded, axis=1)[:, :count].mean(0) / count
    within = covariance[0] * count / (count - 1)
    total = covariance[0] + (x.mean(1).var(0, ddof=1) if chains > 1 else 0.0)
    safe = np.where(total > 0, total, 1.0)
    rho = 1 - (within - covariance) / safe
    rho[0] = 1.0
    pairs = rho[: count - count % 2].reshape(-1, 2, x.shape[-1]).sum(1)
    positive = np.logical_and.accumulate(pairs > 0, axis=0)
    pairs = np.minimum.accumulate(np.where(positive, pairs, 0.0), axis=0)
    size = chains * count
    tau = np.maximum(-1 + 2 * pairs.sum(0), 1 / np.log10(size))
    return np.where(total > 0, size / tau, np.nan)
