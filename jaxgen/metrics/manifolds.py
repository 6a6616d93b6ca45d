"""Precision and recall of a set of samples, by nearest neighbours in a feature space."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core.errors import expected
from jaxgen.core.types import Array

__all__ = ["PrecisionRecall", "precision_recall"]


class PrecisionRecall(NamedTuple):
    """Attributes:
    precision: the share of generated samples that lie within the real ones' manifold.
    recall: the share of real samples within the generated ones' manifold.
    """

    precision: Array
    recall: Array


@partial(jax.jit, static_argnames="neighbours")
def precision_recall(generated: Array, real: Array, *, neighbours: int = 3) -> PrecisionRecall:
    """Precision and recall: how many samples look real, and how many real images could be sampled.

    A set's manifold is the union of balls about its points, each reaching to the point's
    k-th nearest neighbour in the set (itself not counted): a point is inside if its distance
    to some centre is at most that ball's radius.

    Source: Kynkaanniemi, Karras, Laine, Lehtinen & Aila (NeurIPS 2019), Eqs. 1-2, with k = 3 as
    there. An outlier's large ball lets much in; both numbers grow with k and with the size
    of the set that makes the manifold, so compare equal sizes only.

    Args:
      generated: `[n, ...]` features of generated samples, n > neighbours.
      real: `[m, ...]` features of real samples, m > neighbours.
      neighbours: k.
    """
    sets = {"generated": jnp.asarray(generated), "real": jnp.asarray(real)}
    if neighbours < 1:
        raise expected("neighbours", "at least 1", neighbours)
    for name, x in sets.items():
        if x.ndim < 2 or x.shape[0] <= neighbours:
            raise expected(name, f"more than {neighbours} samples [n, ...]", f"shape {x.shape}")
    a, b = (x.reshape(x.shape[0], -1) for x in sets.values())
    if a.shape[1] != b.shape[1]:
        raise expected("real", f"{a.shape[1]} features like the generated", b.shape[1])
    return PrecisionRecall(
        _inside(a, b, _radii(b, neighbours)), _inside(b, a, _radii(a, neighbours))
    )


def _radii(points: Array, neighbours: int) -> Array:
    """Squared distance of each point to its k-th neighbour; position 0 is the point itself."""

    def radius(i: Array) -> Array:
        distances = _squared_distances(points, points[i]).at[i].set(-1.0)
        return jnp.sort(distances)[neighbours]

    return jax.lax.map(radius, jnp.arange(points.shape[0]))


def _inside(points: Array, centres: Array, radii: Array) -> Array:
    """Return the share of points within at least one ball."""
    inside = jax.lax.map(lambda x: jnp.any(_squared_distances(centres, x) <= radii), points)
    return jnp.mean(inside)


def _squared_distances(points: Array, x: Array) -> Array:
    return jnp.sum((points - x[None]) ** 2, axis=1)
