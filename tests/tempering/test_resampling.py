"""Weights: ESS, log Z and its error, and what resampling keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import InputError
from jaxgen.tempering import resampling

RNG = np.random.default_rng(0)


def test_ess_and_log_mean_exp():
    w = RNG.uniform(size=50)
    np.testing.assert_allclose(
        resampling.effective_sample_size(jnp.log(w)), w.sum() ** 2 / (w**2).sum(), rtol=1e-4
    )
    np.testing.assert_allclose(resampling.log_mean_exp(jnp.log(w)), np.log(w.mean()), rtol=1e-4)
    assert float(resampling.effective_sample_size(jnp.full(5, -jnp.inf))) == 0.0


def test_the_error_without_resampling_is_that_of_a_mean():
    w = RNG.lognormal(size=40)
    got = resampling.relative_standard_error(jnp.log(w), jnp.arange(40))
    np.testing.assert_allclose(got, w.std(ddof=1) / np.sqrt(40) / w.mean(), rtol=1e-4)


def test_the_error_grows_as_families_merge():
    log_weight = jnp.zeros(40)
    one_each = resampling.relative_standard_error(log_weight, jnp.arange(40))
    halves = resampling.relative_standard_error(log_weight, jnp.arange(40) // 20)
    all_one = resampling.relative_standard_error(log_weight, jnp.zeros(40, jnp.int32))
    assert float(one_each) < 1e-3 < float(halves) < float(all_one)


@pytest.mark.parametrize("name", resampling.SCHEMES)
def test_schemes_are_unbiased(name):
    weights = jnp.asarray(RNG.dirichlet(np.full(8, 0.5)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), 3000)
    index = jax.vmap(lambda k: resampling.scheme(name)(k, weights, 8))(keys)
    counts = np.stack([np.bincount(i, minlength=8) for i in np.asarray(index)])
    error = np.sqrt(8 * weights * (1 - weights) / 3000) + 1e-3
    assert np.all(np.abs(counts.mean(axis=0) - 8 * weights) < 5 * error)


def test_unknown_schemes_are_refused():
    with pytest.raises(InputError, match="None or one of systematic"):
        resampling.scheme("best")
