"""What every kernel shares: the state of a chain, the report of a step, and its context.

A kernel moves ONE chain one step on the target `base + beta * tilt`. The state keeps the two
terms apart, so that the next step may run at another beta without a new gradient.
"""

from __future__ import annotations

import functools
import inspect
import warnings
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core.errors import expected
from jaxgen.core.printing import prints_short
from jaxgen.core.types import Array, ArrayTree, Exactness, PRNGKey
from jaxgen.target.path import AnnealedPath

__all__ = [
    "ChainState",
    "Kernel",
    "KernelParams",
    "StepContext",
    "StepInfo",
    "evaluate",
    "keep_if",
    "split_energies",
]


@prints_short
class ChainState(NamedTuple):
    """One chain between two steps.

    Attributes:
      position: coordinates of the latent.
      base, grad_base: base(z) and its gradient (the score, where that is all there is).
      tilt, grad_tilt: tilt(z) and its gradient. Gradients are zeros where a kernel uses none.

    The leaves of all chains together are `[C, ...]`.
    """

    position: ArrayTree
    base: Array
    grad_base: ArrayTree
    tilt: Array
    grad_tilt: ArrayTree

    def log_density(self, beta: Array) -> Array:
        """Return base + beta tilt."""
        return self.base + beta * self.tilt

    def gradient(self, beta: Array) -> ArrayTree:
        """Return the gradient of base + beta tilt."""
        return jax.tree.map(lambda b, t: b + beta * t, self.grad_base, self.grad_tilt)


@prints_short
class StepInfo(NamedTuple):
    """Report of one step.

    Attributes:
      acceptance_rate: probability with which the proposal was accepted (for NUTS and
        HMC as BlackJAX defines it; 1 for kernels without an acceptance step).
      is_accepted: whether the chain moved.
      is_divergent: whether the proposal was NaN, infinite, or had an energy error above the
        divergence threshold. Such a proposal is rejected.
      num_gradients: network gradients evaluated (for gradient-free kernels, forward passes).
    """

    acceptance_rate: Array
    is_accepted: Array
    is_divergent: Array
    num_gradients: Array


class KernelParams(NamedTuple):
    """The adapted parameters of a kernel.

    Attributes:
      step_size: `[]`, in the kernel's own convention (stated by each kernel).
      inverse_mass: over the flattened position, used by the kernels that have a momentum:
        `[D]`, its diagonal, or `[D, D]` for those that take a dense one.
    """

    step_size: Array
    inverse_mass: Array


class StepContext(NamedTuple):
    """The context of one step of a kernel.

    Attributes:
      path: the annealing path.
      beta: `[]`, the inverse temperature, above 0: the target is `base + beta * tilt`.
      params: the adapted parameters.
      t: `[]`, the number of this step in the run, from 1.
    """

    path: AnnealedPath
    beta: Array
    params: KernelParams
    t: Array


