"""A whole run as one function of arrays: for `jax.jit`, `jax.vmap`, `lax.scan`, `jax.export`.

`loop` goes through a run chunk by chunk, so that it may report, store and stop. Under a
transformation of JAX nothing of that is possible, and `run` goes through the same steps of
`program` inside one compiled loop:

    for segment in (pilot, settle, scout, anneal, warm up, draw, rest):  enter it;  slot after slot

Every slot is the one of `program.advance` with the same keys, so that the results agree. What
`loop` raises as an error is reported as a number here, see `results.FAILURES`.

Which segment comes next is no data: under `vmap` it is the same for all items, and only the
number of temperatures differs. Items that have arrived wait for the last one of their batch.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.types import Array, PRNGKey
from jaxgen.kernels.base import Kernel
from jaxgen.sampler import program, scouts
from jaxgen.sampler.config import Setup
from jaxgen.sampler.loop import SETTLE, Plan, no_evidence
from jaxgen.sampler.sharding import over_chains
from jaxgen.sampler.state import (
    ANNEAL,
    BLANK,
    DRAW,
    FINAL,
    PILOT,
    WARM_UP,
    Order,
    RunState,
    TemperatureInfo,
)
from jaxgen.target.path import AnnealedPath
from jaxgen.tempering.betas import Adaptive
from jaxgen.tempering.resampling import whole_log_weight
from jaxgen.tempering.step_size import StepRule

__all__ = ["Outcome", "refuse_under_trace", "run"]

# The place of the scouts' segment where there is a pilot.
_SCOUTING = 2


class Outcome(NamedTuple):
    """What a run has to show, arrays only.

    Attributes:
      state: where the chains are.
      evidence: what annealing found, as in `loop.Journey`.
      stage: the stage whose weights count.
      history: a row for each temperature of both stages; rows beyond the last are inactive.
      draws: what was collected, leaves `[C, S, ...]`.
      failure: 0, or the first of `results.FAILURES` that happened.
    """

    state: RunState
    evidence: Any
    stage: Array
    history: TemperatureInfo
    draws: Any
    failure: Array


def refuse_under_trace(**features: Any) -> None:
    """Raise `InputError` for what needs Python, or chooses devices, while a run goes on."""
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
    schedule: Any
    pilot: Any
    start: Any
    threshold: Any


class _Structure(NamedTuple):
    """The settings that decide what is compiled."""

    num_chains: int
    moves: int
    islands: int
    pool: int
    resample: str | None
    precondition: str
    collect: Any
    tile: int | None
    plan: Plan


class _Carry(NamedTuple):
    """What the loop over slots changes; `slot` counts within a segment."""

    state: RunState
    rows: TemperatureInfo
    num_rows: Array
    kept: Any
    slot: Array
    failure: Array


def run(key: PRNGKey, setup: Setup, plan: Plan) -> Outcome:
    """Go through a whole run.

    Args:
      key: of the run.
      setup: as `prepare` made it, on one device.
      plan: what to do after annealing.
    """
    data = _Data(
        setup.path,
        setup.kernel,
        setup.rule,
        setup.schedule,
        setup.pilot,
        setup.start,
        np.float32(setup.threshold),
    )
    structure = _Structure(
        setup.num_chains,
        setup.moves,
        setup.islands,
        setup.pool,
        setup.resample,
        setup.precondition,
        setup.collect,
        setup.tile,
        plan,
    )
    return _run(key, data, structure)


@functools.partial(jax.jit, static_argnums=2)
def _run(key: PRNGKey, data: _Data, structure: _Structure) -> Outcome:
    path, kernel, rule, tile, plan = (
        data.path,
        data.kernel,
        data.rule,
        structure.tile,
        structure.plan,
    )
    schedule, two_stages = data.schedule, data.pilot is not None
    adaptive = isinstance(schedule, Adaptive)
    last = jnp.float32(1.0) if adaptive else schedule[-1]
    most = schedule.max_temperatures if adaptive else schedule.shape[0] - 1
    count, islands = structure.num_chains, structure.islands
    straight = plan.draws >= 0 and kernel.exactness == "approximate"
    annealed = data.start is None and not straight
    numbers = {"resample": structure.resample, "precondition": structure.precondition}

    state = program.blank_state(
        key,
        path,
        rule,
        num_chains=count,
        num_islands=islands,
        precondition=structure.precondition,
        with_mixture=two_stages,
    )

    def begin(state: RunState, stage: int | Array) -> tuple[RunState, TemperatureInfo]:
        stage = jnp.asarray(stage, jnp.int32)
        options = {"pool": structure.pool, "resample": structure.resample, "tile": tile}
        return program.begin_stage(state, path, kernel, stage, **options)

    # What is done, in order: (phase, stage). The order is the same for all items of a batch.
    segments: list[tuple[int, int]] = []
    if annealed:
        if two_stages:
            segments += [(ANNEAL, PILOT), (WARM_UP, PILOT), (WARM_UP, PILOT)]
        segments += [(ANNEAL, FINAL)]
    if plan.draws >= 0:
        segments += [(WARM_UP, FINAL), (DRAW, FINAL), (DRAW, FINAL)]

    buffer = jax.tree.map(
        lambda x: jnp.zeros((most * (1 + two_stages) + 2, *np.shape(x)), np.asarray(x).dtype), BLANK
    )
    keep = _kept_of(structure.collect, path, state, tile)
    kept = jax.tree.map(lambda x: jnp.zeros((max(plan.draws, 0), *x.shape), x.dtype), keep)
    evidence = jax.tree.map(jnp.asarray, no_evidence(count, islands))
    evidence = evidence._replace(log_weight=state.log_weight)
    nothing = jnp.zeros((), jnp.int32)

    if data.start is not None:
        state = program.place_chains(state, path, kernel, data.start, last, tile=tile)
    elif straight:
        state, _ = begin(state, FINAL)
        top = jnp.float32(1.0) if adaptive else jnp.max(schedule)
        state = state._replace(
            beta=top.astype(state.beta.dtype), log_weight=jnp.zeros_like(state.log_weight)
        )
    carry = _Carry(state, buffer, nothing, kept, nothing, nothing)
    # Whether the pilot's pool has reached the posterior by itself: then it needs no more.
    carry_all = (carry, evidence, jnp.array(False))

    def enter(index: int, phase: int, stage: int) -> Any:
        """What is done before a segment's first slot."""

        def entered(args: Any) -> Any:
            carry, evidence, arrived = args
            state = carry.state
            if (phase, stage) == (ANNEAL, PILOT) or (phase == ANNEAL and not two_stages):
                state, row = begin(state, stage)
                carry = _write(carry._replace(state=state), row)
            elif (phase, stage) == (WARM_UP, PILOT) and index != _SCOUTING:
                carry = _check(carry, rule, kernel)
                arrived = state.temperature <= 1
            elif index == _SCOUTING and two_stages:
                sent = scouts.send_scouts(
                    state, path, kernel, precondition=structure.precondition, tile=tile
                )
                carry = carry._replace(state=_choose(arrived, state, sent))
            elif phase == ANNEAL:
                fresh, row = begin(scouts.fit_proposal(state, path), FINAL)
                begun = _write(carry._replace(state=fresh), row)
                carry = _choose(arrived, carry, begun)
            elif phase == WARM_UP:
                carry, evidence = finish(carry, evidence)
            elif index == len(segments) - 2:
                carry = _check(carry, rule, kernel)
                carry = carry._replace(state=program.finish_warm_up(carry.state, rule))
            return carry._replace(slot=nothing), evidence, arrived

        return entered

    def finish(carry: _Carry, evidence: Any) -> Any:
        state = carry.state
        if annealed:
            carry = _check(carry, rule, kernel)
            evidence = _evidence(carry.state, evidence, kernel, structure.pool)
        state = program.finish_annealing(state, path, rule, tile=tile, **numbers)
        return carry._replace(state=state), evidence

    phases = jnp.asarray([phase for phase, _ in segments], jnp.int32)
    stages = jnp.asarray([stage for _, stage in segments], jnp.int32)
    slots, steps = _counts(segments, plan, structure.moves)

    def segment(i: Array, args: Any) -> Any:
        branches = [enter(k, *what) for k, what in enumerate(segments)]
        carry, evidence, arrived = jax.lax.switch(i, branches, args)
        phase, stage = phases[i], stages[i]
        order = Order(
            phase,
            jnp.ones((), jnp.int32),
            steps[i],
            jnp.asarray(data.threshold, jnp.float32),
            (stage == PILOT) | (not two_stages),
            stage,
        )
        chosen = schedule
        if two_stages:
            chosen = jax.tree.map(
                lambda a, b: jnp.where(stage == PILOT, a, b), data.pilot, schedule
            )

        def more(carry: _Carry) -> Array:
            state = carry.state
            alive = _alive(state)
            anneals = (state.beta < last) & (state.temperature < most) & alive
            settles = (carry.slot < slots[i]) & ~((stage == PILOT) & arrived)
            if two_stages:
                goes = (carry.slot == 0) | scouts.worth_a_round(state)
                settles = settles & ((i != _SCOUTING) | (stage != PILOT) | goes)
            return jnp.where(phase == ANNEAL, anneals, settles)

        def slot(carry: _Carry) -> _Carry:
            state, rows, new = program.advance(
                carry.state,
                path,
                kernel,
                rule,
                chosen,
                order,
                collect=structure.collect,
                tile=tile,
                length=1,
                **numbers,
            )
            carry = carry._replace(state=state, slot=carry.slot + 1)
            if plan.draws > 0:
                draws = (i == len(segments) - 2) & (phase == DRAW)
                where = jnp.where(draws, carry.slot - 1, plan.draws)
                kept = jax.tree.map(
                    lambda b, x: b.at[where].set(x[0], mode="drop"), carry.kept, new
                )
                carry = carry._replace(kept=kept)
            return _write(carry, jax.tree.map(lambda x: x[0], rows))

        carry = jax.lax.while_loop(more, slot, carry)
        stuck = (phase == ANNEAL) & (carry.state.beta < last)
        lost = ~_alive(carry.state)
        failure = jnp.where(stuck, jnp.where(lost, 1, 2), 0)
        return carry._replace(failure=_first(carry.failure, failure)), evidence, arrived

    carry, evidence, arrived = jax.lax.fori_loop(0, len(segments), segment, carry_all)
    carry = _check(carry, rule, kernel)
    if plan.draws < 0:
        evidence = _evidence(carry.state, evidence, kernel, structure.pool)
    draws = None
    if plan.draws > 0 and jax.tree.leaves(carry.kept):
        draws = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), carry.kept)
    stage = jnp.where(arrived & two_stages, PILOT, FINAL)
    return Outcome(carry.state, evidence, stage, carry.rows, draws, carry.failure)


