"""Posteriors of two latents, summed up on a grid that is fine where the mass is.

A coarse grid of spacing 0.015 finds where the log density is within 40 of its largest value;
each of those cells is divided as finely as the posterior needs, and the midpoints of the small
cells are summed in float64. The narrowest ridge of the set has a deviation of about 0.005, so
none falls between two points of the coarse grid. Of the coarse cells that hold 99% of the mass,
those that touch are one region; regions of at least 1% are the modes, and everything else is one
more part.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.pytree import pytree
from jaxgen.core.types import Array, PRNGKey
from jaxgen.models import load
from jaxgen.posteriors.quadrature import logsumexp
from jaxgen.posteriors.reference import Modes, ReferencePosterior, generator_of
from jaxgen.target.conditions import ObservedPixels, Operator
from jaxgen.target.posterior import Posterior
from jaxgen.target.priors import Gaussian

__all__ = ["BUILDERS", "SmallNetwork", "summed"]

_HALF, _CELLS = 6.0, 800
_FAR = 40.0
_SMALLEST = 0.01
_BATCH = 1 << 12


@pytree
class SmallNetwork:
    """A multi-layer perceptron with tanh between layers and a sigmoid at the end.

    Attributes:
      weights: matrices `[out, in]`.
      biases: vectors `[out]`.
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]

    def __call__(self, z: Array) -> Array:
        """Return an image of one row, `[1, D, 1]`, in [0, 1]."""
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            z = jnp.tanh(weight @ z + bias)
        return jax.nn.sigmoid(self.weights[-1] @ z + self.biases[-1])[None, :, None]

    @classmethod
    def random(cls, seed: int, sizes: tuple[int, ...]) -> SmallNetwork:
        """Weights of variance 4 / in, so that images vary much over the prior."""
        rng = np.random.default_rng(seed)
        shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
        weights = [2 * rng.normal(size=shape) / np.sqrt(shape[1]) for shape in shapes]
        biases = [0.5 * rng.normal(size=shape[0]) for shape in shapes]
        single = [tuple(jnp.asarray(x, jnp.float32) for x in xs) for xs in (weights, biases)]
        return cls(*single)


def summed(name: str, posterior: Posterior, divided: int) -> ReferencePosterior:
    """Return the answers of a posterior of two latents; coarse cells become divided x divided."""
    size = 2 * _HALF / _CELLS
    middle = -_HALF + size * (np.arange(_CELLS) + 0.5)
    coarse = np.stack(np.meshgrid(middle, middle, indexing="ij"), -1).reshape(-1, 2)
    log_density = _evaluate(posterior, coarse)
    kept = np.flatnonzero(log_density > log_density.max() - _FAR)
    inside = size * ((np.arange(divided) + 0.5) / divided - 0.5)
    offsets = np.stack(np.meshgrid(inside, inside, indexing="ij"), -1).reshape(-1, 2)
    points = (coarse[kept][:, None] + offsets).reshape(-1, 2)
    log_density = _evaluate(posterior, points)
    total = float(logsumexp(log_density))
    weights = np.exp(log_density - total)
    fine = size / divided
    mean = weights @ points
    off = points - mean
    covariance = (off * weights[:, None]).T @ off + fine**2 / 12 * np.eye(2)

    def draws(key: PRNGKey, count: int) -> np.ndarray:
        rng = generator_of(key)
        at = rng.choice(len(points), size=count, p=weights / weights.sum())
        return (points[at] + fine * (rng.random((count, 2)) - 0.5)).astype(np.float32)

    by_cell = weights.reshape(len(kept), -1).sum(axis=1)
    return ReferencePosterior(
        name=name,
        posterior=posterior,
        dimension=2,
        log_z=total + 2 * float(np.log(fine)),
        mean=mean,
        variance=np.diag(covariance).copy(),
        covariance=covariance,
        draws=draws,
        modes=_regions(kept, by_cell),
        how=f"Summed in float64 over a grid of spacing {fine:.2g} wherever there is mass.",
    )


