"""A posterior in coordinates in which it is about as wide in all directions.

An observation narrows some directions of a latent a thousand times and leaves others alone, and a
step of a kernel has to suit the narrowest. Let F be the Fisher information of the observation,
averaged over draws of the prior,

    F = E_z [J(z)' R^-1 J(z)],   J = d view(G(z)) / dz,   R the noise's variances,

and P = S^-2 + F with S the prior's standard deviations. In coordinates u with z = m + B u and
B B' = P^-1, a posterior whose information does not change much with z has about unit width
everywhere. Nothing is approximated: the target is the same, with |det B| in its density, and F is
only a good or a bad choice of coordinates.

F is never formed from Jacobians. Pulled-back noise has it as its covariance: J' R^-1/2 n, with n
standard normal, costs one gradient, and F has about as many large eigenvalues as an observation
tells of a latent.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxgen.core.errors import check_integer, expected
from jaxgen.core.keys import as_key
from jaxgen.core.pytree import pytree, replace
from jaxgen.core.types import Array, ArrayTree, PRNGKey
from jaxgen.target.conditions.noise import GaussianNoise
from jaxgen.target.posterior import Posterior
from jaxgen.target.priors import Gaussian

__all__ = ["Whitened", "fisher_information", "whitened"]


@pytree
class Whitened:
    """A Gaussian prior in coordinates u: z = mean + B u.

    Attributes:
      prior: of z.
      factor: `[D, D]`, B.
      inverse: `[D, D]`, B^-1.
      log_volume: log |det B|.
    """

    prior: Gaussian
    factor: Array
    inverse: Array
    log_volume: Array

    def sample(self, key: PRNGKey) -> Array:
        """One draw of the prior, in coordinates `[D]`."""
        return self.coordinates(self.prior.sample(key))

    def log_prob(self, u: Array) -> Array:
        """Return the normalised log density of the coordinates."""
        return self.prior.log_prob(self.latent(u)) + self.log_volume

    def latent(self, coordinates: Array) -> ArrayTree:
        """z = mean + B u."""
        mean, unravel = ravel_pytree(self.prior.mean)
        return unravel(mean + self.factor @ coordinates)

    def coordinates(self, latent: ArrayTree) -> Array:
        """u = B^-1 (z - mean)."""
        return self.inverse @ (ravel_pytree(latent)[0] - ravel_pytree(self.prior.mean)[0])


def whitened(
    posterior: Posterior, information: Array | None = None, *, key: PRNGKey | int = 0
) -> Posterior:
    """Return a posterior in coordinates in which it is about as wide in all directions.

    Args:
      posterior: its prior is a `Gaussian`.
      information: `[D, D]`, F; by default `fisher_information(key, posterior)`.
      key: see `information`.

    Raises:
      InputError: for another prior or condition.
    """
    prior = posterior.prior
    if not isinstance(prior, Gaussian):
        raise expected("prior", "a Gaussian prior", type(prior).__name__)
    scale = ravel_pytree(prior.scale)[0]
    if information is None:
        information = fisher_information(key, posterior)
    if jnp.shape(information) != (scale.size, scale.size):
        wanted = f"shape {[scale.size, scale.size]}"
        raise expected("information", wanted, list(jnp.shape(information)))
    # P = S^-1 (I + S F S) S^-1, whose middle has no eigenvalue below 1.
    middle = scale[:, None] * information * scale[None]
    values, vectors = jnp.linalg.eigh(0.5 * (middle + middle.T))
    roots = jnp.sqrt(1.0 + jnp.maximum(values, 0.0))
    factor = scale[:, None] * (vectors / roots[None]) @ vectors.T
    inverse = (vectors * roots[None]) @ vectors.T / scale[None]
    log_volume = jnp.sum(jnp.log(scale)) - jnp.sum(jnp.log(roots))
    return replace(posterior, prior=Whitened(prior, factor, inverse, log_volume))


def fisher_information(
    key: PRNGKey | int,
    posterior: Posterior,
    latents: Array | None = None,
    *,
    probes: int = 512,
    batch: int = 16,
) -> Array:
    """Return F `[D, D]`, the mean Fisher information of an observation over draws of the prior.

    Args:
      key: consumed.
      posterior: its condition has Gaussian noise of a known level; what was observed plays no
        part, but for which of it was observed.
      latents: `[N, ...]`, where the mean is taken over these and not over draws of the prior.
      probes: draws of prior and noise, at a gradient each.
      batch: probes at a time.

    Raises:
      InputError: for a condition of another kind.
    """
    if not isinstance(posterior.condition, GaussianNoise):
        got = type(posterior.condition).__name__
        raise expected("condition", "one with Gaussian noise of a known level", got)
    check_integer("probes", probes, 1)
    check_integer("batch", batch, 1)
    keys = jax.random.split(as_key(key), probes)
    if latents is None:
        chosen = jax.vmap(lambda k: posterior.prior.sample(jax.random.fold_in(k, 0)))(keys)
    else:
        index = jnp.arange(probes) % jax.tree.leaves(latents)[0].shape[0]
        chosen = jax.tree.map(lambda z: jnp.asarray(z)[index], latents)
    return _mean_square(posterior, keys, chosen, batch)


@jax.jit(static_argnames="batch")
def _mean_square(posterior: Posterior, keys: Array, latents: ArrayTree, batch: int) -> Array:
    def probe(item: tuple[PRNGKey, ArrayTree]) -> Array:
        key, z = item
        key_noise = jax.random.fold_in(key, 1)
        condition: Any = posterior.condition

        def scaled(z: ArrayTree) -> Array:
            residual = condition.residual(posterior.image(z))
            kept = condition.kept(residual)
            residual = residual / condition.noise
            return residual if kept is None else jnp.where(kept > 0, residual, 0.0)

        value, pull = jax.vjp(scaled, z)
        noise = jax.random.normal(key_noise, value.shape, value.real.dtype)
        if jnp.iscomplexobj(value):
            other = jax.random.normal(jax.random.fold_in(key, 2), value.shape, noise.dtype)
            noise = jax.lax.complex(noise, other)
        return ravel_pytree(pull(noise.astype(value.dtype))[0])[0]

    found = jax.lax.map(probe, (keys, latents), batch_size=batch)
    return found.T @ found / keys.shape[0]
