"""The compiled part of every run: one state, one program.

A run is a `RunState` that `advance` takes, a chunk at a time, through inverse temperatures,
then warm-up, then draws. The path, the kernel and the step rule are arguments, so that new
labels, masks, weights and numbers compile nothing. Chunks may be of any size: the state
holds all that the next step depends on.

Keys: chain i draws from `fold_in(key, i)` alone, its first state from `fold_in(., 0)` and
step t from `fold_in(., t)`. Resampling, which concerns all chains, has a key of its own.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgen.core.types import Array, PRNGKey
from jaxgen.kernels.base import ChainState, Kernel, Tuning
from jaxgen.sampler.sharding import over_chains
from jaxgen.sampler.state import (
    ANNEAL,
    BLANK,
    DRAW,
    Order,
    RunState,
    TemperatureInfo,
    clock,
    new_phase,
)
from jaxgen.target.path import AnnealedPath
from jaxgen.tempering import mass_matrix
from jaxgen.tempering.betas import Adaptive
from jaxgen.tempering.resampling import (
    effective_sample_size,
    log_mean_exp,
    relative_standard_error,
    scheme,
)
from jaxgen.tempering.step_size import StepRule

__all__ = [
    "advance",
    "advance_in_place",
    "finish_annealing",
    "finish_warm_up",
    "initial_state",
    "log_evidence",
    "stale",
]

# Folded into the run's key for what belongs to no single chain.
_SHARED = 0xFFFFFFFF


@functools.partial(jax.jit, static_argnames=("num_chains", "precondition", "tile", "mesh"))
def initial_state(
    key: PRNGKey,
    path: AnnealedPath,
    kernel: Kernel,
    rule: StepRule,
    *,
    num_chains: int,
    precondition: str = "none",
    tile: int | None = None,
    mesh: Mesh | None = None,
) -> RunState:
    """Draw the first states from the path's start: beta = 0."""
    chain_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_chains))

    def first(chain_key: PRNGKey) -> tuple[ChainState, Array]:
        position = path.start.sample(jax.random.fold_in(chain_key, 0))
        state = kernel.init(path, position)
        if hasattr(path.start, "log_prob"):
            return state, state.base - path.start.log_prob(position)
        return state, jnp.zeros(())

    chains, log_weight = over_chains(first, (chain_keys,), tile, mesh)
    zero = jnp.zeros((), jnp.int32)
    return RunState(
        key=jax.random.fold_in(key, _SHARED),
        chain_keys=chain_keys,
        chains=chains,
        beta=jnp.zeros(()),
        temperature=zero,
        t=zero,
        log_weight=log_weight,
        log_z=jnp.zeros(()),
        ancestor=jnp.arange(num_chains, dtype=jnp.int32),
        memory=rule.init(num_chains),
        inverse_mass=mass_matrix.prior(
            path.start, jax.tree.map(lambda x: x[0], chains.position), precondition
        ),
        accepted=jnp.zeros(num_chains),
        num_steps=zero,
        num_gradients=jnp.ones(num_chains, jnp.int32),
        num_divergent=jnp.zeros(num_chains, jnp.int32),
    )


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
    learn = (rule.update, rule.warm, rule.after_freeze)

    def next_temperature(state: RunState) -> tuple[RunState, TemperatureInfo]:
        tilt = state.chains.tilt
        if isinstance(schedule, Adaptive):
            beta = schedule.next_beta(state.beta, state.log_weight, tilt)
        else:
            beta = schedule[state.temperature + 1]
        state = state._replace(
            log_weight=state.log_weight + (beta - state.beta) * tilt,
            beta=beta,
            temperature=state.temperature + 1,
        )
        ess = effective_sample_size(state.log_weight)
        log_z, _ = log_evidence(state)
        wanted = jnp.array(False)
        state = _precondition(state, precondition, path)
        if resample is not None:
            wanted = ess < order.threshold * state.log_weight.shape[0]
            state = _resample_if(wanted, state, rule, resample)
        return state, BLANK._replace(
            active=jnp.array(True), beta=beta, ess=ess, log_z=log_z, resampled=wanted
        )

    def body(_: int, carry: tuple[RunState, Array]) -> tuple[RunState, Array]:
        state, accepted = carry
        state, rates = _step(state, path, kernel, rule, tile, mesh)
        memory = jax.lax.switch(
            order.phase,
            [functools.partial(f, target=kernel.target_acceptance) for f in learn],
            state.memory,
            rates,
        )
        return state._replace(memory=memory), accepted + rates.mean()

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


