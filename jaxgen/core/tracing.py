"""Whether JAX is transforming the program at this moment, so that values cannot be read."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

__all__ = ["is_traced", "namespace"]


def is_traced(*values: Any) -> bool:
    """Return whether a transformation of JAX is at work, or any array is a placeholder of one.

    Inside `jax.jit` every new array is a placeholder; under `jax.vmap` alone only those that
    depend on what is mapped.
    """
    if isinstance(jnp.zeros(()), Tracer):
        return True
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(values))


def namespace(*values: Any) -> Any:
    """NumPy, or `jax.numpy` where a transformation of JAX is at work.

    For functions of few numbers that are NumPy's on the host, in its double precision.
    """
    return jnp if is_traced(*values) else np
