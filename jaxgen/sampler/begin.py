"""How chains begin: the blank state, and the first states of a stage."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxgen.core.types import Array, ArrayTree, PRNGKey
from jaxgen.kernels.base import ChainState, Kernel
from jaxgen.sampler.ensemble import log_evidence, typed
from jaxgen.sampler.sharding import over_chains
from jaxgen.sampler.state import (
    BLANK,
    FINAL,
    PILOT,
    RunState,
    TemperatureInfo,
    new_phase,
    nothing_found,
)
from jaxgen.target.path import AnnealedPath
from jaxgen.target.proposal import bridged, no_mixture
from jaxgen.tempering import mass_matrix
from jaxgen.tempering.betas import Adaptive
from jaxgen.tempering.resampling import draw_along, effective_sample_size, log_mean_exp
from jaxgen.tempering.step_size import StepRule

__all__ = ["begin_stage", "blank_state", "initial_state", "place_chains"]

# Folded into the run's key for what belongs to no single chain.
_SHARED = np.uint32(0xFFFFFFFF)
# Folded into a chain's key for its first states of the final stage after a pilot, beyond all
# counts of steps.
_SECOND_START = np.uint32(0xFFFFFFFE)

# A pool's first temperature leaves an effective sample size of so many times C.
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
    precondition: str = "none",
    with_mixture: bool = False,
) -> RunState:
    """Return a state whose chains have not been drawn; no network runs."""
    chain_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_chains))
    latent = jax.eval_shape(path.start.sample, key)
    position = jax.tree.map(lambda x: jnp.zeros((num_chains, *x.shape), x.dtype), latent)
    one = jax.tree.map(lambda x: x[0], position)
    # Everything is counted in the latents' own precision.
    dtype = jnp.result_type(*jax.tree.leaves(one))
    zeros, zero = jnp.zeros(num_chains, dtype), jnp.zeros((), jnp.int32)
    inverse_mass = mass_matrix.prior(path.start, one, precondition).astype(dtype)
    memory = rule.init(num_chains)
    return RunState(
        key=jax.random.fold_in(key, _SHARED),
        chain_keys=chain_keys,
        chains=ChainState(position, zeros, position, zeros, position),
        beta=jnp.zeros((), dtype),
        temperature=zero,
        t=zero,
        log_weight=zeros,
        log_z=jnp.zeros(num_islands, dtype),
        ancestor=jnp.arange(num_chains, dtype=jnp.int32),
        pool_variance=jnp.zeros((), dtype),
        memory=memory,
        inverse_mass=inverse_mass,
        learned_mass=inverse_mass,
        # A point for each of the pilot's chains, and one for each scout.
        mixture=no_mixture(one, 2 * num_chains) if with_mixture else None,
        found=nothing_found(position, zeros, memory) if with_mixture else None,
        on_bridge=jnp.array(False),
        accepted=zeros,
        num_steps=zero,
        num_gradients=jnp.zeros(num_chains, jnp.int32),
        num_divergent=jnp.zeros(num_chains, jnp.int32),
    )


@functools.partial(jax.jit, static_argnames=("pool", "resample", "tile", "mesh"))
def begin_stage(
    state: RunState,
    path: AnnealedPath,
    kernel: Kernel,
    stage: Array,
    *,
    pool: int = 1,
    resample: str | None = None,
    tile: int | None = None,
    mesh: Mesh | None = None,
) -> tuple[RunState, TemperatureInfo]:
    """Draw the chains' first states.

    With a pool, every chain draws so many candidates, which cost a forward pass each and no
    gradient. The first temperature is the largest at which their weights' ESS is twice the
    number of chains, and chains are chosen by weight: in the final stage by every island from its
    own candidates, in a pilot from all.

    Args:
      state: a blank one, or one of which `fit_proposal` has made the second stage's.
      path, kernel: as in `advance`.
      stage: `PILOT` or `FINAL`.
      pool: candidates for each chain; 1 takes the one draw at beta = 0.
      resample: the scheme that chooses from a pool.
      tile, mesh: see `jaxgen.sampler.sharding.over_chains`.

    Returns:
      The state, and the row of the first temperature (inactive without a pool).
    """
    way = bridged(path, state.mixture, state.on_bridge)
    weighted = hasattr(path.start, "log_prob")
    count, islands = state.log_weight.shape[0], state.log_z.shape[0]
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
        ancestor=jnp.arange(count, dtype=jnp.int32),
        pool_variance=jnp.zeros_like(state.pool_variance),
    )
    state = new_phase(state)

    def first_weight(position: ArrayTree, base: Array) -> Array:
        return base - way.start.log_prob(position) if weighted else jnp.zeros_like(base)

    if pool == 1:

        def first(key: PRNGKey) -> tuple[ChainState, Array]:
            position = way.start.sample(key)
            chain = kernel.init(way, position)
            return chain, first_weight(position, chain.base)

        chains, log_weight = over_chains(first, (first_key,), tile, mesh)
        started = state._replace(
            chains=chains, log_weight=log_weight, num_gradients=state.num_gradients + 1
        )
        return typed(started, state), BLANK

    def candidate(key: PRNGKey) -> tuple[ArrayTree, Array, Array]:
        position = way.start.sample(key)
        base, tilt = way.base(position), way.tilt(position)
        weight, tilt = (
            jnp.where(jnp.isnan(x), -jnp.inf, x) for x in (first_weight(position, base), tilt)
        )
        return position, weight, tilt

    def candidates(key: PRNGKey) -> tuple[ArrayTree, Array, Array]:
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(pool))
        return jax.lax.map(candidate, keys)

    position, weight, tilt = over_chains(candidates, (first_key,), tile, mesh)
    chosen = Adaptive(cess=_POOL_ESS / pool)
    beta = chosen.next_beta(state.beta, weight.reshape(-1), tilt.reshape(-1))
    log_weight = weight + beta * tilt
    island_weight = log_weight.reshape(islands, -1)
    each = count // islands
    name = resample or "systematic"
    keys = jax.vmap(jax.random.fold_in, (None, 0))(
        jax.random.fold_in(state.key, jnp.where(fresh, _SHARED, _SECOND_START)), jnp.arange(islands)
    )
    position = jax.tree.map(lambda x: x.reshape(count * pool, *x.shape[2:]), position)
    of_island = jax.tree.map(lambda x: x.reshape(islands, each * pool, *x.shape[1:]), position)
    index = jax.vmap(lambda k, w, z: draw_along(name, k, w, z, each))(
        keys, jax.nn.softmax(island_weight, axis=1), of_island
    )
    index = (index + each * pool * jnp.arange(islands)[:, None]).reshape(-1)
    log_z = jax.vmap(log_mean_exp)(island_weight)
    if islands > 1:
        # A pilot's chains choose among all candidates.
        share = jax.nn.softmax(log_weight.reshape(-1))
        common = draw_along(name, keys[0], share, position, count)
        index = jnp.where(stage == PILOT, common, index)
        log_z = jnp.where(stage == PILOT, log_mean_exp(log_weight.reshape(-1)), log_z)
    position = jax.tree.map(lambda x: x[index], position)
    chains, _ = over_chains(lambda z: (kernel.init(way, z), jnp.zeros(())), (position,), tile, mesh)
    share = jax.nn.softmax(log_weight.reshape(-1))
    started = state._replace(
        chains=chains,
        beta=beta,
        temperature=state.temperature + 1,
        log_z=log_z,
        ancestor=index.astype(jnp.int32),
        pool_variance=jnp.sum(share**2) - 1.0 / (count * pool),
        num_gradients=state.num_gradients + 1 + round(pool / 3),
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
        stage=stage,
    )
    return state, typed(row, BLANK)


@functools.partial(jax.jit, static_argnames=("tile", "mesh"))
def place_chains(
    state: RunState,
    path: AnnealedPath,
    kernel: Kernel,
    position: ArrayTree,
    beta: Array,
    *,
    tile: int | None = None,
    mesh: Mesh | None = None,
) -> RunState:
    """Put the chains of a blank state at given positions `[C, ...]`, at a given beta."""
    chains, _ = over_chains(
        lambda z: (kernel.init(path, z), jnp.zeros(())), (position,), tile, mesh
    )
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
    precondition: str = "none",
    tile: int | None = None,
    mesh: Mesh | None = None,
) -> RunState:
    """Draw the first states from the path's start: beta = 0."""
    state = blank_state(
        key, path, rule, num_chains=num_chains, num_islands=num_islands, precondition=precondition
    )
    stage = jnp.asarray(FINAL, jnp.int32)
    return begin_stage(state, path, kernel, stage, tile=tile, mesh=mesh)[0]
