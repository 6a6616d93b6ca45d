"""Two-layer networks whose posteriors fall apart into one-dimensional ones.

    G(z) = R f(Q z),  Q orthogonal [d, d],  R with orthonormal columns [D, d]

For z ~ N(0, I) the hidden units u = Q z are N(0, I) too, and isotropic Gaussian noise on
the pixels is isotropic noise on t = R^T y:

    log p(y | z) = sum_i log N(t_i; f(u_i), noise^2) + log N(y - R t; 0, noise^2 I_{D - d})

so the posterior of u is a product of d densities on a line, however curved, cut off or
many-peaked f makes them. `quadrature` does the rest; z = Q^T u.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.pytree import pytree, static
from jaxgen.core.types import Array, PRNGKey
from jaxgen.posteriors.linear_gaussian import identity
from jaxgen.posteriors.quadrature import Lines, integrate, log_normal
from jaxgen.posteriors.reference import Modes, ReferencePosterior, generator_of
from jaxgen.target.conditions import Operator, Term
from jaxgen.target.posterior import Posterior
from jaxgen.target.priors import Gaussian

__all__ = ["BUILDERS", "NODES", "StudentT", "TwoLayer"]

# Fine enough for every width in the set, and wide enough for float64.
NODES = np.linspace(-10.0, 10.0, 20001)

# f, for NumPy and for JAX.
ACTIVATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "identity": lambda xp, u: u,
    # Saturates: pixels near 0 or 1 say little on how far out a hidden unit is.
    "sigmoid": lambda xp, u: 0.5 * (xp.tanh(1.5 * u) + 1.0),
    # Rises everywhere, between flat and steep stretches.
    "waves": lambda xp, u: u + 0.4 * xp.sin(2.0 * u),
    # Two values of u for nearly every value, and the two are not alike.
    "bowl": lambda xp, u: (u + 0.1) ** 2,
}


@pytree
class TwoLayer:
    """G(z) = R f(Q z) as an image of one column, `[D, 1, 1]`.

    Attributes:
      first: Q, `[d, d]`, orthogonal.
      second: R, `[D, d]`, with orthonormal columns.
      activation: the name of f.
    """

    first: Array
    second: Array
    activation: str = static()

    def __call__(self, z: Array) -> Array:
        """R f(Q z), in full float32 precision on every device."""
        highest = jax.lax.Precision.HIGHEST
        hidden = ACTIVATIONS[self.activation](jnp, jnp.matmul(self.first, z, precision=highest))
        return jnp.matmul(self.second, hidden, precision=highest)[:, None, None]


@pytree
class StudentT:
    """Pixels seen through noise with heavy tails: sum_i log t_dof(y_i; x_i, scale).

    Attributes:
      observed: y, of the image's shape.
      scale, dof: numbers.
    """

    observed: Array
    scale: Array
    dof: Array

    def __call__(self, image: Array) -> Array:
        """Return the log density of what was observed."""
        half, log_gamma = 0.5 * self.dof, jax.scipy.special.gammaln
        constant = log_gamma(half + 0.5) - log_gamma(half) - 0.5 * jnp.log(self.dof * jnp.pi)
        ratio = (self.observed - image) / self.scale
        terms = constant - jnp.log(self.scale) - (half + 0.5) * jnp.log1p(ratio**2 / self.dof)
        return jnp.sum(terms)


def orthonormal(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Return a random `[rows, columns]` matrix with orthonormal columns, of float32 numbers."""
    return np.linalg.qr(rng.normal(size=(rows, columns)))[0].astype(np.float32).astype(np.float64)


def record(
    name: str,
    posterior: Posterior,
    first: np.ndarray,
    lines: Lines,
    constant: float = 0.0,
    threshold: float | None = None,
) -> ReferencePosterior:
    """Return the answers in z = Q^T u of independent hidden units u.

    Where a threshold is given, each unit has one mode on either side of it.
    """
    variance = lines.variance()
    covariance = first.T @ (variance[:, None] * first)

    def draws(key: PRNGKey, count: int) -> np.ndarray:
        return (lines.draws(generator_of(key), count) @ first).astype(np.float32)

    return ReferencePosterior(
        name=name,
        posterior=posterior,
        dimension=len(first),
        log_z=float(lines.log_z.sum() + constant),
        mean=lines.mean() @ first,
        variance=np.diag(covariance).copy(),
        covariance=covariance,
        draws=draws,
        modes=None if threshold is None else _sides(lines, first, threshold),
        how="Quadrature in float64: the posterior is a product of one-dimensional densities "
        "in rotated coordinates.",
    )


