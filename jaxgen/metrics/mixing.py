"""How far a chain of images travels: autocorrelation of features, and modes visited.

For chains whose target has no density to check (a sampler with a score prior, say), and
for the question that matters with images: does a chain go from one kind to another?

Shapes: features `[C, S, ...]` of C chains and S kept steps.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core.errors import expected
from jaxgen.core.printing import prints_short
from jaxgen.core.types import Array, Scalar

__all__ = ["ModesVisited", "autocorrelation", "integrated_time", "modes_visited"]


@prints_short
class ModesVisited(NamedTuple):
    """Attributes:
    by_chain: `[C]` the number of distinct centres each chain came near.
    by_all: the number all chains came near together.
    switches: `[C]` how often a chain went from one centre to another.
    """

    by_chain: Array
    by_all: Array
    switches: Array


@partial(jax.jit, static_argnames="max_lag")
def autocorrelation(features: Array, max_lag: int) -> Array:
    """Autocorrelation of features along chains, at lags 0 .. max_lag: `[max_lag + 1]`.

    `rho_k = mean_{c, t} <x_{c,t} - m, x_{c,t+k} - m> / mean_{c, t} |x_{c,t} - m|^2`, m being the
    mean over chains and steps alike. With a mean of its own for each chain a chain that is
    stuck would look mixed; so it looks as stuck as it is, as long as chains differ. Near 0: an
    image says nothing about the one k steps on. It stays at 1 for chains that never move.

    Args:
      features: `[C, S, ...]`.
      max_lag: less than S.
    """
    x = _chains(features)
    if not 0 <= max_lag < x.shape[1]:
        raise expected("max_lag", f"0 to {x.shape[1] - 1}", max_lag)
    x = x - jnp.mean(x, axis=(0, 1), keepdims=True)
    total = jnp.mean(jnp.sum(x * x, axis=-1))
    steps = x.shape[1]

    def at(lag: int) -> Array:
        return jnp.mean(jnp.sum(x[:, : steps - lag] * x[:, lag:], axis=-1))

    values = jnp.stack([at(lag) for lag in range(max_lag + 1)])
    return values / jnp.maximum(total, jnp.finfo(x.dtype).tiny)


@jax.jit
def integrated_time(autocorrelations: Array, window: Scalar = 5.0) -> Array:
    """`1 + 2 sum_{k=1}^K rho_k` with the first K >= window * the sum so far (Sokal 1997).

    How many steps one independent image costs. Where no K fits, all lags are summed and the
    number is a lower bound: chains were too short to know.

    Args:
      autocorrelations: `[K + 1]`, from lag 0.
      window: Sokal's constant.
    """
    rho = jnp.asarray(autocorrelations)
    times = 2.0 * jnp.cumsum(rho) - 1.0
    enough = jnp.arange(rho.shape[0]) >= window * times
    last = jnp.where(jnp.any(enough), jnp.argmax(enough), rho.shape[0] - 1)
    return times[last]


@jax.jit
def modes_visited(features: Array, centres: Array, radius: Scalar | None = None) -> ModesVisited:
    """Which of the given centres each chain came near.

    Every kept step belongs to its nearest centre, or to none if that is farther than
    `radius`. Centres are the modes that one knows of: k-means of real images' features.

    Args:
      features: `[C, S, ...]`.
      centres: `[M, ...]` in the same feature space.
      radius: the largest distance that counts, or None for any.
    """
    x = _chains(features)
    centres = jnp.asarray(centres)
    centres = centres.reshape(centres.shape[0], -1)
    if centres.shape[1] != x.shape[2]:
        raise expected("centres", f"[M, {x.shape[2]}] like the features", f"{centres.shape}")

    def nearest(point: Array) -> Array:
        distances = jnp.sum((centres - point[None]) ** 2, axis=1)
        best = jnp.argmin(distances)
        if radius is None:
            return best
        return jnp.where(distances[best] <= radius**2, best, -1)

    where = jax.lax.map(nearest, x.reshape(-1, x.shape[2])).reshape(x.shape[:2])
    seen = jnp.any(where[:, :, None] == jnp.arange(centres.shape[0])[None, None], axis=1)
    before, after = where[:, :-1], where[:, 1:]
    return ModesVisited(
        jnp.sum(seen, axis=1),
        jnp.sum(jnp.any(seen, axis=0)),
        jnp.sum((before != after) & (before >= 0) & (after >= 0), axis=1),
    )


def _chains(features: Array) -> Array:
    x = jnp.asarray(features)
    if x.ndim < 3 or x.shape[1] < 2:
        raise expected("features", "[C, S, ...] with at least 2 steps", f"shape {x.shape}")
    return x.reshape(*x.shape[:2], -1)
