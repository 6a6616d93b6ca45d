"""From the posterior of a cheap generator to that of an expensive one, with weights.

    log p_beta(z) = (1 - beta) log coarse(z) + beta log fine(z)

Draws of the coarse posterior, with their evidence, are the start. The importance weight of a chain
at the end is then that of annealing from the prior through the coarse posterior to the fine one,
and log Z is the fine posterior's. A coarse generator that is poor makes weights uneven, not wrong.
But the result is only as right as the coarse draws and their log Z: what these have missed, the
weights do not bring back, and the stated error of the fine log Z does not hold that of the coarse
one. Add the two errors' squares.

    rough = jaxgen.sample(0, coarse)
    path = coarse_to_fine(coarse, fine, rough.draws, rough.log_z)
    exact = jaxgen.ais(1, path, jaxgen.kernels.HMC(5))
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.pytree import pytree
from jaxgen.core.types import Array, ArrayTree, PRNGKey
from jaxgen.target.path import AnnealedPath, Difference
from jaxgen.target.posterior import Posterior

__all__ = ["PosteriorDraws", "coarse_to_fine"]


@pytree
class PosteriorDraws:
    """A posterior as its draws, with its normalised density: a start of annealing.

    Attributes:
      posterior: what was drawn from.
      position: its draws, leaves `[N, ...]`, of equal weight.
      log_z: log of its evidence.
    """

    posterior: Posterior
    position: ArrayTree
    log_z: Array

    def sample(self, key: PRNGKey) -> ArrayTree:
        """Return one of the draws."""
        count = jax.tree.leaves(self.position)[0].shape[0]
        index = jax.random.randint(key, (), 0, count)
        return jax.tree.map(lambda x: x[index], self.position)

    def log_prob(self, z: ArrayTree) -> Array:
        """log p(z) + log p(condition | z) - log Z."""
        return self.posterior(z) - self.log_z


def coarse_to_fine(
    coarse: Posterior, fine: Posterior, draws: ArrayTree, log_z: float | Array
) -> AnnealedPath:
    """Return the path from a coarse posterior's draws to a fine posterior.

    Args:
      coarse: over the same coordinates as `fine`, with the same prior or another.
      fine: the target.
      draws: of `coarse`, leaves `[C, S, ...]` as `jaxgen.sample` returns them, equally weighted.
      log_z: of `coarse`, as estimated by the same run.

    Raises:
      InputError: for draws that are not finite, or a log Z that is not.
    """
    leaves = [np.asarray(x) for x in jax.tree.leaves(draws)]
    if not leaves or any(x.ndim < 2 for x in leaves):
        got = [list(x.shape) for x in leaves]
        raise expected("draws", "arrays [C, S, ...] as sample returns them", got)
    if not all(np.all(np.isfinite(x)) for x in leaves):
        raise expected("draws", "finite positions", "NaN or infinite numbers among them")
    if not math.isfinite(float(log_z)):
        hint = "A run that started at given positions has no log Z"
        raise expected("log_z", "the coarse posterior's log evidence", log_z, hint)
    flat = jax.tree.map(lambda x: jnp.reshape(jnp.asarray(x), (-1, *np.shape(x)[2:])), draws)
    start = PosteriorDraws(coarse, flat, jnp.asarray(log_z, leaves[0].dtype))
    return AnnealedPath(coarse, Difference(fine, coarse), start, base_is_cheap=False)
