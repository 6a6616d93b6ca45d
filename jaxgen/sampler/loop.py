"""The course of a run: annealing, warm-up, draws, in chunks of the compiled program.

`ais` and `sample` are built from these pieces. A `Checkpoint` holds everything that the rest of a
run depends on, so that a run may stop after any chunk and resume from the checkpoint it had then.
Chunks may be of any size: their size does not change what a chain does next.
"""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import InputError, expected
from jaxgen.core.types import ArrayTree, PRNGKey
from jaxgen.sampler import driver, program, scouts
from jaxgen.sampler.config import RunConfig
from jaxgen.sampler.notes import FAILURES
from jaxgen.sampler.progress import ProgressLine
from jaxgen.sampler.recorder import Recorder
from jaxgen.sampler.records import AnnealingEvidence, Checkpoint, RunLength, no_evidence
from jaxgen.sampler.results import NO_HISTORY, Progress
from jaxgen.sampler.sharding import replicate
from jaxgen.sampler.state import Phase, SamplerState, Stage, TemperatureInfo, new_phase, step_index
from jaxgen.tempering.betas import Adaptive
from jaxgen.tempering.resampling import effective_sample_size, whole_log_weight
from jaxgen.tempering.step_size import StepRule

__all__ = ["SETTLE", "check_moving", "from_state", "init", "run_loop", "step_chunk", "step_size"]

# Seconds that a chunk should take: short enough for progress, checkpoints and signals.
_SHORT, _LONG = 0.5, 2.0
_FIRST_ITERATIONS = 10
# Kernel steps at the pilot's end.
SETTLE = 4


def init(key: PRNGKey, config: RunConfig, run_length: RunLength) -> Checkpoint:
    """Return the first checkpoint of a run: chains drawn at beta = 0.

    Kernels without an accept step have no weights: their chains start at the last beta, and so
    do chains whose first positions were given.
    """
    stage = Stage.PILOT if config.pilot is not None else Stage.FINAL
    state = driver.blank_state(key, config)
    evidence = no_evidence(config.num_chains, config.islands)
    if config.start is not None:
        state = driver.finish_annealing(driver.place_chains(state, config), config)
        return Checkpoint(state, Phase.WARM_UP, Stage.FINAL, 0, NO_HISTORY, evidence)
    state, row = driver.init_stage(state, config, stage)
    phase = Phase.ANNEAL
    if run_length.draws >= 0 and config.kernel.exactness == "approximate":
        schedule = config.schedule
        last = np.float32(1.0 if isinstance(schedule, Adaptive) else np.max(schedule))
        blank = {"beta": last, "log_weight": np.zeros(config.num_chains, np.float32)}
        state, phase = state._replace(**replicate(blank, config.mesh)), Phase.WARM_UP
        state = driver.finish_annealing(state, config)
    return Checkpoint(state, phase, stage, 0, row, evidence)


def from_state(state: SamplerState, config: RunConfig) -> Checkpoint:
    """Return a checkpoint that draws on from an earlier run's state.

    Raises:
      InputError: if the state is of another number of chains, or of another target.
    """
    if state.log_weight.shape != (config.num_chains,):
        raise expected("state", f"{config.num_chains} chains", f"shape {state.log_weight.shape}")
    # A copy: the program writes over its argument, and the caller keeps the original.
    state = replicate(jax.tree.map(jnp.copy, state), config.mesh)
    # Chains carry log densities and gradients. Under another label, mask or set of weights
    # these would be wrong, and nothing would show it.
    if driver.stale(state, config):
        raise expected(
            "state",
            "chains of this very target",
            "log densities that another one left",
            "Start anew: without state",
        )
    evidence = no_evidence(config.num_chains, config.islands)
    return Checkpoint(new_phase(state), Phase.DRAW, Stage.FINAL, 0, NO_HISTORY, evidence)


def run_loop(
    checkpoint: Checkpoint, config: RunConfig, run_length: RunLength, recorder: Recorder
) -> Checkpoint:
    """Run chunk after chunk until the run is done, or the recorder stops it."""
    iterations = min(_FIRST_ITERATIONS, config.chunk_size)
    while checkpoint.phase != Phase.DONE and not recorder.stopped:
        begun = time.monotonic()
        phase = checkpoint.phase
        checkpoint, kept = step_chunk(checkpoint, config, run_length, iterations)
        if kept is not None and config.reduce is not None:
            checkpoint = checkpoint._replace(reduced=config.reduce(checkpoint.reduced, kept))
            kept = None
        recorder.after(checkpoint, kept)
        if config.progress is not None and checkpoint.phase == phase:
            config.progress(_progress(checkpoint, config, run_length))
        wanted = _next_size(iterations, time.monotonic() - begun, config.chunk_size)
        iterations = _agreed(wanted, iterations, config)
    if isinstance(config.progress, ProgressLine):
        config.progress.close()
    return checkpoint


