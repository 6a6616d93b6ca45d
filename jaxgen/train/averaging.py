"""The running average of weights that training keeps beside the weights themselves."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxgen.core.types import Array, ArrayTree

__all__ = ["averaged"]


def averaged(average: ArrayTree, params: ArrayTree, step: Array, decay: float) -> ArrayTree:
    """average <- d average + (1 - d) params, d = min(decay, (1 + step) / (10 + step)).

    The memory is short at first, while the weights still move fast.

    Args:
      average: so far.
      params: the new weights.
      step: how many updates came before this one.
      decay: d in the long run.
    """
    d = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(lambda a, w: d * a + (1.0 - d) * w, average, params)
