"""Numbers in the precision of what they meet.

Images come in float32 or float64, by the generator. What a condition holds (observations,
noise levels, weights) follows the image, so that `jax_enable_x64` makes no float32
posterior half float64, and `jax_numpy_dtype_promotion="strict"` has nothing to refuse.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxgen.core.types import Array

__all__ = ["like", "real_type"]


def real_type(reference: object) -> Any:
    """Return the real floating type of an array: float32 for complex64 too."""
    dtype = jnp.result_type(reference)
    if not jnp.issubdtype(dtype, jnp.inexact):
        return jnp.dtype(jnp.float32)
    return jnp.finfo(dtype).dtype


def like(value: object, reference: object) -> Array:
    """`value` in the precision of `reference`; complex numbers stay complex."""
    value = jnp.asarray(value)
    wanted = real_type(reference)
    if jnp.issubdtype(value.dtype, jnp.complexfloating):
        return value.astype(jnp.complex128 if wanted == jnp.float64 else jnp.complex64)
    return value.astype(wanted)
