"""What every kernel shares: the state it carries, what it reports, how it is tuned.

A kernel moves ONE chain one step on the target `base + beta * tilt`. The state keeps the
two halves apart, so the next step may run at another beta without a new gradient.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core.errors import expected
from jaxgen.core.printing import prints_short
from jaxgen.core.types import Array, ArrayTree, PRNGKey
from jaxgen.target.path import AnnealedPath

__all__ = ["ChainState", "Kernel", "StepInfo", "Tuning", "evaluate", "halves", "keep_if"]


@prints_short
class ChainState(NamedTuple):
    """One chain between two steps.

    Attributes:
      position: coordinates of the latent.
      base, grad_base: base(z) and its gradient (the score, where that is all there is).
      tilt, grad_tilt: tilt(z) and its gradient. Gradients are zeros where a kernel uses none.
    """

    position: ArrayTree
    base: Array
    grad_base: ArrayTree
    tilt: Array
    grad_tilt: ArrayTree


@prints_short
class StepInfo(NamedTuple):
    """What one step did.

    Attributes:
      acceptance_rate: probability with which the proposal was accepted (for NUTS and
        HMC as BlackJAX defines it; 1 for kernels without an acceptance step).
      is_accepted: whether the chain moved.
      is_divergent: whether the proposal was NaN, infinite or of hopeless energy. Such a
        proposal is rejected.
      num_gradients: network gradients evaluated (for gradient-free kernels, forward passes).
    """

    acceptance_rate: Array
    is_accepted: Array
    is_divergent: Array
    num_gradients: Array


class Tuning(NamedTuple):
    """What a kernel is tuned by.

    Attributes:
      step_size: `[]`, in the kernel's own convention (stated by each kernel).
      inverse_mass: over the flattened position, used by the kernels that have a momentum:
        `[D]`, its diagonal, or `[D, D]` for those that take a dense one.
    """

    step_size: Array
    inverse_mass: Array


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
    exactness: ClassVar[str] = "exact"
    uses_gradient: ClassVar[bool] = True
    needs_density: ClassVar[bool] = True
    adapts: ClassVar[bool] = True
    takes_dense: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The kernel's name, as in `HMC`."""
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
        """The state at a position: one gradient, or one forward pass."""
        return evaluate(path, position, self.uses_gradient)

    def step(
        self,
        key: PRNGKey,
        state: ChainState,
        path: AnnealedPath,
        beta: Array,
        tuning: Tuning,
        t: Array,
    ) -> tuple[ChainState, StepInfo]:
        """One step on `base + beta * tilt`, beta > 0; `t` counts the run's steps."""
        raise NotImplementedError


def evaluate(path: AnnealedPath, position: ArrayTree, with_gradient: bool) -> ChainState:
    """The chain state at a position, from scratch. NaN counts as log 0."""
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


def halves(
    path: AnnealedPath,
    old: ChainState,
    position: ArrayTree,
    logdensity: Array,
    gradient: ArrayTree,
    beta: Array,
    moved: Array,
) -> tuple[ChainState, Array]:
    """Split a stock sampler's (log density, gradient) at beta back into base and tilt.

    tilt = (log p_beta - base) / beta, and so for its gradient: no network runs where the
    base is the analytic prior. Rounding in tilt is divided by beta, which is harmless
    since tilt only ever enters as beta' * tilt or (beta' - beta) * tilt.

    Returns:
      The new state, and whether it had to be refused because something was not finite.
    """
    base, grad_base = jax.value_and_grad(path.base)(position)
    tilt = (logdensity - base) / beta
    grad_tilt = jax.tree.map(lambda g, b: (g - b) / beta, gradient, grad_base)
    new = ChainState(position, base, grad_base, tilt, grad_tilt)
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(new)]))
    return keep_if(moved & finite, new, old), moved & ~finite


def keep_if(accept: Array, new: Any, old: Any) -> Any:
    """`new` where accepted, else `old`, over whole trees."""
    return jax.tree.map(lambda n, o: jnp.where(accept, n, o), new, old)


def _no_nan(value: Array) -> Array:
    return jnp.where(jnp.isnan(value), -jnp.inf, value)
