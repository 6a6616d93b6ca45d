"""Posteriors with several modes of unequal mass, each mode known.

    p(y | z) = sum_k w_k N(c_k; G(z), s_k^2 I)

Where every component alone has a known evidence Z_k and known moments, so has the mixture:
Z = sum_k w_k Z_k, and mode k holds w_k Z_k / Z of the posterior. With G the identity the
components are Gaussian; through a two-layer network they are products of lines
(`separable`). The weights are chosen so that the modes have the masses that are asked for.
"""

from __future__ import annotations

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxgen.core.pytree import pytree
from jaxgen.core.types import Array, Generator, PRNGKey
from jaxgen.posteriors import separable
from jaxgen.posteriors.quadrature import log_normal, logsumexp
from jaxgen.posteriors.reference import Modes, ReferencePosterior, generator_of
from jaxgen.posteriors.separable import ACTIVATIONS, orthonormal
from jaxgen.target.conditions import Term
from jaxgen.target.posterior import Posterior
from jaxgen.target.priors import Gaussian

__all__ = ["BUILDERS", "MixtureOfGaussians"]


@pytree
class MixtureOfGaussians:
    """log sum_k w_k N(c_k; x, s_k^2 I) of an image x of D pixels.

    Attributes:
      centres: c, `[K, D]`.
      scales: s, `[K]`.
      log_weights: log w, `[K]`.
    """

    centres: Array
    scales: Array
    log_weights: Array

    def __call__(self, image: Array) -> Array:
        """Return the log density of the observation, a scalar."""
        return jax.nn.logsumexp(self.terms(image))

    def terms(self, image: Array) -> Array:
        """log w_k N(c_k; x, s_k^2 I), `[K]`."""
        size = self.centres.shape[1]
        distance = jnp.sum((self.centres - image.reshape(1, -1)) ** 2, axis=1)
        log_scale = jnp.log(self.scales) + 0.5 * jnp.log(2 * jnp.pi)
        return self.log_weights - 0.5 * distance / self.scales**2 - size * log_scale


def _mixture(
    name: str,
    generator: Generator,
    centres: np.ndarray,
    scales: np.ndarray,
    masses: np.ndarray,
    log_evidence: np.ndarray,
    moments: tuple[np.ndarray, np.ndarray],
    component_draws: Any,
    how: str,
) -> ReferencePosterior:
    """Put components together.

    `log_evidence` `[K]` and `moments`, means `[K, d]` and covariances `[K, d, d]`, are those
    of each component alone; `component_draws(rng, k, n)` gives `[n, d]`.
    """
    means, covariances = moments
    log_weights = np.log(masses) - log_evidence
    # In float32, as the posterior has them, and only then normalised by what they are.
    log_weights = (log_weights - logsumexp(log_weights)).astype(np.float32).astype(np.float64)
    log_terms = log_weights + log_evidence
    log_z = float(logsumexp(log_terms))
    masses = np.exp(log_terms - log_z)
    mean = masses @ means
    off = means - mean
    covariance = np.einsum("k,kij->ij", masses, covariances)
    covariance += np.einsum("k,ki,kj->ij", masses, off, off)
    condition = MixtureOfGaussians(
        *(jnp.asarray(x, jnp.float32) for x in (centres, scales, log_weights))
    )
    posterior = Posterior(Gaussian.standard(means.shape[1]), generator, Term(condition))

    def draws(key: PRNGKey, count: int) -> np.ndarray:
        rng = generator_of(key)
        which = rng.choice(len(masses), size=count, p=masses)
        result = np.empty((count, means.shape[1]))
        for k in range(len(masses)):
            result[which == k] = component_draws(rng, k, int(np.sum(which == k)))
        return result.astype(np.float32)

    return ReferencePosterior(
        name=name,
        posterior=posterior,
        dimension=means.shape[1],
        log_z=log_z,
        mean=mean,
        variance=np.diag(covariance).copy(),
        covariance=covariance,
        draws=draws,
        modes=Modes(lambda z: _component(posterior, z), masses),
        how=how,
    )


def _component(posterior: Posterior, z: np.ndarray) -> np.ndarray:
    """Return the component that most probably made each latent."""
    terms = _all_terms(posterior, jnp.asarray(z, jnp.float32))
    return np.asarray(jnp.argmax(terms, axis=1))


@jax.jit
def _all_terms(posterior: Posterior, z: Array) -> Array:
    return jax.vmap(lambda x: cast(Term, posterior.condition).term.terms(posterior.image(x)))(z)