def _sides(lines: Lines, first: np.ndarray, threshold: float) -> Modes:
    """2^d modes: on which side of the threshold each unit is; the first is the highest bit."""
    masses = np.ones(1)
    for above in lines.weights @ (lines.nodes > threshold):
        masses = np.stack([masses * (1 - above), masses * above], axis=1).reshape(-1)
    powers = 2 ** np.arange(len(first))[::-1]
    return Modes(lambda z: (z @ first.T > threshold) @ powers, masses)


def gaussian_lines(target: np.ndarray, activation: str, noise: float) -> Lines:
    """Lines of log N(u; 0, 1) + log N(t_i; f(u), noise^2), for targets t `[d]`."""
    residual = np.asarray(target)[:, None] - ACTIVATIONS[activation](np, NODES)
    return integrate(log_normal(NODES) + log_normal(residual, noise**2), NODES)


def outside(observed: np.ndarray, second: np.ndarray, noise: float) -> float:
    """log N(y - R R^T y; 0, noise^2 I): what no latent can explain."""
    rest = observed - second @ (second.T @ observed)
    free = second.shape[0] - second.shape[1]
    return float(-0.5 * rest @ rest / noise**2 - 0.5 * free * np.log(2 * np.pi * noise**2))


def two_layer(first: np.ndarray, second: np.ndarray, activation: str) -> TwoLayer:
    """Return the generator, in float32."""
    return TwoLayer(jnp.asarray(first, jnp.float32), jnp.asarray(second, jnp.float32), activation)


def _network(
    name: str,
    activation: str,
    pixels: int,
    units: np.ndarray,
    noise: float,
    seed: int,
    threshold: float | None = None,
) -> ReferencePosterior:
    """Return a network that sees an image of given hidden units, plus noise."""
    rng = np.random.default_rng(seed)
    latents = len(units)
    first, second = orthonormal(rng, latents, latents), orthonormal(rng, pixels, latents)
    image = second @ ACTIVATIONS[activation](np, units) + noise * rng.normal(size=pixels)
    observed = image.astype(np.float32)
    noise = float(np.float32(noise))
    posterior = Posterior(
        Gaussian.standard(latents),
        two_layer(first, second, activation),
        Operator(jnp.asarray(observed)[:, None, None], jnp.float32(noise), forward=identity),
    )
    exact = observed.astype(np.float64)
    lines = gaussian_lines(second.T @ exact, activation, noise)
    return record(name, posterior, first, lines, outside(exact, second, noise), threshold=threshold)


def _sigmoid() -> ReferencePosterior:
    units = np.random.default_rng(11).normal(size=16)
    return _network("sigmoid-16", "sigmoid", 16, units, 0.02, seed=12)


def _modes_1024() -> ReferencePosterior:
    return _network("modes-1024", "bowl", 32, np.full(10, 1.0), 0.3, seed=13, threshold=-0.1)


def _student_t(name: str, size: int, scale: float, dof: float, seed: int) -> ReferencePosterior:
    """y = Q z + noise with heavy tails, and some entries of y where the prior has nothing."""
    rng = np.random.default_rng(seed)
    first = orthonormal(rng, size, size)
    observed = rng.normal(size=size) + scale * rng.standard_t(dof, size=size)
    observed[:3] = (6.0, -5.0, 4.0)
    observed = observed.astype(np.float32)
    condition = StudentT(jnp.asarray(observed)[:, None, None], jnp.float32(scale), jnp.float32(dof))
    posterior = Posterior(
        Gaussian.standard(size), two_layer(first, np.eye(size), "identity"), Term(condition)
    )
    ratio = (observed.astype(np.float64)[:, None] - NODES) / np.float64(np.float32(scale))
    constant = math.lgamma(0.5 * dof + 0.5) - math.lgamma(0.5 * dof)
    constant -= 0.5 * math.log(dof * math.pi) + math.log(np.float32(scale))
    log_likelihood = constant - 0.5 * (dof + 1) * np.log1p(ratio**2 / dof)
    return record(name, posterior, first, integrate(log_normal(NODES) + log_likelihood, NODES))


BUILDERS = {
    "sigmoid-16": _sigmoid,
    "modes-1024": _modes_1024,
    "student-t-16": lambda: _student_t("student-t-16", 16, scale=0.1, dof=2.0, seed=14),
}
