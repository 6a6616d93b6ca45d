"""Resampling of chains, and what weights say: ESS, log Z and its standard error."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.core.errors import expected
from jaxgen.core.lazy import blackjax
from jaxgen.core.types import Array

__all__ = [
    "SCHEMES",
    "effective_sample_size",
    "log_mean_exp",
    "relative_standard_error",
    "scheme",
]

SCHEMES = ("systematic", "stratified", "multinomial", "residual")


def scheme(name: str) -> Callable[..., Array]:
    """A resampling scheme by name: `(key, weights [C], C) -> ancestors [C]`."""
    if name not in SCHEMES:
        raise expected("resample", f"None or one of {', '.join(SCHEMES)}", repr(name))
    return getattr(blackjax().smc.resampling, name)


def effective_sample_size(log_weight: Array) -> Array:
    """(sum w)^2 / sum w^2, between 1 and C (Kong 1992). 0 where every weight is 0."""
    weights = jax.nn.softmax(log_weight)
    return jnp.where(jnp.any(jnp.isfinite(log_weight)), 1.0 / jnp.sum(weights**2), 0.0)


def log_mean_exp(log_weight: Array) -> Array:
    """log(1/C sum exp(log_weight))."""
    return jax.nn.logsumexp(log_weight) - jnp.log(log_weight.shape[0])


def relative_standard_error(log_weight: Array, ancestor: Array) -> Array:
    """Standard error of the estimate of Z, over Z; to first order that of log Z.

    With S_e the normalised weight of all chains that descend from first state e,

        se^2 = C / (C - 1) sum_e (S_e - 1/C)^2

    Without resampling every chain is its own family and this is the usual
    sd(w) / (sqrt(C) mean(w)). With it, families carry the correlation that resampling
    made (Chan & Lai 2013; Lee & Whiteley 2018).

    Args:
      log_weight: `[C]` log weights since the last resampling.
      ancestor: `[C]` index of the first state that each chain descends from.
    """
    count = log_weight.shape[0]
    weights = jax.nn.softmax(log_weight)
    family = jnp.zeros(count).at[ancestor].add(weights)
    return jnp.sqrt(count / max(count - 1, 1) * jnp.sum((family - 1.0 / count) ** 2))
