"""The segments of a run that is one function of arrays, see `jaxgen.sampler.traced`."""

from __future__ import annotations

import enum

from jaxgen.sampler import scouts
from jaxgen.sampler.loop import SETTLE
from jaxgen.sampler.records import RunLength
from jaxgen.sampler.state import Phase, Stage

__all__ = ["Segment", "counts_of"]


class Segment(enum.Enum):
    """The segments of a run, in their order."""

    PILOT = enum.auto()
    SETTLE = enum.auto()
    SCOUT = enum.auto()
    ANNEAL = enum.auto()
    WARM_UP = enum.auto()
    DRAW = enum.auto()
    REST = enum.auto()

    @property
    def phase(self) -> Phase:
        """Return the phase that the iterations are of."""
        if self in (Segment.PILOT, Segment.ANNEAL):
            return Phase.ANNEAL
        return Phase.DRAW if self in (Segment.DRAW, Segment.REST) else Phase.WARM_UP

    @property
    def stage(self) -> Stage:
        """Return the stage of annealing."""
        before = (Segment.PILOT, Segment.SETTLE, Segment.SCOUT)
        return Stage.PILOT if self in before else Stage.FINAL


def counts_of(segment: Segment, num_mcmc_steps: int, length: RunLength) -> tuple[int, int]:
    """Return a segment's iterations (annealing ends by itself) and kernel steps in each.

    Args:
      segment: of the run.
      num_mcmc_steps: kernel steps at each temperature.
      length: the length of the run after annealing.
    """
    return {
        Segment.PILOT: (0, num_mcmc_steps),
        Segment.SETTLE: (1, SETTLE),
        Segment.SCOUT: (scouts.MOST_ROUNDS, scouts.STEPS),
        Segment.ANNEAL: (0, num_mcmc_steps),
        Segment.WARM_UP: (length.warmup, 1),
        Segment.DRAW: (length.draws, length.thin),
        Segment.REST: (int(length.rest > 0), max(length.rest, 1)),
    }[segment]
