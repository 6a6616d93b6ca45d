"""Which points lie in the same place, and which places matter.

Annealing from the prior follows the mass. A mode that holds little of it while the temperature
is high, and much at the end, is lost on the way. Points that came down to the target from
elsewhere (`jaxgen.sampler.scouts`) find such modes, but say nothing of their masses. Here all
points together are put into places, by single linkage:

    i and j are linked where |z_i - z_j|^2 / 2 < max(2 D + 4, 1.5 x the median to the nearest)

in the metric of the inverse mass, in which two draws of one Gaussian mode are D apart on
average. Places with a single point tell of places that no point has found: by Good and Turing, the
share of the points that lie alone is about the share of the mass that has not been seen.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import solve_triangular

from jaxgen.core.types import Array, ArrayTree

__all__ = ["Places", "find_places"]

# A place is left out when its log evidence is lower than the best one's by so much.
_NEGLIGIBLE = 15.0
# Places whose log evidence is within so much of the best one's tell whether there are others.
_ROUGH = 6.0
# A place of at least so many points is a mode, and not a point that has not yet arrived.
_LARGE = 3
# The inverse mass is stretched at most by so much to be a covariance.
_MOST_SCALE = 4.0
# At most this share of the points may lie alone where places are taken to be all that there are.
_ALONE = 0.03


class Places(NamedTuple):
    """Points grouped into places.

    Attributes:
      same: `[N, N]`, whether two points lie in the same place.
      log_weight: `[N]`, the same for every place that matters, shared equally among its points;
        -inf for points of the others.
      pull: `[N, D]`, S g: z + S g is about the mean of the mode that z lies in.
      are_modes: whether there are several modes, and few signs of others.
      are_unclear: whether there are several modes, and signs of others.
    """

    same: Array
    log_weight: Array
    pull: Array
    are_modes: Array
    are_unclear: Array


@sequential_vmap
def find_places(
    position: ArrayTree,
    log_density: Array,
    gradient: ArrayTree,
    usable: Array,
    inverse_mass: Array,
) -> Places:
    """Group points into places, and leave out those of negligible mass.

    Gradients tell more than positions. In a Gaussian mode with mean m, covariance S and evidence
    E, every single point z with score g = grad log p(z) has

        m = z + S g,    log E = log p(z) + g' S g / 2 + const,

    and in other modes the mean of z + S g over the target is still that of z. S is the inverse
    mass, times the number that makes g' S g typically D. In 32 dimensions such an estimate of
    log E is five nats off: enough to tell that a place is negligible, not to weigh the others.

    Args:
      position: leaves `[N, ...]`.
      log_density: `[N]` log p of the target.
      gradient: leaves `[N, ...]`, its gradient.
      usable: `[N]`, which points take part.
      inverse_mass: `[D]` or `[D, D]`, about the covariance of one mode.
    """
    flat = jax.vmap(lambda z: ravel_pytree(z)[0])(position)
    count, size = flat.shape
    usable = usable & jnp.all(jnp.isfinite(flat), axis=1)
    centre = jnp.sum(jnp.where(usable[:, None], flat, 0.0), axis=0) / jnp.maximum(usable.sum(), 1)
    flat = jnp.where(usable[:, None], flat - centre[None], 0.0)
    if inverse_mass.ndim == 1:
        factor = jnp.diag(jnp.sqrt(inverse_mass))
    else:
        factor = jnp.linalg.cholesky(inverse_mass)
    white = solve_triangular(factor, flat.T, lower=True).T
    score = jax.vmap(lambda g: ravel_pytree(g)[0])(gradient)
    score = jnp.where(usable[:, None], score, 0.0) @ factor
    power = jnp.sum(score**2, axis=1)
    typical = jnp.nan_to_num(jnp.nanmedian(jnp.where(usable, power, jnp.nan)))
    scale = jnp.minimum(size / jnp.maximum(typical, 1e-30), _MOST_SCALE)
    # g' S g is chi-square with D degrees of freedom. Where it is far more, a point is still on
    # its way or its mode is narrower than S, and what the gradient says of the mode is nonsense.
    settled = scale * power < size + 4.0 * math.sqrt(2.0 * size)
    energy = 0.5 * jnp.where(settled, scale * power, size)
    pull = jnp.where(settled[:, None], scale * score @ factor.T, 0.0)
    squares = jnp.sum(white**2, axis=1)
    half = 0.5 * jnp.maximum(squares[:, None] + squares[None] - 2.0 * white @ white.T, 0.0)
    both = usable[:, None] & usable[None]
    itself = jnp.eye(count, dtype=bool)
    nearest = jnp.min(jnp.where(both & ~itself, half, jnp.inf), axis=1)
    median = jnp.nanmedian(jnp.where(usable & jnp.isfinite(nearest), nearest, jnp.nan))
    reach = jnp.maximum(2.0 * size + 4.0, 1.5 * jnp.nan_to_num(median))
    same = _closure((both & (half < reach)) | itself)

    number = jnp.sum(same & usable[None], axis=1)
    each = usable / jnp.maximum(number, 1)
    value = jnp.where(usable, log_density + energy, 0.0)
    evidence = (same * usable[None]) @ value / jnp.maximum(number, 1)
    best = jnp.max(jnp.where(usable, evidence, -jnp.inf))
    kept = usable & (evidence > best - _NEGLIGIBLE)
    below = best - evidence
    log_weight = jnp.where(kept, -jnp.log(number), -jnp.inf)

    modes = jnp.sum(jnp.where(kept & (number >= _LARGE), each, 0.0))
    counted = kept & (below < _ROUGH)
    alone = jnp.sum(counted & (number == 1)) / jnp.maximum(jnp.sum(counted), 1)
    several = modes > 1.5
    return Places(
        same,
        jax.nn.log_softmax(log_weight),
        pull,
        several & (alone <= _ALONE),
        several & (alone > _ALONE),
    )


def _closure(linked: Array) -> Array:
    """Which points are linked through others: the transitive closure, by repeated squaring."""
    steps = max(linked.shape[0] - 1, 1).bit_length()

    def double(_: int, linked: Array) -> Array:
        reached = linked.astype(jnp.float32)
        return (reached @ reached) > 0.5

    return jax.lax.fori_loop(0, steps, double, linked)