def _next_size(iterations: int, seconds: float, most: int) -> int:
    """Return the iterations of the next chunk, after a chunk of `iterations` took `seconds`."""
    if seconds < _SHORT:
        iterations = 2 * iterations
    elif seconds > _LONG:
        iterations = iterations // 2
    return max(1, min(iterations, most))


def _agreed(wanted: int, now: int, config: RunConfig) -> int:
    """Return the first process's number of iterations, where several processes share a run.

    Their clocks differ, and they must agree on every chunk. A process that computes a run of its
    own beside others keeps the number it has.
    """
    if jax.process_count() == 1:
        return wanted
    devices = () if config.mesh is None else config.mesh.devices.flat
    if len({device.process_index for device in devices}) < jax.process_count():
        return now
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(wanted)))


def step_chunk(
    checkpoint: Checkpoint, config: RunConfig, run_length: RunLength, iterations: int
) -> tuple[Checkpoint, ArrayTree | None]:
    """Run one chunk of at most `iterations` iterations, or enter the next phase.

    Returns:
      The checkpoint after it, and the draws, leaves `[iterations, C, ...]`, or None.
    """
    return _PHASES[checkpoint.phase](checkpoint, config, run_length, iterations)


def _anneal(
    checkpoint: Checkpoint, config: RunConfig, run_length: RunLength, iterations: int
) -> tuple[Checkpoint, ArrayTree | None]:
    state, stage = checkpoint.state, checkpoint.stage
    _check_alive(state)
    if float(state.beta) >= config.last_beta:
        # A pilot whose pool of first states reached the posterior by itself needs no final stage.
        if stage == Stage.PILOT and int(state.temperature) > 1:
            return _enter_final_stage(checkpoint, config), None
        return _end_annealing(checkpoint, config, run_length), None
    most = config.most_temperatures
    if int(state.temperature) >= most:
        raise InputError(
            f"betas: after {most} temperatures beta is {float(state.beta):.3g} of 1. "
            "Lower Adaptive.cess, raise its max_temperatures, or raise the noise level"
        )
    steps, most_steps = config.num_mcmc_steps, config.most_mcmc_steps
    state, rows, _ = driver.advance(
        state, config, Phase.ANNEAL, iterations, steps, stage, most_steps
    )
    return checkpoint._replace(state=state, history=_joined(checkpoint.history, rows)), None


def _enter_final_stage(checkpoint: Checkpoint, config: RunConfig) -> Checkpoint:
    """End the pilot: let copies move apart, send scouts, and start from the fitted mixture."""
    state = checkpoint.state
    check_moving(state, config)
    # Copies that the last resampling left move apart before a mixture is fitted.
    state, *_ = driver.advance(state, config, Phase.WARM_UP, 1, SETTLE, Stage.PILOT)
    state = driver.send_scouts(state, config)
    for round_ in range(scouts.MOST_ROUNDS):
        if round_ and not bool(scouts.worth_a_round(state)):
            break
        state, *_ = driver.advance(state, config, Phase.WARM_UP, 1, scouts.STEPS, Stage.PILOT)
    state, row = driver.init_stage(driver.fit_proposal(state, config), config, Stage.FINAL)
    history = _joined(checkpoint.history, row)
    return checkpoint._replace(state=state, stage=Stage.FINAL, history=history)


def _end_annealing(checkpoint: Checkpoint, config: RunConfig, run_length: RunLength) -> Checkpoint:
    """Estimate the evidence, and enter the warm-up; a run without draws is done."""
    state = checkpoint.state
    if int(state.num_steps):
        check_moving(state, config)
    evidence = _evidence(state, config)
    if run_length.draws < 0:
        return checkpoint._replace(phase=Phase.DONE, evidence=evidence)
    state = driver.finish_annealing(state, config)
    return checkpoint._replace(state=state, phase=Phase.WARM_UP, done=0, evidence=evidence)


def _joined(history: TemperatureInfo, rows: TemperatureInfo) -> TemperatureInfo:
    return TemperatureInfo(*(np.concatenate(column) for column in zip(history, rows, strict=True)))


