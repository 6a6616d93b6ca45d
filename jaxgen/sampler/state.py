"""What a run carries from step to step, and what it reports of each temperature."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxgen.core.printing import prints_short
from jaxgen.core.types import Array, ArrayTree
from jaxgen.kernels.base import ChainState
from jaxgen.tempering.step_size import Clock

__all__ = [
    "ANNEAL",
    "BLANK",
    "DONE",
    "DRAW",
    "FINAL",
    "PILOT",
    "WARM_UP",
    "Found",
    "Order",
    "RunState",
    "TemperatureInfo",
    "clock",
    "new_phase",
    "nothing_found",
]


@prints_short
class Found(NamedTuple):
    """What the pilot's chains have found, kept while scouts go (`jaxgen.sampler.scouts`).

    Attributes:
      position: leaves `[C, ...]`.
      log_density: `[C]` log p of the target.
      gradient: leaves `[C, ...]`, its gradient.
      log_weight: `[C]`, over all islands.
      memory: the step rule's.
      num_divergent: `[C]`.
    """

    position: ArrayTree
    log_density: Array
    gradient: ArrayTree
    log_weight: Array
    memory: Any
    num_divergent: Array


def nothing_found(position: ArrayTree, zeros: Array, memory: Any) -> Found:
    """Return what holds the place before there is anything."""
    return Found(position, zeros, position, zeros, memory, jnp.zeros(zeros.shape, jnp.int32))


@prints_short
class RunState(NamedTuple):
    """All that the rest of a run depends on, besides what the user composed.

    Attributes:
      key: the run's key, for resampling.
      chain_keys: `[C]`.
      chains: `ChainState` with leaves `[C, ...]`.
      beta: the inverse temperature that chains were last moved at; 0 before the first.
      temperature: how many temperatures are done.
      t: how many kernel steps are done.
      log_weight: `[C]` since the island's last resampling.
      log_z: `[I]` log of what each island's earlier resamplings have estimated of Z.
      ancestor: `[C]` index of the first state that a chain descends from.
      pool_variance: relative variance of the estimate of Z by the pool alone.
      memory: the step rule's.
      inverse_mass: `[D]`, or `[D, D]`, in use.
      learned_mass: what this temperature's chains say of it; in use from the next one on, so
        that nothing learned from chains steers these very chains at once.
      mixture: the proposal fitted to what pilot and scouts have found, or None where none is to
        be fitted.
      found: what the pilot has found, for that fit; or None.
      on_bridge: whether chains move on the bridge from the mixture to the target.
      accepted: `[C]` sum of acceptance rates since the last phase began.
      num_steps: steps since the last phase began.
      num_gradients: `[C]` over the whole run.
      num_divergent: `[C]` refused proposals, over the whole run.
    """

    key: Array
    chain_keys: Array
    chains: ChainState
    beta: Array
    temperature: Array
    t: Array
    log_weight: Array
    log_z: Array
    ancestor: Array
    pool_variance: Array
    memory: Any
    inverse_mass: Array
    learned_mass: Array
    mixture: Any
    found: Any
    on_bridge: Array
    accepted: Array
    num_steps: Array
    num_gradients: Array
    num_divergent: Array


@prints_short
class TemperatureInfo(NamedTuple):
    """One row for each temperature; rows beyond the last are marked inactive.

    Attributes:
      active: whether the row was used.
      beta, step_size (its mean), acceptance_rate (mean over chains and moves); the last two are
        NaN in the row of a pool, at which nothing moves.
      ess: effective sample size of the weights, before any resampling.
      log_z: the running estimate.
      resampled: whether chains were resampled (on any island).
      num_divergent: refused proposals at this temperature.
      stage: `PILOT` or `FINAL`: the annealing that counts is the final one.
    """

    active: Array | np.ndarray
    beta: Array | np.ndarray
    step_size: Array | np.ndarray
    acceptance_rate: Array | np.ndarray
    ess: Array | np.ndarray
    log_z: Array | np.ndarray
    resampled: Array | np.ndarray
    num_divergent: Array | np.ndarray
    stage: Array | np.ndarray


# Stages of annealing: a pilot, which finds the posterior in few large steps, and the one
# whose weights count. Where there is no pilot, the only stage is the final one.
PILOT, FINAL = 0, 1

# Phases of a run.
ANNEAL, WARM_UP, DRAW, DONE = 0, 1, 2, 3


class Order(NamedTuple):
    """What a chunk is to do; all of it data.

    Attributes:
      phase: `ANNEAL`, `WARM_UP` or `DRAW`.
      num_slots: slots to use (annealing stops at the last beta).
      steps_per_slot: kernel steps in each.
      threshold: while annealing, an island is resampled when its ESS falls below this
        fraction of its chains.
      learn_mass: while annealing, whether the inverse mass is learned.
      stage: `PILOT` or `FINAL`.
    """

    phase: Array | np.ndarray
    num_slots: Array | np.ndarray
    steps_per_slot: Array | np.ndarray
    threshold: Array | np.ndarray
    learn_mass: Array | np.ndarray
    stage: Array | np.ndarray

    @classmethod
    def of(
        cls,
        phase: int,
        num_slots: int,
        steps_per_slot: int,
        threshold: float = 0.0,
        stage: int = FINAL,
        learn_mass: bool = True,
    ) -> Order:
        """From Python numbers, in the types that never recompile."""
        return cls(
            np.asarray(phase, np.int32),
            np.asarray(num_slots, np.int32),
            np.asarray(steps_per_slot, np.int32),
            np.asarray(threshold, np.float32),
            np.asarray(learn_mass),
            np.asarray(stage, np.int32),
        )


def new_phase(state: RunState) -> RunState:
    """Forget the acceptance rates of the phase before."""
    return state._replace(
        accepted=jnp.zeros_like(state.accepted), num_steps=jnp.zeros_like(state.num_steps)
    )


def clock(state: RunState) -> Clock:
    """Where the run stands, for the step rule."""
    return Clock(state.beta, state.temperature, state.t)


# The row of a slot that was not used.
BLANK = TemperatureInfo(
    active=np.array(False),
    beta=np.zeros((), np.float32),
    step_size=np.zeros((), np.float32),
    acceptance_rate=np.zeros((), np.float32),
    ess=np.zeros((), np.float32),
    log_z=np.zeros((), np.float32),
    resampled=np.array(False),
    num_divergent=np.zeros((), np.int32),
    stage=np.zeros((), np.int32),
)
