"""A chunk of a run, compiled: slot after slot of one phase.

Between two chunks every device has the whole state. Within one, which is a single
`jax.shard_map`, it holds its own chains only: their keys, positions, log densities, gradients
and counts never leave it, unless chains are resampled (see `jaxgen.sampler.slot`).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from jaxgen.core.platform import on_mesh
from jaxgen.core.types import Array
from jaxgen.kernels.base import Kernel
from jaxgen.sampler.shares import AXIS, Shares, share_out
from jaxgen.sampler.slot import Common, run_slot, unused_slot
from jaxgen.sampler.state import ANNEAL, Order, RunState, TemperatureInfo
from jaxgen.target.path import AnnealedPath
from jaxgen.target.proposal import bridged
from jaxgen.tempering.betas import Adaptive
from jaxgen.tempering.step_size import StepRule

__all__ = ["advance", "advance_in_place"]

# What a state holds for each chain that no other device needs from step to step.
_OWN = ("chains", "accepted", "num_gradients", "num_divergent")


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
    chunk = functools.partial(
        _chunk,
        resample=resample,
        precondition=precondition,
        collect=collect,
        shares=share_out(state.log_weight.shape[0], tile, mesh),
        length=length,
    )
    if mesh is not None:
        everywhere, draws = PartitionSpec(), PartitionSpec(None, AXIS)
        chunk = jax.shard_map(
            chunk,
            mesh=mesh,
            in_specs=everywhere,
            out_specs=(everywhere, everywhere, draws),
            check_vma=False,
        )
    with on_mesh(mesh):
        return chunk(state, path, kernel, rule, schedule, order)


_STRUCTURE = ("resample", "precondition", "collect", "tile", "mesh", "length")
advance = jax.jit(_advance, static_argnames=_STRUCTURE)
# The same, writing over the state that it is given: for callers that need it no more.
advance_in_place = jax.jit(_advance, static_argnames=_STRUCTURE, donate_argnames="state")


def _chunk(
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
    shares: Shares,
    length: int,
) -> tuple[RunState, TemperatureInfo, Any]:
    """`advance` on one device: from the whole state to the whole state."""
    last = 1.0 if isinstance(schedule, Adaptive) else schedule[-1]
    way = bridged(path, state.mixture, state.on_bridge)
    common = Common(
        path, way, kernel, rule, schedule, order, resample, precondition, collect, shares
    )

    def slot(state: RunState, i: Array) -> tuple[RunState, tuple[TemperatureInfo, Any]]:
        wanted = (i < order.num_slots) & ((order.phase != ANNEAL) | (state.beta < last))
        state, *out = jax.lax.cond(
            wanted, lambda s: run_slot(s, common), lambda s: unused_slot(s, common), state
        )
        return state, tuple(out)

    keys = state.chain_keys
    state = _replace(state, shares.take({"chain_keys": keys} | _own(state)))
    state, (rows, kept) = jax.lax.scan(slot, state, jnp.arange(length))
    rows = rows._replace(num_divergent=shares.add_up(rows.num_divergent))
    return _replace(state, {"chain_keys": keys} | shares.gather(_own(state))), rows, kept


def _own(state: RunState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in _OWN}


def _replace(state: RunState, fields: dict[str, Any]) -> RunState:
    return state._replace(**fields)
