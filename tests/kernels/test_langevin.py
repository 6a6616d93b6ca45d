"""MALA-approx against a transcription of the paper's formula in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen import InputError, kernels, schedules
from jaxgen.kernels import KernelParams, StepContext
from jaxgen.target.path import likelihood_path
from jaxgen.target.priors import normal_like
from tests.toys import LinearGaussian

PARAMS = KernelParams(jnp.ones(()), jnp.ones(3))


def test_decoupled_steps_follow_the_formula():
    """h' = h + e1 (R(h) - h) / s^2 + e2 d log p(y|h) + e3 n   (PPGN, Eq. 5), with decay."""
    problem = LinearGaussian(3)
    shrink = 0.8
    prior = jaxgen.ScorePrior.denoising(lambda h: shrink * h, 0.5, jaxgen.Gaussian.standard(3))
    posterior = jaxgen.Posterior(prior, problem.posterior.generator, problem.posterior.condition)
    path = likelihood_path(posterior)
    e1, e2, e3 = 0.02, 0.01, 0.3
    kernel = kernels.MALAApprox(
        e1,
        e2,
        e3,
        step_decay=schedules.PolynomialDecay(1.0, 1.0, 0.5),
        noise_decay=schedules.PolynomialDecay(1.0, 0.0, 0.3),
    )
    state = kernel.init(path, jnp.array([0.5, -1.0, 2.0]))
    h = np.array([0.5, -1.0, 2.0])
    step = jax.jit(kernel.step)
    for t in range(1, 6):
        key = jax.random.fold_in(jax.random.key(0), t)
        state, info = step(key, state, StepContext(path, jnp.ones(()), PARAMS, jnp.asarray(t)))
        noise = np.asarray(normal_like(key, jnp.zeros(3)))
        prior_score = (shrink * h - h) / 0.5**2
        residual = problem.y - problem.a @ h - problem.b
        likelihood_score = problem.a.T @ residual / problem.noise**2
        a, b = (1 + t) ** -0.5, t**-0.3
        h = h + a * (e1 * prior_score + e2 * likelihood_score) + b * e3 * noise
        np.testing.assert_allclose(state.position, h, rtol=1e-4, atol=1e-5)
        assert bool(info.is_accepted)


def test_small_langevin_steps_sample_the_posterior_approximately():
    problem = LinearGaussian(2)
    result = jaxgen.sample(
        jax.random.key(1),
        problem.posterior,
        kernels.MALAApprox.langevin(0.01),
        num_chains=2000,
        warmup=300,
        num_steps=100,
        thin=20,
    )
    assert result.exactness == "approximate"
    assert np.isnan(result.log_z)
    z = result.draws.reshape(-1, 2)
    np.testing.assert_allclose(z.mean(axis=0), problem.mean, atol=0.06)
    np.testing.assert_allclose(np.cov(z.T), problem.covariance, atol=0.08)


def test_negative_weights_are_refused():
    path = likelihood_path(LinearGaussian(3).posterior)
    with pytest.raises(InputError, match=r"MALAApprox\.epsilon2"):
        kernels.MALAApprox(1.0, -1.0, 0.0).check(path)
