"""The course of a run: annealing, warm-up, draws, in chunks of the compiled program.

`ais` and `sample` are built from these pieces. A `Journey` holds all that the rest of a run
depends on, so a run may stop after any chunk and go on from the journey it had then. Chunks
may be of any size: none of it decides what a chain does next.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import InputError, expected
from jaxgen.core.types import PRNGKey
from jaxgen.sampler import program, scouts
from jaxgen.sampler.config import Setup
from jaxgen.sampler.progress import ProgressLine
from jaxgen.sampler.results import FAILURES, NO_HISTORY, Progress
from jaxgen.sampler.sharding import replicate
from jaxgen.sampler.state import (
    ANNEAL,
    DONE,
    DRAW,
    FINAL,
    PILOT,
    WARM_UP,
    RunState,
    TemperatureInfo,
    clock,
    new_phase,
)
from jaxgen.tempering.betas import Adaptive
from jaxgen.tempering.resampling import effective_sample_size, whole_log_weight
from jaxgen.tempering.step_size import StepRule

__all__ = [
    "SETTLE",
    "Evidence",
    "InMemory",
    "Journey",
    "Plan",
    "Recorder",
    "begin",
    "from_state",
    "go",
    "no_evidence",
    "step_size",
]

# Seconds that a chunk should take: short enough for progress, checkpoints and signals.
_SHORT, _LONG = 0.5, 2.0
_FIRST_SLOTS = 10
# Kernel steps at the pilot's end.
SETTLE = 4


class Plan(NamedTuple):
    """What a run is to do after annealing.

    Attributes:
      draws: S; -1 ends the run with annealing.
      thin: kernel steps for each draw.
      rest: kernel steps after the last draw.
      warmup: steps before the first, in which the step size still adapts.
    """

    draws: int = -1
    thin: int = 1
    rest: int = 0
    warmup: int = 0


class Evidence(NamedTuple):
    """What annealing found.

    Attributes:
      log_weight: `[C]` log weights at its end, before the last resampling.
      log_z, standard_error: the log evidence; NaN where the kernel leaves no path invariant.
      num_ancestors: how many first states have descendants among the chains.
      island_log_z: `[I]`, what each island of chains found of log Z by itself.
    """

    log_weight: np.ndarray
    log_z: np.ndarray
    standard_error: np.ndarray
    num_ancestors: np.ndarray
    island_log_z: np.ndarray


class Journey(NamedTuple):
    """Where a run is, between two chunks.

    Attributes:
      state: the chains, and all else on the devices.
      phase: `ANNEAL`, `WARM_UP`, `DRAW` or `DONE`.
      stage: `PILOT` or `FINAL`, of annealing.
      done: warm-up steps or draws in this phase so far.
      history: a row for each temperature so far.
      evidence: once annealing has ended.
      reduced: the accumulator of `Setup.reduce`, None before the first draw.
    """

    state: RunState
    phase: int
    stage: int
    done: int
    history: TemperatureInfo
    evidence: Evidence
    reduced: Any = None


class Recorder(Protocol):
    """Who is told of every chunk, and may keep its draws or stop the run."""

    def after(self, journey: Journey, kept: Any) -> None:
        """A chunk has ended; `kept` is what it collected, leaves `[slots, C, ...]`, or None."""

    def draws(self) -> Any:
        """All that was collected, leaves `[C, S, ...]`, or None."""


class InMemory:
    """Keeps draws in memory, and nothing else."""

    journey: Journey | None = None
    notes: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._chunks: list[Any] = []

    def after(self, journey: Journey, kept: Any) -> None:
        """Keep what was collected."""
        if jax.tree.leaves(kept):
            self._chunks.append(kept)

    def draws(self) -> Any:
        """Hand over all that was collected, leaves `[C, S, ...]`, or None.

        Every chunk goes once it has been copied: draws are in memory once, and not twice.
        """
        if not self._chunks:
            return None
        first, structure = jax.tree.flatten(self._chunks[0])
        count = sum(len(jax.tree.leaves(chunk)[0]) for chunk in self._chunks)
        whole = [np.empty((leaf.shape[1], count, *leaf.shape[2:]), leaf.dtype) for leaf in first]
        del first
        done = 0
        while self._chunks:
            leaves = jax.tree.leaves(self._chunks.pop(0))
            for leaf, place in zip(leaves, whole, strict=True):
                place[:, done : done + len(leaf)] = np.moveaxis(leaf, 0, 1)
            done += len(leaves[0])
            del leaves
        return jax.tree.unflatten(structure, whole)


def begin(key: PRNGKey, setup: Setup, plan: Plan) -> Journey:
    """A run's first journey: chains drawn at beta = 0.

    Kernels without an accept step know no weights: their chains go straight to the target, and
    so do chains that are told where to start.
    """
    stage = PILOT if setup.pilot is not None else FINAL
    if setup.start is not None:
        state = _finish_annealing(setup.place(setup.blank(key)), setup)
        evidence = no_evidence(setup.num_chains, setup.islands)
        return Journey(state, WARM_UP, FINAL, 0, NO_HISTORY, evidence)
    state, row = setup.begin(setup.blank(key), stage)
    phase = ANNEAL
    if plan.draws >= 0 and setup.kernel.exactness == "approximate":
        adaptive = isinstance(setup.schedule, Adaptive)
        last = np.float32(1.0 if adaptive else np.max(setup.schedule))
        blank = {"beta": last, "log_weight": np.zeros(setup.num_chains, np.float32)}
        state, phase = state._replace(**replicate(blank, setup.mesh)), WARM_UP
        state = _finish_annealing(state, setup)
    return Journey(state, phase, stage, 0, row, no_evidence(setup.num_chains, setup.islands))


def from_state(state: RunState, setup: Setup) -> Journey:
    """Go on drawing from an earlier run's state; `InputError` if it is not of this target."""
    if state.log_weight.shape != (setup.num_chains,):
        raise expected("state", f"{setup.num_chains} chains", f"shape {state.log_weight.shape}")
    # A copy: the program writes over what it is given, and the caller keeps the original.
    state = replicate(jax.tree.map(jnp.copy, state), setup.mesh)
    # Chains carry log densities and gradients. Under another label, mask or set of weights
    # these would be wrong without a sign of it.
    if bool(program.stale(state, setup.path, tile=setup.tile, mesh=setup.mesh)):
        raise expected(
            "state",
            "chains of this very target",
            "log densities that another one left",
            "Start anew: without state",
        )
    evidence = no_evidence(setup.num_chains, setup.islands)
    return Journey(new_phase(state), DRAW, FINAL, 0, NO_HISTORY, evidence)


