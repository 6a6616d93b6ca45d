"""Operations on all chains at once: weights, resampling, the inverse mass.

Within a chunk every device knows all weights but holds the rows of its own chains only, see
`jaxgen.sampler.shares`. Whole chains are gathered where they are resampled; for the inverse mass
only positions or gradients are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.types import Array, ArrayTree
from jaxgen.kernels.base import ChainState
from jaxgen.sampler.shares import Shares
from jaxgen.sampler.state import ChunkSpec, SamplerState, Stage
from jaxgen.target.path import AnnealedPath
from jaxgen.tempering import mass_matrix
from jaxgen.tempering.resampling import (
    Evidence,
    draw_along,
    effective_sample_size,
    evidence,
    log_mean_exp,
    whole_log_weight,
)
from jaxgen.tempering.step_size import StepRule

__all__ = ["learn_mass", "log_evidence", "resample_all", "resample_if_low", "typed", "when"]

_T = TypeVar("_T", bound=ArrayTree)


@functools.partial(jax.jit, static_argnames="pool")
def log_evidence(state: SamplerState, pool: int = 1) -> Evidence:
    """Estimate log Z at the present beta, see `jaxgen.tempering.resampling.evidence`.

    Args:
      state: while annealing or at its end.
      pool: how many candidates each chain was chosen from, as given to `init_stage`.
    """
    count = state.log_weight.shape[0]
    found = evidence(state.log_weight, state.log_z, state.lineage, count * pool)
    if pool == 1:
        return found
    # Where the pool alone reached this beta, its weights tell the error directly.
    alone = jnp.sqrt(jnp.maximum(state.pool_variance, 0.0))
    error = jnp.where(state.temperature <= 1, alone, found.standard_error)
    return found._replace(standard_error=error)


def resample_if_low(
    state: SamplerState, rule: StepRule, name: str, spec: ChunkSpec, shares: Shares
) -> tuple[SamplerState, Array]:
    """Resample where the ESS is low: a pilot over all chains, the final stage on each island.

    Only the weights of the final stage count, so that only there islands must stay apart. Also
    returns whether anything was resampled.
    """

    def all_chains(state: SamplerState) -> tuple[SamplerState, Array]:
        ess = effective_sample_size(whole_log_weight(state.log_weight, state.log_z))
        low = ess < spec.threshold * state.log_weight.shape[0]
        return when(low, lambda s: resample_all(s, rule, name, shares), state), low

    def islands(state: SamplerState) -> tuple[SamplerState, Array]:
        return _resample_islands(state, rule, name, spec.threshold, shares)

    if state.mixture is None:
        return islands(state)
    return jax.lax.cond(spec.stage == Stage.PILOT, all_chains, islands, state)


def _resample_islands(
    state: SamplerState, rule: StepRule, name: str, threshold: Array | np.ndarray, shares: Shares
) -> tuple[SamplerState, Array]:
    """Resample every island whose ESS is low from its own chains; also return whether any was."""
    count, islands = state.log_weight.shape[0], state.log_z.shape[0]
    each = count // islands
    weights = state.log_weight.reshape(islands, each)
    wanted = jax.vmap(effective_sample_size)(weights) < threshold * each

    def resampled(state: SamplerState) -> SamplerState:
        key = jax.random.fold_in(state.key, state.t)
        keys = key[None]
        if islands > 1:
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(islands))
        whole = shares.gather(state.chains)
        of_island = jax.tree.map(lambda x: x.reshape(islands, each, *x.shape[1:]), whole.position)
        index = jax.vmap(lambda k, w, z: draw_along(name, k, w, z, each))(
            keys, jax.nn.softmax(weights, axis=1), of_island
        )
        index = jnp.where(wanted[:, None], index, jnp.arange(each)[None])
        index = (index + each * jnp.arange(islands)[:, None]).reshape(-1)
        return _copy(state, whole, rule, index, shares)._replace(
            log_weight=jnp.where(wanted[:, None], 0.0, weights).reshape(-1),
            log_z=jnp.where(wanted, state.log_z + jax.vmap(log_mean_exp)(weights), state.log_z),
        )

    some = jnp.any(wanted)
    return when(some, resampled, state), some


def resample_all(state: SamplerState, rule: StepRule, name: str, shares: Shares) -> SamplerState:
    """Replace chains by copies in proportion to their weights, over all islands."""
    count = state.log_weight.shape[0]
    weight = whole_log_weight(state.log_weight, state.log_z)
    key = jax.random.fold_in(state.key, state.t)
    whole = shares.gather(state.chains)
    index = draw_along(name, key, jax.nn.softmax(weight), whole.position, count)
    return _copy(state, whole, rule, index, shares)._replace(
        log_weight=jnp.zeros_like(state.log_weight),
        log_z=jnp.full_like(state.log_z, log_mean_exp(weight)),
    )


def _copy(
    state: SamplerState, whole: ChainState, rule: StepRule, index: Array, shares: Shares
) -> SamplerState:
    """Replace chain i by chain index[i], which may be another device's."""
    mine = shares.take(index)
    return state._replace(
        chains=jax.tree.map(lambda x: x[mine], whole),
        lineage=state.lineage[index],
        adaptation=rule.resample(state.adaptation, index),
    )


def learn_mass(state: SamplerState, form: str, path: AnnealedPath, shares: Shares) -> SamplerState:
    """Learn the inverse mass from the weighted ensemble, for the next temperature.

    The mass in use becomes the one learned at the temperature before. A mass learned from the
    same chains that it then moves would not leave their distribution invariant: at 64
    dimensions log Z came out 7 nats too high.
    """
    whole = whole_log_weight(state.log_weight, state.log_z)
    if form == "score":
        one = jax.tree.map(lambda x: x[0], state.chains.position)
        first = mass_matrix.prior(path.start, one, form)
        gradient = shares.gather(state.chains.gradient(state.beta))
        learned = mass_matrix.score(gradient, whole, state.learned_mass, first)
    else:
        learned = mass_matrix.ensemble(shares.gather(state.chains.position), whole, form)
    return state._replace(inverse_mass=state.learned_mass, learned_mass=learned)


def typed(new: _T, old: ArrayTree) -> _T:
    """Return the new tree in the types of the old one, which a compiled loop must keep."""
    return jax.tree.map(
        lambda n, o: n if jnp.result_type(n) == jnp.result_type(o) else jnp.asarray(n, o.dtype),
        new,
        old,
    )


def when(
    wanted: Array | np.ndarray, change: Callable[[SamplerState], SamplerState], state: SamplerState
) -> SamplerState:
    """Return change(state) where it is wanted, else the state."""
    return jax.lax.cond(wanted, lambda s: typed(change(s), s), lambda s: s, state)
