"""A whole run as one function of arrays: for `jax.jit`, `jax.vmap`, `lax.scan`, `jax.export`.

`loop` goes through a run chunk by chunk, so that it may report, store and stop. Under a
transformation of JAX nothing of that is possible, and `run` goes through the same steps of
`program` inside one compiled loop:

    for segment in (pilot, settle, scout, anneal, warm up, draw, rest):
        enter it;  iteration after iteration

Every iteration is the one of `program.advance` with the same keys, so that the results agree.
Where `loop` raises an error, a number is reported here, see `notes.FAILURES`.

The order of the segments is not data: under `vmap` it is the same for all items, and only the
number of temperatures differs. Items that have arrived wait for the last one of their batch.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.types import Array, ArrayTree, Preconditioning, PRNGKey, Resampling
from jaxgen.kernels.base import Kernel
from jaxgen.sampler import program, scouts
from jaxgen.sampler.carry import (
    Carry,
    alive,
    check_moving,
    choose,
    evidence_of,
    first_failure,
    write_row,
)
from jaxgen.sampler.config import RunConfig
from jaxgen.sampler.options import ChunkOptions, Collect, Layout, Sampler, Schedule
from jaxgen.sampler.records import AnnealingEvidence, RunLength, no_evidence
from jaxgen.sampler.segments import Segment, counts_of
from jaxgen.sampler.sharding import over_chains
from jaxgen.sampler.state import BLANK, ChunkSpec, Phase, SamplerState, Stage, TemperatureInfo
from jaxgen.target.path import AnnealedPath
from jaxgen.tempering.betas import Adaptive
from jaxgen.tempering.step_size import StepRule

__all__ = ["TracedRun", "refuse_under_trace", "run"]


class TracedRun(NamedTuple):
    """The result of a run, arrays only.

    Attributes:
      state: the state at the end.
      evidence: the evidence at the end of annealing.
      stage: the stage whose weights count.
      history: a row for each temperature of both stages; rows beyond the last are inactive.
      draws: what was collected, leaves `[C, S, ...]`, or None.
      failure: 0, or the number of the first of `notes.FAILURES` that happened.
    """

    state: SamplerState
    evidence: AnnealingEvidence
    stage: Array
    history: TemperatureInfo
    draws: ArrayTree | None
    failure: Array


def refuse_under_trace(**features: Any) -> None:
    """Raise `InputError` for features that need Python, or choose devices, while a run goes on."""
    for name, value in features.items():
        if value is not None and value is not False:
            raise expected(
                name, "None under jax.jit, jax.vmap and their like", type(value).__name__
            )


class _Data(NamedTuple):
    """The settings that are arrays."""

    path: AnnealedPath
    kernel: Kernel
    rule: StepRule
    schedule: Schedule
    pilot: Adaptive | None
    start: ArrayTree | None
    threshold: np.float32


class _Structure(NamedTuple):
    """The settings that decide what is compiled."""

    num_chains: int
    num_mcmc_steps: int
    most_mcmc_steps: int
    islands: int
    pool: int
    resample: Resampling | None
    precondition: Preconditioning
    collect: Collect
    tile: int | None
    run_length: RunLength


class _RunCarry(NamedTuple):
    """The carry of the loop over segments.

    Attributes:
      carry: the carry of the inner loop.
      evidence: once annealing has ended.
      arrived: whether the pilot's pool reached the posterior by itself, so that no final stage
        is needed.
    """

    carry: Carry
    evidence: AnnealingEvidence
    arrived: Array


def run(key: PRNGKey, config: RunConfig, run_length: RunLength) -> TracedRun:
    """Go through a whole run.

    Args:
      key: of the run.
      config: as `prepare` made it, on one device.
      run_length: the length of the run after annealing.
    """
    data = _Data(
        config.path,
        config.kernel,
        config.rule,
        config.schedule,
        config.pilot,
        config.start,
        np.float32(config.threshold),
    )
    structure = _Structure(
        config.num_chains,
        config.num_mcmc_steps,
        config.most_mcmc_steps,
        config.islands,
        config.pool,
        config.resample,
        config.precondition,
        config.collect,
        config.tile,
        run_length,
    )
    return _run(key, data, structure)


@functools.partial(jax.jit, static_argnums=2)
def _run(key: PRNGKey, data: _Data, structure: _Structure) -> TracedRun:
    return _Run(data, structure)(key)


@dataclasses.dataclass(frozen=True, eq=False)
class _Run:
    """One run, while it is traced."""

    data: _Data
    structure: _Structure

    def __call__(self, key: PRNGKey) -> TracedRun:
        """Return the outcome of the run with this key."""
        length, kernel = self.structure.run_length, self.data.kernel
        progress = jax.lax.fori_loop(0, len(self.segments), self._segment, self._first(key))
        carry, evidence, arrived = progress
        carry = check_moving(carry, self.data.rule, kernel)
        if length.draws < 0:
            evidence = evidence_of(carry.state, evidence, kernel, self.structure.pool)
        draws = None
        if length.draws > 0 and jax.tree.leaves(carry.kept):
            draws = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), carry.kept)
        stage = jnp.where(arrived & self.two_stages, Stage.PILOT, Stage.FINAL)
        return TracedRun(carry.state, evidence, stage, carry.rows, draws, carry.failure)

    @property
    def two_stages(self) -> bool:
        """Return whether there is a pilot."""
        return self.data.pilot is not None

    @property
    def straight(self) -> bool:
        """Return whether chains start at the last beta because the kernel has no weights."""
        draws = self.structure.run_length.draws
        return draws >= 0 and self.data.kernel.exactness == "approximate"

    @property
    def annealed(self) -> bool:
        """Return whether there is any annealing."""
        return self.data.start is None and not self.straight

    @property
    def last(self) -> Array:
        """Return the inverse temperature at which annealing ends."""
        schedule = self.data.schedule
        return jnp.float32(1.0) if isinstance(schedule, Adaptive) else schedule[-1]

    @property
    def most(self) -> int:
        """Return the largest number of temperatures of a stage."""
        schedule = self.data.schedule
        adaptive = isinstance(schedule, Adaptive)
        return schedule.max_temperatures if adaptive else schedule.shape[0] - 1

    @property
    def layout(self) -> Layout:
        """Return the tiles, on one device."""
        return Layout(self.structure.tile)

    @functools.cached_property
    def segments(self) -> list[Segment]:
        """Return the segments of this run: the same for all items of a batch."""
        chosen: list[Segment] = []
        if self.annealed:
            if self.two_stages:
                chosen += [Segment.PILOT, Segment.SETTLE, Segment.SCOUT]
            chosen += [Segment.ANNEAL]
        if self.structure.run_length.draws >= 0:
            chosen += [Segment.WARM_UP, Segment.DRAW, Segment.REST]
        return chosen

    def _first(self, key: PRNGKey) -> _RunCarry:
        """Return the start of the run: blank buffers, and chains that may not be drawn yet."""
        data, structure, two_stages = self.data, self.structure, self.two_stages
        state = program.blank_state(
            key,
            data.path,
            data.rule,
            num_chains=structure.num_chains,
            num_islands=structure.islands,
            precondition=structure.precondition,
            with_mixture=two_stages,
        )
        buffer = jax.tree.map(
            lambda x: jnp.zeros(
                (self.most * (1 + two_stages) + 2, *np.shape(x)), np.asarray(x).dtype
            ),
            BLANK,
        )
        draws = max(structure.run_length.draws, 0)
        keep = _kept_of(structure.collect, data.path, state, structure.tile)
        kept = jax.tree.map(lambda x: jnp.zeros((draws, *x.shape), x.dtype), keep)
        evidence = jax.tree.map(jnp.asarray, no_evidence(structure.num_chains, structure.islands))
        evidence = evidence._replace(log_weight=state.log_weight)
        nothing = jnp.zeros((), jnp.int32)
        if data.start is not None:
            state = program.place_chains(
                state, data.path, data.kernel, data.start, self.last, layout=self.layout
            )
        elif self.straight:
            state, _ = self._init_stage(state, Stage.FINAL)
            schedule = data.schedule
            top = jnp.float32(1.0) if isinstance(schedule, Adaptive) else jnp.max(schedule)
            state = state._replace(
                beta=top.astype(state.beta.dtype), log_weight=jnp.zeros_like(state.log_weight)
            )
        carry = Carry(state, buffer, nothing, kept, nothing, nothing)
        return _RunCarry(carry, evidence, jnp.array(False))

    def _init_stage(
        self, state: SamplerState, stage: Stage
    ) -> tuple[SamplerState, TemperatureInfo]:
        return program.init_stage(
            state,
            self.data.path,
            self.data.kernel,
            jnp.asarray(stage, jnp.int32),
            pool=self.structure.pool,
            resample=self.structure.resample,
            layout=self.layout,
        )

    def _enter(self, segment: Segment, progress: _RunCarry) -> _RunCarry:
        """Do what comes before the first iteration of a segment."""
        carry, evidence, arrived = progress
        data, state = self.data, carry.state
        if segment is Segment.PILOT or (segment is Segment.ANNEAL and not self.two_stages):
            state, row = self._init_stage(state, segment.stage)
            carry = write_row(carry._replace(state=state), row)
        elif segment is Segment.SETTLE:
            carry = check_moving(carry, data.rule, data.kernel)
            arrived = state.temperature <= 1
        elif segment is Segment.SCOUT:
            sent = scouts.send_scouts(
                state,
                data.path,
                data.kernel,
                precondition=self.structure.precondition,
                layout=self.layout,
            )
            carry = carry._replace(state=choose(arrived, state, sent))
        elif segment is Segment.ANNEAL:
            fresh, row = self._init_stage(scouts.fit_proposal(state, data.path), Stage.FINAL)
            begun = write_row(carry._replace(state=fresh), row)
            carry = choose(arrived, carry, begun)
        elif segment is Segment.WARM_UP:
            carry, evidence = self._finish_annealing(carry, evidence)
        elif segment is Segment.DRAW:
            carry = check_moving(carry, data.rule, data.kernel)
            carry = carry._replace(state=program.finish_warm_up(carry.state, data.rule))
        carry = carry._replace(iteration=jnp.zeros((), jnp.int32))
        return _RunCarry(carry, evidence, arrived)

    def _finish_annealing(
        self, carry: Carry, evidence: AnnealingEvidence
    ) -> tuple[Carry, AnnealingEvidence]:
        state, kernel = carry.state, self.data.kernel
        if self.annealed:
            carry = check_moving(carry, self.data.rule, kernel)
            evidence = evidence_of(carry.state, evidence, kernel, self.structure.pool)
        state = program.finish_annealing(
            state,
            self.data.path,
            self.data.rule,
            resample=self.structure.resample,
            precondition=self.structure.precondition,
            layout=self.layout,
        )
        return carry._replace(state=state), evidence

    def _segment(self, i: Array, progress: _RunCarry) -> _RunCarry:
        """Run the segment of this number."""
        branches = [functools.partial(self._enter, segment) for segment in self.segments]
        carry, evidence, arrived = jax.lax.switch(i, branches, progress)
        phase = jnp.asarray([segment.phase for segment in self.segments], jnp.int32)[i]
        stage = jnp.asarray([segment.stage for segment in self.segments], jnp.int32)[i]
        at_each, length = self.structure.num_mcmc_steps, self.structure.run_length
        counts = [counts_of(segment, at_each, length) for segment in self.segments]
        iterations, steps = (jnp.asarray(x, jnp.int32)[i] for x in zip(*counts, strict=True))
        spec = ChunkSpec(
            phase,
            jnp.ones((), jnp.int32),
            steps,
            jnp.where(phase == Phase.ANNEAL, self.structure.most_mcmc_steps, steps),
            jnp.asarray(self.data.threshold, jnp.float32),
            (stage == Stage.PILOT) | (not self.two_stages),
            stage,
        )

        def more(carry: Carry) -> Array:
            state = carry.state
            anneals = (state.beta < self.last) & (state.temperature < self.most) & alive(state)
            settles = (carry.iteration < iterations) & ~((stage == Stage.PILOT) & arrived)
            if self.two_stages:
                goes = (carry.iteration == 0) | scouts.worth_a_round(state)
                scouting = [segment is Segment.SCOUT for segment in self.segments]
                settles = settles & (~jnp.asarray(scouting)[i] | goes)
            return jnp.where(phase == Phase.ANNEAL, anneals, settles)

        carry = jax.lax.while_loop(more, self._iteration(i, spec), carry)
        stuck = (phase == Phase.ANNEAL) & (carry.state.beta < self.last)
        lost = ~alive(carry.state)
        failure = jnp.where(stuck, jnp.where(lost, 1, 2), 0)
        carry = carry._replace(failure=first_failure(carry.failure, failure))
        return _RunCarry(carry, evidence, arrived)

    def _iteration(self, i: Array, spec: ChunkSpec) -> Callable[[Carry], Carry]:
        """Return the function that runs one iteration of segment i."""
        data, structure = self.data, self.structure
        schedule: Schedule = data.schedule
        if self.two_stages:
            schedule = jax.tree.map(
                lambda a, b: jnp.where(spec.stage == Stage.PILOT, a, b), data.pilot, data.schedule
            )
        sampler = Sampler(data.path, data.kernel, data.rule, schedule)
        options = ChunkOptions(
            structure.resample, structure.precondition, structure.collect, self.layout, 1
        )
        draws = structure.run_length.draws
        drawing = jnp.asarray([segment is Segment.DRAW for segment in self.segments])[i]

        def iteration(carry: Carry) -> Carry:
            state, rows, new = program.advance(carry.state, sampler, spec, options)
            carry = carry._replace(state=state, iteration=carry.iteration + 1)
            if draws > 0:
                where = jnp.where(drawing, carry.iteration - 1, draws)
                kept = jax.tree.map(
                    lambda b, x: b.at[where].set(x[0], mode="drop"), carry.kept, new
                )
                carry = carry._replace(kept=kept)
            return write_row(carry, jax.tree.map(lambda x: x[0], rows))

        return iteration


def _kept_of(
    collect: Collect, path: AnnealedPath, state: SamplerState, tile: int | None
) -> ArrayTree:
    """Return the shapes of what a draw of all chains keeps."""
    return jax.eval_shape(
        lambda s: over_chains(lambda c: collect(path, c), (s.chains,), tile), state
    )
