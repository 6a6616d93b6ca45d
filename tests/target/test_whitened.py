"""A posterior in whitened coordinates is the same posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen import kernels
from jaxgen.core.errors import InputError
from jaxgen.core.pytree import pytree
from jaxgen.target.conditions import ObservedPixels
from jaxgen.target.whitened import fisher_information, whitened


@pytree
class Linear:
    """z -> an image of 2 x 3 pixels."""

    matrix: object

    def __call__(self, z):
        return jnp.reshape(self.matrix @ z + 0.5, (2, 3, 1))


MEAN, SCALE, NOISE = np.array([0.3, -0.2, 0.1, 0.0]), np.array([0.5, 2.0, 1.0, 0.7]), 0.05


@pytest.fixture
def linear():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(6, 4)) * np.array([1.0, 0.3, 0.05, 0.0])
    mask = np.array([[1, 1, 0], [1, 1, 1]], np.float32)
    y = rng.uniform(0.3, 0.7, size=(2, 3, 1))
    prior = jaxgen.Gaussian(jnp.asarray(MEAN, jnp.float32), jnp.asarray(SCALE, jnp.float32))
    condition = ObservedPixels(jnp.asarray(y, jnp.float32), jnp.asarray(mask), jnp.float32(NOISE))
    network = Linear(jnp.asarray(matrix, jnp.float32))
    kept = mask.ravel() > 0
    return jaxgen.Posterior(prior, network, condition), matrix[kept], y.ravel()[kept]


def exact_log_z(matrix, y):
    """The evidence of a linear Gaussian model."""
    cov = matrix @ np.diag(SCALE**2) @ matrix.T + NOISE**2 * np.eye(len(y))
    miss = y - 0.5 - matrix @ MEAN
    _, volume = np.linalg.slogdet(cov)
    return -0.5 * (miss @ np.linalg.solve(cov, miss) + volume + len(y) * np.log(2 * np.pi))


def test_information_is_that_of_the_jacobian(linear):
    posterior, matrix, _ = linear
    found = np.asarray(fisher_information(0, posterior, probes=20_000, batch=1000))
    wanted = matrix.T @ matrix / NOISE**2
    np.testing.assert_allclose(found, wanted, atol=0.03 * np.abs(wanted).max())
    latents = jnp.zeros((3, 4))
    again = fisher_information(0, posterior, latents, probes=20_000, batch=1000)
    np.testing.assert_allclose(again, wanted, atol=0.03 * np.abs(wanted).max())


def test_coordinates_are_white_and_the_density_keeps_its_volume(linear):
    posterior, matrix, _ = linear
    information = jnp.asarray(matrix.T @ matrix / NOISE**2, jnp.float32)
    white = whitened(posterior, information)
    u = jax.random.normal(jax.random.key(1), (4,))
    hessian = jax.hessian(white)(u)
    np.testing.assert_allclose(hessian, -np.eye(4), atol=2e-3)
    z = white.prior.latent(u)
    np.testing.assert_allclose(white.prior.coordinates(z), u, atol=1e-4)
    volume = np.linalg.slogdet(np.asarray(white.prior.factor, np.float64))[1]
    assert float(white(u) - posterior(z)) == pytest.approx(volume, abs=1e-3)


def test_draws_of_the_prior_are_those_of_the_prior(linear):
    white = whitened(linear[0], key=0)
    keys = jax.random.split(jax.random.key(2), 4000)
    z = jax.vmap(lambda k: white.prior.latent(white.prior.sample(k)))(keys)
    np.testing.assert_allclose(np.mean(z, 0), MEAN, atol=0.12)
    np.testing.assert_allclose(np.std(z, 0), SCALE, rtol=0.06)


def test_log_z_is_right_whatever_the_information(linear):
    posterior, matrix, y = linear
    # Information that is wrong by a factor of four makes poor coordinates, not a wrong answer.
    information = jnp.asarray(matrix.T @ matrix / NOISE**2 / 4, jnp.float32)
    result = jaxgen.sample(
        jax.random.key(3), whitened(posterior, information), kernels.HMC(4), num_chains=64,
        num_steps=0, warmup=0, pilot=False, precondition=False, num_mcmc_steps=3,
    )  # fmt: skip
    error = max(result.log_z_standard_error, 0.05)
    assert abs(result.log_z - exact_log_z(matrix, y)) < 5 * error
    assert error < 0.5


def test_what_cannot_be_whitened_is_refused(linear):
    posterior, _, _ = linear
    with pytest.raises(InputError, match="prior: expected a Gaussian prior; got Sphere"):
        whitened(jaxgen.Posterior(jaxgen.Sphere.of(4), posterior.generator, posterior.condition))
    with pytest.raises(InputError, match=r"information: expected shape \[4, 4\]; got \[3, 3\]"):
        whitened(posterior, jnp.eye(3))
    other = jaxgen.Posterior(posterior.prior, posterior.generator, lambda image: jnp.sum(image))
    with pytest.raises(InputError, match="Gaussian noise of a known level"):
        whitened(other)
