"""What a run carries from step to step, and what it reports of each temperature."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxgen.core.types import Array
from jaxgen.kernels.base import ChainState
from jaxgen.tempering.step_size import Clock

__all__ = [
    "ANNEAL",
    "BLANK",
    "DONE",
    "DRAW",
    "WARM_UP",
    "Order",
    "RunState",
    "TemperatureInfo",
    "clock",
    "new_phase",
]


class RunState(NamedTuple):
    """All that the rest of a run depends on, besides what the user composed.

    Attributes:
      key: the run's key, for resampling.
      chain_keys: `[C]`.
      chains: `ChainState` with leaves `[C, ...]`.
      beta: the inverse temperature that chains were last moved at; 0 before the first.
      temperature: how many temperatures are done.
      t: how many kernel steps are done.
      log_weight: `[C]` since the last resampling.
      log_z: log of what earlier resamplings have estimated of Z.
      ancestor: `[C]` index of the first state that a chain descends from.
      memory: the step rule's.
      inverse_mass: `[D]`, or `[D, D]`.
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
    memory: Any
    inverse_mass: Array
    accepted: Array
    num_steps: Array
    num_gradients: Array
    num_divergent: Array


class TemperatureInfo(NamedTuple):
    """One row for each temperature; rows beyond the last are marked inactive.

    Attributes:
      active: whether the row was used.
      beta, step_size (its mean), acceptance_rate (mean over chains and moves).
      ess: effective sample size of the weights, before any resampling.
      log_z: the running estimate.
      resampled: whether chains were resampled.
      num_divergent: refused proposals at this temperature.
    """

    active: Array | np.ndarray
    beta: Array | np.ndarray
    step_size: Array | np.ndarray
    acceptance_rate: Array | np.ndarray
    ess: Array | np.ndarray
    log_z: Array | np.ndarray
    resampled: Array | np.ndarray
    num_divergent: Array | np.ndarray


# Phases of a run.
ANNEAL, WARM_UP, DRAW, DONE = 0, 1, 2, 3


class Order(NamedTuple):
    """What a chunk is to do; all of it data.

    Attributes:
      phase: `ANNEAL`, `WARM_UP` or `DRAW`.
      num_slots: slots to use (annealing stops at the last beta).
      steps_per_slot: kernel steps in each.
      threshold: while annealing, resample when ESS < threshold * C.
    """

    phase: Array | np.ndarray
    num_slots: Array | np.ndarray
    steps_per_slot: Array | np.ndarray
    threshold: Array | np.ndarray

    @classmethod
    def of(cls, phase: int, num_slots: int, steps_per_slot: int, threshold: float = 0.0) -> Order:
        """From Python numbers, in the types that never recompile."""
        return cls(
            np.asarray(phase, np.int32),
            np.asarray(num_slots, np.int32),
            np.asarray(steps_per_slot, np.int32),
            np.asarray(threshold, np.float32),
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
)
