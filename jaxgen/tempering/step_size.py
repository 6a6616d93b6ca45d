"""Rules for the step size.

A rule is data: `size` gives the step to use, `update` learns from a step's acceptance
rates. Learning ends when warm-up at beta = 1 ends and the step is frozen, so draws after
it come from a fixed kernel; a rule that never freezes says so and its draws are labelled
"adapted".
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.lazy import blackjax
from jaxgen.core.pytree import as_data, pytree, static
from jaxgen.core.tracing import is_traced
from jaxgen.core.types import Array, Scalar

__all__ = [
    "CoGeneration",
    "DualAveraging",
    "Fixed",
    "InverseSqrtBeta",
    "PerTemperature",
    "Scheduled",
    "StepRule",
    "as_rule",
]


class Clock(NamedTuple):
    """Where a run stands: the temperature, its index, and the count of kernel steps."""

    beta: Array
    temperature: Array
    t: Array


class StepRule:
    """Base class: a rule without memory that ignores what it is told.

    Attributes:
      learns: whether acceptance rates ever change the step.
      freezes: whether they no longer do once warm-up has ended.
    """

    learns: ClassVar[bool] = False
    freezes: ClassVar[bool] = True

    def init(self, num_chains: int) -> Any:
        """The rule's memory; leaves are `[]`, or `[C]` where each chain has its own."""
        return ()

    def size(self, memory: Any, clock: Clock) -> Array:
        """The step size to use now: `[]` or `[C]`."""
        raise NotImplementedError

    def update(self, memory: Any, acceptance: Array, target: float) -> Any:
        """Learn from one step's acceptance rates `[C]` while the target still moves."""
        return memory

    def start_warmup(self, memory: Any) -> Any:
        """Called once when beta has reached its last value."""
        return memory

    def warm(self, memory: Any, acceptance: Array, target: float) -> Any:
        """Learn from one warm-up step at the last beta."""
        return self.update(memory, acceptance, target)

    def freeze(self, memory: Any) -> Any:
        """Called once when warm-up ends."""
        return memory

    def after_freeze(self, memory: Any, acceptance: Array, target: float) -> Any:
        """Called after every later step: a rule that freezes leaves its memory alone."""
        return memory

    def resample(self, memory: Any, ancestors: Array) -> Any:
        """Give each chain its ancestor's step, where chains have their own."""
        return memory

    def check(self) -> None:
        """Raise `InputError` for numbers that no run could use."""


@pytree
class Fixed(StepRule):
    """One step size for all: exact, and rarely good over a whole annealing path."""

    step_size: Scalar

    def size(self, memory: Any, clock: Clock) -> Array:
        """The number itself."""
        return jnp.asarray(self.step_size, jnp.float32)

    def check(self) -> None:
        """It must be positive."""
        _check_positive("step_size", self.step_size)


@pytree
class PerTemperature(StepRule):
    """A table: one step size for each temperature that chains move at.

    Attributes:
      step_sizes: `[T]`; a run with more temperatures goes on with the last.
    """

    step_sizes: Array

    def size(self, memory: Any, clock: Clock) -> Array:
        """The entry of this temperature."""
        sizes = jnp.asarray(self.step_sizes, jnp.float32)
        return sizes[jnp.clip(clock.temperature - 1, 0, sizes.shape[0] - 1)]

    def check(self) -> None:
        """All must be positive."""
        _check_positive("step_sizes", self.step_sizes)


@pytree
class InverseSqrtBeta(StepRule):
    """step(beta) = min(largest, step_size / sqrt(beta)).

    Where the condition is sharp the target's width shrinks like 1/sqrt(beta), and this
    rule shrinks with it; `largest` is what the prior can bear.
    """

    step_size: Scalar
    largest: Scalar

    def size(self, memory: Any, clock: Clock) -> Array:
        """The step at this beta."""
        step = self.step_size / jnp.sqrt(jnp.maximum(clock.beta, 1e-12))
        return jnp.minimum(jnp.asarray(self.largest, jnp.float32), step)

    def check(self) -> None:
        """Both numbers must be positive."""
        _check_positive("step_size", self.step_size)
        _check_positive("largest", self.largest)


@pytree
class Scheduled(StepRule):
    """A step size that follows a schedule of the step count.

    Attributes:
      schedule: an `optax.Schedule`, or one of `jaxgen.schedules`, whose numbers are data.
    """

    schedule: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedule", as_data(self.schedule))

    def size(self, memory: Any, clock: Clock) -> Array:
        """schedule(t)."""
        return jnp.asarray(self.schedule(clock.t), jnp.float32)


class AveragingMemory(NamedTuple):
    """Memory of `DualAveraging`: the step in use, and BlackJAX's averaging state."""

    log_step: Array
    averaging: Any


