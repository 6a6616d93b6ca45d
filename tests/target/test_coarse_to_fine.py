"""Weights from a coarse posterior to a fine one keep log Z right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen import kernels
from jaxgen.core.errors import InputError
from jaxgen.core.pytree import pytree
from jaxgen.target.coarse_to_fine import coarse_to_fine
from jaxgen.target.conditions import ObservedPixels


@pytree
class Linear:
    """z -> an image of 2 x 4 pixels."""

    matrix: object

    def __call__(self, z):
        return jnp.reshape(self.matrix @ z + 0.5, (2, 4, 1))


NOISE = 0.2


@pytest.fixture
def posteriors():
    rng = np.random.default_rng(4)
    matrix = 0.3 * rng.normal(size=(8, 3))
    # The coarse generator is wrong by a third, and its noise covers that.
    wrong = matrix + 0.2 * rng.normal(size=(8, 3))
    y = (matrix @ rng.normal(size=3) + 0.5 + NOISE * rng.normal(size=8)).reshape(2, 4, 1)
    y = np.clip(y, 0, 1)

    def posterior(matrix, noise):
        condition = ObservedPixels(
            jnp.asarray(y, jnp.float32), jnp.ones((2, 4)), jnp.float32(noise)
        )
        network = Linear(jnp.asarray(matrix, jnp.float32))
        return jaxgen.Posterior(jaxgen.Gaussian.standard(3), network, condition)

    miss = y.ravel() - 0.5

    def evidence(matrix, noise):
        cov = matrix @ matrix.T + noise**2 * np.eye(8)
        value = -0.5 * miss @ np.linalg.solve(cov, miss) - 0.5 * np.linalg.slogdet(cov)[1]
        return value - 4 * np.log(2 * np.pi)

    log_z = evidence(matrix, NOISE)
    # The coarse posterior's evidence is another: without the right weights the test fails.
    assert abs(evidence(wrong, 0.3) - log_z) > 0.7
    precision = np.eye(3) + matrix.T @ matrix / NOISE**2
    mean = np.linalg.solve(precision, matrix.T @ miss / NOISE**2)
    return posterior(wrong, 0.3), posterior(matrix, NOISE), log_z, mean, np.linalg.inv(precision)


@pytest.mark.parametrize("temperatures", [2, 6])
def test_log_z_and_draws_are_those_of_the_fine_posterior(posteriors, temperatures):
    coarse, fine, log_z, mean, covariance = posteriors
    rough = jaxgen.sample(
        0, coarse, kernels.HMC(4), num_chains=256, num_steps=4, thin=2, pilot=False
    )
    path = coarse_to_fine(coarse, fine, rough.draws, rough.log_z)
    found = jaxgen.ais(
        jax.random.key(1), path, kernels.HMC(4), jaxgen.schedules.linear(temperatures),
        num_chains=512, step_size=0.25, num_mcmc_steps=1,
    )  # fmt: skip
    error = np.hypot(found.log_z_standard_error, rough.log_z_standard_error)
    assert abs(found.log_z - log_z) < 5 * max(error, 0.02)
    assert error < 0.3
    weights = np.exp(found.log_weight - np.max(found.log_weight))
    weights /= weights.sum()
    position = np.asarray(found.position)
    spread = np.sqrt(np.diag(covariance))
    assert np.all(np.abs(weights @ position - mean) < 0.35 * spread)
    assert found.ess > 50


def test_draws_and_evidence_are_checked(posteriors):
    coarse, fine, *_ = posteriors
    good = np.zeros((4, 2, 3), np.float32)
    with pytest.raises(InputError, match="log_z: expected the coarse posterior's log evidence"):
        coarse_to_fine(coarse, fine, good, np.nan)
    with pytest.raises(InputError, match=r"draws: expected arrays \[C, S, ...\]"):
        coarse_to_fine(coarse, fine, np.zeros(3, np.float32), 0.0)
    with pytest.raises(InputError, match="draws: expected finite positions"):
        coarse_to_fine(coarse, fine, good + np.inf, 0.0)