def go(journey: Journey, setup: Setup, plan: Plan, recorder: Recorder) -> Journey:
    """Chunk after chunk until the plan is done."""
    slots = min(_FIRST_SLOTS, setup.length)
    while journey.phase != DONE and not getattr(recorder, "stopped", False):
        begun = time.monotonic()
        phase = journey.phase
        journey, kept = proceed(journey, setup, plan, slots)
        if kept is not None and setup.reduce is not None:
            journey = journey._replace(reduced=setup.reduce(journey.reduced, kept))
            kept = None
        recorder.after(journey, kept)
        if setup.progress is not None and journey.phase == phase:
            setup.progress(_progress(journey, setup, plan))
        slots = _agreed(_next_slots(slots, time.monotonic() - begun, setup.length), slots, setup)
    if isinstance(setup.progress, ProgressLine):
        setup.progress.close()
    return journey


def _next_slots(slots: int, seconds: float, most: int) -> int:
    """How many slots the next chunk has, after one of `slots` has taken `seconds`."""
    slots = 2 * slots if seconds < _SHORT else slots // 2 if seconds > _LONG else slots
    return max(1, min(slots, most))


def _agreed(wanted: int, now: int, setup: Setup) -> int:
    """The first process's number of slots, where several share a run.

    Their clocks differ, and they must agree on every chunk. A process that goes its own way beside
    others stays at the number it has.
    """
    if jax.process_count() == 1:
        return wanted
    devices = () if setup.mesh is None else setup.mesh.devices.flat
    if len({device.process_index for device in devices}) < jax.process_count():
        return now
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(wanted)))


def proceed(journey: Journey, setup: Setup, plan: Plan, slots: int) -> tuple[Journey, Any]:
    """One chunk of at most so many slots, or the step into the next phase; also the draws."""
    return _PHASES[journey.phase](journey, setup, plan, slots)


def _anneal(journey: Journey, setup: Setup, plan: Plan, slots: int) -> tuple[Journey, Any]:
    state, stage = journey.state, journey.stage
    _check_alive(state)
    if float(state.beta) >= setup.last_beta:
        # A posterior that the pilot's pool of first states has reached needs no more.
        if stage == PILOT and int(state.temperature) > 1:
            check_moving(state, setup)
            # Copies that the last resampling left move apart before a mixture is fitted.
            state, *_ = setup.advance(state, WARM_UP, 1, SETTLE, PILOT)
            state = setup.send_scouts(state)
            for round_ in range(scouts.MOST_ROUNDS):
                if round_ and not bool(scouts.worth_a_round(state)):
                    break
                state, *_ = setup.advance(state, WARM_UP, 1, scouts.STEPS, PILOT)
            state, row = setup.begin(setup.fit(state), FINAL)
            history = _joined(journey.history, row)
            return journey._replace(state=state, stage=FINAL, history=history), None
        if int(state.num_steps):
            check_moving(state, setup)
        evidence = _evidence(state, setup)
        if plan.draws < 0:
            return journey._replace(phase=DONE, evidence=evidence), None
        state = _finish_annealing(state, setup)
        return journey._replace(state=state, phase=WARM_UP, done=0, evidence=evidence), None
    most = setup.most_temperatures
    if int(state.temperature) >= most:
        raise InputError(
            f"betas: after {most} temperatures beta is {float(state.beta):.3g} of 1. "
            "Lower Adaptive.cess, raise its max_temperatures, or raise the noise level"
        )
    state, rows, _ = setup.advance(state, ANNEAL, slots, setup.moves_of(stage), stage)
    return journey._replace(state=state, history=_joined(journey.history, rows)), None


