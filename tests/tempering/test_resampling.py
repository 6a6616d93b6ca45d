"""Weights: ESS, log Z and its error, and what resampling keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

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


@pytest.mark.parametrize("name", ["systematic", "stratified"])
def test_candidates_in_order_of_where_they_lie_leave_modes_their_shares(name):
    """Two modes whose candidates alternate: each gets its share to within one draw or two."""
    rng = np.random.default_rng(2)
    mode = np.arange(200) % 2
    position = {"z": jnp.asarray(rng.normal(size=(200, 3)) + 10.0 * mode[:, None], jnp.float32)}
    weights = rng.exponential(size=200) * np.where(mode == 1, 3.0, 1.0)
    weights = weights / weights.sum()
    expected = 64 * weights[mode == 1].sum()
    draw = jax.jit(
        jax.vmap(lambda k: resampling.draw_along(name, k, jnp.asarray(weights), position, 64))
    )
    drawn = np.asarray(draw(jax.random.split(jax.random.key(0), 300)))
    counts = np.sum(mode[drawn] == 1, axis=1)
    mean = np.bincount(drawn.reshape(-1), minlength=200) / 300
    assert np.ptp(counts) <= (1 if name == "systematic" else 2)
    assert np.mean(counts) == pytest.approx(expected, abs=0.1)
    # And every candidate its own share: the order does not bias.
    np.testing.assert_allclose(mean, 64 * weights, atol=0.13)


def test_candidates_that_are_not_finite_or_weigh_nothing_are_never_drawn():
    position = jnp.asarray([[0.0], [jnp.nan], [1.0], [jnp.inf]])
    weights = jnp.asarray([0.4, 0.0, 0.6, 0.0])
    index = resampling.draw_along("systematic", jax.random.key(0), weights, position, 10)
    assert set(np.asarray(index).tolist()) == {0, 2}


def test_unknown_schemes_are_refused():
    with pytest.raises(InputError, match="None or one of systematic"):
        resampling.scheme("best")


def test_evidence_of_islands_takes_the_largest_of_three_errors():
    rng = np.random.default_rng(3)
    count, islands = 32, 4
    log_weight = jnp.asarray(0.2 * rng.normal(size=count), jnp.float32)
    log_z = jnp.array([0.0, 1.0, 3.0, 0.5])
    merged = jnp.arange(count) // 2 * 2
    found = resampling.evidence(log_weight, log_z, merged)
    each = np.exp(np.asarray(log_weight, np.float64)).reshape(islands, -1).mean(1)
    z = each * np.exp(np.asarray(log_z, np.float64))
    np.testing.assert_allclose(found.island_log_z, np.log(z), rtol=1e-5)
    assert float(found.log_z) == pytest.approx(np.log(z.mean()), rel=1e-5)
    student = stats.t.ppf(0.975, islands - 1) / stats.norm.ppf(0.975)
    between = student * z.std(ddof=1) / z.mean() / np.sqrt(islands)
    apart = student * np.log(z).std(ddof=1) / np.sqrt(islands)
    whole = resampling.whole_log_weight(log_weight, log_z)
    families = resampling.relative_standard_error(whole, merged)
    expected = max(between, apart, float(families))
    assert float(found.standard_error) == pytest.approx(expected, rel=1e-3)
    # Chains that were never resampled are C independent weights: no factor for few islands.
    alone = resampling.evidence(log_weight, log_z, jnp.arange(count)).standard_error
    assert float(alone) == pytest.approx(max(between, apart) / student, rel=1e-3)


def test_islands_that_lie_nats_apart_do_not_claim_an_error_below_one():
    log_z = jnp.array([0.0, 5.0, 10.0, 20.0])
    found = resampling.evidence(jnp.zeros(32), log_z, jnp.arange(32) // 2)
    student = stats.t.ppf(0.975, 3) / stats.norm.ppf(0.975)
    expected = student * np.std(np.asarray(log_z), ddof=1) / 2
    assert float(found.standard_error) == pytest.approx(expected, rel=1e-3)


def test_one_chain_knows_nothing_of_its_error():
    found = resampling.evidence(jnp.zeros(1), jnp.zeros(1), jnp.zeros(1, jnp.int32))
    assert np.isnan(float(found.standard_error))
    assert float(found.log_z) == 0.0


def test_families_of_a_pool_count_those_that_died():
    """Two chains chosen from 2 x 3 candidates: sum (S - 1/6)^2 over all six, times 6/5."""
    found = resampling.relative_standard_error(jnp.zeros(2), jnp.array([0, 4]), 6)
    expected = np.sqrt(6 / 5 * (2 * (1 / 2 - 1 / 6) ** 2 + 4 * (1 / 6) ** 2))
    assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("chains", "islands"), [(1, 1), (8, 1), (16, 2), (24, 3), (32, 4), (64, 4), (31, 1), (1000, 4)]
)
def test_islands_are_equal_and_not_too_small(chains, islands):
    assert resampling.choose_islands(chains) == islands
