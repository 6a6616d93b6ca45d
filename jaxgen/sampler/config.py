"""The settings of a run, checked and complete (`jaxgen.sampler.prepare` makes them)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
from jax.sharding import Mesh

from jaxgen.core.types import ArrayTree, Preconditioning, Resampling
from jaxgen.kernels import Kernel
from jaxgen.sampler.options import (
    ChunkOptions,
    Collect,
    Layout,
    Sampler,
    Schedule,
)
from jaxgen.sampler.results import Progress
from jaxgen.sampler.state import Stage
from jaxgen.target.path import AnnealedPath
from jaxgen.tempering.betas import Adaptive
from jaxgen.tempering.step_size import StepRule

__all__ = ["Callback", "Reduce", "RunConfig", "size_of"]

Callback: TypeAlias = Callable[[Progress], None]
Reduce: TypeAlias = Callable[[ArrayTree, ArrayTree], ArrayTree]


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The settings of a run, checked and complete.

    Attributes:
      path, kernel, rule, schedule: the data of the compiled program, see `Sampler`.
      pilot: the schedule of a first, rough annealing, or None for none.
      num_chains: C.
      num_mcmc_steps: kernel steps at each temperature, at least.
      most_mcmc_steps: at most; between the two, chains move until they have mixed.
      islands: I, the number of blocks of chains that never exchange chains while annealing.
      pool: candidates among which each first state is chosen; 1 takes the one draw.
      threshold: chains are resampled when their ESS falls below this fraction.
      resample, precondition, collect: see `ChunkOptions`.
      tile, mesh: see `Layout`.
      kept: shapes of what one draw of all chains keeps, leaves `[C, ...]`.
      chunk_size: number of iterations in the compiled program.
      reduce: `(accumulator, kept) -> accumulator`, or None to keep the draws.
      progress: called between chunks, or None.
      start: positions `[C, ...]` to start from at the last beta, or None to anneal.
      precision: of matrix products: "highest" or "fast".
      given: path, kernel, rule, schedule and start as they were before they were put on the
        devices.
    """

    path: AnnealedPath
    kernel: Kernel
    rule: StepRule
    schedule: Schedule
    pilot: Adaptive | None
    num_chains: int
    num_mcmc_steps: int
    most_mcmc_steps: int
    islands: int
    pool: int
    threshold: float
    resample: Resampling | None
    precondition: Preconditioning
    collect: Collect
    tile: int
    mesh: Mesh | None
    kept: ArrayTree
    chunk_size: int
    reduce: Reduce | None
    progress: Callback | None
    start: ArrayTree | None
    precision: str
    given: dict[str, Any]

    @property
    def layout(self) -> Layout:
        """Return tiles and devices."""
        return Layout(self.tile, self.mesh)

    @property
    def options(self) -> ChunkOptions:
        """Return what decides the program of a chunk."""
        return ChunkOptions(
            self.resample, self.precondition, self.collect, self.layout, self.chunk_size
        )

    def sampler(self, stage: int) -> Sampler:
        """Return the data of the program in a stage of annealing."""
        schedule = self.schedule
        if stage == Stage.PILOT and self.pilot is not None:
            schedule = self.pilot
        return Sampler(self.path, self.kernel, self.rule, schedule)

    @property
    def moves_until_mixed(self) -> bool:
        """Return whether the number of kernel steps at a temperature is not fixed."""
        return self.most_mcmc_steps > self.num_mcmc_steps

    @property
    def last_beta(self) -> float:
        """Return the inverse temperature at which annealing ends."""
        return 1.0 if isinstance(self.schedule, Adaptive) else float(self.schedule[-1])

    @property
    def most_temperatures(self) -> int:
        """Return how many temperatures there are, or may be."""
        if isinstance(self.schedule, Adaptive):
            return self.schedule.max_temperatures
        return self.schedule.shape[0] - 1


def size_of(shapes: ArrayTree) -> int:
    """Return the bytes of a tree of arrays or of their shapes."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(shapes))
