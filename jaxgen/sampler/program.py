"""The compiled part of every run: one state, one program.

A run is a `RunState` that `begin_stage` gives its chains and `advance` takes, a chunk at a
time, through inverse temperatures, then warm-up, then draws. The path, the kernel and the
step rule are arguments, so that new labels, masks, weights and numbers compile nothing.
Chunks may be of any size: the state holds all that the next step depends on.

Annealing may have two stages. The pilot goes from the path's start to its end in few large
steps; `fit_proposal` fits a mixture to where its chains have arrived; the final stage starts
from fresh draws, of the mixture or of the path's own start, whichever is nearer, and only its
weights count.

Chains live on islands, contiguous blocks of equal size that never exchange chains while
annealing: what they find of Z, each for itself, tells how uncertain it is.

Keys: chain i draws from `fold_in(key, i)` alone, its first state from `fold_in(., 0)` and
step t from `fold_in(., t)`. Resampling, which concerns all chains, has a key of its own.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgen.core.types import Array, ArrayTree, PRNGKey
from jaxgen.kernels.base import ChainState, Kernel, Tuning
from jaxgen.sampler.sharding import over_chains
from jaxgen.sampler.state import (
    ANNEAL,
    BLANK,
    DRAW,
    FINAL,
    PILOT,
    Order,
    RunState,
    TemperatureInfo,
    clock,
    new_phase,
    nothing_found,
)
from jaxgen.target.path import AnnealedPath
from jaxgen.target.proposal import bridged, no_mixture, unbridged_tilt
from jaxgen.tempering import mass_matrix
from jaxgen.tempering.betas import Adaptive
from jaxgen.tempering.resampling import (
    Evidence,
    draw_along,
    effective_sample_size,
    evidence,
    log_mean_exp,
    whole_log_weight,
)
from jaxgen.tempering.step_size import StepRule

__all__ = [
    "advance",
    "advance_in_place",
    "begin_stage",
    "blank_state",
    "finish_annealing",
    "finish_warm_up",
    "initial_state",
    "learn_mass",
    "log_evidence",
    "place_chains",
    "stale",
]

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
        return _typed(started, state), BLANK

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
        jax.random.fold_in(state.key, jnp.where(fresh, _SHARED, _SECOND_START)),
        jnp.arange(islands),
    )
    position = jax.tree.map(lambda x: x.reshape(count * pool, *x.shape[2:]), position)
    of_island = jax.tree.map(lambda x: x.reshape(islands, each * pool, *x.shape[1:]), position)
    index = jax.vmap(lambda *args: draw_along(name, *args, each))(
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
    state = _typed(started, state)
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
    return state, _typed(row, BLANK)


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
    return _typed(placed, state)


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
        key,
        path,
        rule,
        num_chains=num_chains,
        num_islands=num_islands,
        precondition=precondition,
    )
    stage = jnp.asarray(FINAL, jnp.int32)
    return begin_stage(state, path, kernel, stage, tile=tile, mesh=mesh)[0]


def _advance(
    state: RunState,
    path: AnnealedPath,
    kernel: Kernel,
    rule: StepRule,
    schedule: Array | Adaptive,
    order: Order,
    *,
    resample: str | None,
    precondition: str,
    collect: Any,
    tile: int | None,
    mesh: Mesh | None = None,
    length: int,
) -> tuple[RunState, TemperatureInfo, Any]:
    """Up to `length` slots of a phase, each of `order.steps_per_slot` kernel steps.

    All three phases are this one program, so that the kernel is compiled once:

    - `ANNEAL`: a slot is a temperature (weights, resampling, moves); it ends when beta has
      reached the schedule's last value;
    - `WARM_UP`: the step rule learns at the last beta;
    - `DRAW`: a slot ends with a draw, handed to `collect`.

    Args:
      schedule: `[T + 1]` inverse temperatures, the first of them ignored (chains start at
        0), or `Adaptive`.
      order: what to do.
      resample: a scheme's name, or None.
      precondition: what the inverse mass is learned from at each temperature: the chains'
        variances ("diagonal"), covariance ("dense") or gradients ("score"); or "none".
      collect: `collect(path, chain_state) -> tree` for one chain.
      tile, mesh: see `jaxgen.sampler.sharding.over_chains`.
      length: slots in the program.

    Returns:
      The state; a row for each slot of annealing; what was collected, leaves
      `[length, P, ...]`: P is C, padded and spread over the mesh where there is one. Slots
      that were not used hold zeros.
    """
    last = 1.0 if isinstance(schedule, Adaptive) else schedule[-1]
    way = bridged(path, state.mixture, state.on_bridge)
    learn = (rule.update, rule.warm, rule.after_freeze)

    def next_temperature(state: RunState) -> tuple[RunState, TemperatureInfo]:
        tilt = state.chains.tilt
        if isinstance(schedule, Adaptive):
            whole = whole_log_weight(state.log_weight, state.log_z)
            log_density = state.chains.base + state.beta * tilt
            beta = schedule.next_beta(state.beta, whole, tilt, log_density)
        else:
            beta = schedule[state.temperature + 1]
        before = state
        state = before._replace(
            log_weight=state.log_weight + (beta - state.beta) * tilt,
            beta=beta,
            temperature=state.temperature + 1,
        )
        state = _typed(state, before)
        ess = effective_sample_size(whole_log_weight(state.log_weight, state.log_z))
        log_z = log_evidence(state).log_z
        wanted = jnp.array(False)
        if precondition != "none":
            state = _when(order.learn_mass, lambda s: learn_mass(s, precondition, path), state)
        if resample is not None:
            state, wanted = _resample_if_low(state, rule, resample, order)
        row = BLANK._replace(
            active=jnp.array(True),
            beta=beta,
            ess=ess,
            log_z=log_z,
            resampled=wanted,
            stage=order.stage,
        )
        return state, _typed(row, BLANK)

    def body(_: int, carry: tuple[RunState, Array]) -> tuple[RunState, Array]:
        state, accepted = carry
        state, rates = _step(state, way, kernel, rule, tile, mesh)
        memory = jax.lax.switch(
            order.phase,
            [functools.partial(_learn, f, kernel.target_acceptance) for f in learn],
            state.memory,
            rates,
        )
        return state._replace(memory=memory), accepted + rates.mean().astype(accepted.dtype)

    def keep(state: RunState) -> Any:
        chains = (state.chains,)
        return over_chains(lambda c: collect(path, c), chains, tile, mesh, gather=False)

    nothing = _zeros_like_output(keep, state)

    def run(state: RunState) -> tuple[RunState, TemperatureInfo, Any]:
        state, row = jax.lax.cond(
            order.phase == ANNEAL, next_temperature, lambda s: (s, BLANK), state
        )
        before = state.num_divergent.sum()
        state, accepted = jax.lax.fori_loop(0, order.steps_per_slot, body, (state, jnp.zeros(())))
        row = row._replace(
            step_size=rule.size(state.memory, clock(state)).mean(),
            acceptance_rate=accepted / order.steps_per_slot,
            num_divergent=state.num_divergent.sum() - before,
        )
        row = _typed(row, BLANK)
        kept = jax.lax.cond(order.phase == DRAW, keep, lambda _: nothing, state)
        return state, row, kept

    def slot(state: RunState, i: Array) -> tuple[RunState, tuple[TemperatureInfo, Any]]:
        wanted = (i < order.num_slots) & ((order.phase != ANNEAL) | (state.beta < last))
        state, *out = jax.lax.cond(wanted, run, lambda s: (s, BLANK, nothing), state)
        return state, tuple(out)

    state, (rows, kept) = jax.lax.scan(slot, state, jnp.arange(length))
    if mesh is not None:
        everywhere = NamedSharding(mesh, PartitionSpec())
        state, rows = jax.lax.with_sharding_constraint((state, rows), everywhere)
        spread = NamedSharding(mesh, PartitionSpec(None, *mesh.axis_names))
        kept = jax.lax.with_sharding_constraint(kept, spread)
    return state, rows, kept


_STRUCTURE = ("resample", "precondition", "collect", "tile", "mesh", "length")
advance = jax.jit(_advance, static_argnames=_STRUCTURE)
# The same, writing over the state that it is given: for callers that need it no more.
advance_in_place = jax.jit(_advance, static_argnames=_STRUCTURE, donate_argnames="state")


@functools.partial(jax.jit, static_argnames=("resample", "precondition", "tile", "mesh"))
def finish_annealing(
    state: RunState,
    path: AnnealedPath,
    rule: StepRule,
    *,
    resample: str | None,
    precondition: str,
    tile: int | None = None,
    mesh: Mesh | None = None,
) -> RunState:
    """Put the islands together, and let the rule start its warm-up.

    Chains leave the bridge, if they are on it, for the path that they are draws of; a last
    resampling over all islands makes the weights equal; the inverse mass is the last learned.
    """
    if state.mixture is not None:
        state = _when(state.on_bridge, lambda s: _leave_bridge(s, path, tile, mesh), state)
    if precondition in ("dense", "diagonal"):
        whole = whole_log_weight(state.log_weight, state.log_z)
        learned = mass_matrix.ensemble(state.chains.position, whole, precondition)
        state = _typed(state._replace(learned_mass=learned), state)
    state = state._replace(inverse_mass=state.learned_mass)
    if resample is not None:
        # Weights that are equal already were made so at this temperature, with its key.
        whole = whole_log_weight(state.log_weight, state.log_z)
        unequal = jnp.any(whole != whole[0])
        state = _when(unequal, lambda s: _resample_all(s, rule, resample), state)
    return _typed(new_phase(state._replace(memory=rule.start_warmup(state.memory))), state)


@jax.jit
def finish_warm_up(state: RunState, rule: StepRule) -> RunState:
    """The rule stops learning."""
    return _typed(new_phase(state._replace(memory=rule.freeze(state.memory))), state)


@functools.partial(jax.jit, static_argnames=("tile", "mesh"))
def stale(
    state: RunState, path: AnnealedPath, *, tile: int | None = None, mesh: Mesh | None = None
) -> Array:
    """Whether the chains carry values of another target than this path: one forward pass.

    Carried values were recovered from sums, so they agree with fresh ones to rounding only.
    """
    way = bridged(path, state.mixture, state.on_bridge)

    def densities(position: Any) -> tuple[Array, Array]:
        base = way.base(position) if hasattr(path.start, "log_prob") else jnp.zeros(())
        return base, way.tilt(position)

    fresh = over_chains(densities, (state.chains.position,), tile, mesh)
    carried = (state.chains.base, state.chains.tilt)
    # Each was recovered from a sum of both, and is rounded as that sum is.
    size = jnp.nan_to_num(sum(jnp.abs(x) for x in carried), posinf=0.0)
    pairs = zip(fresh, carried, strict=True)
    same = [(jnp.abs(f - c) <= 0.05 + 1e-3 * size) | (f == c) | jnp.isnan(c) for f, c in pairs]
    return ~jnp.all(jnp.stack(same))


@functools.partial(jax.jit, static_argnames="pool")
def log_evidence(state: RunState, pool: int = 1) -> Evidence:
    """Estimate log Z at the present beta, see `jaxgen.tempering.resampling.evidence`.

    Args:
      state: while annealing or at its end.
      pool: how many candidates each chain was chosen from, as given to `begin_stage`.
    """
    count = state.log_weight.shape[0]
    found = evidence(state.log_weight, state.log_z, state.ancestor, count * pool)
    if pool == 1:
        return found
    # Where the pool alone reached this beta, its weights tell the error directly.
    alone = jnp.sqrt(jnp.maximum(state.pool_variance, 0.0))
    error = jnp.where(state.temperature <= 1, alone, found.standard_error)
    return found._replace(standard_error=error)


def _step(
    state: RunState,
    path: AnnealedPath,
    kernel: Kernel,
    rule: StepRule,
    tile: int | None,
    mesh: Mesh | None,
) -> tuple[RunState, Array]:
    """Move every chain one kernel step; also returns the acceptance rates `[C]`."""
    t = state.t + 1
    count = state.log_weight.shape[0]
    sizes = jnp.broadcast_to(rule.size(state.memory, clock(state)), (count,))

    def one(chain_key: PRNGKey, chain: ChainState, step_size: Array) -> Any:
        key = jax.random.fold_in(chain_key, t)
        tuning = Tuning(step_size, state.inverse_mass)
        return kernel.step(key, chain, path, state.beta, tuning, t)

    chains, info = over_chains(one, (state.chain_keys, state.chains, sizes), tile, mesh)
    moved = state._replace(
        chains=chains,
        t=t,
        accepted=state.accepted + info.acceptance_rate,
        num_steps=state.num_steps + 1,
        num_gradients=state.num_gradients + info.num_gradients,
        num_divergent=state.num_divergent + info.is_divergent.astype(jnp.int32),
    )
    return _typed(moved, state), info.acceptance_rate


def _resample_islands(
    state: RunState, rule: StepRule, name: str, threshold: Array | np.ndarray
) -> tuple[RunState, Array]:
    """Resample every island whose ESS is low, from its own chains; also whether any was."""
    count, islands = state.log_weight.shape[0], state.log_z.shape[0]
    each = count // islands
    weights = state.log_weight.reshape(islands, each)
    wanted = jax.vmap(effective_sample_size)(weights) < threshold * each

    def resampled(state: RunState) -> RunState:
        key = jax.random.fold_in(state.key, state.t)
        keys = key[None]
        if islands > 1:
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(islands))
        of_island = jax.tree.map(
            lambda x: x.reshape(islands, each, *x.shape[1:]), state.chains.position
        )
        index = jax.vmap(lambda *args: draw_along(name, *args, each))(
            keys, jax.nn.softmax(weights, axis=1), of_island
        )
        index = jnp.where(wanted[:, None], index, jnp.arange(each)[None])
        index = (index + each * jnp.arange(islands)[:, None]).reshape(-1)
        return _copy(state, rule, index)._replace(
            log_weight=jnp.where(wanted[:, None], 0.0, weights).reshape(-1),
            log_z=jnp.where(wanted, state.log_z + jax.vmap(log_mean_exp)(weights), state.log_z),
        )

    some = jnp.any(wanted)
    return _when(some, resampled, state), some


def _resample_if_low(
    state: RunState, rule: StepRule, name: str, order: Order
) -> tuple[RunState, Array]:
    """Resample where the ESS is low: a pilot over all chains, the final stage on each island.

    Only the final stage's weights count, so that only its islands must not meet.
    """

    def all_chains(state: RunState) -> tuple[RunState, Array]:
        ess = effective_sample_size(whole_log_weight(state.log_weight, state.log_z))
        low = ess < order.threshold * state.log_weight.shape[0]
        return _when(low, lambda s: _resample_all(s, rule, name), state), low

    def islands(state: RunState) -> tuple[RunState, Array]:
        return _resample_islands(state, rule, name, order.threshold)

    if state.mixture is None:
        return islands(state)
    return jax.lax.cond(order.stage == PILOT, all_chains, islands, state)


def _resample_all(state: RunState, rule: StepRule, name: str) -> RunState:
    """Replace chains by copies in proportion to their weights, over all islands."""
    count = state.log_weight.shape[0]
    whole = whole_log_weight(state.log_weight, state.log_z)
    key = jax.random.fold_in(state.key, state.t)
    index = draw_along(name, key, jax.nn.softmax(whole), state.chains.position, count)
    return _copy(state, rule, index)._replace(
        log_weight=jnp.zeros_like(state.log_weight),
        log_z=jnp.full_like(state.log_z, log_mean_exp(whole)),
    )


def _copy(state: RunState, rule: StepRule, index: Array) -> RunState:
    """Replace chain i by chain index[i]."""
    return state._replace(
        chains=jax.tree.map(lambda x: x[index], state.chains),
        ancestor=state.ancestor[index],
        memory=rule.resample(state.memory, index),
    )


def learn_mass(state: RunState, form: str, path: AnnealedPath) -> RunState:
    """Learn the inverse mass from the weighted ensemble, for the next temperature.

    The one in use becomes what the temperature before has taught. A mass learned from the
    very chains that it then moves would not leave their distribution invariant: at 64
    dimensions log Z came out 7 nats too high.
    """
    whole = whole_log_weight(state.log_weight, state.log_z)
    if form == "score":
        chains = state.chains
        gradient = jax.tree.map(lambda b, t: b + state.beta * t, chains.grad_base, chains.grad_tilt)
        one = jax.tree.map(lambda x: x[0], chains.position)
        first = mass_matrix.prior(path.start, one, form)
        learned = mass_matrix.score(gradient, whole, state.learned_mass, first)
    else:
        learned = mass_matrix.ensemble(state.chains.position, whole, form)
    return state._replace(inverse_mass=state.learned_mass, learned_mass=learned)


def _leave_bridge(
    state: RunState, path: AnnealedPath, tile: int | None, mesh: Mesh | None
) -> RunState:
    """Split the chains' log densities at beta = 1 into the path's own base and tilt."""

    def own(chain: ChainState) -> ChainState:
        base, grad_base = jax.value_and_grad(path.base)(chain.position)
        return chain._replace(
            base=base,
            grad_base=grad_base,
            tilt=unbridged_tilt(chain.tilt, chain.base, base),
            grad_tilt=unbridged_tilt(chain.grad_tilt, chain.grad_base, grad_base),
        )

    chains = over_chains(own, (state.chains,), tile, mesh)
    return state._replace(chains=chains, on_bridge=jnp.zeros_like(state.on_bridge))


def _typed(new: Any, old: Any) -> Any:
    """The new tree in the types of the old one, which a compiled loop must keep."""
    return jax.tree.map(
        lambda n, o: n if jnp.result_type(n) == jnp.result_type(o) else jnp.asarray(n, o.dtype),
        new,
        old,
    )


def _when(wanted: Array | np.ndarray, change: Any, state: RunState) -> RunState:
    """change(state) where it is wanted, else the state."""
    return jax.lax.cond(wanted, lambda s: _typed(change(s), s), lambda s: s, state)


def _learn(learn: Any, target: float, memory: Any, rates: Array) -> Any:
    """What a step rule remembers after a step, in the types it had before."""
    return _typed(learn(memory, rates, target), memory)


def _zeros_like_output(function: Any, *args: Any) -> Any:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, *args))
