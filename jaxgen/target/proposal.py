"""A proposal fitted to chains: a mixture of Gaussians from which annealing can start anew.

Annealing from the prior to a sharp posterior is a long way. Chains that have gone it once,
in few and large steps, know where the posterior lies but not its evidence. A distribution
fitted to them is a nearer start: from fresh draws of it, a second and much shorter annealing
brings exact weights, whatever the first one got wrong.

    q(z) = sum_c w_c N(z; m_c + a (z_c - m_c), h^2 S),    h^2 = 1 - a^2

with m_c the weighted mean of the chains in the same place as chain c (of all chains, where there
is one place) and S their covariance around it. The shrinkage `a` makes mean and covariance of the
mixture those of the chains (West 1993); a = 0 is one Gaussian for each place, `a` near 1 follows
the chains one by one. It is chosen by the likelihood of each chain under the mixture of the
others.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jax.flatten_util import ravel_pytree
from jax.scipy.linalg import solve_triangular

from jaxgen.core.pytree import pytree
from jaxgen.core.types import Array, ArrayTree, PRNGKey
from jaxgen.target.path import AnnealedPath

__all__ = ["FittedMixture", "bridged", "fit_mixture", "no_mixture", "unbridged_tilt"]

# Candidates for the shrinkage a, and by how much the kernels are widened against the
# optimism of a fit to few chains.
_SHRINKAGES = (0.0, 0.4, 0.6, 0.75, 0.87, 0.94, 0.97)
# How far chains may lie apart, as a variance over the inverse mass and over what chance makes of
# few chains, before they are taken to lie in separate places.
_APART = 15.0
# Two parts explain 2 / pi of the variance of a normal variable and less of heavier tails, 3 / 4
# of a uniform one, and nearly all of two modes.
_TWO_PARTS = 0.72
_WIDEN = 1.2


@pytree
class FittedMixture:
    """A mixture of Gaussians that share one covariance, over a latent of D numbers.

    Attributes:
      mean: `[D]`, m.
      centres: `[C, D]`, m_c + a (z_c - m_c) - m in coordinates in which S is the identity.
      log_weight: `[C]`, normalised.
      width: h.
      whiten: `[D, D]`: whiten @ whiten.T = S^-1; (z - m) @ whiten are the coordinates.
      colour: `[D, D]`, the inverse of `whiten`.
      log_volume: log |det whiten|.
      apart: the largest variance of the chains in any direction, over the inverse mass (which
        the score makes that of a single mode) and over (1 + sqrt(D / n))^2, which n independent
        draws would show at most; 0 where chains do not fall into two parts along it.
      like: a latent, for its structure.
    """

    mean: Array
    centres: Array
    log_weight: Array
    width: Array
    whiten: Array
    colour: Array
    log_volume: Array
    apart: Array
    like: ArrayTree

    @property
    def is_scattered(self) -> Array:
        """Whether the chains lie in separate places, far beyond what the inverse mass explains.

        They may then have missed places that nothing near them leads to.
        """
        return self.apart > _APART

    def sample(self, key: PRNGKey) -> ArrayTree:
        """Return one draw."""
        key_centre, key_noise = jax.random.split(key)
        centre = self.centres[jax.random.categorical(key_centre, self.log_weight)]
        noise = jax.random.normal(key_noise, self.mean.shape, self.mean.dtype)
        flat = self.mean + (centre + self.width * noise) @ self.colour
        return ravel_pytree(self.like)[1](flat)

    def log_prob(self, z: ArrayTree) -> Array:
        """Return the normalised log density."""
        white = (ravel_pytree(z)[0] - self.mean) @ self.whiten
        squares = jnp.sum(((white[None] - self.centres) / self.width) ** 2, axis=1)
        size = self.mean.shape[0]
        constant = self.log_volume - size * (jnp.log(self.width) + 0.5 * math.log(2 * math.pi))
        return jax.nn.logsumexp(self.log_weight - 0.5 * squares) + constant


def no_mixture(position: ArrayTree, num_chains: int) -> FittedMixture:
    """Return a standard normal as a mixture of `num_chains`: what holds the place of a fit."""
    flat = ravel_pytree(position)[0]
    size, dtype = flat.shape[0], flat.dtype
    return FittedMixture(
        mean=jnp.zeros(size, dtype),
        centres=jnp.zeros((num_chains, size), dtype),
        log_weight=jnp.full(num_chains, -math.log(num_chains), dtype),
        width=jnp.ones((), dtype),
        whiten=jnp.eye(size, dtype=dtype),
        colour=jnp.eye(size, dtype=dtype),
        log_volume=jnp.zeros((), dtype),
        apart=jnp.zeros((), dtype),
        like=jax.tree.map(jnp.zeros_like, position),
    )


@sequential_vmap
def fit_mixture(
    position: ArrayTree, log_weight: Array, inverse_mass: Array, same: Array, pull: Array
) -> tuple[FittedMixture, Array]:
    """Fit a mixture to weighted points, in one place or in several.

    The covariance S is that of the points around the means of their places, shrunk towards the
    inverse mass (up to its scale) by the oracle-approximating weight (Chen, Wiesel, Eldar & Hero
    2010, Eq. 23): few points in many dimensions leave it there.

    Args:
      position: leaves `[N, ...]`.
      log_weight: `[N]`; -inf leaves a point out.
      inverse_mass: `[D]` or `[D, D]`, a first idea of the covariance's shape.
      same: `[N, N]`, whether two points lie in the same place: see `jaxgen.target.places`.
      pull: `[N, D]`, added to a point where the mean of its place is computed: 0, or what makes
        that mean more precise.

    Returns:
      The mixture, and the mean log density of each point under the mixture of the others: how
      near it is to what the points are draws of (an optimistic figure, for S has seen them).
    """
    like = jax.tree.map(lambda x: jnp.zeros_like(x[0]), position)
    flat = jax.vmap(lambda z: ravel_pytree(z)[0])(position)
    count, size = flat.shape
    weight = jax.nn.softmax(log_weight)
    effective = 1.0 / jnp.sum(weight**2)
    mean = weight @ flat
    share = same * weight[None]
    of_place = jnp.maximum(jnp.sum(share, axis=1), 1e-30)
    # Points that are left out may lie anywhere.
    flat = jnp.where(weight[:, None] > 0, flat, mean[None])
    pull = jnp.where(weight[:, None] > 0, pull, 0.0)
    place = share @ (flat + pull - mean[None]) / of_place[:, None]
    if inverse_mass.ndim == 1:
        factor = jnp.diag(jnp.sqrt(inverse_mass))
    else:
        factor = jnp.linalg.cholesky(inverse_mass)
    identity = jnp.eye(size, dtype=flat.dtype)
    unfactor = solve_triangular(factor, identity, lower=True)
    rough = (flat - mean[None] - place) @ unfactor.T
    covariance = (weight[:, None] * rough).T @ rough
    chance = (1.0 + jnp.sqrt(size / effective)) ** 2
    variance, directions = jnp.linalg.eigh(covariance)
    two_parts = _explained_by_two_parts(rough @ directions[:, -1], weight) > _TWO_PARTS
    apart = jnp.where(two_parts, variance[-1] / chance, 0.0)
    trace, square = jnp.trace(covariance), jnp.sum(covariance**2)
    above = (1 - 2 / size) * square + trace**2
    below = (effective - 2 / size) * (square - trace**2 / size)
    shrink = jnp.where(below > 0, jnp.minimum(above / jnp.where(below > 0, below, 1.0), 1.0), 1.0)
    covariance = (1 - shrink) * covariance + (shrink * trace / size + 1e-12) * identity
    lower = jnp.linalg.cholesky(covariance)
    unlower = solve_triangular(lower, identity, lower=True)
    whiten, colour = (unlower @ unfactor).T, (factor @ lower).T
    place, white = place @ whiten, (flat - mean[None] - place) @ whiten

    others = jnp.where(jnp.eye(count, dtype=bool), -jnp.inf, 0.0)
    others = others + jax.nn.log_softmax(others + jnp.log(weight)[None], axis=1)
    # The mean of the others in the same place; a point alone has none, and does not count.
    alone = of_place - weight < 1e-6
    pulled = white + pull @ whiten
    rest = -pulled * (weight / jnp.maximum(of_place - weight, 1e-6))[:, None]
    counts = jnp.where(alone, 0.0, weight)

    def left_out(a: Array) -> Array:
        width = _WIDEN * jnp.sqrt(1.0 - a * a)
        here, there = place + white, place + a * white
        near = here - (1 - a) * rest
        far = jnp.where(same, _squares(near, there), _squares(here, there))
        inside = jax.nn.logsumexp(others - 0.5 * far / width**2, axis=1)
        each = inside - size * (jnp.log(width) + 0.5 * math.log(2 * math.pi))
        return jnp.sum(jnp.where(counts > 0, counts * each, 0.0)) / jnp.sum(counts)

    candidates = jnp.asarray(_SHRINKAGES, flat.dtype)
    scores = jax.lax.map(left_out, candidates)
    best = jnp.argmax(scores)
    a = candidates[best]
    log_volume = jnp.sum(jnp.log(jnp.diag(unlower))) + jnp.sum(jnp.log(jnp.diag(unfactor)))
    mixture = FittedMixture(
        mean=mean,
        centres=place + a * white,
        log_weight=jnp.log(weight),
        width=_WIDEN * jnp.sqrt(1.0 - a * a),
        whiten=whiten,
        colour=colour,
        log_volume=log_volume,
        apart=apart,
        like=like,
    )
    return mixture, scores[best] + log_volume


def _explained_by_two_parts(x: Array, weight: Array) -> Array:
    """Return the share of a variance that the best split into two parts explains (2-means).

    Each part has at least a twentieth of the weight, so that an outlier is no part.
    """
    order = jnp.argsort(x)
    x, weight = x[order] - weight @ x, weight[order]
    below, sums = jnp.cumsum(weight)[:-1], jnp.cumsum(weight * x)[:-1]
    product = below * (1.0 - below)
    between = jnp.where(product > 0.05 * 0.95, sums**2 / jnp.maximum(product, 1e-6), 0.0)
    return jnp.max(between) / jnp.maximum(weight @ x**2, 1e-30)


def _squares(left: Array, right: Array) -> Array:
    """|l_i - r_j|^2, `[N, M]`."""
    far = jnp.sum(left**2, axis=1)[:, None] + jnp.sum(right**2, axis=1)[None]
    return far - 2.0 * left @ right.T


@pytree
class _Start:
    """A path's own start, or the mixture where `on` is true."""

    own: Any
    mixture: FittedMixture
    on: Array

    def sample(self, key: PRNGKey) -> ArrayTree:
        return jax.lax.cond(self.on, self.mixture.sample, self.own.sample, key)

    def log_prob(self, z: ArrayTree) -> Array:
        return jax.lax.cond(self.on, self.mixture.log_prob, self.own.log_prob, z)


