"""Frechet, MMD and energy distances against SciPy and loops; the tests' level and power."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import linalg, stats
from scipy.spatial.distance import cdist, pdist

from jaxgen.core.errors import InputError
from jaxgen.metrics import (
    energy_distance,
    energy_permutation_test,
    frechet_distance,
    frechet_distance_from_moments,
    median_bandwidth,
    mmd,
    mmd_permutation_test,
)


def normal(seed, shape, shift=0.0, scale=1.0):
    draws = np.random.default_rng(seed).normal(size=shape)
    return (shift + scale * draws).astype(np.float32)


def frechet_reference(mean_a, cov_a, mean_b, cov_b):
    root = linalg.sqrtm(cov_a @ cov_b)
    return np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a + cov_b - 2 * root).real


def mmd_loop(x, y, bandwidth, weights=None):
    """The unbiased estimate pair by pair, in float64."""

    def k(a, b):
        return np.exp(-np.sum((a.astype(float) - b) ** 2) / (2 * bandwidth**2))

    n, m = len(x), len(y)
    w = np.ones(n) if weights is None else weights
    xx = sum(w[i] * w[j] * k(x[i], x[j]) for i in range(n) for j in range(n) if i != j)
    xx_pairs = sum(w[i] * w[j] for i in range(n) for j in range(n) if i != j)
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j)
    xy = sum(w[i] * k(x[i], y[j]) for i in range(n) for j in range(m))
    return xx / xx_pairs + yy / (m * (m - 1)) - 2 * xy / (w.sum() * m)


@pytest.mark.parametrize("counts", [(200, 150), (60, 80)])
def test_frechet_distance_equals_the_matrix_square_root(counts):
    rng = np.random.default_rng(0)
    a = normal(0, (counts[0], 12)) @ rng.normal(size=(12, 12)).astype(np.float32)
    b = normal(1, (counts[1], 12), shift=0.5) @ rng.normal(size=(12, 12)).astype(np.float32)
    wide_a, wide_b = a.astype(float), b.astype(float)
    moments = wide_a.mean(0), np.cov(wide_a.T), wide_b.mean(0), np.cov(wide_b.T)
    wanted = frechet_reference(*moments)
    np.testing.assert_allclose(jax.jit(frechet_distance)(a, b), wanted, rtol=1e-4)
    narrow = [m.astype(np.float32) for m in moments]
    np.testing.assert_allclose(jax.jit(frechet_distance_from_moments)(*narrow), wanted, rtol=1e-4)


def test_frechet_distance_with_fewer_samples_than_features():
    a, b = normal(2, (20, 64)), normal(3, (25, 64), scale=1.5)
    # SciPy's square root of a singular product is unreliable: eigenvalues in float64 instead.
    cov_a, cov_b = np.cov(a.T.astype(float)), np.cov(b.T.astype(float))
    values, vectors = np.linalg.eigh(cov_a)
    root = vectors @ np.diag(np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ cov_b @ root), 0, None)).sum()
    wanted = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(cov_a + cov_b) - 2 * cross
    np.testing.assert_allclose(frechet_distance(a, b), wanted, rtol=1e-4)


def test_frechet_distance_of_diagonal_gaussians_is_exact():
    mean_a, mean_b = jnp.array([0.0, 1.0]), jnp.array([2.0, 1.0])
    scale_a, scale_b = jnp.array([1.0, 3.0]), jnp.array([2.0, 0.0])
    found = frechet_distance_from_moments(
        mean_a, jnp.diag(scale_a**2), mean_b, jnp.diag(scale_b**2)
    )
    np.testing.assert_allclose(found, 4.0 + 1.0 + 9.0, rtol=1e-5)


def test_frechet_distance_of_a_set_from_itself_is_zero():
    features = normal(4, (50, 8))
    np.testing.assert_allclose(frechet_distance(features, features[::-1]), 0.0, atol=1e-4)


@pytest.mark.parametrize("weighted", [False, True])
def test_mmd_equals_a_loop(weighted):
    x, y = normal(5, (9, 3)), normal(6, (7, 3), shift=0.7)
    weights = np.random.default_rng(7).uniform(size=9) if weighted else None
    found = mmd(x, y, bandwidth=1.3, weights=None if weights is None else jnp.asarray(weights))
    np.testing.assert_allclose(found, mmd_loop(x, y, 1.3, weights), atol=1e-6)


def test_equal_weights_are_no_weights_whatever_their_scale():
    x, y = normal(8, (9, 3)), normal(9, (7, 3))
    np.testing.assert_allclose(mmd(x, y, weights=jnp.full(9, 0.01)), mmd(x, y), atol=1e-6)


def test_importance_weights_move_the_sample_to_their_target():
    x, y = normal(10, (1000, 1), scale=1.5), normal(11, (1000, 1), shift=0.5)
    weights = stats.norm(0.5, 1).pdf(x[:, 0]) / stats.norm(0, 1.5).pdf(x[:, 0])
    assert abs(mmd(x, y, weights=jnp.asarray(weights))) < 0.1 * mmd(x, y)


def test_mmd_is_unbiased_for_a_fixed_bandwidth():
    # E k for N(0, 1) against N(d, 1): sqrt(b / (b + 2)) exp(-d^2 / (2 (b + 2))), b = bandwidth^2.
    def one(key):
        first, second = jax.random.split(key)
        x = jax.random.normal(first, (6, 1))
        return mmd(x, 1.0 + jax.random.normal(second, (5, 1)), bandwidth=1.0)

    values = jax.vmap(one)(jax.random.split(jax.random.key(0), 4000))
    exact = 2 * np.sqrt(1 / 3) * (1 - np.exp(-1 / 6))
    assert abs(values.mean() - exact) < 4 * values.std() / np.sqrt(4000)


@pytest.mark.parametrize("count", [8, 9, 10])  # 55, 66 and 78 pairs
def test_median_bandwidth_is_the_median_distance_of_the_pool(count):
    x, y = normal(12, (3, 4)), normal(13, (count, 4))
    np.testing.assert_allclose(
        median_bandwidth(x, y), np.median(pdist(np.concatenate([x, y]))), rtol=1e-5
    )


def test_distances_keep_their_digits_far_from_the_origin():
    x, y = normal(14, (30, 4)), normal(15, (30, 4))
    np.testing.assert_allclose(mmd(x + 1000.0, y + 1000.0), mmd(x, y), atol=1e-3)


def test_energy_distance_equals_scipy_in_one_dimension():
    x, y = normal(16, (40, 1)), normal(17, (30, 1), shift=0.4)
    wanted = stats.energy_distance(x[:, 0], y[:, 0]) ** 2
    np.testing.assert_allclose(energy_distance(x, y, unbiased=False), wanted, rtol=1e-4)


def test_energy_distance_equals_scipy_distances():
    x, y = normal(18, (12, 2, 3)), normal(19, (9, 2, 3), shift=0.4)
    a, b = x.reshape(12, 6), y.reshape(9, 6)
    biased = 2 * cdist(a, b).mean() - cdist(a, a).mean() - cdist(b, b).mean()
    unbiased = 2 * cdist(a, b).mean() - pdist(a).mean() - pdist(b).mean()
    np.testing.assert_allclose(energy_distance(x, y, unbiased=False), biased, rtol=1e-4)
    np.testing.assert_allclose(energy_distance(x, y), unbiased, rtol=1e-4)


@pytest.mark.parametrize("distance", [mmd, energy_distance])
def test_gradients_are_finite(distance):
    x, y = normal(20, (5, 2)), normal(21, (6, 2))
    assert np.isfinite(jax.grad(distance)(jnp.asarray(x), y)).all()


@pytest.mark.parametrize(
    ("test", "distance"), [(mmd_permutation_test, mmd), (energy_permutation_test, energy_distance)]
)
def test_permutation_statistic_is_the_distance(test, distance):
    x, y = normal(22, (20, 3)), normal(23, (25, 3), shift=0.3)
    found = test(jax.random.key(0), x, y, 19)
    np.testing.assert_allclose(found.statistic, distance(x, y), atol=1e-5)
    assert 1 / 20 <= found.p_value <= 1


def test_p_value_equals_all_relabellings_of_a_small_pool():
    x, y = normal(24, (4, 1), shift=1.0), normal(25, (4, 1))
    pool, bandwidth = np.concatenate([x, y]), float(median_bandwidth(x, y))
    observed = mmd_loop(x, y, bandwidth)
    relabelled = [
        mmd_loop(pool[list(c)], pool[[i for i in range(8) if i not in c]], bandwidth)
        for c in combinations(range(8), 4)
    ]
    exact = np.mean(np.array(relabelled) >= observed - 1e-9)
    found = mmd_permutation_test(jax.random.key(1), x, y, 20_000).p_value
    assert abs(found - exact) < 4 * np.sqrt(exact * (1 - exact) / 20_000) + 1e-4


@pytest.mark.parametrize("test", [mmd_permutation_test, energy_permutation_test])
def test_p_values_are_uniform_under_the_null(test):
    def one(key):
        first, second, third = jax.random.split(key, 3)
        x = jax.random.laplace(first, (12, 3))
        return test(third, x, jax.random.laplace(second, (18, 3)), 19).p_value

    p_values = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(2), 2000)))
    # A valid p-value is uniform on 1/20, 2/20 .. 1, so each value comes up equally often.
    ranks = np.rint(p_values * 20).astype(int)
    np.testing.assert_allclose(ranks / 20, p_values, rtol=1e-5)
    assert stats.chisquare(np.bincount(ranks, minlength=21)[1:]).pvalue > 0.001
    assert stats.binomtest(int(np.sum(ranks == 1)), 2000, 0.05).pvalue > 0.001


@pytest.mark.parametrize("test", [mmd_permutation_test, energy_permutation_test])
@pytest.mark.parametrize(("shift", "scale"), [(0.8, 1.0), (0.0, 2.5)], ids=["location", "scale"])
def test_tests_have_power(test, shift, scale):
    def one(key):
        first, second, third = jax.random.split(key, 3)
        x = jax.random.normal(first, (30, 3))
        y = shift + scale * jax.random.normal(second, (30, 3))
        return test(third, x, y, 59).p_value

    p_values = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(3), 50))
    assert np.mean(p_values <= 0.05) > 0.8


def test_identical_samples_are_ties_and_not_evidence():
    same = np.ones((10, 2), np.float32)
    for test in (mmd_permutation_test, energy_permutation_test):
        assert test(jax.random.key(4), same, same, 50).p_value == 1.0


def test_bad_samples_are_refused():
    good = normal(26, (5, 2))
    with pytest.raises(InputError, match=r"\[n, 1\]"):
        mmd(good[:, 0], good[:, 0])
    with pytest.raises(InputError, match="first sample"):
        energy_distance(good[:1], good)
    with pytest.raises(InputError, match="second sample"):
        frechet_distance(good, normal(27, (5, 3)))
    with pytest.raises(InputError, match="weights"):
        mmd(good, good, weights=jnp.ones(4))
    with pytest.raises(InputError, match="num_permutations"):
        mmd_permutation_test(jax.random.key(0), good, good, 0)
    with pytest.raises(InputError, match="covariance_b"):
        frechet_distance_from_moments(jnp.zeros(2), jnp.eye(2), jnp.zeros(2), jnp.eye(3))
