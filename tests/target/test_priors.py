"""Priors against SciPy, and their refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxgen import Box, Gaussian, InputError, ScorePrior, Sphere


def draws(prior, n=4000):
    return jax.vmap(prior.sample)(jax.random.split(jax.random.key(0), n))


def test_gaussian_density_is_scipys():
    mean, scale = np.array([1.0, -2.0, 0.5]), np.array([0.3, 2.0, 1.0])
    z = np.array([0.7, 1.0, -1.0])
    prior = Gaussian(jnp.asarray(mean), jnp.asarray(scale))
    want = stats.norm(mean, scale).logpdf(z).sum()
    np.testing.assert_allclose(prior.log_prob(jnp.asarray(z)), want, rtol=1e-5)


def test_gaussian_draws_have_its_moments():
    prior = Gaussian(jnp.array([1.0, -2.0]), jnp.array([0.5, 3.0]))
    z = np.asarray(draws(prior))
    assert stats.kstest((z[:, 0] - 1) / 0.5, "norm").pvalue > 1e-3
    assert stats.kstest((z[:, 1] + 2) / 3.0, "norm").pvalue > 1e-3


def test_gaussian_over_a_tree_of_latents():
    mean = {"a": jnp.zeros((2, 3)), "b": jnp.ones(4)}
    scale = jax.tree.map(lambda m: 2 * jnp.ones_like(m), mean)
    prior = Gaussian(mean, scale)
    z = prior.sample(jax.random.key(1))
    assert jax.tree.map(jnp.shape, z) == {"a": (2, 3), "b": (4,)}
    want = sum(stats.norm(m, 2.0).logpdf(x).sum() for m, x in ((0, z["a"]), (1, z["b"])))
    np.testing.assert_allclose(prior.log_prob(z), want, rtol=1e-5)
    # Leaves have keys of their own.
    assert not np.allclose(z["a"].ravel()[:4], z["b"] - 1)


def test_box_latents_are_uniform_and_inside():
    prior = Box(jnp.array([-1.0, 2.0]), jnp.array([1.0, 5.0]))
    z = np.asarray(jax.vmap(prior.latent)(draws(prior)))
    assert stats.kstest(z[:, 0], stats.uniform(-1, 2).cdf).pvalue > 1e-3
    assert stats.kstest(z[:, 1], stats.uniform(2, 3).cdf).pvalue > 1e-3


def test_sphere_latents_have_its_radius_and_any_direction():
    z = np.asarray(jax.vmap(Sphere.of(5).latent)(draws(Sphere.of(5))))
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), np.sqrt(5), rtol=1e-5)
    # One coordinate u of a uniform direction in R^5: (u + 1) / 2 ~ Beta(2, 2).
    assert stats.kstest((z[:, 0] / np.sqrt(5) + 1) / 2, stats.beta(2, 2).cdf).pvalue > 1e-3


def test_denoising_score_of_a_gaussian_is_its_score():
    # The optimal denoiser of N(0, 1) data under noise s is R(z) = z / (1 + s^2).
    s = 0.1
    prior = ScorePrior.denoising(lambda z: z / (1 + s**2), s, Gaussian.standard(2))
    z = jnp.array([1.0, -2.0])
    np.testing.assert_allclose(prior.score(z), -z / (1 + s**2), rtol=1e-4)


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        (Gaussian(jnp.zeros(3), jnp.array([1.0, 0.0, 1.0])), "Gaussian.scale"),
        (Gaussian(jnp.zeros(3), jnp.ones(2)), "Gaussian.scale"),
        (Gaussian(jnp.array([jnp.nan]), jnp.ones(1)), "Gaussian.mean"),
        (Box(jnp.ones(2), jnp.zeros(2)), "Box"),
        (Sphere(jnp.zeros(2), jnp.array(-1.0)), "Sphere.radius"),
    ],
)
def test_impossible_priors_are_refused(prior, words):
    with pytest.raises(InputError, match=words):
        prior.check()