def through_identity(
    name: str, centres: ArrayLike, scales: ArrayLike, masses: ArrayLike, how: str = ""
) -> ReferencePosterior:
    """G(z) = z: component k has evidence N(c_k; 0, (1 + s_k^2) I) and a Gaussian posterior."""
    centres = np.asarray(centres, np.float32).astype(np.float64)
    scales = np.asarray(scales, np.float32).astype(np.float64)
    dimension = centres.shape[1]
    spread = 1 + scales[:, None] ** 2
    log_evidence = log_normal(centres, spread).sum(axis=1)
    means = centres / spread
    deviations = scales / np.sqrt(spread[:, 0])
    covariances = deviations[:, None, None] ** 2 * np.eye(dimension)

    def draws(rng: np.random.Generator, k: int, count: int) -> np.ndarray:
        return means[k] + deviations[k] * rng.normal(size=(count, dimension))

    return _mixture(
        name,
        separable.two_layer(np.eye(dimension), np.eye(dimension), "identity"),
        centres,
        scales,
        np.asarray(masses),
        log_evidence,
        (means, covariances),
        draws,
        "Closed form in float64: every component of the likelihood gives a Gaussian." + how,
    )


def through_network(
    name: str, latents: int, pixels: int, noise: float, masses: Any, seed: int
) -> ReferencePosterior:
    """G = R f(Q z) with f rising in waves; the components are images of random latents."""
    rng = np.random.default_rng(seed)
    first, second = orthonormal(rng, latents, latents), orthonormal(rng, pixels, latents)
    count = len(masses)
    hidden = ACTIVATIONS["waves"](np, 1.2 * rng.normal(size=(count, latents)))
    centres = (hidden @ second.T).astype(np.float32).astype(np.float64)
    scale = float(np.float32(noise))
    lines = [separable.gaussian_lines(second.T @ c, "waves", scale) for c in centres]
    outside = [separable.outside(c, second, scale) for c in centres]
    log_evidence = np.array([x.log_z.sum() + o for x, o in zip(lines, outside, strict=True)])
    means = np.stack([x.mean() @ first for x in lines])
    covariances = np.stack([first.T @ (x.variance()[:, None] * first) for x in lines])
    return _mixture(
        name,
        separable.two_layer(first, second, "waves"),
        centres,
        np.full(count, scale),
        np.asarray(masses),
        log_evidence,
        (means, covariances),
        lambda rng, k, n: lines[k].draws(rng, n) @ first,
        "Quadrature in float64: every component of the likelihood gives a product of "
        "one-dimensional densities in rotated coordinates.",
    )


_SPREAD_OUT = (0.3, 0.2, 0.15, 0.12, 0.09, 0.06, 0.05, 0.03)


def _three() -> ReferencePosterior:
    centres = [[1.5, 0.5], [-1.5, 1.0], [0.0, -2.0]]
    return through_identity("three-modes-2", centres, [0.2, 0.3, 0.1], [0.5, 0.3, 0.2])


def _narrow_beside_wide(size: int, narrow: float, wide: float, note: str = "") -> Any:
    """Return a narrow mode with 90% of the mass, and a wide one with 10%."""
    along = np.ones(size) / np.sqrt(size)
    return through_identity(
        f"narrow-beside-wide-{size}",
        [3.0 * along, -3.0 * along],
        [narrow, wide],
        [0.9, 0.1],
        note,
    )


def _eight() -> ReferencePosterior:
    centres = np.random.default_rng(21).normal(size=(8, 32))
    return through_identity("eight-modes-32", centres, np.full(8, 0.3), _SPREAD_OUT)


BUILDERS = {
    "three-modes-2": _three,
    "narrow-beside-wide-8": lambda: _narrow_beside_wide(8, 0.1, 0.4),
    "narrow-beside-wide-64": lambda: _narrow_beside_wide(
        64, 0.2, 0.5, " No tempered path finds the narrow mode but by chance."
    ),
    "eight-modes-32": _eight,
    "network-two-modes-8": lambda: through_network(
        "network-two-modes-8", 8, 32, 0.1, (0.8, 0.2), seed=22
    ),
    "network-five-modes-16": lambda: through_network(
        "network-five-modes-16", 16, 64, 0.2, (0.4, 0.25, 0.2, 0.1, 0.05), seed=23
    ),
}
