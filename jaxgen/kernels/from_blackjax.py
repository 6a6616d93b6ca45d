"""BlackJAX's own kernels, at any temperature, without a wasted gradient.

Each BlackJAX state caches the log density and gradient of the target it was made for.
Initialising it again whenever beta changes would cost a gradient; leaving it as it is
gives a wrong answer silently. Here BlackJAX's state is computed from the base and the tilt that
`ChainState` carries, BlackJAX's kernel runs unchanged, and `split_energies` splits its result into
base and tilt again. A MALA step costs 1 gradient and an HMC step L, at every beta.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jax.scipy.linalg import solve_triangular

from jaxgen.core.errors import expected
from jaxgen.core.lazy import blackjax
from jaxgen.core.pytree import pytree, static
from jaxgen.core.types import Array, ArrayTree, Density, PRNGKey
from jaxgen.kernels.base import ChainState, Kernel, StepContext, StepInfo, split_energies
from jaxgen.target.path import AnnealedPath

__all__ = ["HMC", "MALA", "NUTS", "AdjustedMCLMC", "Barker"]


@pytree
class MALA(Kernel):
    """Metropolis-adjusted Langevin: z' = z + s grad log p + sqrt(2 s) n, then accept or not.

    `step_size` is s (BlackJAX's and Xu et al.'s convention; Roberts' tau^2 = 2 s).
    1 gradient per step.
    """

    target_acceptance: ClassVar[float] = 0.574
    first_step_size: ClassVar[float] = 0.05

    def step(
        self, key: PRNGKey, state: ChainState, context: StepContext
    ) -> tuple[ChainState, StepInfo]:
        """Take one MALA step."""
        kernel = blackjax().mala.build_kernel()
        old = _blackjax_state(blackjax().mcmc.mala.MALAState, state, context.beta)
        new, info = kernel(key, old, _density(context, state), context.params.step_size)
        return _finish(context, state, new, info, num_gradients=1)


@pytree
class Barker(Kernel):
    """Barker's proposal (Livingstone & Zanella 2022): robust to a step that is too long.

    `step_size` scales the proposal, together with the square root of the inverse mass.
    1 gradient per step.
    """

    target_acceptance: ClassVar[float] = 0.4
    first_step_size: ClassVar[float] = 0.3

    def step(
        self, key: PRNGKey, state: ChainState, context: StepContext
    ) -> tuple[ChainState, StepInfo]:
        """Take one step with Barker's proposal."""
        kernel = blackjax().barker.build_kernel()
        old = _blackjax_state(blackjax().mcmc.barker.BarkerState, state, context.beta)
        new, info = kernel(
            key,
            old,
            _density(context, state),
            context.params.step_size,
            context.params.inverse_mass,
        )
        return _finish(context, state, new, info, num_gradients=1)


@pytree
class HMC(Kernel):
    """Hamiltonian Monte Carlo with L leapfrog steps.

    Attributes:
      num_steps: L. With `jitter`, the mean of L.
      jitter: draw L uniformly from 1 .. 2 * num_steps - 1 by a low-discrepancy sequence
        in the step count, the same L for all chains, so that no chain in a vmapped batch waits
        for a longer one, and no trajectory length can resonate with the target.

    `step_size` is the leapfrog step. L gradients per step.
    """

    num_steps: int = static(default=10)
    jitter: bool = static(default=False)

    target_acceptance: ClassVar[float] = 0.8
    takes_dense: ClassVar[bool] = True

    def check(self, path: AnnealedPath) -> None:
        """Raise `InputError` without a leapfrog step, and for priors without a density."""
        _check_count("HMC.num_steps", self.num_steps)
        Kernel.check(self, path)

    def step(
        self, key: PRNGKey, state: ChainState, context: StepContext
    ) -> tuple[ChainState, StepInfo]:
        """Follow one trajectory, then accept or reject its end."""
        length = _jittered(self.num_steps, context.t) if self.jitter else self.num_steps
        kernel = blackjax().hmc.build_kernel()
        old = _blackjax_state(blackjax().mcmc.hmc.HMCState, state, context.beta)
        new, info = kernel(
            key,
            old,
            _density(context, state),
            context.params.step_size,
            _metric(context.params.inverse_mass),
            length,
        )
        return _finish(context, state, new, info, num_gradients=length)


@pytree
class NUTS(Kernel):
    """The no-U-turn sampler. Under vmap all chains wait for the longest trajectory.

    Attributes:
      max_doublings: a trajectory has at most 2^max_doublings leapfrog steps.
    """

    max_doublings: int = static(default=8)

    target_acceptance: ClassVar[float] = 0.8
    takes_dense: ClassVar[bool] = True

    def check(self, path: AnnealedPath) -> None:
        """Raise `InputError` without a doubling, and for priors without a density."""
        _check_count("NUTS.max_doublings", self.max_doublings)
        Kernel.check(self, path)

    def step(
        self, key: PRNGKey, state: ChainState, context: StepContext
    ) -> tuple[ChainState, StepInfo]:
        """Follow one trajectory, then accept or reject its end."""
        kernel = blackjax().nuts.build_kernel()
        old = _blackjax_state(blackjax().mcmc.hmc.HMCState, state, context.beta)
        new, info = kernel(
            key,
            old,
            _density(context, state),
            context.params.step_size,
            _metric(context.params.inverse_mass),
            max_num_doublings=self.max_doublings,
        )
        return _finish(context, state, new, info, num_gradients=info.num_integration_steps)


@pytree
class AdjustedMCLMC(Kernel):
    """Metropolis-adjusted microcanonical Langevin (MAMS, Robnik et al. 2025).

    Attributes:
      num_steps: integration steps of a trajectory; with `jitter`, their mean.
      jitter: as in `HMC`.

    `step_size` is the isokinetic integrator's step, measured along the trajectory: about
    sqrt(d) times the leapfrog step that HMC would use. The integrator (McLachlan) takes two
    gradients per step, so a transition costs 2 * num_steps.
    """

    num_steps: int = static(default=5)
    jitter: bool = static(default=True)

    target_acceptance: ClassVar[float] = 0.9
    first_step_size: ClassVar[float] = 0.5

    def check(self, path: AnnealedPath) -> None:
        """Raise `InputError` without a step, and for priors without a density."""
        _check_count("AdjustedMCLMC.num_steps", self.num_steps)
        Kernel.check(self, path)

    def step(
        self, key: PRNGKey, state: ChainState, context: StepContext
    ) -> tuple[ChainState, StepInfo]:
        """Follow one trajectory, then accept or reject its end."""
        length = _jittered(self.num_steps, context.t) if self.jitter else self.num_steps
        kernel = blackjax().adjusted_mclmc.build_kernel()
        old = _blackjax_state(blackjax().mcmc.hmc.HMCState, state, context.beta)
        new, info = kernel(
            rng_key=key,
            state=old,
            logdensity_fn=_density(context, state),
            step_size=context.params.step_size,
            integration_steps_params=(length,),
            inverse_mass_matrix=context.params.inverse_mass,
        )
        return _finish(context, state, new, info, num_gradients=2 * length)


def _metric(inverse_mass: Array) -> Any:
    """Return BlackJAX's Euclidean metric; a dense mass is factorised one item at a time."""
    metrics = blackjax().mcmc.metrics
    metric = metrics.gaussian_euclidean(inverse_mass)
    if inverse_mass.ndim == 1:
        return metric
    factor = _momentum_factor(inverse_mass)

    def momentum(key: PRNGKey, position: ArrayTree) -> ArrayTree:
        return blackjax().util.generate_gaussian_noise(key, position, sigma=factor)

    return metric._replace(sample_momentum=momentum)


@sequential_vmap
def _momentum_factor(inverse_mass: Array) -> Array:
    """Return L^-T where the inverse mass is L L^T.

    Batched factorisations inside a loop wait for each other without end on CPUs of few cores.
    """
    lower = jnp.linalg.cholesky(inverse_mass)
    identity = jnp.identity(inverse_mass.shape[0])
    return solve_triangular(lower, identity, lower=True, trans=True)


def _blackjax_state(cls: Any, state: ChainState, beta: Array) -> Any:
    """Return BlackJAX's state for the target at beta, from base and tilt."""
    return _widened(cls(state.position, state.log_density(beta), state.gradient(beta)))


def _density(context: StepContext, state: ChainState) -> Density:
    """Return log p_beta of a position in the type that BlackJAX computes in.

    BlackJAX draws its noise in JAX's default type, which under x64 is not that of a float32
    latent; the density is then computed in the latent's type all the same.
    """

    def log_density(z: ArrayTree) -> Array:
        own = jax.tree.map(lambda x, like: x.astype(like.dtype), z, state.position)
        return _widened(context.path(own, context.beta))

    return log_density


def _widened(tree: ArrayTree) -> Any:
    """Return the tree in JAX's default floating-point type: itself, without x64."""
    return jax.tree.map(
        lambda x: x.astype(jnp.promote_types(x.dtype, jnp.result_type(float))), tree
    )


def _finish(
    context: StepContext, old: ChainState, new: Any, info: Any, num_gradients: Array | int
) -> tuple[ChainState, StepInfo]:
    """Split BlackJAX's result into base and tilt; what is not finite is rejected."""
    new = type(new)(
        *(
            jax.tree.map(lambda x, like: x.astype(like.dtype), part, like)
            for part, like in zip(
                (new.position, new.logdensity, new.logdensity_grad),
                (old.position, old.tilt, old.position),
                strict=True,
            )
        )
    )
    # NUTS has no accept step: it always returns a state that it drew.
    moved = getattr(info, "is_accepted", jnp.array(True))
    state, rejected = split_energies(
        context, old, new.position, new.logdensity, new.logdensity_grad, moved
    )
    rate = jnp.nan_to_num(info.acceptance_rate)
    # MALA and Barker report no divergence: an acceptance that underflows to zero (an
    # energy error above about 100) or a NaN proposal is one.
    divergent = getattr(info, "is_divergent", rate == 0.0)
    return state, StepInfo(
        acceptance_rate=rate,
        is_accepted=moved & ~rejected,
        is_divergent=divergent | rejected,
        num_gradients=jnp.asarray(num_gradients, jnp.int32),
    )


def _jittered(mean: int, t: Array) -> Array:
    """Return integers 1 .. 2 mean - 1, equidistributed over t (Weyl sequence, golden ratio)."""
    golden = jnp.uint32(2654435769)
    fraction = (t.astype(jnp.uint32) * golden).astype(jnp.float32) / jnp.float32(2.0**32)
    return 1 + jnp.minimum((fraction * (2 * mean - 1)).astype(jnp.int32), 2 * mean - 2)


def _check_count(name: str, value: int) -> None:
    if not isinstance(value, int) or value < 1:
        raise expected(name, "a positive integer", value)
