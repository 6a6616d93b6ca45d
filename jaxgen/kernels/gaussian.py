"""Kernels that are reversible with respect to a Gaussian prior.

They need the base of the path to be a diagonal Gaussian in the kernel's coordinates and
see the likelihood alone, so their step does not have to shrink as the dimension grows.
Neither uses a gradient.
"""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxgen.core.errors import expected
from jaxgen.core.lazy import blackjax
from jaxgen.core.pytree import pytree
from jaxgen.core.types import Array, ArrayTree, PRNGKey
from jaxgen.kernels.base import ChainState, Kernel, StepContext, StepInfo, keep_if
from jaxgen.target.path import AnnealedPath, LogPrior, LogProb
from jaxgen.target.priors import Box, Gaussian, Sphere, normal_like

__all__ = ["EllipticalSlice", "PreconditionedCrankNicolson"]


class _OnGaussian(Kernel):
    """A kernel that needs a diagonal Gaussian base, and no gradient."""

    uses_gradient: ClassVar[bool] = False

    def check(self, path: AnnealedPath) -> None:
        """Raise `InputError` unless the base is a diagonal Gaussian."""
        Kernel.check(self, path)
        _gaussian_base(path, self.name)


@pytree
class PreconditionedCrankNicolson(_OnGaussian):
    """pCN: z' = m + sqrt(1 - s^2) (z - m) + s S n, accepted by the likelihood alone.

    With the base N(m, S^2) the proposal is reversible, so the acceptance probability is
    min(1, exp(beta (tilt(z') - tilt(z)))) (Cotter et al. 2013). `step_size` is s in
    (0, 1]; larger ones count as 1, an independent draw from the prior. One forward pass
    per step.
    """

    target_acceptance: ClassVar[float] = 0.234
    first_step_size: ClassVar[float] = 0.3

    def step(
        self, key: PRNGKey, state: ChainState, context: StepContext
    ) -> tuple[ChainState, StepInfo]:
        """Propose once, then accept or reject."""
        mean, scale = _gaussian_base(context.path, self.name)
        s = jnp.minimum(context.params.step_size, 1.0)
        key_noise, key_accept = jax.random.split(key)
        proposal = jax.tree.map(
            lambda z, m, c, n: m + jnp.sqrt(1 - s * s) * (z - m) + s * c * n,
            state.position,
            mean,
            scale,
            normal_like(key_noise, state.position),
        )
        new = self.init(context.path, proposal)
        return accept_or_reject(key_accept, new, state, context.beta * (new.tilt - state.tilt))


@pytree
class EllipticalSlice(_OnGaussian):
    """Elliptical slice sampling (Murray, Adams & MacKay 2010), from BlackJAX.

    No step size. Shrinks its bracket until a point lies above the slice: it always moves,
    after as many forward passes as that took.
    """

    adapts: ClassVar[bool] = False

    def step(
        self, key: PRNGKey, state: ChainState, context: StepContext
    ) -> tuple[ChainState, StepInfo]:
        """Draw a slice, and a point on the ellipse above it."""
        mean, scale = (ravel_pytree(tree)[0] for tree in _gaussian_base(context.path, self.name))

        # BlackJAX's loop runs while `logdensity <= slice`: NaN would end it, accepted, and
        # -inf in the present state would never end it. So NaN and -inf become very low
        # finite values, and the present state's, if it is one, lower still.
        def log_likelihood(z: ArrayTree) -> Array:
            value = context.beta * context.path.tilt(z)
            return jnp.where(jnp.isfinite(value), value, -1e30)

        here = jnp.where(jnp.isfinite(state.tilt), context.beta * state.tilt, -3e38)
        kernel = blackjax().elliptical_slice.build_kernel(scale * scale, mean)
        old = blackjax().mcmc.elliptical_slice.EllipSliceState(state.position, here)
        new, info = kernel(key, old, log_likelihood)
        finite = new.logdensity > -1e29
        zeros = state.grad_tilt
        moved = ChainState(
            new.position,
            context.path.base(new.position),
            zeros,
            new.logdensity / context.beta,
            zeros,
        )
        return keep_if(finite, moved, state), StepInfo(
            acceptance_rate=jnp.ones(()),
            is_accepted=finite,
            is_divergent=~finite,
            num_gradients=info.subiter.astype(jnp.int32),
        )


def accept_or_reject(
    key: PRNGKey, new: ChainState, old: ChainState, log_ratio: Array
) -> tuple[ChainState, StepInfo]:
    """Take `new` with probability min(1, exp(log_ratio)), else `old`; NaN is a rejection."""
    valid = jnp.isfinite(new.base) & jnp.isfinite(new.tilt)
    log_ratio = jnp.where(valid & ~jnp.isnan(log_ratio), log_ratio, -jnp.inf)
    rate = jnp.exp(jnp.minimum(log_ratio, 0.0))
    accept = jax.random.uniform(key) < rate
    return keep_if(accept, new, old), StepInfo(
        acceptance_rate=rate,
        is_accepted=accept,
        is_divergent=~valid,
        num_gradients=jnp.ones((), jnp.int32),
    )


def _gaussian_base(path: AnnealedPath, kernel: str) -> tuple[ArrayTree, ArrayTree]:
    """Return mean and standard deviation of a diagonal Gaussian base, or raise `InputError`."""
    base = path.base
    if isinstance(base, LogPrior) and base.untempered is None:
        prior = base.posterior.prior
    elif isinstance(base, LogProb):
        prior = base.prior
    else:
        raise expected(
            "path.base", f"a Gaussian prior alone for {kernel}", "a prior with untempered terms"
        )
    if isinstance(prior, Gaussian):
        return prior.mean, prior.scale
    if isinstance(prior, Box | Sphere):
        like = prior.low if isinstance(prior, Box) else prior.like
        return jnp.zeros_like(like), jnp.ones_like(like)
    raise expected(
        "prior", f"Gaussian, Box or Sphere for {kernel}", type(prior).__name__, "Use HMC or MALA"
    )
