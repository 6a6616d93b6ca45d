"""Evaluate a posterior at many positions, a batch at a time.

A run keeps positions, and most of what is said of them afterwards needs their log densities or
their images: diagnosis, ArviZ, the order of a reconstruction's samples. Batches bound the memory
(one batch of images), and the last one is filled up, so that one shape is compiled.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.printing import prints_short
from jaxgen.core.types import Array, ArrayTree
from jaxgen.target.posterior import Posterior

__all__ = ["Evaluated", "evaluate"]


@prints_short
class Evaluated(NamedTuple):
    """The values of a posterior at N positions.

    Attributes:
      log_prior: `[N]` log p(z), float64.
      log_likelihood: `[N]` log p(observed | G(z)), float64.
      images: `[N, H, W, channels]`, or None where they were not asked for.
    """

    log_prior: np.ndarray
    log_likelihood: np.ndarray
    images: np.ndarray | None

    @property
    def log_density(self) -> np.ndarray:
        """`[N]` log p(z) + log p(observed | G(z))."""
        return self.log_prior + self.log_likelihood


def evaluate(
    posterior: Posterior, positions: ArrayTree, *, batch: int = 64, images: bool = False
) -> Evaluated:
    """Evaluate log prior and log likelihood of every position, and its image on request.

    Args:
      posterior: the posterior.
      positions: leaves `[N, ...]`, in the coordinates of the prior.
      batch: how many positions are evaluated at a time.
      images: whether images are wanted too.
    """
    count = jax.tree.leaves(positions)[0].shape[0]
    size = min(batch, count)
    parts = []
    for start in range(0, count, size):
        index = np.minimum(np.arange(start, start + size), count - 1)
        made = _evaluate(posterior, jax.tree.map(lambda x, i=index: jnp.asarray(x[i]), positions),
                         images)  # fmt: skip
        parts.append([None if x is None else np.asarray(x)[: count - start] for x in made])
    prior, likelihood, pictures = zip(*parts, strict=True)
    return Evaluated(
        np.concatenate(prior).astype(np.float64),
        np.concatenate(likelihood).astype(np.float64),
        np.concatenate(pictures) if images else None,
    )


@functools.partial(jax.jit, static_argnames="images")
def _evaluate(
    posterior: Posterior, positions: ArrayTree, images: bool
) -> tuple[Array, Array, Array | None]:
    def one(z: ArrayTree) -> tuple[Array, Array, Array | None]:
        image = posterior.image(z) if images else None
        return posterior.log_prior(z), posterior.log_likelihood(z), image

    return jax.vmap(one)(positions)
