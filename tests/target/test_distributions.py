"""Priors from NumPyro and TFP: normalised, inside their support; and labels that are sampled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen.target.distributions import as_prior

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
KEY = jax.random.key(0)


def priors(library):
    if library == "numpyro":
        d = pytest.importorskip("numpyro.distributions")
        return [d.Uniform(-1.0, 3.0), d.Normal(1.0, 2.0), d.Gamma(2.0, 1.0), d.Beta(2.0, 3.0)]
    d = pytest.importorskip("tensorflow_probability.substrates.jax.distributions")
    return [d.Uniform(-1.0, 3.0), d.Normal(1.0, 2.0), d.Gamma(2.0, 1.0), d.Beta(2.0, 3.0)]


MEAN_AND_DEVIATION = [(1.0, 4 / 12**0.5), (1.0, 2.0), (2.0, 2**0.5), (0.4, 0.2)]


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("library", ["numpyro", "tfp"])
def test_density_over_coordinates_is_that_of_the_distribution(library, which):
    prior = as_prior(priors(library)[which])
    prior.check()
    u = jnp.linspace(-25, 25, 40001)
    density = np.exp(np.asarray(jax.vmap(prior.log_prob)(u), np.float64))
    x = np.asarray(jax.vmap(prior.latent)(u), np.float64)
    mean, deviation = MEAN_AND_DEVIATION[which]
    assert np.trapezoid(density, u) == pytest.approx(1, abs=1e-3)
    assert np.trapezoid(density * x, u) == pytest.approx(mean, abs=3e-3)
    second = np.trapezoid(density * (x - mean) ** 2, u)
    assert np.sqrt(second) == pytest.approx(deviation, rel=3e-3)
    drawn = jax.vmap(lambda key: prior.latent(prior.sample(key)))(jax.random.split(KEY, 4000))
    assert float(drawn.mean()) == pytest.approx(mean, abs=5 * deviation / 4000**0.5)


def test_a_batch_of_distributions_is_one_draw():
    d = pytest.importorskip("numpyro.distributions")
    many = as_prior(d.Gamma(2.0 * jnp.ones(5), 1.0))
    one = as_prior(d.Gamma(2.0, 1.0))
    u = many.sample(KEY)
    assert u.shape == (5,)
    np.testing.assert_allclose(many.log_prob(u), sum(one.log_prob(x) for x in u), rtol=1e-5)


def test_a_constant_volume_counts_once_for_each_axis():
    tfp = pytest.importorskip("tensorflow_probability.substrates.jax")
    d, b = tfp.distributions, tfp.bijectors
    scaled = as_prior(d.TransformedDistribution(d.Sample(d.Normal(0.0, 1.0), 3), b.Scale(2.0)))
    same = jaxgen.Gaussian(jnp.zeros(3), jnp.full(3, 2.0))
    u = scaled.sample(KEY)
    x = scaled.latent(u)
    volume = jnp.linalg.slogdet(jax.jacobian(scaled.latent)(u))[1]
    np.testing.assert_allclose(scaled.log_prob(u), same.log_prob(x) + volume, rtol=1e-5)


def test_a_joint_distribution_of_tfp():
    d = pytest.importorskip("tensorflow_probability.substrates.jax.distributions")
    joint = {"a": d.Sample(d.Normal(0.0, 1.0), 2), "b": d.Gamma(2.0, 1.0)}
    prior = as_prior(d.JointDistributionNamed(joint))
    prior.check()
    u = jax.jit(lambda prior, key: prior.sample(key))(prior, KEY)
    parts = [as_prior(joint["a"]).log_prob(u["a"]), as_prior(joint["b"]).log_prob(u["b"])]
    np.testing.assert_allclose(prior.log_prob(u), sum(parts), rtol=1e-5)


def test_sampled_labels_have_their_probabilities():
    share = np.array([0.1, 0.2, 0.7])
    prior = jaxgen.RandomLabel(jaxgen.Gaussian.standard(2), jnp.log(jnp.asarray(share)))
    prior.check()
    keys = jax.random.split(KEY, 20000)
    labels = np.asarray(jax.vmap(lambda key: prior.latent(prior.sample(key))["label"])(keys))
    np.testing.assert_allclose(np.bincount(labels) / 20000, share, atol=0.015)
    with pytest.raises(jaxgen.InputError, match=r"RandomLabel.log_probs: .*sum to one"):
        jaxgen.RandomLabel(jaxgen.Gaussian.standard(2), jnp.zeros(3)).check()