def _counts(segments: list[tuple[int, int]], plan: Plan, moves: int) -> tuple[Array, Array]:
    """Slots of every segment (annealing ends by itself) and kernel steps in each."""
    slots, steps = [], []
    for index, (phase, stage) in enumerate(segments):
        if phase == ANNEAL:
            slots, steps = [*slots, 0], [*steps, moves]
        elif stage == PILOT:
            scouting = index == _SCOUTING
            slots = [*slots, scouts.MOST_ROUNDS if scouting else 1]
            steps = [*steps, scouts.STEPS if scouting else SETTLE]
        elif phase == WARM_UP:
            slots, steps = [*slots, plan.warmup], [*steps, 1]
        elif index == len(segments) - 2:
            slots, steps = [*slots, plan.draws], [*steps, plan.thin]
        else:
            slots, steps = [*slots, int(plan.rest > 0)], [*steps, max(plan.rest, 1)]
    return jnp.asarray(slots, jnp.int32), jnp.asarray(steps, jnp.int32)


def _write(carry: _Carry, row: TemperatureInfo) -> _Carry:
    """Add a row to the history, if it is one."""
    where = jnp.where(row.active, carry.num_rows, carry.rows.active.shape[0])
    rows = jax.tree.map(
        lambda b, x: b.at[where].set(jnp.asarray(x).astype(b.dtype), mode="drop"), carry.rows, row
    )
    return carry._replace(rows=rows, num_rows=carry.num_rows + row.active)


