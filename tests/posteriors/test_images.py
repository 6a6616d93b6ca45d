"""The stored answers of posteriors through the shipped networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxgen
from jaxgen import posteriors
from jaxgen.posteriors import images

CLASSES = [name for name in posteriors.names() if name.startswith("dcgan-class-")]
PIXELS = [name for name in posteriors.names() if name in images.POSTERIORS and name not in CLASSES]


@jax.jit
def log_likelihoods(posterior, z):
    return jax.lax.map(posterior.log_likelihood, z, batch_size=100)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSES[:1])
def test_a_class_by_other_draws_of_the_prior(name):
    reference = posteriors.get(name)
    z = jax.random.normal(jax.random.key(77), (4000, 64))
    p = np.exp(np.asarray(log_likelihoods(reference.posterior, z), np.float64))
    error = p.std() / p.mean() / np.sqrt(len(p))
    assert abs(np.log(p.mean()) - reference.log_z) < 4 * np.hypot(error, reference.log_z_error)
    assert reference.log_z_error < 0.02
    exact = reference.draws(jax.random.key(1), 300)
    assert exact.shape == (300, 64)
    spread = np.sqrt(reference.variance / 300 + reference.mean_error**2)
    most = stats.norm.isf(0.5e-4 / 64)
    assert np.abs((exact.mean(0) - reference.mean) / spread).max() < most
    # They are of the class: p(class) of a posterior draw is E[p^2] / E[p] on average.
    found = np.exp(np.asarray(log_likelihoods(reference.posterior, exact)))
    wanted = np.mean(p**2) / p.mean()
    assert abs(found.mean() - wanted) < 4 * (found.std() / np.sqrt(300) + error)


@pytest.mark.parametrize("name", PIXELS)
def test_the_latent_behind_the_data_is_a_likely_draw(name):
    reference, made = posteriors.get(name), images.simulated(name)
    same = jax.tree.map(np.array_equal, reference.posterior, made.posterior)
    assert all(jax.tree.leaves(same))
    off = (made.latent - reference.mean) / np.sqrt(reference.variance)
    # The sum of d squares of about 1, of which not all are independent.
    assert 0.2 < np.mean(off**2) < 3
    # Latents are better known than beforehand.
    assert reference.variance.mean() < 0.9
    assert reference.log_z_error < 0.2


@pytest.mark.slow
def test_the_bernoulli_autoencoder_by_annealing_from_its_encoder():
    """From q(z | image), by the sampler that the stored answer did not use."""
    reference = posteriors.get("vae-image")
    found = jaxgen.loglik(
        jax.random.key(3),
        reference.posterior.generator,
        np.asarray(reference.posterior.condition.observed)[None],
        jaxgen.BernoulliObservation(),
        prior=reference.posterior.prior,
        encoder=jaxgen.load("fashion-mnist/vae-encoder"),
    )
    error = float(np.hypot(found.standard_error[0], reference.log_z_error))
    assert abs(found.log_prob[0] - reference.log_z) < 4 * error
    assert error < 0.3


@pytest.mark.slow
def test_the_gaussian_autoencoder_by_annealing_from_the_prior():
    """A fixed schedule and fixed steps; its encoder is 11 deviations off on this noisy image."""
    reference = posteriors.get("vae-gaussian-image")
    betas = jaxgen.schedules.sigmoid(400)
    steps = 0.4 * (1 + betas[1:] / reference.variance.mean()) ** -0.5
    result = jaxgen.ais(
        jax.random.key(3),
        reference.posterior,
        jaxgen.kernels.HMC(10),
        betas,
        num_chains=16,
        num_mcmc_steps=4,
        step_size=jaxgen.adapt.PerTemperature(jnp.asarray(steps, jnp.float32)),
    )
    # The weights of 16 chains: the best of them says most.
    error = np.hypot(result.log_z_standard_error, reference.log_z_error)
    assert abs(result.log_z - reference.log_z) < 3 * error
    assert error < 0.8
