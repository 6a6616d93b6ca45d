"""A proposal fitted to chains: a mixture of Gaussians from which annealing can start anew.

Annealing from the prior to a sharp posterior is a long way. Chains that have gone it once,
in few and large steps, know where the posterior lies but not its evidence. A distribution
fitted to them is a nearer start: from fresh draws of it, a second and much shorter annealing
brings exact weights, whatever the first one got wrong.

    q(z) = sum_c w_c N(z; m + a (z_c - m), h^2 S),    h^2 = 1 - a^2

with m and S the chains' weighted mean and covariance. The shrinkage `a` makes mean and
covariance of the mixture those of the chains (West 1993); a = 0 is one Gaussian, `a` near 1
follows the chains one by one. It is chosen by the likelihood of each chain under the mixture
of the others.
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
_WIDEN = 1.2


@pytree
class FittedMixture:
    """A mixture of Gaussians that share one covariance, over a latent of D numbers.

    Attributes:
      mean: `[D]`, m.
      centres: `[C, D]`, a (z_c - m) in coordinates in which S is the identity.
      log_weight: `[C]`, normalised.
      width: h.
      whiten: `[D, D]`: whiten @ whiten.T = S^-1; (z - m) @ whiten are the coordinates.
      colour: `[D, D]`, the inverse of `whiten`.
      log_volume: log |det whiten|.
      apart: the largest variance of the chains in any direction, over the inverse mass (which
        the score makes that of a single mode) and over (1 + sqrt(D / n))^2, which n independent
        draws would show at most.
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
    position: ArrayTree, log_weight: Array, inverse_mass: Array
) -> tuple[FittedMixture, Array]:
    """Fit a mixture to weighted chains.

    The covariance S is the chains', shrunk towards the inverse mass (up to its scale) by the
    oracle-approximating weight (Chen, Wiesel, Eldar & Hero 2010, Eq. 23): few chains in many
    dimensions leave it there.

    Args:
      position: leaves `[C, ...]`.
      log_weight: `[C]`, of whole islands where there are several.
      inverse_mass: `[D]` or `[D, D]`, a first idea of the covariance's shape.

    Returns:
      The mixture, and the mean log density of each chain under the mixture of the others: how
      near it is to what the chains are draws of (an optimistic figure, for S has seen them).
    """
    like = jax.tree.map(lambda x: jnp.zeros_like(x[0]), position)
    flat = jax.vmap(lambda z: ravel_pytree(z)[0])(position)
    count, size = flat.shape
    weight = jax.nn.softmax(log_weight)
    effective = 1.0 / jnp.sum(weight**2)
    mean = weight @ flat
    if inverse_mass.ndim == 1:
        factor = jnp.diag(jnp.sqrt(inverse_mass))
    else:
        factor = jnp.linalg.cholesky(inverse_mass)
    identity = jnp.eye(size, dtype=flat.dtype)
    unfactor = solve_triangular(factor, identity, lower=True)
    rough = (flat - mean[None]) @ unfactor.T
    covariance = (weight[:, None] * rough).T @ rough
    chance = (1.0 + jnp.sqrt(size / effective)) ** 2
    apart = jnp.linalg.eigvalsh(covariance)[-1] / chance
    trace, square = jnp.trace(covariance), jnp.sum(covariance**2)
    above = (1 - 2 / size) * square + trace**2
    below = (effective - 2 / size) * (square - trace**2 / size)
    shrink = jnp.where(below > 0, jnp.minimum(above / jnp.where(below > 0, below, 1.0), 1.0), 1.0)
    covariance = (1 - shrink) * covariance + (shrink * trace / size + 1e-12) * identity
    lower = jnp.linalg.cholesky(covariance)
    unlower = solve_triangular(lower, identity, lower=True)
    whiten, colour = (unlower @ unfactor).T, (factor @ lower).T
    white = (flat - mean[None]) @ whiten

    others = jnp.where(jnp.eye(count, dtype=bool), -jnp.inf, 0.0)
    others = others + jax.nn.log_softmax(others + jnp.log(weight)[None], axis=1)
    rest = -white * (weight / jnp.maximum(1.0 - weight, 1e-6))[:, None]  # mean of the others

    def left_out(a: Array) -> Array:
        width = _WIDEN * jnp.sqrt(1.0 - a * a)
        here, there = white - (1 - a) * rest, a * white
        far = jnp.sum(here**2, axis=1)[:, None] + jnp.sum(there**2, axis=1)[None]
        far = far - 2.0 * here @ there.T
        inside = jax.nn.logsumexp(others - 0.5 * far / width**2, axis=1)
        each = inside - size * (jnp.log(width) + 0.5 * math.log(2 * math.pi))
        return jnp.sum(weight * each)

    candidates = jnp.asarray(_SHRINKAGES, flat.dtype)
    scores = jax.lax.map(left_out, candidates)
    best = jnp.argmax(scores)
    a = candidates[best]
    log_volume = jnp.sum(jnp.log(jnp.diag(unlower))) + jnp.sum(jnp.log(jnp.diag(unfactor)))
    mixture = FittedMixture(
        mean=mean,
        centres=a * white,
        log_weight=jnp.log(weight),
        width=_WIDEN * jnp.sqrt(1.0 - a * a),
        whiten=whiten,
        colour=colour,
        log_volume=log_volume,
        apart=apart,
        like=like,
    )
    return mixture, scores[best] + log_volume


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
