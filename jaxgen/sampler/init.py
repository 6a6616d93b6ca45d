"""Initialisation: the blank state, and the first states of a stage."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.types import Array, ArrayTree, Preconditioning, PRNGKey, Resampling
from jaxgen.kernels.base import ChainState, Kernel
from jaxgen.sampler.ensemble import log_evidence, typed
from jaxgen.sampler.options import ONE_BATCH, Layout
from jaxgen.sampler.sharding import over_chains
from jaxgen.sampler.state import (
    BLANK,
    SamplerState,
    Stage,
    TemperatureInfo,
    new_phase,
    no_pilot_result,
)
from jaxgen.target.path import AnnealedPath
from jaxgen.target.proposal import bridged, no_mixture
from jaxgen.tempering import mass_matrix
from jaxgen.tempering.betas import Adaptive
from jaxgen.tempering.resampling import draw_along, effective_sample_size, log_mean_exp
from jaxgen.tempering.step_size import StepRule

__all__ = ["blank_state", "init_stage", "initial_state", "place_chains"]

# Folded into the run's key, for draws that belong to no single chain.
_SHARED = np.uint32(0xFFFFFFFF)
# Folded into a chain's key, for its first state of the final stage after a pilot: larger than any
# count of steps.
_SECOND_START = np.uint32(0xFFFFFFFE)

# At a pool's first temperature the effective sample size is this many times C.
_POOL_ESS = 2.0


@functools.partial(
    jax.jit, static_argnames=("num_chains", "num_islands", "precondition", "with_mixture")
)
def blank_state(
    key: PRNGKey,
    path: AnnealedPath,
    rule: StepRule,
    *,
    num_chains: int,
    num_islands: int = 1,
    precondition: Preconditioning = "none",
    with_mixture: bool = False,
) -> SamplerState:
    """Return a state whose chains have not been drawn; no network runs."""
    chain_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_chains))
    latent = jax.eval_shape(path.start.sample, key)
    position = jax.tree.map(lambda x: jnp.zeros((num_chains, *x.shape), x.dtype), latent)
    one = jax.tree.map(lambda x: x[0], position)
    # Everything is counted in the latents' own precision.
    dtype = jnp.result_type(*jax.tree.leaves(one))
    zeros, zero = jnp.zeros(num_chains, dtype), jnp.zeros((), jnp.int32)
    inverse_mass = mass_matrix.prior(path.start, one, precondition).astype(dtype)
    adaptation = rule.init(num_chains)
    return SamplerState(
        key=jax.random.fold_in(key, _SHARED),
        chain_keys=chain_keys,
        chains=ChainState(position, zeros, position, zeros, position),
        beta=jnp.zeros((), dtype),
        temperature=zero,
        t=zero,
        log_weight=zeros,
        log_z=jnp.zeros(num_islands, dtype),
        lineage=jnp.arange(num_chains, dtype=jnp.int32),
        pool_variance=jnp.zeros((), dtype),
        adaptation=adaptation,
        inverse_mass=inverse_mass,
        learned_mass=inverse_mass,
        # A point for each of the pilot's chains, and one for each scout.
        mixture=no_mixture(one, 2 * num_chains) if with_mixture else None,
        pilot=no_pilot_result(position, zeros, adaptation) if with_mixture else None,
        on_bridge=jnp.array(False),
        accepted=zeros,
        num_steps=zero,
        num_gradients=jnp.zeros(num_chains, jnp.int32),
        num_divergent=jnp.zeros(num_chains, jnp.int32),
    )


@functools.partial(jax.jit, static_argnames=("pool", "resample", "layout"))
def init_stage(
    state: SamplerState,
    path: AnnealedPath,
    kernel: Kernel,
    stage: Array,
    *,
    pool: int = 1,
    resample: Resampling | None = None,
    layout: Layout = ONE_BATCH,
) -> tuple[SamplerState, TemperatureInfo]:
    """Draw the chains' first states.

    With a pool, every chain draws that many candidates, which cost a forward pass each and no
    gradient. The first temperature is the largest at which the ESS of their weights is twice the
    number of chains, and chains are chosen by weight: in the final stage by every island from its
    own candidates, in a pilot from all.

    Args:
      state: a blank one, or one that `fit_proposal` has prepared for the final stage.
      path: the annealing path, from whose start (or the mixture fitted to the pilot) is drawn.
      kernel: makes the chains' states.
      stage: a `Stage`.
      pool: candidates for each chain; 1 takes the one draw at beta = 0.
      resample: the scheme that chooses from a pool.
      layout: tiles and devices.

    Returns:
      The state, and the row of the first temperature (inactive without a pool).
    """
    # The first stage of a run begins before any kernel step.
    fresh = state.t == 0
    first_key = jax.vmap(
        lambda key: jax.random.fold_in(key, jnp.where(fresh, np.uint32(0), _SECOND_START))
    )(state.chain_keys)
    state = state._replace(
        beta=jnp.zeros_like(state.beta),
        temperature=jnp.zeros_like(state.temperature),
        log_weight=jnp.zeros_like(state.log_weight),
        log_z=jnp.zeros_like(state.log_z),
        lineage=jnp.arange(state.log_weight.shape[0], dtype=jnp.int32),
        pool_variance=jnp.zeros_like(state.pool_variance),
    )
    state = new_phase(state)
    start = _StageStart(
        bridged(path, state.mixture, state.on_bridge), hasattr(path.start, "log_prob"), kernel
    )
    if pool == 1:
        return _one_draw_each(state, start, first_key, layout), BLANK
    chosen = _Pool(pool, resample or "systematic", stage, fresh)
    return _from_a_pool(state, start, chosen, first_key, layout)


class _StageStart(NamedTuple):
    """The start of a stage: its path, whether starts have a density, and the kernel."""

    path: AnnealedPath
    weighted: bool
    kernel: Kernel

    def log_weight(self, position: ArrayTree, base: Array) -> Array:
        """Return log base - log start, zero where the start has no density."""
        return base - self.path.start.log_prob(position) if self.weighted else jnp.zeros_like(base)


class _Pool(NamedTuple):
    """The choice among candidates: how many for each chain, by which scheme, in which stage."""

    size: int
    scheme: Resampling
    stage: Array
    fresh: Array


def _one_draw_each(
    state: SamplerState, start: _StageStart, keys: Array, layout: Layout
) -> SamplerState:
    """Start every chain at its own draw, with its importance weight."""

    def first(key: PRNGKey) -> tuple[ChainState, Array]:
        position = start.path.start.sample(key)
        chain = start.kernel.init(start.path, position)
        return chain, start.log_weight(position, chain.base)

    chains, log_weight = over_chains(first, (keys,), *layout)
    started = state._replace(
        chains=chains, log_weight=log_weight, num_gradients=state.num_gradients + 1
    )
    return typed(started, state)


def _from_a_pool(
    state: SamplerState, start: _StageStart, pool: _Pool, first_key: Array, layout: Layout
) -> tuple[SamplerState, TemperatureInfo]:
    """Start chains at candidates chosen by their weights at the pool's first temperature."""
    path, count = start.path, state.log_weight.shape[0]

    def candidate(key: PRNGKey) -> tuple[ArrayTree, Array, Array]:
        position = path.start.sample(key)
        base, tilt = path.base(position), path.tilt(position)
        weight, tilt = (
            jnp.where(jnp.isnan(x), -jnp.inf, x) for x in (start.log_weight(position, base), tilt)
        )
        return position, weight, tilt

    def candidates(key: PRNGKey) -> tuple[ArrayTree, Array, Array]:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(pool.size))
        return jax.lax.map(candidate, keys)

    position, weight, tilt = over_chains(candidates, (first_key,), *layout)
    schedule = Adaptive(cess=_POOL_ESS / pool.size)
    beta = schedule.next_beta(state.beta, weight.reshape(-1), tilt.reshape(-1))
    log_weight = weight + beta * tilt
    position = jax.tree.map(lambda x: x.reshape(count * pool.size, *x.shape[2:]), position)
    index, log_z = _choose(state, pool, position, log_weight)
    position = jax.tree.map(lambda x: x[index], position)
    chains, _ = over_chains(
        lambda z: (start.kernel.init(path, z), jnp.zeros(())), (position,), *layout
    )
    share = jax.nn.softmax(log_weight.reshape(-1))
    started = state._replace(
        chains=chains,
        beta=beta,
        temperature=state.temperature + 1,
        log_z=log_z,
        lineage=index.astype(jnp.int32),
        pool_variance=jnp.sum(share**2) - 1.0 / (count * pool.size),
        num_gradients=state.num_gradients + 1 + round(pool.size / 3),
    )
    state = typed(started, state)
    row = BLANK._replace(
        active=jnp.array(True),
        beta=beta,
        ess=jnp.minimum(effective_sample_size(log_weight.reshape(-1)), count * 1.0),
        log_z=log_evidence(state).log_z,
        resampled=jnp.array(True),
        acceptance_rate=jnp.full((), jnp.nan),
        step_size=jnp.full((), jnp.nan),
        stage=pool.stage,
    )
    return state, typed(row, BLANK)


