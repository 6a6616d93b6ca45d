"""Resampling of chains, and what weights say: ESS, log Z and its standard error."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxgen.core.errors import expected
from jaxgen.core.lazy import blackjax
from jaxgen.core.printing import prints_short
from jaxgen.core.types import Array, ArrayTree, PRNGKey

__all__ = [
    "SCHEMES",
    "Evidence",
    "choose_islands",
    "draw_along",
    "effective_sample_size",
    "evidence",
    "log_mean_exp",
    "relative_standard_error",
    "scheme",
    "whole_log_weight",
]

SCHEMES = ("systematic", "stratified", "multinomial", "residual")


def scheme(name: str) -> Callable[..., Array]:
    """Return a resampling scheme by name: `(key, weights [C], C) -> ancestors [C]`."""
    if name not in SCHEMES:
        raise expected("resample", f"None or one of {', '.join(SCHEMES)}", repr(name))
    return getattr(blackjax().smc.resampling, name)


def draw_along(name: str, key: PRNGKey, weights: Array, position: ArrayTree, count: int) -> Array:
    """Return ancestors `[count]`, drawn by a scheme from candidates in the order of where they lie.

    Systematic and stratified resampling take of any run of neighbours in the list nearly as many
    as their weights are worth. In the order of the candidates' first principal component, a mode
    is such a run, and chance changes the modes' shares less (Gerber, Chopin & Whiteley 2019).

    Args:
      name: of the scheme.
      key: consumed.
      weights: `[N]`, normalised.
      position: leaves `[N, ...]`.
      count: how many.
    """
    flat = jax.vmap(lambda z: ravel_pytree(z)[0])(position)
    flat = jnp.where(jnp.isfinite(flat) & (weights > 0)[:, None], flat, 0.0)
    away = flat - (weights @ flat)[None]
    scaled = jnp.sqrt(weights)[:, None] * away

    def iterate(_: int, direction: Array) -> Array:
        longer = scaled.T @ (scaled @ direction)
        return longer / jnp.maximum(jnp.linalg.norm(longer), 1e-30)

    # The farthest candidate gives a first direction.
    first = scaled[jnp.argmax(jnp.sum(scaled**2, axis=1))]
    direction = jax.lax.fori_loop(0, _ITERATIONS, iterate, first)
    order = jnp.argsort(away @ direction)
    return order[scheme(name)(key, weights[order], count)]


def effective_sample_size(log_weight: Array) -> Array:
    """(sum w)^2 / sum w^2, between 1 and C (Kong 1992). 0 where every weight is 0."""
    weights = jax.nn.softmax(log_weight)
    return jnp.where(jnp.any(jnp.isfinite(log_weight)), 1.0 / jnp.sum(weights**2), 0.0)


def log_mean_exp(log_weight: Array) -> Array:
    """log(1/C sum exp(log_weight))."""
    return jax.nn.logsumexp(log_weight) - jnp.log(log_weight.shape[0])


# Steps of the power iteration to the first principal component.
_ITERATIONS = 10
# Fewer chains than this in an island say little about its evidence.
_LEAST_IN_ISLAND = 8
_MOST_ISLANDS = 4
# Student's 97.5% quantile with I - 1 degrees of freedom over the normal's. Two islands would
# need 6.5, which is of no use: they are taken for three.
_STUDENT = {2: 2.195, 3: 2.195, 4: 1.624}


@prints_short
class Evidence(NamedTuple):
    """An estimate of log Z from islands of chains.

    Attributes:
      log_z: log of the mean of the islands' estimates of Z.
      standard_error: the largest of three estimates, see `evidence`.
      island_log_z: `[I]`, each island's own estimate.
    """

    log_z: Array
    standard_error: Array
    island_log_z: Array


def choose_islands(num_chains: int) -> int:
    """Return the number of islands: at most 4, of equal size, of at least 8 chains each."""
    fits = [i for i in range(1, _MOST_ISLANDS + 1) if num_chains % i == 0]
    return max(i for i in fits if i == 1 or num_chains // i >= _LEAST_IN_ISLAND)


def whole_log_weight(log_weight: Array, log_z: Array) -> Array:
    """Return log weights `[C]` that compare chains of different islands.

    Args:
      log_weight: `[C]` since the island's last resampling.
      log_z: `[I]` log of what each island's earlier resamplings have estimated of Z.
    """
    return log_weight + jnp.repeat(log_z, log_weight.shape[0] // log_z.shape[0])


def evidence(
    log_weight: Array, log_z: Array, ancestor: Array, families: int | None = None
) -> Evidence:
    """Estimate log Z and its standard error from islands that never exchange chains.

    Every island i estimates Z by Z_i = exp(log_z_i) mean(w), and Z^ = mean_i Z_i. Its
    standard error, relative to Z^, is the largest of

    - that of families: chains that descend from one first state (`relative_standard_error`),
      which many chains make precise, and which saturates where few families are left;
    - that between the islands' Z_i, t sd(Z_i) / (sqrt(I) Z^), which rests on independence
      alone;
    - that between their logarithms, t sd(log Z_i) / sqrt(I), which does not saturate where
      islands lie several nats apart.

    The factor t makes up for the few islands: with I = 4, +-1.96 standard errors are then the
    95% interval of Student's t with 3 degrees of freedom. It is 1 where every chain has a first
    state of its own: the first estimate then rests on C independent weights.

    It is NaN for a single chain, which knows nothing of its error.

    Args:
      log_weight: `[C]` since the island's last resampling; islands are contiguous.
      log_z: `[I]` as in `whole_log_weight`.
      ancestor: `[C]` index of the first state that each chain descends from.
      families: F, how many first states there were; C by default.
    """
    count, islands = log_weight.shape[0], log_z.shape[0]
    whole = whole_log_weight(log_weight, log_z)
    island_log_z = jax.vmap(log_mean_exp)(whole.reshape(islands, -1))
    total = log_mean_exp(whole)
    error = relative_standard_error(whole, ancestor, families)
    if count == 1:
        error = jnp.full_like(error, jnp.nan)
    if islands > 1:
        between = jnp.std(jnp.exp(island_log_z - total), ddof=1)
        apart = jnp.std(island_log_z, ddof=1)
        # An island whose every weight is 0 has log Z_i = -inf: the first two cover it.
        apart = jnp.where(jnp.isfinite(apart), apart, 0.0)
        alone = jnp.all(ancestor == jnp.arange(count)) & (families in (None, count))
        few = jnp.where(alone, 1.0, _STUDENT.get(islands, 1.0))
        error = jnp.maximum(error, few * jnp.maximum(between, apart) / jnp.sqrt(islands))
    return Evidence(total, error, island_log_z)


def relative_standard_error(
    log_weight: Array, ancestor: Array, families: int | None = None
) -> Array:
    """Return the standard error of the estimate of Z, over Z; to first order that of log Z.

    With S_e the normalised weight of all chains that descend from first state e, of F,

        se^2 = F / (F - 1) sum_e (S_e - 1/F)^2

    Without resampling every chain is its own family and this is the usual
    sd(w) / (sqrt(C) mean(w)). With it, families carry the correlation that resampling
    made (Chan & Lai 2013; Lee & Whiteley 2018).

    Args:
      log_weight: `[C]` log weights since the last resampling.
      ancestor: `[C]` index of the first state that each chain descends from.
      families: F, how many first states there were; C by default.
    """
    count = log_weight.shape[0] if families is None else families
    weights = jax.nn.softmax(log_weight)
    family = jnp.zeros(count).at[ancestor].add(weights)
    return jnp.sqrt(count / max(count - 1, 1) * jnp.sum((family - 1.0 / count) ** 2))