class Kernel:
    """Base class: `init` and `step`, both for one chain.

    Attributes:
      target_acceptance: the acceptance rate that step-size adaptation aims at.
      exactness: "exact", "clipped" or "approximate": what the kernel leaves invariant.
      uses_gradient: whether states carry gradients.
      needs_density: whether the prior must have a log density.
      adapts: whether its step size is learned.
      takes_dense: whether the inverse mass may be a full matrix.
    """

    target_acceptance: ClassVar[float] = 0.65
    first_step_size: ClassVar[float] = 0.1
    exactness: ClassVar[Exactness] = "exact"
    uses_gradient: ClassVar[bool] = True
    needs_density: ClassVar[bool] = True
    adapts: ClassVar[bool] = True
    takes_dense: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """Return the kernel's name, as in `HMC`."""
        return type(self).__name__

    def check(self, path: AnnealedPath) -> None:
        """Raise `InputError` if the kernel cannot move on this path."""
        if self.needs_density and not hasattr(path.start, "log_prob"):
            raise expected(
                "prior",
                f"a prior with a log density for {self.name}",
                f"{type(path.start).__name__}, which has a score only",
                "Use MALAApprox or ascent",
            )

    def init(self, path: AnnealedPath, position: ArrayTree) -> ChainState:
        """Return the state at a position: one gradient, or one forward pass."""
        return evaluate(path, position, self.uses_gradient)

    def step(
        self, key: PRNGKey, state: ChainState, context: StepContext
    ) -> tuple[ChainState, StepInfo]:
        """Move one chain one step.

        Args:
          key: consumed.
          state: the chain.
          context: path, inverse temperature, parameters and number of the step.

        Returns:
          The chain after the step, and the report of the step.
        """
        raise NotImplementedError

    def __init_subclass__(cls, **settings: Any) -> None:
        """Accept kernels written for `step(key, state, path, beta, tuning, t)`, with a warning."""
        super().__init_subclass__(**settings)
        former = cls.__dict__.get("step")
        if former is None or len(inspect.signature(former).parameters) != 7:
            return
        warnings.warn(
            f"{cls.__name__}.step(key, state, path, beta, tuning, t) is deprecated: write "
            "step(key, state, context), a jaxgen.kernels.StepContext",
            DeprecationWarning,
            stacklevel=2,
        )

        @functools.wraps(former)
        def step(
            self: Kernel, key: PRNGKey, state: ChainState, context: StepContext
        ) -> tuple[ChainState, StepInfo]:
            return former(self, key, state, context.path, context.beta, context.params, context.t)

        cls.step = step


def evaluate(path: AnnealedPath, position: ArrayTree, with_gradient: bool) -> ChainState:
    """Compute the chain state at a position. NaN counts as log 0."""
    zeros = jax.tree.map(jnp.zeros_like, position)
    if not with_gradient:
        return ChainState(
            position, _no_nan(path.base(position)), zeros, _no_nan(path.tilt(position)), zeros
        )
    if hasattr(path.start, "log_prob"):
        base, grad_base = jax.value_and_grad(path.base)(position)
    else:
        base, grad_base = jnp.zeros(()), path.base.score(position)  # type: ignore[attr-defined]
    tilt, grad_tilt = jax.value_and_grad(path.tilt)(position)
    return ChainState(
        position,
        _no_nan(base),
        jax.tree.map(jnp.nan_to_num, grad_base),
        _no_nan(tilt),
        jax.tree.map(jnp.nan_to_num, grad_tilt),
    )


def split_energies(
    context: StepContext,
    old: ChainState,
    position: ArrayTree,
    logdensity: Array,
    gradient: ArrayTree,
    moved: Array,
) -> tuple[ChainState, Array]:
    """Split log density and gradient at beta, as BlackJAX returns them, into base and tilt.

    tilt = (log p_beta - base) / beta, and so for its gradient: no network runs where the
    base is the analytic prior. Rounding in tilt is divided by beta, which is harmless
    since tilt only ever enters as beta' * tilt or (beta' - beta) * tilt.

    Args:
      context: of the step; its path and beta are used.
      old: the chain before the step.
      position: where the step ended.
      logdensity: `base + beta * tilt` at the position.
      gradient: its gradient.
      moved: whether the step was accepted.

    Returns:
      The new state, and whether it had to be rejected because something was not finite.
    """
    beta = context.beta
    base, grad_base = jax.value_and_grad(context.path.base)(position)
    tilt = (logdensity - base) / beta
    grad_tilt = jax.tree.map(lambda g, b: (g - b) / beta, gradient, grad_base)
    new = ChainState(position, base, grad_base, tilt, grad_tilt)
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(new)]))
    return keep_if(moved & finite, new, old), moved & ~finite


def keep_if(accept: Array, new: Any, old: Any) -> Any:
    """Return `new` where accepted, else `old`, over whole trees."""
    return jax.tree.map(lambda n, o: jnp.where(accept, n, o), new, old)


def _no_nan(value: Array) -> Array:
    return jnp.where(jnp.isnan(value), -jnp.inf, value)
