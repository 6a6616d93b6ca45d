"""A chunk of a run, compiled: slot after slot of one phase."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgen.core.types import Array, PRNGKey
from jaxgen.kernels.base import ChainState, Kernel, Tuning
from jaxgen.sampler.ensemble import learn_mass, log_evidence, resample_if_low, typed, when
from jaxgen.sampler.sharding import over_chains
from jaxgen.sampler.state import ANNEAL, BLANK, DRAW, Order, RunState, TemperatureInfo, clock
from jaxgen.target.path import AnnealedPath
from jaxgen.target.proposal import bridged
from jaxgen.tempering.betas import Adaptive
from jaxgen.tempering.resampling import effective_sample_size, whole_log_weight
from jaxgen.tempering.step_size import StepRule

__all__ = ["advance", "advance_in_place"]


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
        state = typed(state, before)
        ess = effective_sample_size(whole_log_weight(state.log_weight, state.log_z))
        log_z = log_evidence(state).log_z
        wanted = jnp.array(False)
        if precondition != "none":
            state = when(order.learn_mass, lambda s: learn_mass(s, precondition, path), state)
        if resample is not None:
            state, wanted = resample_if_low(state, rule, resample, order)
        row = BLANK._replace(
            active=jnp.array(True),
            beta=beta,
            ess=ess,
            log_z=log_z,
            resampled=wanted,
            stage=order.stage,
        )
        return state, typed(row, BLANK)

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
        row = typed(row, BLANK)
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
    return typed(moved, state), info.acceptance_rate


def _learn(learn: Any, target: float, memory: Any, rates: Array) -> Any:
    """What a step rule remembers after a step, in the types it had before."""
    return typed(learn(memory, rates, target), memory)


def _zeros_like_output(function: Any, *args: Any) -> Any:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, *args))
