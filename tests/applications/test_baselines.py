"""Baselines on a linear generator: they arrive where they should, and are never shown the truth."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import baselines
from jaxgen.core.errors import InputError
from tests.toys import LinearGaussian

TOY = LinearGaussian(3)
TARGET = TOY.posterior


@pytest.mark.parametrize("method", ["adam", "sgd"])
def test_descent_arrives_at_the_best_fit(method):
    found = baselines.descend(
        jax.random.key(0), TARGET, 0.05, method=method, num_steps=2000, num_chains=3
    )
    wanted = np.linalg.solve(TOY.a, TOY.y - TOY.b)  # no prior: the fit is perfect
    np.testing.assert_allclose(found.position, np.tile(wanted, (3, 1)), atol=0.05)
    np.testing.assert_allclose(found.image.ravel(), TOY.y, atol=0.02)
    assert (found.num_gradients, found.num_evaluations) == (2000, 0)


def test_the_estimate_is_the_best_by_the_objective_alone():
    found = baselines.descend(jax.random.key(1), TARGET, 0.01, num_steps=3, num_chains=8)
    best = int(np.argmax(found.score))
    np.testing.assert_array_equal(found.image, found.images[best])
    density = jax.vmap(TARGET.log_likelihood)(found.position)
    np.testing.assert_allclose(found.score, density, rtol=1e-5)
    np.testing.assert_allclose(found.mean, found.images.mean(axis=0), rtol=1e-5)
    many = baselines.descend(jax.random.key(1), TARGET, 1e-6, num_steps=1, best_of=200)
    assert many.score[0] > found.score.min()
    assert many.num_evaluations == 199
    for function in (baselines.descend, baselines.cogeneration, baselines.tempered):
        assert "truth" not in inspect.signature(function).parameters


def test_the_rate_is_tuned_by_the_objective():
    rate = baselines.tune(jax.random.key(2), [TARGET], rates=(1e-6, 0.1), num_steps=100)
    assert rate == 0.1
    with pytest.raises(InputError, match="at least one"):
        baselines.tune(jax.random.key(2), [])
    with pytest.raises(InputError, match="method"):
        baselines.descend(jax.random.key(0), TARGET, 0.1, method="newton")


def test_the_authors_sampler_loses_the_prior_at_its_last_temperature():
    # Long enough for the step, which begins at 0.01 and grows by 2% at a time.
    betas = np.linspace(0, 1, 301)
    found = baselines.cogeneration(
        jax.random.key(3), TARGET, num_chains=200, betas=betas, num_leapfrog=10
    )
    fit = np.linalg.solve(TOY.a, TOY.y - TOY.b)
    spread = np.sqrt(np.diag(TOY.noise**2 * np.linalg.inv(TOY.a.T @ TOY.a)))
    position = np.asarray(found.position)
    assert np.all(np.abs(position.mean(axis=0) - fit) < 0.4 * spread)
    np.testing.assert_allclose(position.std(axis=0), spread, rtol=0.3)
    assert found.num_gradients == 10 * 300 + 1  # the first state


@pytest.mark.slow
def test_without_annealing_and_tempered():
    plain = baselines.cogeneration(
        jax.random.key(4), TARGET, num_chains=3, betas=[0.0, 0.5, 0.9], annealed=False
    )
    assert plain.images.shape == (3, 3, 1, 1)
    smc = baselines.tempered(jax.random.key(5), TARGET, num_chains=400)
    np.testing.assert_allclose(smc.weights.sum(), 1.0, rtol=1e-5)
    spread = np.sqrt(np.diag(TOY.covariance))
    mean = smc.weights @ np.asarray(smc.position)
    assert np.all(np.abs(mean - TOY.mean) < 5 * spread / np.sqrt(100))
    assert jnp.isfinite(smc.score).all()
