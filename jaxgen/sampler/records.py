"""Records of the host: the length of a run, its evidence, and its checkpoint between two chunks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxgen.core.printing import prints_short
from jaxgen.core.types import ArrayTree
from jaxgen.sampler.state import Phase, SamplerState, Stage, TemperatureInfo

__all__ = ["AnnealingEvidence", "Checkpoint", "RunLength", "no_evidence"]


class RunLength(NamedTuple):
    """The length of a run after annealing.

    Attributes:
      draws: S; -1 ends the run with annealing.
      thin: kernel steps per draw.
      rest: kernel steps after the last draw.
      warmup: kernel steps before the first draw, in which the step size still adapts.
    """

    draws: int = -1
    thin: int = 1
    rest: int = 0
    warmup: int = 0


class AnnealingEvidence(NamedTuple):
    """Evidence estimate at the end of annealing.

    Attributes:
      log_weight: `[C]` log weights, before the last resampling.
      log_z: the log evidence; NaN where the kernel does not leave the path invariant.
      standard_error: of log_z.
      num_lineages: number of first states that have descendants among the chains.
      island_log_z: `[I]`, the estimate of log Z by each island of chains alone.
    """

    log_weight: np.ndarray
    log_z: np.ndarray
    standard_error: np.ndarray
    num_lineages: np.ndarray
    island_log_z: np.ndarray


@prints_short
class Checkpoint(NamedTuple):
    """Host-side snapshot of a run between two chunks.

    Attributes:
      state: the chains, and everything else on the devices.
      phase: of the run.
      stage: of annealing.
      done: warm-up steps or draws in this phase so far.
      history: a row for each temperature so far.
      evidence: once annealing has ended.
      reduced: the accumulator of `RunConfig.reduce`, None before the first draw.
    """

    state: SamplerState
    phase: Phase
    stage: Stage
    done: int
    history: TemperatureInfo
    evidence: AnnealingEvidence
    reduced: ArrayTree | None = None


def no_evidence(num_chains: int, num_islands: int = 1) -> AnnealingEvidence:
    """Return the evidence of chains that were not annealed: NaN, and equal weights."""
    nan = np.float32(np.nan)
    weights = np.zeros(num_chains, np.float32)
    islands = np.full(num_islands, nan)
    return AnnealingEvidence(
        weights, np.asarray(nan), np.asarray(nan), np.asarray(num_chains), islands
    )