def _regions(cells: np.ndarray, masses: np.ndarray) -> Modes | None:
    """Return the modes: regions of touching cells among those that hold 99% of the mass."""
    order = np.argsort(masses)[::-1]
    enough = order[: int(np.searchsorted(np.cumsum(masses[order]), 0.99)) + 1]
    unseen = {int(cells[i]): float(masses[i]) for i in enough}
    found = []
    while unseen:
        cell, mass = unseen.popitem()
        region, total, front = [cell], mass, [cell]
        while front:
            row, column = divmod(front.pop(), _CELLS)
            for r in (row - 1, row, row + 1):
                for c in (column - 1, column, column + 1):
                    near = r * _CELLS + c
                    if 0 <= c < _CELLS and near in unseen:
                        total += unseen.pop(near)
                        region.append(near)
                        front.append(near)
        if total >= _SMALLEST:
            found.append((total, region))
    if len(found) < 2:
        return None
    found.sort(key=lambda pair: -pair[0])
    table = np.full(_CELLS**2, len(found))
    for k, (_, region) in enumerate(found):
        table[region] = k

    def label(z: np.ndarray) -> np.ndarray:
        index = np.clip(np.floor((z + _HALF) * _CELLS / (2 * _HALF)), 0, _CELLS - 1).astype(int)
        return table[index[:, 0] * _CELLS + index[:, 1]]

    held = np.bincount(table[cells], masses, len(found) + 1)
    return Modes(label, held / held.sum())


@functools.partial(jax.jit, static_argnames="batch")
def _log_density(posterior: Posterior, z: Array, batch: int) -> Array:
    return jax.lax.map(posterior, z, batch_size=batch)


def _evaluate(posterior: Posterior, points: np.ndarray) -> np.ndarray:
    # Padded to whole batches, a power of two of them: few programs for many sizes.
    batches = 1 << (-(-len(points) // _BATCH) - 1).bit_length()
    padded = np.zeros((batches * _BATCH, 2), np.float32)
    padded[: len(points)] = points
    values = _log_density(posterior, jnp.asarray(padded), _BATCH)
    return np.asarray(values, np.float64)[: len(points)]


def _second(point: Array) -> Array:
    """Return what is observed of a point of the plane."""
    return point[1:]


def _toy(iterations: str) -> Callable[[], ReferencePosterior]:
    """Return the generator of Fang & Schwing (2019, Sec. 3) at a stage of its training; x2 = 0."""

    def build() -> ReferencePosterior:
        condition = Operator(jnp.zeros(1), jnp.float32(np.sqrt(5e-5)), forward=_second)
        generator = load(f"toy2d/gan-{iterations}")
        posterior = Posterior(Gaussian.standard(2), generator, condition)
        return summed(f"toy-{iterations}", posterior, divided=8)

    return build


def _small_network(name: str, pixels: int, noise: float, seed: int) -> ReferencePosterior:
    """Return a random network of which a few of 16 pixels are seen."""
    network = SmallNetwork.random(seed, (2, 32, 32, 16))
    truth = np.random.default_rng(seed + 1000).normal(size=2)
    image = network(jnp.asarray(truth, jnp.float32))
    mask = jnp.zeros((1, 16)).at[0, :pixels].set(1.0)
    condition = ObservedPixels(image, mask, jnp.float32(noise))
    return summed(name, Posterior(Gaussian.standard(2), network, condition), divided=2)


BUILDERS = {
    "mlp-2-one-pixel": lambda: _small_network("mlp-2-one-pixel", 1, 0.05, seed=41),
    "mlp-2-two-pixels": lambda: _small_network("mlp-2-two-pixels", 2, 0.05, seed=53),
    **{f"toy-{stage}": _toy(stage) for stage in ("500", "2500", "15000")},
}
