"""A chunk of a run, compiled: iteration after iteration of one phase.

Between two chunks every device has the whole state. Within one, which is a single
`jax.shard_map`, it holds its own chains only: their keys, positions, log densities, gradients
and counts never leave it, unless chains are resampled (see `jaxgen.sampler.iteration`).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxgen.core.platform import on_mesh
from jaxgen.core.types import Array, ArrayTree
from jaxgen.sampler.iteration import ChunkContext, run_iteration, skip_iteration
from jaxgen.sampler.options import ChunkOptions, Sampler
from jaxgen.sampler.shares import AXIS, Shares, share_out
from jaxgen.sampler.state import ChunkSpec, Phase, SamplerState, TemperatureInfo
from jaxgen.target.proposal import bridged
from jaxgen.tempering.betas import Adaptive

__all__ = ["advance", "advance_in_place"]

# The parts of a state, one row for each chain, that no other device needs from step to step.
_OWN = ("chains", "accepted", "num_gradients", "num_divergent")


def _advance(
    state: SamplerState, sampler: Sampler, spec: ChunkSpec, options: ChunkOptions
) -> tuple[SamplerState, TemperatureInfo, ArrayTree]:
    """Run at most `options.chunk_size` iterations of a phase.

    All three phases are this one program, so that the kernel is compiled once:

    - `Phase.ANNEAL`: an iteration is a temperature (weights, resampling, MCMC steps); the chunk
      ends when beta has reached the schedule's last value;
    - `Phase.WARM_UP`: the step rule learns at the last beta;
    - `Phase.DRAW`: an iteration ends with a draw, which `options.collect` is given.

    Args:
      state: where the run stands.
      sampler: path, kernel, step rule and schedule.
      spec: phase, number of iterations, and kernel steps in each.
      options: what decides the program; static.

    Returns:
      The state; a row for each iteration of annealing; what was collected, leaves
      `[chunk_size, P, ...]`: P is C, padded and spread over the mesh where there is one. Rows
      of iterations that were not used hold zeros.
    """
    layout = options.layout
    chunk = functools.partial(
        _chunk, options=options, shares=share_out(state.log_weight.shape[0], *layout)
    )
    if layout.mesh is not None:
        everywhere, draws = PartitionSpec(), PartitionSpec(None, AXIS)
        chunk = jax.shard_map(
            chunk,
            mesh=layout.mesh,
            in_specs=everywhere,
            out_specs=(everywhere, everywhere, draws),
            check_vma=False,
        )
    with on_mesh(layout.mesh):
        return chunk(state, sampler, spec)


advance = jax.jit(_advance, static_argnames="options")
# The same, writing over the state that it is given: for callers that need it no more.
advance_in_place = jax.jit(_advance, static_argnames="options", donate_argnames="state")


def _chunk(
    state: SamplerState, sampler: Sampler, spec: ChunkSpec, *, options: ChunkOptions, shares: Shares
) -> tuple[SamplerState, TemperatureInfo, ArrayTree]:
    """Run a chunk as one device does: from the whole state to the whole state."""
    last = 1.0 if isinstance(sampler.schedule, Adaptive) else sampler.schedule[-1]
    moving = bridged(sampler.path, state.mixture, state.on_bridge)
    context = ChunkContext(sampler, moving, spec, options, shares)

    def iteration(
        state: SamplerState, i: Array
    ) -> tuple[SamplerState, tuple[TemperatureInfo, ArrayTree]]:
        wanted = (i < spec.num_iterations) & ((spec.phase != Phase.ANNEAL) | (state.beta < last))
        state, *out = jax.lax.cond(
            wanted, lambda s: run_iteration(s, context), lambda s: skip_iteration(s, context), state
        )
        return state, tuple(out)

    keys = state.chain_keys
    state = _replace(state, shares.take({"chain_keys": keys} | _own(state)))
    state, (rows, kept) = jax.lax.scan(iteration, state, jnp.arange(options.chunk_size))
    rows = rows._replace(num_divergent=shares.add_up(rows.num_divergent))
    return _replace(state, {"chain_keys": keys} | shares.gather(_own(state))), rows, kept


def _own(state: SamplerState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in _OWN}


def _replace(state: SamplerState, fields: dict[str, Any]) -> SamplerState:
    return state._replace(**fields)
