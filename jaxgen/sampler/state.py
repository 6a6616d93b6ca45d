"""The state of a run, the rows of its history, and what one chunk of it is told to do.

All of them are NamedTuples of arrays: a chunk maps (`SamplerState`, `ChunkSpec`) to a
`SamplerState` and rows of `TemperatureInfo`.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxgen.core.printing import prints_short
from jaxgen.core.types import Array, ArrayTree
from jaxgen.kernels.base import ChainState
from jaxgen.target.proposal import FittedMixture
from jaxgen.tempering.step_size import AdaptationState, StepIndex

__all__ = [
    "BLANK",
    "ChunkSpec",
    "Phase",
    "PilotResult",
    "SamplerState",
    "Stage",
    "TemperatureInfo",
    "new_phase",
    "no_pilot_result",
    "step_index",
]


class Phase(enum.IntEnum):
    """The phases of a run, in their order."""

    ANNEAL = 0
    WARM_UP = 1
    DRAW = 2
    DONE = 3


class Stage(enum.IntEnum):
    """The stages of annealing.

    A pilot finds the posterior in few large steps; the weights of the final stage are the ones
    that count. A run without a pilot has the final stage only.
    """

    PILOT = 0
    FINAL = 1


@prints_short
class PilotResult(NamedTuple):
    """The end of the pilot, kept while scouts move (`jaxgen.sampler.scouts`).

    Attributes:
      position: leaves `[C, ...]`.
      log_density: `[C]` log density of the target.
      gradient: leaves `[C, ...]`, the gradient of the log density.
      log_weight: `[C]`, over all islands.
      adaptation: the state of the step rule.
      num_divergent: `[C]`.
    """

    position: ArrayTree
    log_density: Array
    gradient: ArrayTree
    log_weight: Array
    adaptation: AdaptationState
    num_divergent: Array


def no_pilot_result(position: ArrayTree, zeros: Array, adaptation: AdaptationState) -> PilotResult:
    """Return a placeholder of the right shapes, for the time before the pilot has ended."""
    counts = jnp.zeros(zeros.shape, jnp.int32)
    return PilotResult(position, zeros, position, zeros, adaptation, counts)


@prints_short
class SamplerState(NamedTuple):
    """Everything that the rest of a run depends on, besides the target and the settings.

    Attributes:
      key: the run's key, for resampling.
      chain_keys: `[C]`.
      chains: `ChainState` with leaves `[C, ...]`.
      beta: the inverse temperature at which chains moved last; 0 before the first.
      temperature: number of temperatures so far.
      t: number of kernel steps so far.
      log_weight: `[C]` log weights since the island's last resampling.
      log_z: `[I]` log of the estimate of Z from each island's earlier resamplings.
      lineage: `[C]` index of the first state that a chain descends from.
      pool_variance: relative variance of the estimate of Z by the pool alone.
      adaptation: the state of the step rule.
      inverse_mass: `[D]`, or `[D, D]`, in use.
      learned_mass: the inverse mass learned at this temperature. It is in use from the next
        temperature on, so that no chain is moved by a mass that was learned from itself.
      mixture: the proposal fitted to the results of pilot and scouts; None in a run without a
        pilot.
      pilot: the result of the pilot, for that fit; or None.
      on_bridge: whether chains move on the bridge from the mixture to the target.
      accepted: `[C]` sum of acceptance rates since the present phase began.
      num_steps: number of kernel steps since the present phase began.
      num_gradients: `[C]` over the whole run.
      num_divergent: `[C]` rejected proposals that were divergent or not finite, over the whole
        run.
    """

    key: Array
    chain_keys: Array
    chains: ChainState
    beta: Array
    temperature: Array
    t: Array
    log_weight: Array
    log_z: Array
    lineage: Array
    pool_variance: Array
    adaptation: AdaptationState
    inverse_mass: Array
    learned_mass: Array
    mixture: FittedMixture | None
    pilot: PilotResult | None
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
      beta, step_size (its mean), acceptance_rate (mean over chains and kernel steps); the last
        two are NaN in the row of a pool, at which nothing moves.
      ess: effective sample size of the weights, before any resampling.
      log_z: the running estimate.
      resampled: whether chains were resampled (on any island).
      num_divergent: rejected proposals that were divergent or not finite, at this temperature.
      stage: a `Stage`: only the weights of the final one count.
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


class ChunkSpec(NamedTuple):
    """Traced specification of one chunk: other numbers do not compile anything.

    Attributes:
      phase: a `Phase` other than `DONE`.
      num_iterations: iterations to run (annealing stops earlier at the last beta).
      steps_per_iteration: kernel steps in each iteration, at least.
      most_steps: at most; between the two, chains move until they have mixed.
      threshold: while annealing, an island is resampled when its ESS falls below this
        fraction of its chains.
      learn_mass: while annealing, whether the inverse mass is learned.
      stage: a `Stage`.
    """

    phase: Array | np.ndarray
    num_iterations: Array | np.ndarray
    steps_per_iteration: Array | np.ndarray
    most_steps: Array | np.ndarray
    threshold: Array | np.ndarray
    learn_mass: Array | np.ndarray
    stage: Array | np.ndarray

    @classmethod
    def of(
        cls,
        phase: int,
        num_iterations: int,
        steps_per_iteration: int,
        threshold: float = 0.0,
        stage: int = Stage.FINAL,
        learn_mass: bool = True,
        most_steps: int | None = None,
    ) -> ChunkSpec:
        """Return the specification with these Python numbers, in types that never recompile.

        Without `most_steps` an iteration has exactly `steps_per_iteration`.
        """
        return cls(
            np.asarray(int(phase), np.int32),
            np.asarray(num_iterations, np.int32),
            np.asarray(steps_per_iteration, np.int32),
            np.asarray(most_steps or steps_per_iteration, np.int32),
            np.asarray(threshold, np.float32),
            np.asarray(learn_mass),
            np.asarray(int(stage), np.int32),
        )


def new_phase(state: SamplerState) -> SamplerState:
    """Return the state with the acceptance rates of the phase before it forgotten."""
    return state._replace(
        accepted=jnp.zeros_like(state.accepted), num_steps=jnp.zeros_like(state.num_steps)
    )


def step_index(state: SamplerState) -> StepIndex:
    """Return where the run stands, for the step rule."""
    return StepIndex(state.beta, state.temperature, state.t)


# The row of an iteration that was not used.
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