@pytree
class _Base:
    """A path's own base, or the mixture's log density where `on` is true."""

    own: Any
    mixture: FittedMixture
    on: Array

    def __call__(self, z: ArrayTree) -> Array:
        return jax.lax.cond(self.on, self.mixture.log_prob, self.own, z)


@pytree
class _Tilt:
    """tilt(z), and where `on` is true base(z) + tilt(z) - log q(z)."""

    path: AnnealedPath
    mixture: FittedMixture
    on: Array

    def __call__(self, z: ArrayTree) -> Array:
        more = jax.lax.cond(
            self.on,
            lambda z: self.path.base(z) - self.mixture.log_prob(z),
            lambda z: jnp.zeros_like(self.mixture.log_prob(z)),
            z,
        )
        return self.path.tilt(z) + more


def bridged(path: AnnealedPath, mixture: FittedMixture | None, on: Array) -> AnnealedPath:
    """Return the path, or where `on` is true the one from the mixture to the path's end.

        log p_beta(z) = (1 - beta) log q(z) + beta (base(z) + tilt(z))

    Both are one program: `on` is data. Without a mixture, the path itself.
    """
    if mixture is None:
        return path
    return AnnealedPath(
        base=_Base(path.base, mixture, on),
        tilt=_Tilt(path, mixture, on),
        start=_Start(path.start, mixture, on),
        base_is_cheap=path.base_is_cheap,
    )


def unbridged_tilt(tilt: Any, base: Any, own_base: Any) -> Any:
    """Return the path's own tilt (or its gradient) from the bridged tilt and both bases."""
    return jax.tree.map(lambda t, b, o: t + b - o, tilt, base, own_base)
