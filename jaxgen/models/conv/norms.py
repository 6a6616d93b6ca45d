"""Batch normalisation at inference is an affine map, which the layer before it can take over."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx

from jaxgen.core.types import Array

__all__ = ["affine"]


def affine(norm: nnx.BatchNorm) -> tuple[Array, Array]:
    """Return (scale, shift), `[C]` each, with norm(x) = x * scale + shift at inference.

    scale = gamma / sqrt(var + eps),   shift = beta - mean * scale, of the running statistics.
    """
    assert norm.scale is not None
    assert norm.bias is not None
    scale = norm.scale[...] / jnp.sqrt(norm.var[...] + norm.epsilon)
    return scale, norm.bias[...] - norm.mean[...] * scale