def _choose(
    state: SamplerState, pool: _Pool, position: ArrayTree, log_weight: Array
) -> tuple[Array, Array]:
    """Choose a candidate for every chain.

    Args:
      state: of the chains to start.
      pool: how they choose.
      position: of all candidates, leaves `[C * pool, ...]`.
      log_weight: `[C, pool]`.

    Returns:
      The index of each chain's candidate, `[C]`, and each island's log mean weight, `[I]`.
    """
    count, islands = state.log_weight.shape[0], state.log_z.shape[0]
    island_weight = log_weight.reshape(islands, -1)
    each = count // islands
    own_key = jnp.where(pool.fresh, _SHARED, _SECOND_START)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(
        jax.random.fold_in(state.key, own_key), jnp.arange(islands)
    )
    of_island = jax.tree.map(lambda x: x.reshape(islands, each * pool.size, *x.shape[1:]), position)
    index = jax.vmap(lambda k, w, z: draw_along(pool.scheme, k, w, z, each))(
        keys, jax.nn.softmax(island_weight, axis=1), of_island
    )
    index = (index + each * pool.size * jnp.arange(islands)[:, None]).reshape(-1)
    log_z = jax.vmap(log_mean_exp)(island_weight)
    if islands > 1:
        # A pilot's chains choose among all candidates.
        share = jax.nn.softmax(log_weight.reshape(-1))
        common = draw_along(pool.scheme, keys[0], share, position, count)
        index = jnp.where(pool.stage == Stage.PILOT, common, index)
        log_z = jnp.where(pool.stage == Stage.PILOT, log_mean_exp(log_weight.reshape(-1)), log_z)
    return index, log_z


@functools.partial(jax.jit, static_argnames="layout")
def place_chains(
    state: SamplerState,
    path: AnnealedPath,
    kernel: Kernel,
    position: ArrayTree,
    beta: Array,
    *,
    layout: Layout = ONE_BATCH,
) -> SamplerState:
    """Put the chains of a blank state at given positions `[C, ...]`, at a given beta."""
    chains, _ = over_chains(lambda z: (kernel.init(path, z), jnp.zeros(())), (position,), *layout)
    placed = state._replace(chains=chains, beta=beta, num_gradients=state.num_gradients + 1)
    return typed(placed, state)


def initial_state(
    key: PRNGKey,
    path: AnnealedPath,
    kernel: Kernel,
    rule: StepRule,
    *,
    num_chains: int,
    num_islands: int = 1,
    precondition: Preconditioning = "none",
    layout: Layout = ONE_BATCH,
) -> SamplerState:
    """Draw the first states from the path's start: beta = 0."""
    state = blank_state(
        key, path, rule, num_chains=num_chains, num_islands=num_islands, precondition=precondition
    )
    stage = jnp.asarray(Stage.FINAL, jnp.int32)
    return init_stage(state, path, kernel, stage, layout=layout)[0]
