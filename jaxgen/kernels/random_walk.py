"""Random-walk Metropolis-Hastings, the sampler that needs nothing but the density."""

from __future__ import annotations

from typing import ClassVar

import jax

from jaxgen.core.pytree import pytree
from jaxgen.core.types import Array, PRNGKey
from jaxgen.kernels.base import ChainState, Kernel, StepInfo, Tuning
from jaxgen.kernels.gaussian import accept_or_reject
from jaxgen.target.path import AnnealedPath
from jaxgen.target.priors import normal_like

__all__ = ["RandomWalk"]


@pytree
class RandomWalk(Kernel):
    """z' = z + s n, accepted with probability min(1, p(z') / p(z)).

    `step_size` is s. One forward pass a step.
    """

    target_acceptance: ClassVar[float] = 0.234
    first_step_size: ClassVar[float] = 0.1
    uses_gradient: ClassVar[bool] = False

    def step(
        self,
        key: PRNGKey,
        state: ChainState,
        path: AnnealedPath,
        beta: Array,
        tuning: Tuning,
        t: Array,
    ) -> tuple[ChainState, StepInfo]:
        """One proposal."""
        key_noise, key_accept = jax.random.split(key)
        noise = normal_like(key_noise, state.position)
        proposal = jax.tree.map(lambda z, n: z + tuning.step_size * n, state.position, noise)
        new = self.init(path, proposal)
        log_ratio = new.base - state.base + beta * (new.tilt - state.tilt)
        return accept_or_reject(key_accept, new, state, log_ratio)
