"""What the loop over iterations of a traced run changes, and the checks on the way."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from jaxgen.core.types import Array, ArrayTree
from jaxgen.kernels.base import Kernel
from jaxgen.sampler import program
from jaxgen.sampler.records import AnnealingEvidence
from jaxgen.sampler.state import SamplerState, TemperatureInfo
from jaxgen.tempering.resampling import whole_log_weight
from jaxgen.tempering.step_size import StepRule

__all__ = ["Carry", "alive", "check_moving", "choose", "evidence_of", "first_failure", "write_row"]

_T = TypeVar("_T", bound=ArrayTree)


class Carry(NamedTuple):
    """The carry of the loop over iterations; `iteration` counts within a segment."""

    state: SamplerState
    rows: TemperatureInfo
    num_rows: Array
    kept: ArrayTree
    iteration: Array
    failure: Array


def write_row(carry: Carry, row: TemperatureInfo) -> Carry:
    """Add a row to the history, if it is one."""
    where = jnp.where(row.active, carry.num_rows, carry.rows.active.shape[0])
    rows = jax.tree.map(
        lambda b, x: b.at[where].set(jnp.asarray(x).astype(b.dtype), mode="drop"), carry.rows, row
    )
    return carry._replace(rows=rows, num_rows=carry.num_rows + row.active)


def check_moving(carry: Carry, rule: StepRule, kernel: Kernel) -> Carry:
    """Mark a phase in which (nearly) every proposal was rejected, as `loop.check_moving`."""
    state = carry.state
    rate = jnp.mean(state.accepted) / jnp.maximum(state.num_steps, 1)
    lost = jnp.mean(state.num_divergent) / jnp.maximum(state.t, 1)
    bad = rate < 1e-3
    if kernel.exactness == "approximate":
        bad = bad | (lost > 0.5)
    failure = jnp.where(bad & (state.num_steps >= 3), 3, 0)
    return carry._replace(failure=first_failure(carry.failure, failure))


def alive(state: SamplerState) -> Array:
    """Return whether any chain has a weight above zero."""
    return jnp.any(jnp.isfinite(whole_log_weight(state.log_weight, state.log_z)))


def first_failure(failure: Array, new: Array) -> Array:
    """Return the failure that happened first, a number of `notes.FAILURES` or 0."""
    return jnp.where(failure == 0, new, failure).astype(jnp.int32)


def evidence_of(
    state: SamplerState, blank: AnnealingEvidence, kernel: Kernel, pool: int
) -> AnnealingEvidence:
    """Return the evidence at the end of annealing, as `loop` has it."""
    count = state.log_weight.shape[0]
    seen = jnp.zeros(count * pool, jnp.int32).at[state.lineage].set(1)
    found = blank._replace(
        log_weight=whole_log_weight(state.log_weight, state.log_z),
        num_lineages=jnp.sum(seen).astype(blank.num_lineages.dtype),
    )
    if kernel.exactness != "exact":
        return found
    log_z, error, island_log_z = program.log_evidence(state, pool)
    return found._replace(
        log_z=log_z.astype(found.log_z.dtype),
        standard_error=error.astype(found.standard_error.dtype),
        island_log_z=island_log_z.astype(found.island_log_z.dtype),
    )


def choose(first: Array, a: _T, b: _T) -> _T:
    """Return `a` where `first` holds, else `b`; the trees may hold random keys."""
    return jax.tree.map(lambda x, y: _where(first, x, y), a, b)


def _where(first: Array, x: Array, y: Array) -> Array:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        words = jnp.where(first, jax.random.key_data(x), jax.random.key_data(y))
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(x))
    return jnp.where(first, x, y)
