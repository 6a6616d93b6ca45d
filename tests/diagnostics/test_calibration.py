"""Ranks of the truth: uniform under an exact sampler, and not under wrong ones."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxgen
from jaxgen import InputError, kernels, schedules
from jaxgen.diagnostics.calibration import calibrate, coverage, ranks, spread_out, uniformity
from jaxgen.inference.bdmc import DecoderPaths
from jaxgen.target.observations import GaussianObservation
from tests.inference.test_bdmc import NOISE, SIZE, affine

PATHS = DecoderPaths(jaxgen.Gaussian.standard(SIZE), affine(), GaussianObservation(NOISE))


class Draws(NamedTuple):
    draws: np.ndarray


def exact_sampler(width=1.0, shift=0.0, chains=8, count=8):
    """Independent draws of a linear-Gaussian posterior, made wrong by a width or a shift."""

    def sampler(key, posterior):
        a = np.asarray(posterior.generator.matrix, np.float64)
        y = np.asarray(posterior.condition.observed, np.float64).ravel()
        covariance = np.linalg.inv(np.eye(SIZE) + a.T @ a / NOISE**2)
        mean = covariance @ a.T @ (y - np.asarray(posterior.generator.offset)) / NOISE**2
        root = np.linalg.cholesky(covariance)
        noise = np.asarray(jax.random.normal(key, (chains, count, SIZE)))
        draws = mean + width * noise @ root.T + shift * root.sum(1)
        return Draws(draws.astype(np.float32))

    return sampler


def test_ranks_with_and_without_ties():
    rng = np.random.default_rng(0)
    draws = np.arange(9.0)[:, None]
    u = ranks(rng, draws, np.array([4.5]))
    assert 0.5 <= u[0] < 0.6
    tied = np.concatenate([ranks(rng, np.zeros((9, 500)), np.zeros(500)) for _ in range(4)])
    assert stats.kstest(tied, "uniform").pvalue > 0.01
    with pytest.raises(InputError, match="truth"):
        ranks(rng, draws, np.zeros(2))


@pytest.mark.parametrize("count", [1, 7, 64])
def test_ranks_among_exchangeable_draws_are_uniform_and_cover(count):
    rng = np.random.default_rng(1)
    u = np.stack([ranks(rng, rng.normal(size=count), rng.normal()) for _ in range(4000)])
    assert stats.kstest(u, "uniform").pvalue > 0.01
    share, error = coverage(u)
    assert abs(share - 0.9) < 4 * error
    assert error == pytest.approx(np.sqrt(0.9 * 0.1 / 4000), rel=0.1)


def test_uniformity_is_the_chi_square_test():
    rng = np.random.default_rng(2)
    u = rng.random((200, 3))
    u[:, 2] **= 2
    got = uniformity(u, bins=10)
    want = stats.chisquare(np.histogram(u[:, 0], 10, (0, 1))[0])
    np.testing.assert_allclose(got.statistic[0], want.statistic)
    np.testing.assert_allclose(got.p_value[0], want.pvalue, rtol=1e-3)
    assert got.p_value[2] < 1e-4 < 0.01 < got.p_value[1]
    assert got.least == pytest.approx(3 * got.p_value[2], rel=1e-6)
    assert got.counts.shape == (10, 3)
    # Under uniformity the p-values are uniform themselves.
    p = uniformity(rng.random((100, 400))).p_value
    assert stats.kstest(p, "uniform").pvalue > 0.01


def test_thinning_takes_what_is_independent():
    rng = np.random.default_rng(3)
    loose = rng.normal(size=(8, 20, 2))
    assert 100 < len(spread_out(loose)) <= 160
    stuck = np.repeat(rng.normal(size=(8, 1, 2)), 20, 1) + 0.01 * rng.normal(size=(8, 20, 2))
    few = spread_out(stuck)
    assert len(few) <= 10
    np.testing.assert_array_equal(few[0], stuck[0, -1])  # the last draws come first
    assert len(spread_out(loose, most=5)) == 5
    assert len(spread_out(loose[:, :1])) == 8  # too short to tell: one of each chain


def test_an_exact_sampler_passes_and_wrong_ones_do_not():
    right = calibrate(jax.random.key(0), PATHS, exact_sampler(), targets=300)
    for name in ("latent", "pixels", "density"):
        assert abs(right.coverage[name] - 0.9) < 4 * right.standard_error[name]
        assert right.uniformity[name].least > 0.01
    assert right.u["latent"].shape == (300, SIZE)
    narrow = calibrate(jax.random.key(0), PATHS, exact_sampler(width=0.6), targets=300)
    assert narrow.coverage["latent"] < 0.8
    assert narrow.uniformity["latent"].least < 1e-4
    shifted = calibrate(jax.random.key(0), PATHS, exact_sampler(shift=0.5), targets=300)
    assert shifted.uniformity["latent"].least < 1e-4


@pytest.mark.slow
def test_the_sampler_itself_is_calibrated():
    kept = []

    def sampler(key, posterior):
        return jaxgen.sample(
            key,
            posterior,
            kernels.HMC(3, jitter=True),
            num_chains=16,
            num_steps=12,
            thin=2,
            warmup=4,
            betas=schedules.linear(6),
        )

    result = calibrate(
        jax.random.key(4),
        PATHS,
        sampler,
        targets=60,
        quantities={"sum": lambda posterior, z, image: jnp.sum(z)},
        keep=lambda result: result.num_lineages,
        progress=lambda *done: kept.append(done),
    )
    assert abs(result.coverage["sum"] - 0.9) < 4 * 0.039
    assert result.uniformity["sum"].least > 0.01
    assert len(result.results) == 60
    assert kept[-1] == (60, 60)


def test_a_sampler_without_draws_is_refused():
    with pytest.raises(InputError, match="sampler: expected positions"):
        calibrate(jax.random.key(0), PATHS, lambda key, posterior: Draws(None), targets=1)
