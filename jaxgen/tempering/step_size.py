"""Rules for the step size.

A rule is data: `size` gives the step to use, `update` learns from a step's acceptance
rates. Learning ends when warm-up at beta = 1 ends and the step is frozen, so draws after
it come from a fixed kernel; a rule that never freezes says so and its draws are labelled
"adapted".
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxgen.core.errors import expected
from jaxgen.core.lazy import blackjax
from jaxgen.core.pytree import as_data, pytree, static
from jaxgen.core.tracing import is_traced
from jaxgen.core.types import Array, Scalar

__all__ = [
    "AdaptationState",
    "CoGeneration",
    "DualAveraging",
    "Fixed",
    "InverseSqrtBeta",
    "PerTemperature",
    "Scheduled",
    "StepIndex",
    "StepRule",
    "StepSize",
    "as_rule",
]


# What a rule has learned: a tree of arrays, of which each rule has a type of its own.
AdaptationState: TypeAlias = Any


class StepIndex(NamedTuple):
    """The position of a run.

    Attributes:
      beta: the inverse temperature.
      temperature: number of temperatures so far.
      t: number of kernel steps so far.
    """

    beta: Array
    temperature: Array
    t: Array


class StepRule:
    """Base class: a rule that has nothing to learn.

    Attributes:
      learns: whether acceptance rates ever change the step.
      freezes: whether they no longer do once warm-up has ended.
    """

    learns: ClassVar[bool] = False
    freezes: ClassVar[bool] = True

    def init(self, num_chains: int) -> AdaptationState:
        """Return the first state; leaves are `[]`, or `[C]` where each chain has its own."""
        return ()

    def size(self, state: AdaptationState, index: StepIndex) -> Array:
        """Return the step size to use now: `[]` or `[C]`."""
        raise NotImplementedError

    def update(self, state: AdaptationState, acceptance: Array, target: float) -> AdaptationState:
        """Learn from one step's acceptance rates `[C]` while beta still changes."""
        return state

    def start_warmup(self, state: AdaptationState) -> AdaptationState:
        """Return the state to warm up from: this is called once, at the last beta."""
        return state

    def warm(self, state: AdaptationState, acceptance: Array, target: float) -> AdaptationState:
        """Learn from one warm-up step at the last beta."""
        return self.update(state, acceptance, target)

    def freeze(self, state: AdaptationState) -> AdaptationState:
        """Return the state to draw with: this is called once, when warm-up ends."""
        return state

    def after_freeze(
        self, state: AdaptationState, acceptance: Array, target: float
    ) -> AdaptationState:
        """Learn from a step after warm-up; a rule that freezes returns its state unchanged."""
        return state

    def resample(self, state: AdaptationState, ancestors: Array) -> AdaptationState:
        """Give each chain its ancestor's step, where every chain has a step of its own."""
        return state

    def check(self) -> None:
        """Raise `InputError` for invalid settings."""


@pytree
class Fixed(StepRule):
    """One step size for all: exact, and rarely good over a whole annealing path."""

    step_size: Scalar

    def size(self, state: AdaptationState, index: StepIndex) -> Array:
        """Return the number itself."""
        return jnp.asarray(self.step_size, jnp.float32)

    def check(self) -> None:
        """Raise `InputError` unless the number is positive."""
        _check_positive("step_size", self.step_size)


@pytree
class PerTemperature(StepRule):
    """A table: one step size for each temperature that chains move at.

    Attributes:
      step_sizes: `[T]`; a run with more temperatures uses the last one for the rest.
    """

    step_sizes: Array

    def size(self, state: AdaptationState, index: StepIndex) -> Array:
        """Return the entry of this temperature."""
        sizes = jnp.asarray(self.step_sizes, jnp.float32)
        return sizes[jnp.clip(index.temperature - 1, 0, sizes.shape[0] - 1)]

    def check(self) -> None:
        """Raise `InputError` unless all are positive."""
        _check_positive("step_sizes", self.step_sizes)


@pytree
class InverseSqrtBeta(StepRule):
    """step(beta) = min(largest, step_size / sqrt(beta)).

    Where the condition is sharp the target's width shrinks like 1/sqrt(beta), and this
    rule shrinks with it; `largest` is what the prior can bear.
    """

    step_size: Scalar
    largest: Scalar

    def size(self, state: AdaptationState, index: StepIndex) -> Array:
        """Return the step at this beta."""
        step = self.step_size / jnp.sqrt(jnp.maximum(index.beta, 1e-12))
        return jnp.minimum(jnp.asarray(self.largest, jnp.float32), step)

    def check(self) -> None:
        """Raise `InputError` unless both numbers are positive."""
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

    def size(self, state: AdaptationState, index: StepIndex) -> Array:
        """Return schedule(t)."""
        return jnp.asarray(self.schedule(index.t), jnp.float32)


class AveragingState(NamedTuple):
    """State of `DualAveraging`: the logarithm of the step, and BlackJAX's averaging state."""

    log_step: Array
    averaging: Any


