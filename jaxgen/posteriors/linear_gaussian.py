"""Linear-Gaussian posteriors, of which everything is known in closed form.

    z ~ N(0, I),  y = A z + b + noise * eps
    log Z = log N(y; b, A A^T + noise^2 I)
    covariance S = (I + A^T A / noise^2)^-1,  mean = S A^T (y - b) / noise^2

(Bishop, Pattern Recognition and Machine Learning, Eqs. 2.113 to 2.117.) The answers are
computed in float64 from the float32 numbers that the posterior holds, so that they belong to
the very posterior that is sampled.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxgen.core.pytree import pytree
from jaxgen.core.types import Array, PRNGKey
from jaxgen.posteriors.reference import ReferencePosterior, generator_of
from jaxgen.target.conditions import Operator
from jaxgen.target.posterior import Posterior
from jaxgen.target.priors import Gaussian

__all__ = ["BUILDERS", "Affine", "LinearGaussian", "identity"]


@pytree
class Affine:
    """G(z) = A z + b as an image of one column, `[D, 1, 1]`."""

    matrix: Array
    offset: Array

    def __call__(self, z: Array) -> Array:
        """Return A z + b, in full float32 precision on every device."""
        product = jnp.matmul(self.matrix, z, precision=jax.lax.Precision.HIGHEST)
        return (product + self.offset)[:, None, None]


def identity(image: Array) -> Array:
    """Return the image: what is observed is the whole of it."""
    return image


class LinearGaussian:
    """y = A z + b + noise, z ~ N(0, I), and its exact answers.

    Attributes:
      a, b, y: `[D, d]`, `[D]`, `[D]` in float64, holding float32 numbers.
      noise: the standard deviation of the noise, a float32 number.
      log_z: the exact log evidence.
      mean, covariance: `[d]` and `[d, d]`, of the posterior.
      posterior: the posterior itself.
    """

    def __init__(
        self, matrix: ArrayLike, offset: ArrayLike, observed: ArrayLike, noise: float
    ) -> None:
        single = [np.asarray(x, np.float32) for x in (matrix, offset, observed, noise)]
        self.a, self.b, self.y = (np.asarray(x, np.float64) for x in single[:3])
        self.noise = float(single[3])
        residual = self.y - self.b
        size, dimension = self.a.shape
        marginal = self.a @ self.a.T + self.noise**2 * np.eye(size)
        self.log_z = float(
            -0.5 * residual @ np.linalg.solve(marginal, residual)
            - 0.5 * np.linalg.slogdet(marginal)[1]
            - 0.5 * size * np.log(2 * np.pi)
        )
        precision = np.eye(dimension) + self.a.T @ self.a / self.noise**2
        covariance = np.linalg.inv(precision)
        self.covariance = 0.5 * (covariance + covariance.T)
        self.mean = self.covariance @ (self.a.T @ residual) / self.noise**2
        self.posterior = Posterior(
            Gaussian.standard(dimension),
            Affine(jnp.asarray(single[0]), jnp.asarray(single[1])),
            Operator(
                jnp.asarray(single[2])[:, None, None], jnp.asarray(single[3]), forward=identity
            ),
        )

    @classmethod
    def random(cls, size: int, noise: float = 0.5, seed: int = 0) -> LinearGaussian:
        """Return a square A with entries N(0, 1/d), and an observation drawn from the model."""
        rng = np.random.default_rng(seed)
        a = rng.normal(size=(size, size)) / np.sqrt(size)
        b = 0.1 * rng.normal(size=size)
        y = a @ rng.normal(size=size) + b + noise * rng.normal(size=size)
        return cls(a, b, y, noise)

    @classmethod
    def conditioned(
        cls, size: int, condition: float, noise: float, seed: int = 0
    ) -> LinearGaussian:
        """Return A = U S V^T with singular values from 1 down to 1 / condition, evenly in log."""
        rng = np.random.default_rng(seed)
        u, v = (np.linalg.qr(rng.normal(size=(size, size)))[0] for _ in range(2))
        a = u * np.geomspace(1.0, 1.0 / condition, size) @ v.T
        y = a @ rng.normal(size=size) + noise * rng.normal(size=size)
        return cls(a, np.zeros(size), y, noise)

    @classmethod
    def every_latent(cls, size: int, width: float = 0.3, seed: int = 0) -> LinearGaussian:
        """Return A = I: every latent is observed directly, with noise of the given width."""
        rng = np.random.default_rng(seed)
        y = rng.normal(size=size) + width * rng.normal(size=size)
        return cls(np.eye(size), np.zeros(size), y, width)

    def draws(self, key: PRNGKey, count: int) -> np.ndarray:
        """Exact draws `[count, d]`, float32."""
        factor = np.linalg.cholesky(self.covariance)
        noise = generator_of(key).normal(size=(count, len(self.mean)))
        return (self.mean + noise @ factor.T).astype(np.float32)

    def reference(self, name: str) -> ReferencePosterior:
        """Return the record of the reference set."""
        return ReferencePosterior(
            name=name,
            posterior=self.posterior,
            dimension=len(self.mean),
            log_z=self.log_z,
            mean=self.mean,
            variance=np.diag(self.covariance).copy(),
            covariance=self.covariance,
            draws=self.draws,
            how="Closed form, evaluated in float64: the model is linear and Gaussian.",
        )


# name: how the model is made. "linear-gaussian-64" is tests.toys.LinearGaussian(64, 0.1, 3).
_MODELS = {
    "linear-gaussian-2": (LinearGaussian.random, (2, 1.0, 1)),
    "linear-gaussian-8": (LinearGaussian.random, (8, 0.3, 2)),
    "linear-gaussian-20": (LinearGaussian.random, (20, 0.1, 3)),
    "linear-gaussian-32": (LinearGaussian.random, (32, 0.1, 3)),
    "linear-gaussian-64": (LinearGaussian.random, (64, 0.1, 3)),
    "linear-gaussian-128": (LinearGaussian.random, (128, 0.1, 3)),
    "condition-1e2-64": (LinearGaussian.conditioned, (64, 1e2, 1e-2, 4)),
    "condition-1e4-64": (LinearGaussian.conditioned, (64, 1e4, 1e-3, 5)),
    "every-latent-8": (LinearGaussian.every_latent, (8,)),
    "every-latent-32": (LinearGaussian.every_latent, (32,)),
    "every-latent-64": (LinearGaussian.every_latent, (64,)),
    "every-latent-128": (LinearGaussian.every_latent, (128,)),
}


def _builder(name: str) -> Any:
    make, arguments = _MODELS[name]
    return lambda: make(*arguments).reference(name)


BUILDERS = {name: _builder(name) for name in _MODELS}