@pytree
class DualAveraging(StepRule):
    """Follow the acceptance rate while annealing; dual averaging in warm-up; then freeze.

    While beta moves, log step += gain (acceptance - target) after each kernel step: a
    constant gain tracks a target that changes. Warm-up at the last beta is Nesterov's dual
    averaging (Hoffman & Gelman 2014, Sec. 3.2), as BlackJAX has it.

    Attributes:
      step_size: the first step, or None for the kernel's own first guess.
      target: acceptance rate to aim at, or None for the kernel's.
      gain: how fast the step follows while annealing.
      per_chain: a step for each chain, from its own acceptance; otherwise one for all,
        from the mean over chains.
    """

    step_size: Scalar
    target: Scalar | None = None
    gain: Scalar = 0.5
    per_chain: bool = static(default=False)

    learns: ClassVar[bool] = True

    def init(self, num_chains: int) -> AveragingMemory:
        """The first step."""
        shape = (num_chains,) if self.per_chain else ()
        log_step = jnp.full(shape, jnp.log(jnp.asarray(self.step_size, jnp.float32)))
        return AveragingMemory(log_step, self._averaging(log_step))

    def size(self, memory: AveragingMemory, clock: Clock) -> Array:
        """The step in use."""
        return jnp.exp(memory.log_step)

    def update(self, memory: AveragingMemory, acceptance: Array, target: float) -> AveragingMemory:
        """log step += gain (acceptance - target)."""
        error = self._mean(acceptance) - self._target(target)
        return memory._replace(log_step=memory.log_step + self.gain * error)

    def start_warmup(self, memory: AveragingMemory) -> AveragingMemory:
        """Start averaging from the step that annealing arrived at."""
        return memory._replace(averaging=self._averaging(memory.log_step))

    def warm(self, memory: AveragingMemory, acceptance: Array, target: float) -> AveragingMemory:
        """One update of dual averaging."""
        # BlackJAX takes the target when the update is built; it is data here, so the
        # update is built with 0 and given the error's negative instead.
        _, update, _ = _dual_averaging()
        error = self._mean(acceptance) - self._target(target)
        averaging = update(memory.averaging, error)
        return AveragingMemory(averaging.log_step_size, averaging)

    def freeze(self, memory: AveragingMemory) -> AveragingMemory:
        """Take the averaged step; without a single warm-up step, the one in use."""
        warmed = memory.averaging.step > 1
        return memory._replace(
            log_step=jnp.where(warmed, memory.averaging.log_step_size_avg, memory.log_step)
        )

    def resample(self, memory: AveragingMemory, ancestors: Array) -> AveragingMemory:
        """Each chain takes its ancestor's step."""
        if not self.per_chain:
            return memory
        return memory._replace(log_step=memory.log_step[ancestors])

    def check(self) -> None:
        """The first step must be positive and the target a probability."""
        _check_positive("step_size", self.step_size)
        if self.target is not None and not 0 < float(self.target) < 1:
            raise expected("target", "an acceptance rate between 0 and 1", self.target)

    def _averaging(self, log_step: Array) -> Any:
        init, _, _ = _dual_averaging()
        # mu is where the first steps are drawn to. Hoffman & Gelman put it at ten times the
        # first step, for runs that begin with a timid guess; annealing has found the scale.
        state = init(jnp.exp(log_step))._replace(mu=log_step)
        # Every leaf gets the shape of the step, so that the memory's structure is fixed.
        return type(state)(
            *(jnp.broadcast_to(jnp.asarray(x, jnp.float32), log_step.shape) for x in state)
        )

    def _mean(self, acceptance: Array) -> Array:
        return acceptance if self.per_chain else acceptance.mean()

    def _target(self, target: float) -> Scalar:
        return target if self.target is None else self.target


def _dual_averaging() -> Any:
    return blackjax().adaptation.step_size.dual_averaging_adaptation(target=0.0)


class CoGenerationMemory(NamedTuple):
    """Memory of `CoGeneration`: the shared step and the running acceptance rate."""

    step: Array
    average: Array


@pytree
class CoGeneration(StepRule):
    """The co-generation authors' rule: one step for all chains, never frozen.

    After each transition step <- clip(1.02 step if a > target else 0.98 step, 1e-4, 0.5),
    with a the running average before this transition; then a <- 0.9 a + 0.1 mean
    acceptance. Where a few chains sit in stiff regions the shared step collapses.
    """

    step_size: Scalar = 0.01
    target: Scalar = 0.65
    smallest: Scalar = 1e-4
    largest: Scalar = 0.5

    learns: ClassVar[bool] = True
    freezes: ClassVar[bool] = False

    def init(self, num_chains: int) -> CoGenerationMemory:
        """The first step, and an average at the target."""
        return CoGenerationMemory(
            jnp.asarray(self.step_size, jnp.float32), jnp.asarray(self.target, jnp.float32)
        )

    def size(self, memory: CoGenerationMemory, clock: Clock) -> Array:
        """The step in use."""
        return memory.step

    def update(
        self, memory: CoGenerationMemory, acceptance: Array, target: float
    ) -> CoGenerationMemory:
        """Times 1.02 or 0.98."""
        factor = jnp.where(memory.average > self.target, 1.02, 0.98)
        step = jnp.clip(memory.step * factor, self.smallest, self.largest)
        return CoGenerationMemory(step, 0.9 * memory.average + 0.1 * acceptance.mean())

    def after_freeze(
        self, memory: CoGenerationMemory, acceptance: Array, target: float
    ) -> CoGenerationMemory:
        """It goes on adapting."""
        return self.update(memory, acceptance, target)

    def check(self) -> None:
        """The step must be positive."""
        _check_positive("step_size", self.step_size)


def as_rule(step_size: Any, first: float) -> StepRule:
    """A rule as it is, a number as `Fixed`, None or "auto" as `DualAveraging`."""
    if isinstance(step_size, StepRule):
        return step_size
    if isinstance(step_size, str) and step_size != "auto":
        raise expected("step_size", 'a number, a rule of jaxgen.adapt or "auto"', repr(step_size))
    if step_size is None or isinstance(step_size, str):
        return DualAveraging(jnp.asarray(first, jnp.float32))
    return Fixed(jnp.asarray(step_size, jnp.float32))


def _check_positive(name: str, value: Any) -> None:
    if is_traced(value):
        return
    if not (np.all(np.isfinite(value)) and np.all(np.asarray(value) > 0)):
        raise expected(name, "a positive number", value)
