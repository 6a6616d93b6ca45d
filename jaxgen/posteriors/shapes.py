"""Posteriors of difficult shapes, whose answers are integrals in one or two dimensions.

funnel      x = exp(1.5 v) (a, b): a filament that narrows as v grows
banana      x = b + a^2: an arc
mirrored    x = (A z)(A z)^T: z and -z make the same image
outward     a likelihood that grows with |z|: a posterior wider than the prior
shell       x = |z|: a thin shell far outside the prior's own
half-space  one half of the latents ruled out by a large finite penalty
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.pytree import pytree
from jaxgen.core.types import Array, Generator, PRNGKey
from jaxgen.posteriors.linear_gaussian import identity
from jaxgen.posteriors.quadrature import integrate, log_normal, logsumexp
from jaxgen.posteriors.reference import Modes, ReferencePosterior, generator_of
from jaxgen.posteriors.separable import NODES, orthonormal, two_layer
from jaxgen.target.conditions import Operator, Term
from jaxgen.target.posterior import Posterior
from jaxgen.target.priors import Gaussian

__all__ = ["BUILDERS", "Bananas", "Funnels", "HalfSpace", "Outer", "Outward", "Radius"]


@pytree
class Funnels:
    """Triples (v, a, b) of latents to pixels exp(1.5 v) (a, b): `[2 d / 3, 1, 1]`."""

    def __call__(self, z: Array) -> Array:
        """Return the pixels, two for each triple."""
        v, rest = z.reshape(-1, 3)[:, :1], z.reshape(-1, 3)[:, 1:]
        return (jnp.exp(1.5 * v) * rest).reshape(-1, 1, 1)


@pytree
class Bananas:
    """Pairs (a, b) of rotated latents Q z to pixels b + a^2: `[d / 2, 1, 1]`.

    Attributes:
      rotation: Q, `[d, d]`, orthogonal.
    """

    rotation: Array

    def __call__(self, z: Array) -> Array:
        """Return the pixels, one for each pair."""
        rotated = jnp.matmul(self.rotation, z, precision=jax.lax.Precision.HIGHEST)
        pairs = rotated.reshape(-1, 2)
        return (pairs[:, 1] + pairs[:, 0] ** 2)[:, None, None]


@pytree
class Outer:
    """G(z) = (A z)(A z)^T as an image `[d, d, 1]`; A is orthogonal."""

    matrix: Array

    def __call__(self, z: Array) -> Array:
        """Return the same image for z and -z."""
        x = jnp.matmul(self.matrix, z, precision=jax.lax.Precision.HIGHEST)
        return (x[:, None] * x[None, :])[:, :, None]


@pytree
class Radius:
    """G(z) = |z| as an image of one pixel."""

    def __call__(self, z: Array) -> Array:
        """Return the length of z."""
        return jnp.sqrt(jnp.sum(z * z)).reshape(1, 1, 1)


@pytree
class Outward:
    """log likelihood c |x|^2 / 2, c < 1: it favours what the prior thinks improbable."""

    strength: Array

    def __call__(self, image: Array) -> Array:
        """c |x|^2 / 2."""
        return 0.5 * self.strength * jnp.sum(image**2)


@pytree
class HalfSpace:
    """-penalty where the first pixel is above 0, else -|x - centre|^2 / 2."""

    centre: Array
    penalty: Array

    def __call__(self, image: Array) -> Array:
        """Return the log likelihood, which jumps at 0."""
        x = image.reshape(-1)
        return jnp.where(x[0] > 0, -self.penalty, -0.5 * jnp.sum((x - self.centre) ** 2))


def _independent(
    name: str,
    posterior: Posterior,
    log_z: float,
    mean: np.ndarray,
    covariance: np.ndarray,
    draws: Callable[[PRNGKey, int], np.ndarray],
    how: str,
    modes: Modes | None = None,
) -> ReferencePosterior:
    return ReferencePosterior(
        name=name,
        posterior=posterior,
        dimension=len(mean),
        log_z=float(log_z),
        mean=mean,
        variance=np.diag(covariance).copy(),
        covariance=covariance,
        draws=draws,
        modes=modes,
        how=how,
    )


def _observed(generator: Generator, observed: np.ndarray, noise: float, size: int) -> Posterior:
    condition = Operator(jnp.asarray(observed), jnp.float32(noise), forward=identity)
    return Posterior(Gaussian.standard(size), generator, condition)


def _funnel() -> ReferencePosterior:
    """Three funnels: given v the rest is Gaussian, so each needs one integral over v."""
    observed = np.array([[0.3, -0.2], [0.1, 0.0], [0.6, 0.4]], np.float32)
    noise = float(np.float32(0.1))
    posterior = _observed(Funnels(), observed.reshape(-1, 1, 1), noise, 9)
    y = observed.astype(np.float64)
    stretch = np.exp(1.5 * NODES)
    # y | v ~ N(0, stretch^2 + noise^2), and a, b | v, y are Gaussian.
    marginal = stretch**2 + noise**2
    log_density = log_normal(NODES) + log_normal(y[:, :, None], marginal).sum(axis=1)
    lines = integrate(log_density, NODES)
    means = y[:, :, None] * (stretch / marginal)
    variance = noise**2 / marginal
    mean, covariance = np.zeros(9), np.zeros((9, 9))
    for k, weights in enumerate(lines.weights):
        given = np.stack([NODES, *means[k]])
        at = slice(3 * k, 3 * k + 3)
        mean[at] = given @ weights
        off = given - mean[at, None]
        covariance[at, at] = (off * weights) @ off.T
        covariance[at, at] += np.diag([0.0, variance @ weights, variance @ weights])

    def draws(key: PRNGKey, count: int) -> np.ndarray:
        rng = generator_of(key)
        v = lines.draws(rng, count)
        stretch = np.exp(1.5 * v)[:, :, None]
        marginal = stretch**2 + noise**2
        rest = y * stretch / marginal + rng.normal(size=(count, 3, 2)) * noise / np.sqrt(marginal)
        return np.concatenate([v[:, :, None], rest], axis=2).reshape(count, 9).astype(np.float32)

    how = "Quadrature in float64 over v; given v, the posterior is Gaussian."
    return _independent("funnel-9", posterior, lines.log_z.sum(), mean, covariance, draws, how)


def _banana(name: str, observed: np.ndarray, noise: float, seed: int) -> ReferencePosterior:
    """Pairs of latents: given a, the other is Gaussian, so each needs one integral over a."""
    observed, pairs = np.asarray(observed, np.float32), len(observed)
    size, noise = 2 * pairs, float(np.float32(noise))
    rotation = orthonormal(np.random.default_rng(seed), size, size)
    generator = Bananas(jnp.asarray(rotation, jnp.float32))
    posterior = _observed(generator, observed[:, None, None], noise, size)
    y = observed.astype(np.float64)[:, None]
    variance = noise**2 / (1 + noise**2)
    lines = integrate(log_normal(NODES) + log_normal(y - NODES**2, 1 + noise**2), NODES)
    means = (y - NODES**2) / (1 + noise**2)
    mean, covariance = np.zeros(size), np.zeros((size, size))
    for k, weights in enumerate(lines.weights):
        given = np.stack([NODES, means[k]])
        at = slice(2 * k, 2 * k + 2)
        mean[at] = given @ weights
        off = given - mean[at, None]
        covariance[at, at] = (off * weights) @ off.T + np.diag([0.0, variance])

    def draws(key: PRNGKey, count: int) -> np.ndarray:
        rng = generator_of(key)
        a = lines.draws(rng, count)
        b = (y[:, 0] - a**2) / (1 + noise**2) + np.sqrt(variance) * rng.normal(size=a.shape)
        return (np.stack([a, b], axis=2).reshape(count, size) @ rotation).astype(np.float32)

    how = "Quadrature in float64 over one latent of each pair; the other is Gaussian given it."
    return _independent(
        name,
        posterior,
        lines.log_z.sum(),
        mean @ rotation,
        rotation.T @ covariance @ rotation,
        draws,
        how,
    )


def _mirrored(size: int = 8, noise: float = 0.5, seed: int = 31) -> ReferencePosterior:
    """Y = v v^T is observed: only a = v . z / |v| and r = |z - a v / |v|| matter.

    |Y - z z^T|^2 = |v|^4 - 2 |v|^2 a^2 + (a^2 + r^2)^2, with a ~ N(0, 1) and r a chi variable
    of d - 1 degrees of freedom.
    """
    rng = np.random.default_rng(seed)
    matrix = orthonormal(rng, size, size)
    direction = rng.normal(size=size)
    observed = np.outer(matrix @ direction, matrix @ direction).astype(np.float32)
    noise = float(np.float32(noise))
    generator = Outer(jnp.asarray(matrix, jnp.float32))
    posterior = _observed(generator, observed[:, :, None], noise, size)
    square = float(direction @ direction)
    direction = direction / np.sqrt(square)
    a = np.linspace(-8.0, 8.0, 3201)
    r = np.linspace(0.0, 10.0, 4001)[1:]
    log_prior = log_normal(a)[:, None] + _log_chi(r, size - 1)
    total = a[:, None] ** 2 + r**2
    distance = square**2 - 2 * square * a[:, None] ** 2 + total**2
    log_density = log_prior - 0.5 * distance / noise**2
    log_density -= 0.5 * size**2 * np.log(2 * np.pi * noise**2)
    log_sum = float(logsumexp(log_density))
    weights = np.exp(log_density - log_sum)
    log_z = log_sum + np.log((a[1] - a[0]) * (r[1] - r[0]))
    along = float(np.sum(weights * a[:, None] ** 2))
    across = float(np.sum(weights * r**2)) / (size - 1)
    line = np.outer(direction, direction)
    covariance = along * line + across * (np.eye(size) - line)

    def draws(key: PRNGKey, count: int) -> np.ndarray:
        rng = generator_of(key)
        cell = np.searchsorted(np.cumsum(weights), rng.random(count) * weights.sum())
        i, j = np.unravel_index(np.minimum(cell, weights.size - 1), weights.shape)
        at = a[i] + (rng.random(count) - 0.5) * (a[1] - a[0])
        radius = r[j] + (rng.random(count) - 0.5) * (r[1] - r[0])
        side = rng.normal(size=(count, size))
        side -= np.outer(side @ direction, direction)
        side *= (radius / np.linalg.norm(side, axis=1))[:, None]
        return (np.outer(at, direction) + side).astype(np.float32)

    return _independent(
        f"mirrored-{size}",
        posterior,
        log_z,
        np.zeros(size),
        covariance,
        draws,
        "Quadrature in float64 over two numbers, the latent's part along the true one and the "
        "length of the rest.",
        Modes(lambda z: (z @ direction > 0).astype(int), np.array([0.5, 0.5])),
    )


def _outward(size: int = 8, width: float = 2.0) -> ReferencePosterior:
    """p(z | y) = N(0, width^2 I): log Z = d log width."""
    strength = float(np.float32(1 - width**-2))
    variance = 1 / (1 - strength)
    generator = two_layer(np.eye(size), np.eye(size), "identity")
    posterior = Posterior(Gaussian.standard(size), generator, Term(Outward(jnp.float32(strength))))

    def draws(key: PRNGKey, count: int) -> np.ndarray:
        noise = generator_of(key).normal(size=(count, size))
        return (np.sqrt(variance) * noise).astype(np.float32)

    covariance = variance * np.eye(size)
    log_z = 0.5 * size * np.log(variance)
    how = "Closed form: a Gaussian wider than the prior."
    return _independent(f"outward-{size}", posterior, log_z, np.zeros(size), covariance, draws, how)


def _shell(size: int = 32, radius: float = 9.0, noise: float = 0.1) -> ReferencePosterior:
    """|z| is observed where the prior hardly ever is: one integral over the radius."""
    noise, radius = float(np.float32(noise)), float(np.float32(radius))
    posterior = _observed(Radius(), np.full((1, 1, 1), radius, np.float32), noise, size)
    r = np.linspace(0.0, 20.0, 40001)[1:]
    lines = integrate(_log_chi(r, size) + log_normal(r - radius, noise**2), r)

    def draws(key: PRNGKey, count: int) -> np.ndarray:
        rng = generator_of(key)
        side = rng.normal(size=(count, size))
        side *= lines.draws(rng, count) / np.linalg.norm(side, axis=1, keepdims=True)
        return side.astype(np.float32)

    covariance = float(lines.mean(r**2)[0]) / size * np.eye(size)
    how = "Quadrature in float64 over the radius; every direction is alike."
    return _independent(
        f"shell-{size}", posterior, lines.log_z[0], np.zeros(size), covariance, draws, how
    )


def _half_space(size: int) -> ReferencePosterior:
    """N(1/2, 1/2 I) cut off at 0 in its first coordinate; the penalty leaves e^-1e10 of it."""
    generator = two_layer(np.eye(size), np.eye(size), "identity")
    condition = HalfSpace(jnp.ones(size), jnp.float32(1e10))
    posterior = Posterior(Gaussian.standard(size), generator, Term(condition))
    deviation = math.sqrt(0.5)
    edge = -0.5 / deviation
    below = 0.5 * math.erfc(-edge / math.sqrt(2))
    hazard = math.exp(-0.5 * edge**2) / math.sqrt(2 * math.pi) / below
    mean, variance = np.full(size, 0.5), np.full(size, 0.5)
    mean[0] = 0.5 - deviation * hazard
    variance[0] = 0.5 * (1 - edge * hazard - hazard**2)
    log_z = size * (-0.25 - 0.5 * math.log(2)) + math.log(below)

    def draws(key: PRNGKey, count: int) -> np.ndarray:
        rng = generator_of(key)
        z = 0.5 + deviation * rng.normal(size=(count, size))
        while np.any(z[:, 0] > 0):
            out = z[:, 0] > 0
            z[out, 0] = 0.5 + deviation * rng.normal(size=int(out.sum()))
        return z.astype(np.float32)

    how = "Closed form: a Gaussian cut off at 0."
    return _independent(f"half-space-{size}", posterior, log_z, mean, np.diag(variance), draws, how)


def _log_chi(r: np.ndarray, dof: int) -> np.ndarray:
    """Return the log density of the length of a standard normal vector of `dof` entries."""
    constant = (0.5 * dof - 1) * math.log(2) + math.lgamma(0.5 * dof)
    return (dof - 1) * np.log(r) - 0.5 * r**2 - constant


BUILDERS: dict[str, Callable[[], ReferencePosterior]] = {
    "funnel-9": _funnel,
    "banana-2": lambda: _banana("banana-2", np.array([1.0]), 0.1, seed=32),
    "banana-16": lambda: _banana("banana-16", np.linspace(-0.5, 1.25, 8), 0.1, seed=33),
    "mirrored-8": _mirrored,
    "outward-8": _outward,
    "shell-32": _shell,
    "half-space-2": lambda: _half_space(2),
    "half-space-16": lambda: _half_space(16),
}
