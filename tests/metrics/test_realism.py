"""Scores and latents against SciPy; the super-stimulus index where it is known."""

import jax
import numpy as np
import pytest
from scipy import stats

from jaxgen.core.errors import InputError
from jaxgen.metrics import latent_typicality, score_distance, super_stimulus_index


@pytest.mark.parametrize("rounded", [False, True])
def test_distances_of_scores_equal_scipy(rounded):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=37), rng.normal(0.7, 2.0, size=53)
    if rounded:  # ties, within and between the samples
        a, b = a.round(), b.round()
    got = score_distance(a.astype(np.float32), b.astype(np.float32))
    np.testing.assert_allclose(got.kolmogorov_smirnov, stats.ks_2samp(a, b).statistic, atol=1e-5)
    np.testing.assert_allclose(got.wasserstein, stats.wasserstein_distance(a, b), rtol=1e-4)
    np.testing.assert_allclose(got.shift, a.mean() - b.mean(), atol=1e-5)
    wins = stats.mannwhitneyu(a, b).statistic / (37 * 53)
    np.testing.assert_allclose(got.above, wins, atol=1e-5)


def test_a_higher_mean_is_as_far_as_a_lower_one():
    x = np.linspace(0, 1, 50, dtype=np.float32)
    up, down = score_distance(x + 2, x), score_distance(x - 2, x)
    np.testing.assert_allclose(up.wasserstein, 2.0, rtol=1e-5)
    np.testing.assert_allclose(down.wasserstein, 2.0, rtol=1e-5)
    np.testing.assert_allclose([up.kolmogorov_smirnov, down.kolmogorov_smirnov], 1.0)
    np.testing.assert_allclose([up.above, down.above], [1.0, 0.0])


def test_typicality_equals_scipy_and_is_uniform_for_prior_draws():
    z = np.asarray(jax.random.normal(jax.random.key(0), (3000, 64)))
    got = latent_typicality(z)
    np.testing.assert_allclose(got.norm, np.linalg.norm(z, axis=1) / 8, rtol=1e-5)
    wanted = stats.chi2(64).sf((z.astype(np.float64) ** 2).sum(axis=1))
    np.testing.assert_allclose(got.quantile, wanted, atol=1e-4)
    assert stats.kstest(np.asarray(got.quantile), "uniform").pvalue > 0.01
    extreme = latent_typicality(np.stack([np.zeros(64), np.full(64, 3.0)]).astype(np.float32))
    np.testing.assert_allclose(extreme.quantile, [1.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(extreme.norm, [0.0, 3.0], rtol=1e-6)


def test_super_stimulus_index():
    real = np.linspace(-1, 1, 21, dtype=np.float32)
    np.testing.assert_allclose(super_stimulus_index(real, real, real, real), 0.0, atol=1e-6)
    np.testing.assert_allclose(super_stimulus_index(real + 5, real - 5, real, real), 1.0)
    np.testing.assert_allclose(super_stimulus_index(real - 5, real + 5, real, real), -1.0)
    # Monotone rescaling of either score changes nothing.
    a = super_stimulus_index(real + 0.33, real - 0.17, real, real)
    b = super_stimulus_index(np.exp(real + 0.33), (real - 0.17) ** 3, np.exp(real), real**3)
    np.testing.assert_allclose(a, b, atol=1e-6)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="scores"):
        score_distance(np.zeros((2, 2)), np.zeros(3))
    with pytest.raises(InputError, match="latent"):
        latent_typicality(np.zeros(5))