def _check(carry: _Carry, rule: StepRule, kernel: Kernel) -> _Carry:
    """Mark a phase in which (nearly) every proposal was refused, as `loop.check_moving`."""
    state = carry.state
    rate = jnp.mean(state.accepted) / jnp.maximum(state.num_steps, 1)
    lost = jnp.mean(state.num_divergent) / jnp.maximum(state.t, 1)
    bad = rate < 1e-3
    if kernel.exactness == "approximate":
        bad = bad | (lost > 0.5)
    failure = jnp.where(bad & (state.num_steps >= 3), 3, 0)
    return carry._replace(failure=_first(carry.failure, failure))


def _alive(state: RunState) -> Array:
    return jnp.any(jnp.isfinite(whole_log_weight(state.log_weight, state.log_z)))


def _first(failure: Array, new: Array) -> Array:
    return jnp.where(failure == 0, new, failure).astype(jnp.int32)


def _evidence(state: RunState, blank: Any, kernel: Kernel, pool: int) -> Any:
    """As `loop` finds it: what annealing has to show at its end."""
    count = state.log_weight.shape[0]
    seen = jnp.zeros(count * pool, jnp.int32).at[state.ancestor].set(1)
    found = blank._replace(
        log_weight=whole_log_weight(state.log_weight, state.log_z),
        num_ancestors=jnp.sum(seen).astype(blank.num_ancestors.dtype),
    )
    if kernel.exactness != "exact":
        return found
    log_z, error, island_log_z = program.log_evidence(state, pool)
    return found._replace(
        log_z=log_z.astype(found.log_z.dtype),
        standard_error=error.astype(found.standard_error.dtype),
        island_log_z=island_log_z.astype(found.island_log_z.dtype),
    )


def _choose(first: Array, a: Any, b: Any) -> Any:
    return jax.tree.map(lambda x, y: _where(first, x, y), a, b)


def _where(first: Array, x: Array, y: Array) -> Array:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        words = jnp.where(first, jax.random.key_data(x), jax.random.key_data(y))
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(x))
    return jnp.where(first, x, y)


def _kept_of(collect: Any, path: AnnealedPath, state: RunState, tile: int | None) -> Any:
    """Shapes of what a draw of all chains keeps."""
    return jax.eval_shape(
        lambda s: over_chains(lambda c: collect(path, c), (s.chains,), tile), state
    )
