"""The fitted mixture, and the bridge from it to a path's end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import stats

import jaxgen
from jaxgen.target.path import likelihood_path
from jaxgen.target.proposal import bridged, fit_mixture, no_mixture, unbridged_tilt
from tests import toys


def fit(z, log_weight, inverse_mass):
    """The mixture of points that lie in one place."""
    count, size = z.shape
    same = jnp.ones((count, count), bool)
    return fit_mixture(z, log_weight, inverse_mass, same, jnp.zeros((count, size)))


def draws(count=200, seed=0):
    """Weighted draws from two Gaussians of a common, correlated covariance in 3 dimensions."""
    rng = np.random.default_rng(seed)
    factor = np.array([[1.0, 0, 0], [0.8, 0.5, 0], [-0.3, 0.2, 0.1]])
    centre = np.where(rng.random(count)[:, None] < 0.3, -2.0, 2.0) * np.ones(3)
    z = jnp.asarray(centre + rng.normal(size=(count, 3)) @ factor.T, jnp.float32)
    return z, jnp.asarray(rng.normal(size=count) * 0.3, jnp.float32)


def test_log_density_is_that_of_the_mixture_written_out():
    z, log_weight = draws(20)
    mixture, _ = fit(z, log_weight, jnp.ones(3))
    width = float(mixture.width)
    colour = np.asarray(mixture.colour, np.float64)
    centres = np.asarray(mixture.mean) + np.asarray(mixture.centres, np.float64) @ colour
    weights = np.exp(np.asarray(mixture.log_weight, np.float64))
    assert weights.sum() == pytest.approx(1, abs=1e-5)
    at = np.array([[0.3, -1.0, 0.5], [2.0, 2.0, 2.0]])
    covariance = width**2 * colour.T @ colour
    for point in at:
        parts = [stats.multivariate_normal(c, covariance).pdf(point) for c in centres]
        expected = np.log(weights @ parts)
        assert float(mixture.log_prob(jnp.asarray(point, jnp.float32))) == pytest.approx(
            expected, rel=1e-3
        )


def test_draws_of_a_mixture_have_the_moments_of_what_it_was_fitted_to():
    z, log_weight = draws()
    mixture, _ = fit(z, log_weight, jnp.ones(3))
    new = np.asarray(jax.vmap(mixture.sample)(jax.random.split(jax.random.key(1), 20000)))
    weight = np.asarray(jax.nn.softmax(log_weight))
    mean = weight @ np.asarray(z)
    centred = np.asarray(z) - mean[None]
    covariance = (weight[:, None] * centred).T @ centred
    spread = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(new.mean(0), mean, atol=0.1 * spread.max())
    # The kernels are a little wider than the shrinkage asks for.
    assert np.all(np.std(new, axis=0) > 0.97 * spread)
    assert np.all(np.std(new, axis=0) < 1.3 * spread)


def test_two_modes_are_followed_where_one_gaussian_would_not_do():
    z, log_weight = draws()
    mixture, near = fit(z, log_weight, jnp.ones(3))
    assert float(jnp.abs(mixture.centres).max()) > 0  # a > 0: not one Gaussian
    middle = mixture.log_prob(jnp.zeros(3))
    assert float(mixture.log_prob(2.0 * jnp.ones(3)) - middle) > 1
    one = stats.multivariate_normal(np.mean(z, 0), np.cov(np.asarray(z).T))
    assert float(near) > one.logpdf(np.asarray(z)).mean()


def test_chains_in_separate_places_are_told_from_one_wide_mode():
    rng = np.random.default_rng(4)
    one = jnp.asarray(rng.normal(size=(64, 8)), jnp.float32)
    sides = jnp.where(jnp.arange(64)[:, None] < 20, -5.0, 5.0) * jnp.ones((64, 8))
    assert not bool(fit(one, jnp.zeros(64), jnp.ones(8))[0].is_scattered)
    assert bool(fit(one + sides, jnp.zeros(64), jnp.ones(8))[0].is_scattered)


def test_an_inverse_mass_that_is_wrong_does_not_take_one_mode_for_separate_places():
    """Of 64 scores in 128 dimensions it is: log Z was a nat too low where it was taken so."""
    rng = np.random.default_rng(6)
    one = jnp.asarray(rng.normal(size=(64, 128)), jnp.float32)
    wrong = jnp.ones(128).at[:3].set(1e-3)
    assert not bool(fit(one, jnp.zeros(64), wrong)[0].is_scattered)
    heavy = jnp.asarray(rng.standard_t(2, size=(64, 8)), jnp.float32)
    assert not bool(fit(heavy, jnp.zeros(64), 0.01 * jnp.ones(8))[0].is_scattered)
    ring = jnp.stack([jnp.cos(jnp.arange(64.0)), jnp.sin(jnp.arange(64.0))], axis=1)
    assert bool(fit(ring, jnp.zeros(64), 1e-3 * jnp.ones(2))[0].is_scattered)


def test_points_in_two_places_have_the_covariance_around_their_own_means():
    rng = np.random.default_rng(4)
    one = rng.normal(size=(64, 8))
    right = np.arange(64) < 44
    z = jnp.asarray(one + np.where(right, 5.0, -5.0)[:, None], jnp.float32)
    same = jnp.asarray(right[:, None] == right[None])
    mixture, near = fit_mixture(z, jnp.zeros(64), jnp.ones(8), same, jnp.zeros((64, 8)))
    assert not bool(mixture.is_scattered)
    spread = np.sqrt(np.diag(mixture.colour.T @ mixture.colour))
    assert np.all(np.abs(np.log(spread)) < np.log(1.4))
    # Nearer than one place could be, and hardly above what the truth itself has.
    assert float(near) > float(fit(z, jnp.zeros(64), jnp.ones(8))[1]) + 1
    truth = np.log(44 / 64 * (right) + 20 / 64 * (~right)).mean()
    truth += stats.multivariate_normal(np.zeros(8)).logpdf(one).mean()
    assert float(near) == pytest.approx(truth, abs=2.0)


def test_a_pull_to_the_modes_takes_the_noise_out_of_the_means():
    rng = np.random.default_rng(5)
    one = rng.normal(size=(12, 16))
    right = np.arange(12) < 8
    modes = np.where(right, 5.0, -5.0)[:, None] * np.ones(16)
    z, same = jnp.asarray(one + modes, jnp.float32), jnp.asarray(right[:, None] == right[None])
    pull = jnp.asarray(-one, jnp.float32)  # S g of a standard normal around the modes
    mixture, _ = fit_mixture(z, jnp.zeros(12), jnp.ones(16), same, pull)
    # The mean over places of (place + a white) is the place where the mean of white is small.
    a = np.sqrt(1 - (float(mixture.width) / 1.2) ** 2)
    white = (np.asarray(z) - modes) @ np.asarray(mixture.whiten)
    centres = np.asarray(mixture.centres) - a * white
    found = np.asarray(mixture.mean) + centres @ np.asarray(mixture.colour)
    np.testing.assert_allclose(found, modes, atol=1e-3)


def test_few_draws_in_many_dimensions_take_the_shape_of_the_inverse_mass():
    rng = np.random.default_rng(2)
    scale = np.geomspace(0.01, 1.0, 40)
    z = jnp.asarray(rng.normal(size=(16, 40)) * scale, jnp.float32)
    mixture, _ = fit(z, jnp.zeros(16), jnp.asarray(scale**2, jnp.float32))
    spread = np.sqrt(np.diag(mixture.colour.T @ mixture.colour))
    assert np.all(np.abs(np.log(spread / scale)) < np.log(2))


def test_latents_of_several_arrays():
    like = {"a": jnp.zeros(2), "b": jnp.zeros((1, 3))}
    mixture = no_mixture(like, 4)
    drawn = mixture.sample(jax.random.key(0))
    assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(jnp.shape, like)
    flat = np.asarray(ravel_pytree(drawn)[0])
    expected = stats.norm.logpdf(flat).sum()
    assert float(mixture.log_prob(drawn)) == pytest.approx(expected, rel=1e-5)


def test_the_bridge_ends_where_the_path_ends_and_is_the_path_when_it_is_off():
    path = likelihood_path(toys.LinearGaussian(3).posterior)
    mixture, _ = fit(*draws(20), jnp.ones(3))
    z = jnp.array([0.2, -0.4, 1.0])
    on, off = (bridged(path, mixture, jnp.array(flag)) for flag in (True, False))
    assert float(on(z, 0.0)) == pytest.approx(float(mixture.log_prob(z)), rel=1e-5)
    assert float(on(z, 1.0)) == pytest.approx(float(path(z, 1.0)), rel=1e-5)
    for beta in (0.0, 0.3, 1.0):
        assert float(off(z, beta)) == float(path(z, beta))
    key = jax.random.key(3)
    np.testing.assert_allclose(on.start.sample(key), mixture.sample(key), rtol=1e-5)
    np.testing.assert_array_equal(off.start.sample(key), path.start.sample(key))
    own = unbridged_tilt(on.tilt(z), on.base(z), path.base(z))
    assert float(own) == pytest.approx(float(path.tilt(z)), rel=1e-4)
    assert bridged(path, None, jnp.array(False)) is path


def test_a_pilot_that_is_wrong_by_nats_leaves_log_z_right():
    """Chains fitted to the wrong place: the weights of the second annealing make up for it."""
    model = toys.LinearGaussian(2, noise=0.3)
    path = likelihood_path(model.posterior)
    rng = np.random.default_rng(0)
    off = model.mean + 0.5 + 0.5 * rng.normal(size=(64, 2))
    mixture, _ = fit(jnp.asarray(off, jnp.float32), jnp.zeros(64), jnp.ones(2))
    bridge = bridged(path, mixture, jnp.array(True))
    result = jaxgen.ais(
        jax.random.key(0), bridge, betas=jaxgen.schedules.linear(20), num_chains=512
    )
    assert result.log_z == pytest.approx(model.log_z, abs=4 * result.log_z_standard_error)
    assert result.log_z_standard_error < 0.1