def _warm_up(
    checkpoint: Checkpoint, config: RunConfig, run_length: RunLength, iterations: int
) -> tuple[Checkpoint, ArrayTree | None]:
    now = min(iterations, run_length.warmup - checkpoint.done)
    if now <= 0:
        check_moving(checkpoint.state, config)
        state = program.finish_warm_up(checkpoint.state, config.rule)
        return checkpoint._replace(state=state, phase=Phase.DRAW, done=0), None
    state, *_ = driver.advance(checkpoint.state, config, Phase.WARM_UP, now, 1)
    return checkpoint._replace(state=state, done=checkpoint.done + now), None


def _draw(
    checkpoint: Checkpoint, config: RunConfig, run_length: RunLength, iterations: int
) -> tuple[Checkpoint, ArrayTree | None]:
    state, now = checkpoint.state, min(iterations, run_length.draws - checkpoint.done)
    if now > 0:
        state, _, kept = driver.advance(state, config, Phase.DRAW, now, run_length.thin)
        return checkpoint._replace(state=state, done=checkpoint.done + now), kept
    if run_length.rest:
        state, *_ = driver.advance(state, config, Phase.DRAW, 1, run_length.rest)
    check_moving(state, config)
    return checkpoint._replace(state=state, phase=Phase.DONE), None


_PHASES = {Phase.ANNEAL: _anneal, Phase.WARM_UP: _warm_up, Phase.DRAW: _draw}


def step_size(state: SamplerState, rule: StepRule) -> float:
    """Return the step size in use, its mean over chains."""
    return float(rule.size(state.adaptation, step_index(state)).mean())


def check_moving(state: SamplerState, config: RunConfig) -> None:
    """Raise `InputError` if in this phase (nearly) every proposal was rejected."""
    steps = int(state.num_steps)
    if steps < 3:
        return
    rate = float(np.mean(state.accepted)) / steps
    lost = float(np.mean(state.num_divergent)) / max(int(state.t), 1)
    if rate < 1e-3 or (config.kernel.exactness == "approximate" and lost > 0.5):
        raise expected(
            "step_size",
            "a step at which proposals are accepted",
            f"{step_size(state, config.rule):.3g}: acceptance rate {rate:.2g} over {steps} steps, "
            f"{lost:.0%} of all proposals divergent",
            "Give a smaller one, or None to adapt it",
        )


def _evidence(state: SamplerState, config: RunConfig) -> AnnealingEvidence:
    lineages = len(np.unique(np.asarray(state.lineage)))
    blank = no_evidence(config.num_chains, config.islands)
    # Copied: the state's own arrays are written over by the next chunk.
    weights = np.array(whole_log_weight(state.log_weight, state.log_z))
    blank = blank._replace(log_weight=weights, num_lineages=np.asarray(lineages))
    if config.kernel.exactness != "exact":
        return blank
    found = program.log_evidence(state, config.pool)
    return blank._replace(
        log_z=np.array(found.log_z),
        standard_error=np.array(found.standard_error),
        island_log_z=np.array(found.island_log_z),
    )


def _progress(checkpoint: Checkpoint, config: RunConfig, run_length: RunLength) -> Progress:
    """Return what a progress callback receives."""
    state, phase = checkpoint.state, checkpoint.phase
    if phase == Phase.ANNEAL:
        adaptive = isinstance(config.schedule, Adaptive)
        name, done = ("anneal", "pilot")[checkpoint.stage == Stage.PILOT], int(state.temperature)
        total = None if adaptive else config.most_temperatures
    elif phase == Phase.WARM_UP:
        name, done, total = "warm-up", checkpoint.done, run_length.warmup
    else:
        name, done = "draw", checkpoint.done * run_length.thin
        total = run_length.draws * run_length.thin + run_length.rest
    accepted = float(np.mean(state.accepted)) / max(int(state.num_steps), 1)
    return Progress(
        phase=name,
        done=done,
        total=total,
        beta=float(state.beta),
        step_size=step_size(state, config.rule),
        acceptance_rate=accepted,
        ess=float(effective_sample_size(whole_log_weight(state.log_weight, state.log_z))),
        num_gradients=int(np.max(state.num_gradients)),
        num_divergent=int(np.sum(state.num_divergent)),
    )


def _check_alive(state: SamplerState) -> None:
    if not np.any(np.isfinite(whole_log_weight(state.log_weight, state.log_z))):
        raise InputError(FAILURES[1])
