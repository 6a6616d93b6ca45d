"""A kernel followed by clipping: the heuristic of Xu et al. (Alg. 1, and MALA with clipping)."""

from __future__ import annotations

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.pytree import pytree
from jaxgen.core.types import Array, Exactness, PRNGKey
from jaxgen.kernels.base import ChainState, Kernel, StepContext, StepInfo
from jaxgen.target.path import AnnealedPath

__all__ = ["Clipped"]


@pytree
class Clipped(Kernel):
    """Any kernel, its position clipped to [low, high] after the accept step.

    Clipping after acceptance is not reversible, so the chain does not leave the target
    invariant: results are labelled "clipped". The clipped position is evaluated anew,
    which costs one gradient more per step.

    Attributes:
      kernel: the kernel that moves.
      low, high: bounds, numbers or arrays of the position's shape (per-unit bounds).
    """

    kernel: Kernel
    low: Array | float
    high: Array | float

    exactness: ClassVar[Exactness] = "clipped"

    @property
    def name(self) -> str:
        """Return the name, as in `Clipped(MALA)`."""
        return f"Clipped({self.kernel.name})"

    # Clipping does not change these properties of the inner kernel.
    target_acceptance = property(lambda self: self.kernel.target_acceptance)  # type: ignore[assignment]
    first_step_size = property(lambda self: self.kernel.first_step_size)  # type: ignore[assignment]
    uses_gradient = property(lambda self: self.kernel.uses_gradient)  # type: ignore[assignment]
    needs_density = property(lambda self: self.kernel.needs_density)  # type: ignore[assignment]
    adapts = property(lambda self: self.kernel.adapts)  # type: ignore[assignment]

    def check(self, path: AnnealedPath) -> None:
        """Raise `InputError` unless low < high and the kernel inside fits the path."""
        if not np.all(np.asarray(self.low) < np.asarray(self.high)):
            raise expected("Clipped", "low < high", f"[{self.low}, {self.high}]")
        self.kernel.check(path)

    def step(
        self, key: PRNGKey, state: ChainState, context: StepContext
    ) -> tuple[ChainState, StepInfo]:
        """Take one step of the kernel inside, then clip the position."""
        moved, info = self.kernel.step(key, state, context)
        position = jax.tree.map(lambda z: jnp.clip(z, self.low, self.high), moved.position)
        return self.init(context.path, position), info._replace(
            num_gradients=info.num_gradients + 1
        )
