"""The outer loop of a run: chunks of the compiled program, with progress between them.

`ais` and `sample` are built from these pieces. Everything here runs in Python, outside
`jit`; nothing here decides what a chain does next.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import engine
from jaxgen.adapt import StepRule, as_rule
from jaxgen.errors import InputError, expected
from jaxgen.kernels import HMC, ChainState, Kernel
from jaxgen.path import AnnealedPath, likelihood_path
from jaxgen.posterior import Posterior
from jaxgen.resampling import effective_sample_size, scheme
from jaxgen.results import Progress
from jaxgen.schedules import Adaptive, check_betas
from jaxgen.state import ANNEAL, DRAW, WARM_UP, Order, RunState, TemperatureInfo, clock, new_phase
from jaxgen.types import PRNGKey

__all__ = ["Setup", "anneal", "draw", "prepare", "resume", "start", "warm_up"]

# Temperatures, warm-up steps or draws in one call of the compiled program.
CHUNK = 10

Callback = Callable[[Progress], None]


@dataclasses.dataclass(frozen=True)
class Setup:
    """A run's settings, checked and complete.

    Attributes:
      path, kernel, rule, schedule: what the compiled program takes as data.
      num_chains, moves, threshold: numbers.
      resample, precondition, collect, tile: what it takes as structure.
      progress: told between chunks, or None.
    """

    path: AnnealedPath
    kernel: Kernel
    rule: StepRule
    schedule: Any
    num_chains: int
    moves: int
    threshold: float
    resample: str | None
    precondition: bool
    collect: Any
    tile: int | None
    progress: Callback | None

    def advance(
        self, state: RunState, phase: int, slots: int, steps: int
    ) -> tuple[RunState, TemperatureInfo, Any]:
        """One chunk; rows and draws come back as NumPy arrays, used slots only."""
        order = Order.of(phase, slots, steps, self.threshold)
        state, rows, kept = engine.advance(
            state,
            self.path,
            self.kernel,
            self.rule,
            self.schedule,
            order,
            resample=self.resample,
            precondition=self.precondition,
            collect=self.collect,
            tile=self.tile,
            length=CHUNK,
        )
        rows = jax.device_get(rows)
        if phase == DRAW:
            kept = jax.tree.map(lambda x: np.asarray(x[:slots]), kept)
        return state, TemperatureInfo(*(column[rows.active] for column in rows)), kept

    def report(self, phase: str, done: int, total: int | None, state: RunState) -> None:
        """Tell the progress callback where the run stands."""
        if self.progress is None:
            return
        self.progress(
            Progress(
                phase=phase,
                done=done,
                total=total,
                beta=float(state.beta),
                step_size=step_size(state, self.rule),
                acceptance_rate=float(state.accepted.mean() / max(int(state.num_steps), 1)),
                ess=float(effective_sample_size(state.log_weight)),
                num_gradients=int(state.num_gradients.max()),
                num_divergent=int(state.num_divergent.sum()),
            )
        )


def prepare(
    target: Posterior | AnnealedPath,
    kernel: Kernel | None,
    betas: Any,
    *,
    num_chains: int,
    moves: int,
    step_size: Any,
    resample: str | None,
    resample_threshold: float,
    precondition: bool,
    tile: int | None,
    progress: Callback | None,
    collect: Any = None,
) -> Setup:
    """Check what the user gave, before anything is traced, and fill in the defaults."""
    if isinstance(target, Posterior):
        target.check()
        path = likelihood_path(target)
    elif isinstance(target, AnnealedPath):
        path = target
    else:
        raise expected("target", "a Posterior or an AnnealedPath", type(target).__name__)
    kernel = HMC(10, jitter=True) if kernel is None else kernel
    if not isinstance(kernel, Kernel):
        raise expected("kernel", "a kernel of jaxgen.kernels", type(kernel).__name__)
    kernel.check(path)
    check_integer("num_chains", num_chains, 1)
    check_integer("moves", moves, 1)
    if tile is not None:
        check_integer("tile", tile, 1)
    if resample is not None:
        scheme(resample)
    if not 0 <= resample_threshold <= 1:
        raise expected("resample_threshold", "a fraction between 0 and 1", resample_threshold)
    if step_size is None and not kernel.adapts:
        step_size = kernel.first_step_size  # such a kernel has no use for it
    rule = as_rule(step_size, kernel.first_step_size)
    rule.check()
    return Setup(
        path=path,
        kernel=kernel,
        rule=rule,
        schedule=_schedule(betas),
        num_chains=num_chains,
        moves=moves,
        threshold=resample_threshold,
        resample=resample,
        precondition=precondition,
        collect=_nothing if collect is None else collect,
        tile=tile,
        progress=progress,
    )


def start(key: PRNGKey, setup: Setup) -> RunState:
    """First states, drawn at beta = 0."""
    return engine.initial_state(
        key,
        setup.path,
        setup.kernel,
        setup.rule,
        num_chains=setup.num_chains,
        tile=setup.tile,
    )


def resume(state: RunState, setup: Setup) -> RunState:
    """Go on from an earlier run's state; raise `InputError` if it is not of this target."""
    if state.log_weight.shape != (setup.num_chains,):
        raise expected("state", f"{setup.num_chains} chains", f"shape {state.log_weight.shape}")
    # Chains carry log densities and gradients. Under another label, mask or set of weights
    # these would be wrong without a sign of it.
    if bool(engine.stale(state, setup.path, tile=setup.tile)):
        raise expected(
            "state",
            "chains of this very target",
            "log densities that another one left",
            "Start anew: without state",
        )
    return new_phase(state)


