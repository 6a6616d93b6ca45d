"""Small models whose posteriors are known exactly, shared by tests and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import jaxgen
from jaxgen.core.pytree import pytree


@pytree
class Affine:
    """G(z) = A z + b as an image of one column."""

    matrix: jax.Array
    offset: jax.Array

    def __call__(self, z):
        return (self.matrix @ z + self.offset)[:, None, None]


def identity(image):
    return image


class LinearGaussian:
    """y = A z + b + noise, z ~ N(0, I): everything is known in closed form."""

    def __init__(self, size, noise=0.5, seed=0):
        rng = np.random.default_rng(seed)
        self.a = rng.normal(size=(size, size)) / np.sqrt(size)
        self.b = 0.1 * rng.normal(size=size)
        self.y = self.a @ rng.normal(size=size) + self.b + noise * rng.normal(size=size)
        self.noise = noise
        marginal = self.a @ self.a.T + noise**2 * np.eye(size)
        self.log_z = stats.multivariate_normal(self.b, marginal).logpdf(self.y)
        self.covariance = np.linalg.inv(np.eye(size) + self.a.T @ self.a / noise**2)
        self.mean = self.covariance @ self.a.T @ (self.y - self.b) / noise**2
        generator = Affine(jnp.asarray(self.a, jnp.float32), jnp.asarray(self.b, jnp.float32))
        observed = jnp.asarray(self.y, jnp.float32)[:, None, None]
        self.posterior = jaxgen.Posterior(
            jaxgen.Gaussian.standard(size),
            generator,
            jaxgen.Operator(observed, jnp.float32(noise), forward=identity),
        )


@pytree
class Skewed:
    """log likelihood a z - exp(z): with N(0, 1) before it, a target skewed to the left.

    A symmetric target cannot tell a kernel that mirrors its proposals (or a solver with a
    sign error) from a right one.
    """

    a: jax.Array

    def __call__(self, image):
        z = image[..., 0]
        return jnp.sum(self.a * z - jnp.exp(z))


def skewed_moments(a, beta, power):
    """E[z^power] under N(z; 0, 1) exp(beta (a z - exp z)), by quadrature."""
    z = np.linspace(-12, 6, 200001)
    weight = np.exp(-(z**2) / 2 + beta * (a * z - np.exp(z)))
    return np.sum(z**power * weight) / np.sum(weight)


def as_image(z):
    """A latent vector as an image of one row."""
    return z[None, :, None]


@pytree
class RowImage:
    """G(z) = z, as an image of one row."""

    def __call__(self, z):
        return as_image(z)


def skewed_posterior(size=2, a=1.5):
    return jaxgen.Posterior(
        jaxgen.Gaussian.standard(size),
        RowImage(),
        jaxgen.target.conditions.Term(Skewed(jnp.float32(a))),
    )
