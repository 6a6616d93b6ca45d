"""Plain importance sampling of log p(x) from an encoder's q(z | x)."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxgen.core.errors import expected
from jaxgen.core.types import Array, Encoder, Generator, Prior, PRNGKey
from jaxgen.inference.bdmc import DecoderPaths
from jaxgen.target.observations import Observation
from jaxgen.target.priors import Gaussian

__all__ = ["importance_loglik", "prior_of"]


def importance_loglik(
    key: PRNGKey,
    generator: Generator,
    images: ArrayLike,
    observation: Observation,
    encoder: Encoder,
    *,
    prior: Prior | None = None,
    num_samples: int = 1000,
    widen: float = 1.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Estimate log p(x) by importance sampling from the encoder: quick, and good where q is.

    log p(x) ~ log 1/K sum_k p(z_k) p(x | G(z_k)) / q(z_k | x) (Burda et al. 2016, with K
    samples). Latents of few dimensions only, or as a baseline. Encoders are trained to be too
    narrow, and then the standard error is too small as well: `widen` multiplies q's scale.

    Returns:
      `[N]` estimates, standard errors and effective sample sizes.
    """
    images = jnp.asarray(images, jnp.float32)
    paths = DecoderPaths(prior_of(prior, encoder, images), generator, observation, encoder)
    log_weight = np.asarray(
        _importance(key, paths, images, jnp.float32(widen), num_samples), np.float64
    )
    top = log_weight.max(1, keepdims=True)
    weights = np.exp(log_weight - top)
    mean = weights.mean(1)
    error = weights.std(1, ddof=1) / np.sqrt(num_samples) / mean
    ess = weights.sum(1) ** 2 / (weights**2).sum(1)
    return np.log(mean) + top[:, 0], error, ess


@functools.partial(jax.jit, static_argnames=("num_samples",))
def _importance(
    key: PRNGKey, paths: DecoderPaths, images: Array, widen: Array, num_samples: int
) -> Array:
    def one(args: tuple[Array, Array]) -> Array:
        key, image = args
        start, posterior = paths.start(image), paths.posterior(image)
        start = Gaussian(start.mean, widen * start.scale)
        z = jax.vmap(start.sample)(jax.random.split(key, num_samples))
        return jax.vmap(lambda z: posterior(z) - start.log_prob(z))(z)

    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(images.shape[0]))
    return jax.lax.map(one, (keys, images))


def prior_of(prior: Prior | None, encoder: Encoder | None, images: Array) -> Prior:
    """Return the prior: the one given, or a standard normal of the encoder's latent size."""
    if prior is not None:
        return prior
    if encoder is None:
        raise expected("prior", "a prior, where there is no encoder", "none")
    return Gaussian.standard(jax.eval_shape(encoder, images[0]).shape[1:])
