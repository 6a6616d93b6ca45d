"""Random-walk Metropolis-Hastings, the sampler that needs nothing but the density."""

from __future__ import annotations

from typing import ClassVar

import jax

from jaxgen.core.pytree import pytree
from jaxgen.core.types import PRNGKey
from jaxgen.kernels.base import ChainState, Kernel, StepContext, StepInfo
from jaxgen.kernels.gaussian import accept_or_reject
from jaxgen.target.priors import normal_like

__all__ = ["RandomWalk"]


@pytree
class RandomWalk(Kernel):
    """z' = z + s n, accepted with probability min(1, p(z') / p(z)).

    `step_size` is s. One forward pass per step.
    """

    target_acceptance: ClassVar[float] = 0.234
    first_step_size: ClassVar[float] = 0.1
    uses_gradient: ClassVar[bool] = False

    def step(
        self, key: PRNGKey, state: ChainState, context: StepContext
    ) -> tuple[ChainState, StepInfo]:
        """Propose once, then accept or reject."""
        key_noise, key_accept = jax.random.split(key)
        noise = normal_like(key_noise, state.position)
        proposal = jax.tree.map(
            lambda z, n: z + context.params.step_size * n, state.position, noise
        )
        new = self.init(context.path, proposal)
        log_ratio = new.base - state.base + context.beta * (new.tilt - state.tilt)
        return accept_or_reject(key_accept, new, state, log_ratio)
