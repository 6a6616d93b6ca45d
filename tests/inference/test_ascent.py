"""Ascent finds known optima, and its options do what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxgen
from jaxgen import InputError
from tests.toys import LinearGaussian

PROBLEM = LinearGaussian(3, noise=0.4)
FAST = optax.adam(0.05)


def test_map_of_a_gaussian_is_its_mean():
    result = jaxgen.ascend(jax.random.key(0), PROBLEM.posterior, FAST, num_chains=5, num_steps=800)
    np.testing.assert_allclose(result.position, np.tile(PROBLEM.mean, (5, 1)), atol=1e-2)
    want = float(PROBLEM.posterior(jnp.asarray(PROBLEM.mean, jnp.float32)))
    np.testing.assert_allclose(result.objective, want, atol=1e-3)
    assert result.history.shape == (800,)
    assert result.history[-1] > result.history[0]
    assert result.exactness == "approximate"


def test_without_the_prior_it_fits_the_observation():
    result = jaxgen.ascend(
        jax.random.key(0), PROBLEM.posterior, FAST, num_chains=2, num_steps=4000, prior_weight=0.0
    )
    want = np.linalg.solve(PROBLEM.a, PROBLEM.y - PROBLEM.b)
    np.testing.assert_allclose(result.position[0], want, atol=0.05)


def test_clipping_and_best_of():
    clipped = jaxgen.ascend(
        jax.random.key(0), PROBLEM.posterior, FAST, num_chains=4, num_steps=100, clip=(-0.1, 0.2)
    )
    assert np.asarray(clipped.position).min() >= -0.1
    assert np.asarray(clipped.position).max() <= 0.2
    still = optax.sgd(0.0)
    one = jaxgen.ascend(jax.random.key(1), PROBLEM.posterior, still, num_chains=20, num_steps=1)
    best = jaxgen.ascend(
        jax.random.key(1), PROBLEM.posterior, still, num_chains=20, num_steps=1, best_of=50
    )
    assert np.all(best.objective >= one.objective)
    assert best.objective.mean() > one.objective.mean() + 1
    assert best.num_evaluations == 49


def test_a_score_prior_can_be_climbed():
    prior = jaxgen.ScorePrior(jnp.negative, jaxgen.Gaussian.standard(3))
    posterior = jaxgen.Posterior(prior, PROBLEM.posterior.generator, PROBLEM.posterior.condition)
    result = jaxgen.ascend(jax.random.key(0), posterior, FAST, num_chains=2, num_steps=800)
    np.testing.assert_allclose(result.position[0], PROBLEM.mean, atol=1e-2)


def test_bad_input():
    with pytest.raises(InputError, match="best_of"):
        jaxgen.ascend(jax.random.key(0), PROBLEM.posterior, best_of=0)
    with pytest.raises(InputError, match="low < high"):
        jaxgen.ascend(jax.random.key(0), PROBLEM.posterior, clip=(1.0, -1.0))
    with pytest.raises(InputError, match="Lower the learning rate"):
        jaxgen.ascend(
            jax.random.key(0), PROBLEM.posterior, optax.sgd(1e6), num_chains=2, num_steps=50
        )
