"""A kernel followed by clipping: the heuristic of Xu et al. (Alg. 1, and MALA with clipping)."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.pytree import pytree
from jaxgen.core.types import Array, PRNGKey
from jaxgen.kernels.base import ChainState, Kernel, StepInfo, Tuning
from jaxgen.target.path import AnnealedPath

__all__ = ["Clipped"]


@pytree
class Clipped(Kernel):
    """Any kernel, its position clipped to [low, high] after the accept step.

    Clipping after acceptance is not reversible, so the chain does not leave the target
    invariant: results are labelled "clipped". The clipped place is evaluated afresh,
    which costs one gradient more a step.

    Attributes:
      kernel: the kernel that moves.
      low, high: bounds, numbers or arrays of the position's shape (per-unit bounds).
    """

    kernel: Any
    low: Array | float
    high: Array | float

    exactness: ClassVar[str] = "clipped"

    @property
    def name(self) -> str:
        """As in `Clipped(MALA)`."""
        return f"Clipped({self.kernel.name})"

    # What clipping does not change is the inner kernel's to say.
    target_acceptance = property(lambda self: self.kernel.target_acceptance)  # type: ignore[assignment]
    first_step_size = property(lambda self: self.kernel.first_step_size)  # type: ignore[assignment]
    uses_gradient = property(lambda self: self.kernel.uses_gradient)  # type: ignore[assignment]
    needs_density = property(lambda self: self.kernel.needs_density)  # type: ignore[assignment]
    adapts = property(lambda self: self.kernel.adapts)  # type: ignore[assignment]

    def check(self, path: AnnealedPath) -> None:
        """Bounds must be in order, and the kernel inside must fit the path."""
        if not np.all(np.asarray(self.low) < np.asarray(self.high)):
            raise expected("Clipped", "low < high", f"[{self.low}, {self.high}]")
        self.kernel.check(path)

    def step(
        self,
        key: PRNGKey,
        state: ChainState,
        path: AnnealedPath,
        beta: Array,
        tuning: Tuning,
        t: Array,
    ) -> tuple[ChainState, StepInfo]:
        """One step of the kernel inside, then the clip."""
        moved, info = self.kernel.step(key, state, path, beta, tuning, t)
        position = jax.tree.map(lambda z: jnp.clip(z, self.low, self.high), moved.position)
        return self.init(path, position), info._replace(num_gradients=info.num_gradients + 1)