@functools.partial(jax.jit, static_argnames=("resample", "precondition"))
def finish_annealing(
    state: RunState, rule: StepRule, *, resample: str | None, precondition: str
) -> RunState:
    """Make the weights equal by a last resampling, and let the rule start its warm-up."""
    state = _precondition(state, precondition)
    if resample is not None:
        # Weights that are equal already were made so at this temperature, with its key.
        unequal = jnp.any(state.log_weight != 0.0)
        state = _resample_if(unequal, state, rule, resample)
    return new_phase(state._replace(memory=rule.start_warmup(state.memory)))


@jax.jit
def finish_warm_up(state: RunState, rule: StepRule) -> RunState:
    """The rule stops learning."""
    return new_phase(state._replace(memory=rule.freeze(state.memory)))


@functools.partial(jax.jit, static_argnames=("tile", "mesh"))
def stale(
    state: RunState, path: AnnealedPath, *, tile: int | None = None, mesh: Mesh | None = None
) -> Array:
    """Whether the chains carry values of another target than this path: one forward pass.

    Carried values were recovered from sums, so they agree with fresh ones to rounding only.
    """

    def densities(position: Any) -> tuple[Array, Array]:
        base = path.base(position) if hasattr(path.start, "log_prob") else jnp.zeros(())
        return base, path.tilt(position)

    fresh = over_chains(densities, (state.chains.position,), tile, mesh)
    carried = (state.chains.base, state.chains.tilt)
    same = [jnp.allclose(f, c, rtol=1e-3, atol=0.05) for f, c in zip(fresh, carried, strict=True)]
    return ~jnp.all(jnp.stack(same))


def log_evidence(state: RunState) -> tuple[Array, Array]:
    """log Z at the present beta, and its standard error (`relative_standard_error`)."""
    return (
        state.log_z + log_mean_exp(state.log_weight),
        relative_standard_error(state.log_weight, state.ancestor),
    )


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
    state = state._replace(
        chains=chains,
        t=t,
        accepted=state.accepted + info.acceptance_rate,
        num_steps=state.num_steps + 1,
        num_gradients=state.num_gradients + info.num_gradients,
        num_divergent=state.num_divergent + info.is_divergent.astype(jnp.int32),
    )
    return state, info.acceptance_rate


def _resample_if(wanted: Array, state: RunState, rule: StepRule, name: str) -> RunState:
    """Replace chains by copies in proportion to their weights; weights become equal."""

    def resampled(state: RunState) -> RunState:
        key = jax.random.fold_in(state.key, state.temperature)
        count = state.log_weight.shape[0]
        index = scheme(name)(key, jax.nn.softmax(state.log_weight), count)
        return state._replace(
            chains=jax.tree.map(lambda x: x[index], state.chains),
            log_weight=jnp.zeros(count),
            log_z=state.log_z + log_mean_exp(state.log_weight),
            ancestor=state.ancestor[index],
            memory=rule.resample(state.memory, index),
        )

    return jax.lax.cond(wanted, resampled, lambda s: s, state)


def _precondition(state: RunState, form: str, path: AnnealedPath | None = None) -> RunState:
    """The inverse mass from the ensemble, whose weights say more before than after resampling.

    By "score" it is learned as beta grows (given the path) and then left as it is.
    """
    if form == "none" or (form == "score" and path is None):
        return state
    if form == "score" and path is not None:
        chains = state.chains
        gradient = jax.tree.map(lambda b, t: b + state.beta * t, chains.grad_base, chains.grad_tilt)
        first = mass_matrix.prior(path.start, jax.tree.map(lambda x: x[0], chains.position), form)
        inverse_mass = mass_matrix.score(gradient, state.log_weight, state.inverse_mass, first)
    else:
        inverse_mass = mass_matrix.ensemble(state.chains.position, state.log_weight, form)
    return state._replace(inverse_mass=inverse_mass)


def _zeros_like_output(function: Any, *args: Any) -> Any:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, *args))
