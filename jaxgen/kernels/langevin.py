"""Langevin dynamics without an acceptance step: MALA-approx of Plug & Play Generative Networks.

    h' = h + e1 d log p(h)/dh + e2 d log p(y|h)/dh + N(0, e3^2)      (PPGN, Eq. 5)

The three numbers are set apart from each other, and the prior may be known by its score
alone. What it samples is an approximation even with small steps, unless
e1 = e2 = s and e3 = sqrt(2 s) (the unadjusted Langevin algorithm) and s goes to 0.
"""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.pytree import as_data, pytree
from jaxgen.core.types import Exactness, PRNGKey, Scalar
from jaxgen.kernels.base import ChainState, Kernel, StepContext, StepInfo, keep_if
from jaxgen.target.path import AnnealedPath
from jaxgen.target.priors import normal_like

__all__ = ["MALAApprox"]


@pytree
class MALAApprox(Kernel):
    """h' = h + a_t (e1 score(h) + beta e2 grad tilt(h)) + b_t e3 n, always taken.

    Attributes:
      epsilon1: weight of the prior's score.
      epsilon2: weight of the condition's gradient.
      epsilon3: standard deviation of the noise.
      step_decay: a_t, an `optax.Schedule` of the step count, or None for 1.
      noise_decay: b_t, likewise.

    The adapted step size is not used. 1 gradient per step. A step to a position that is not
    finite is rejected and counted as divergent.
    """

    epsilon1: Scalar
    epsilon2: Scalar
    epsilon3: Scalar
    step_decay: Any = None
    noise_decay: Any = None

    exactness: ClassVar[Exactness] = "approximate"
    needs_density: ClassVar[bool] = False
    adapts: ClassVar[bool] = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "step_decay", as_data(self.step_decay))
        object.__setattr__(self, "noise_decay", as_data(self.noise_decay))

    @classmethod
    def langevin(cls, step_size: float) -> MALAApprox:
        """Return the unadjusted Langevin algorithm: e1 = e2 = s, e3 = sqrt(2 s)."""
        return cls(step_size, step_size, (2.0 * step_size) ** 0.5)

    def check(self, path: AnnealedPath) -> None:
        """Raise `InputError` unless all three numbers are finite and at least 0."""
        for name in ("epsilon1", "epsilon2", "epsilon3"):
            value = np.asarray(getattr(self, name))
            if not np.isfinite(value) or value < 0:
                raise expected(f"MALAApprox.{name}", "a number of at least 0", value)

    def step(
        self, key: PRNGKey, state: ChainState, context: StepContext
    ) -> tuple[ChainState, StepInfo]:
        """Take one step of the dynamics."""
        a = 1.0 if self.step_decay is None else self.step_decay(context.t)
        b = 1.0 if self.noise_decay is None else self.noise_decay(context.t)
        noise = normal_like(key, state.position)
        position = jax.tree.map(
            lambda h, s, g, n: (
                h
                + a * (self.epsilon1 * s + self.epsilon2 * context.beta * g)
                + b * self.epsilon3 * n
            ),
            state.position,
            state.grad_base,
            state.grad_tilt,
            noise,
        )
        new = self.init(context.path, position)
        finite = jnp.isfinite(new.tilt) & jnp.all(
            jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(position)])
        )
        return keep_if(finite, new, state), StepInfo(
            acceptance_rate=jnp.ones(()),
            is_accepted=finite,
            is_divergent=~finite,
            num_gradients=jnp.ones((), jnp.int32),
        )