def _joined(history: TemperatureInfo, rows: TemperatureInfo) -> TemperatureInfo:
    return TemperatureInfo(*(np.concatenate(column) for column in zip(history, rows, strict=True)))


def _warm_up(journey: Journey, setup: Setup, plan: Plan, slots: int) -> tuple[Journey, Any]:
    now = min(slots, plan.warmup - journey.done)
    if now <= 0:
        check_moving(journey.state, setup)
        state = program.finish_warm_up(journey.state, setup.rule)
        return journey._replace(state=state, phase=DRAW, done=0), None
    state, *_ = setup.advance(journey.state, WARM_UP, now, 1)
    return journey._replace(state=state, done=journey.done + now), None


def _draw(journey: Journey, setup: Setup, plan: Plan, slots: int) -> tuple[Journey, Any]:
    now = min(slots, plan.draws - journey.done)
    if now > 0:
        state, _, kept = setup.advance(journey.state, DRAW, now, plan.thin)
        return journey._replace(state=state, done=journey.done + now), kept
    state = journey.state
    if plan.rest:
        state, *_ = setup.advance(state, DRAW, 1, plan.rest)
    check_moving(state, setup)
    return journey._replace(state=state, phase=DONE), None


_PHASES = {ANNEAL: _anneal, WARM_UP: _warm_up, DRAW: _draw}


def no_evidence(num_chains: int, num_islands: int = 1) -> Evidence:
    """Of chains that were not annealed."""
    nan = np.float32(np.nan)
    weights = np.zeros(num_chains, np.float32)
    islands = np.full(num_islands, nan)
    return Evidence(weights, np.asarray(nan), np.asarray(nan), np.asarray(num_chains), islands)


def step_size(state: RunState, rule: StepRule) -> float:
    """The step in use, its mean over chains."""
    return float(rule.size(state.memory, clock(state)).mean())


def check_moving(state: RunState, setup: Setup) -> None:
    """Raise `InputError` if in this phase (nearly) every proposal was refused."""
    steps = int(state.num_steps)
    if steps < 3:
        return
    rate = float(np.mean(state.accepted)) / steps
    lost = float(np.mean(state.num_divergent)) / max(int(state.t), 1)
    if rate < 1e-3 or (setup.kernel.exactness == "approximate" and lost > 0.5):
        raise expected(
            "step_size",
            "a step at which proposals are accepted",
            f"{step_size(state, setup.rule):.3g}: acceptance rate {rate:.2g} over {steps} steps, "
            f"{lost:.0%} of all proposals divergent",
            "Give a smaller one, or None to adapt it",
        )


def _evidence(state: RunState, setup: Setup) -> Evidence:
    families = len(np.unique(np.asarray(state.ancestor)))
    blank = no_evidence(setup.num_chains, setup.islands)
    # Copied: the state's own arrays are written over by the next chunk.
    weights = np.array(whole_log_weight(state.log_weight, state.log_z))
    blank = blank._replace(log_weight=weights, num_ancestors=np.asarray(families))
    if setup.kernel.exactness != "exact":
        return blank
    found = program.log_evidence(state, setup.pool)
    return blank._replace(
        log_z=np.array(found.log_z),
        standard_error=np.array(found.standard_error),
        island_log_z=np.array(found.island_log_z),
    )


def _finish_annealing(state: RunState, setup: Setup) -> RunState:
    return program.finish_annealing(
        state,
        setup.path,
        setup.rule,
        resample=setup.resample,
        precondition=setup.precondition,
        tile=setup.tile,
        mesh=setup.mesh,
    )


def _progress(journey: Journey, setup: Setup, plan: Plan) -> Progress:
    """What a progress callback is told."""
    state, phase = journey.state, journey.phase
    if phase == ANNEAL:
        adaptive = isinstance(setup.schedule, Adaptive)
        name, done = ("anneal", "pilot")[journey.stage == PILOT], int(state.temperature)
        total = None if adaptive else setup.most_temperatures
    elif phase == WARM_UP:
        name, done, total = "warm-up", journey.done, plan.warmup
    else:
        name, done = "draw", journey.done * plan.thin
        total = plan.draws * plan.thin + plan.rest
    accepted = float(np.mean(state.accepted)) / max(int(state.num_steps), 1)
    return Progress(
        phase=name,
        done=done,
        total=total,
        beta=float(state.beta),
        step_size=step_size(state, setup.rule),
        acceptance_rate=accepted,
        ess=float(effective_sample_size(whole_log_weight(state.log_weight, state.log_z))),
        num_gradients=int(np.max(state.num_gradients)),
        num_divergent=int(np.sum(state.num_divergent)),
    )


def _check_alive(state: RunState) -> None:
    if not np.any(np.isfinite(whole_log_weight(state.log_weight, state.log_z))):
        raise InputError(FAILURES[1])