@pytree
class DualAveraging(StepRule):
    """A step that follows the acceptance rate, is averaged in warm-up, and then frozen.

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

    def init(self, num_chains: int) -> AveragingState:
        """Return the first step."""
        shape = (num_chains,) if self.per_chain else ()
        log_step = jnp.full(shape, jnp.log(jnp.asarray(self.step_size, jnp.float32)))
        return AveragingState(log_step, self._averaging(log_step))

    def size(self, state: AveragingState, index: StepIndex) -> Array:
        """Return the step in use."""
        return jnp.exp(state.log_step)

    def update(self, state: AveragingState, acceptance: Array, target: float) -> AveragingState:
        """Add gain (acceptance - target) to the logarithm of the step."""
        error = self._mean(acceptance) - self._target(target)
        return state._replace(log_step=state.log_step + self.gain * error)

    def start_warmup(self, state: AveragingState) -> AveragingState:
        """Start averaging from the step that annealing arrived at."""
        return state._replace(averaging=self._averaging(state.log_step))

    def warm(self, state: AveragingState, acceptance: Array, target: float) -> AveragingState:
        """Apply one update of dual averaging."""
        # BlackJAX takes the target when the update is built; it is data here, so the
        # update is built with 0 and given the error's negative instead.
        _, update, _ = _dual_averaging()
        error = self._mean(acceptance) - self._target(target)
        averaging = update(state.averaging, error)
        return AveragingState(averaging.log_step_size, averaging)

    def freeze(self, state: AveragingState) -> AveragingState:
        """Take the averaged step; without a single warm-up step, the one in use."""
        warmed = state.averaging.step > 1
        return state._replace(
            log_step=jnp.where(warmed, state.averaging.log_step_size_avg, state.log_step)
        )

    def resample(self, state: AveragingState, ancestors: Array) -> AveragingState:
        """Give each chain its ancestor's step."""
        if not self.per_chain:
            return state
        return state._replace(log_step=state.log_step[ancestors])

    def check(self) -> None:
        """Raise `InputError` unless the first step is positive and the target a probability."""
        _check_positive("step_size", self.step_size)
        if self.target is not None and not 0 < float(self.target) < 1:
            raise expected("target", "an acceptance rate between 0 and 1", self.target)

    def _averaging(self, log_step: Array) -> Any:
        init, _, _ = _dual_averaging()
        # mu is where the first steps are drawn to. Hoffman & Gelman put it at ten times the
        # first step, for runs that begin with a timid guess; annealing has found the scale.
        state = init(jnp.exp(log_step))._replace(mu=log_step)
        # Every leaf gets the shape of the step, so that the structure of the state is fixed.
        return type(state)(
            *(jnp.broadcast_to(jnp.asarray(x, jnp.float32), log_step.shape) for x in state)
        )

    def _mean(self, acceptance: Array) -> Array:
        return acceptance if self.per_chain else acceptance.mean()

    def _target(self, target: float) -> Scalar:
        return target if self.target is None else self.target


def _dual_averaging() -> Any:
    return blackjax().adaptation.step_size.dual_averaging_adaptation(target=0.0)


class CoGenerationState(NamedTuple):
    """State of `CoGeneration`: the shared step and the running acceptance rate."""

    step: Array
    average: Array


@pytree
class CoGeneration(StepRule):
    """The rule of the co-generation authors: one step for all chains, never frozen.

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

    def init(self, num_chains: int) -> CoGenerationState:
        """Return the first step, and an average at the target."""
        return CoGenerationState(
            jnp.asarray(self.step_size, jnp.float32), jnp.asarray(self.target, jnp.float32)
        )

    def size(self, state: CoGenerationState, index: StepIndex) -> Array:
        """Return the step in use."""
        return state.step

    def update(
        self, state: CoGenerationState, acceptance: Array, target: float
    ) -> CoGenerationState:
        """Multiply the step by 1.02 or 0.98."""
        factor = jnp.where(state.average > self.target, 1.02, 0.98)
        step = jnp.clip(state.step * factor, self.smallest, self.largest)
        return CoGenerationState(step, 0.9 * state.average + 0.1 * acceptance.mean())

    def after_freeze(
        self, state: CoGenerationState, acceptance: Array, target: float
    ) -> CoGenerationState:
        """Adapt as before: this rule never freezes."""
        return self.update(state, acceptance, target)

    def check(self) -> None:
        """Raise `InputError` unless the step is positive."""
        _check_positive("step_size", self.step_size)


# What a user may give for a step size: a number, a rule, "auto" or None.
StepSize: TypeAlias = StepRule | ArrayLike | None


def as_rule(step_size: StepSize, first: float) -> StepRule:
    """Return a rule as it is, a number as `Fixed`, and None or "auto" as `DualAveraging`.

    Args:
      step_size: what the user gave.
      first: the kernel's first step size, where `DualAveraging` starts.

    Raises:
      InputError: for another text.
    """
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