def anneal(state: RunState, setup: Setup) -> tuple[RunState, TemperatureInfo]:
    """Chunks until the last beta; also returns the rows of all temperatures."""
    _check_alive(state)
    adaptive = isinstance(setup.schedule, Adaptive)
    last = 1.0 if adaptive else float(setup.schedule[-1])
    most = setup.schedule.max_temperatures if adaptive else setup.schedule.shape[0] - 1
    rows = []
    while float(state.beta) < last:
        if int(state.temperature) >= most:
            raise InputError(
                f"betas: after {most} temperatures beta is {float(state.beta):.3g} of 1. "
                "Lower Adaptive.cess, raise its max_temperatures, or raise the noise level"
            )
        state, info, _ = setup.advance(state, ANNEAL, 0, setup.moves)
        rows.append(info)
        _check_alive(state)
        setup.report("anneal", int(state.temperature), None if adaptive else most, state)
    check_moving(state, setup)
    columns = zip(*rows, strict=True)
    return state, TemperatureInfo(*(np.concatenate(column) for column in columns))


def warm_up(state: RunState, setup: Setup, num_steps: int) -> RunState:
    """Equal weights, then steps at the last beta until the step size is frozen."""
    state = engine.finish_annealing(
        state, setup.rule, resample=setup.resample, precondition=setup.precondition
    )
    done = 0
    while done < num_steps:
        now = min(CHUNK, num_steps - done)
        state, *_ = setup.advance(state, WARM_UP, now, 1)
        done += now
        setup.report("warm-up", done, num_steps, state)
    check_moving(state, setup)
    return engine.finish_warm_up(state, setup.rule)


def draw(state: RunState, setup: Setup, num_steps: int, thin: int) -> tuple[RunState, Any]:
    """num_steps steps, a draw after every `thin` of them; leaves `[C, S, ...]` or None."""
    total, rest = divmod(num_steps, thin)
    chunks, done = [], 0
    while done < total:
        now = min(CHUNK, total - done)
        state, _, kept = setup.advance(state, DRAW, now, thin)
        chunks.append(kept)
        done += now
        setup.report("draw", done * thin, num_steps, state)
    if rest:
        state, *_ = setup.advance(state, DRAW, 1, rest)
    check_moving(state, setup)
    if not jax.tree.leaves(chunks):
        return state, None
    return state, jax.tree.map(lambda *x: np.moveaxis(np.concatenate(x), 0, 1), *chunks)


def step_size(state: RunState, rule: StepRule) -> float:
    """The step in use, its mean over chains."""
    return float(rule.size(state.memory, clock(state)).mean())


def check_integer(name: str, value: Any, least: int) -> None:
    """Raise `InputError` unless value is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise expected(name, f"an integer of at least {least}", value)


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


def _schedule(betas: Any) -> Any:
    if betas is None:
        return Adaptive()
    if isinstance(betas, Adaptive):
        if not 0 < float(betas.cess) < 1:
            raise expected("Adaptive.cess", "a fraction between 0 and 1", betas.cess)
        return betas
    values = jnp.asarray(check_betas(betas), jnp.float32)
    if np.any(np.diff(np.asarray(values)[1:]) <= 0):
        raise expected("betas", "values that differ in float32", "steps that vanish in it")
    return values


def _check_alive(state: RunState) -> None:
    if not np.any(np.isfinite(state.log_weight)):
        raise InputError(
            "condition: expected a finite log likelihood on at least one chain; got none. "
            "Look at posterior.log_likelihood(posterior.prior.sample(key))"
        )


def _nothing(path: AnnealedPath, chain: ChainState) -> tuple[()]:
    return ()
