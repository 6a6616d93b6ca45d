"""Small models whose posteriors are known exactly, shared by tests and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxgen
from jaxgen.core.pytree import pytree
from jaxgen.posteriors import linear_gaussian
from jaxgen.posteriors.linear_gaussian import Affine, identity

__all__ = [
    "Affine",
    "LinearGaussian",
    "RowImage",
    "Skewed",
    "as_image",
    "identity",
    "skewed_moments",
    "skewed_posterior",
]


# `LinearGaussian(size, noise, seed)`: y = A z + b + noise, with everything in closed form.
LinearGaussian = linear_gaussian.LinearGaussian.random


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
