"""Learned noise levels against quadrature; nothing here samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from jaxgen.core.errors import InputError
from jaxgen.target.conditions import (
    LearnedNoise,
    LowResolution,
    NoiseLevels,
    ObservedPixels,
    Operator,
)

RNG = np.random.default_rng(3)
TRUTH, IMAGE = (jnp.asarray(RNG.uniform(size=(4, 4, 1)), jnp.float32) for _ in range(2))
MASK = jnp.asarray(RNG.uniform(size=(4, 4)) < 0.5, jnp.float32)
BASES = {
    "pixels": ObservedPixels(TRUTH, MASK, 0.2),
    "low": LowResolution(TRUTH[:2, :2], 0.3, 2),
    "operator": Operator(TRUTH.sum(axis=0), jnp.full((4, 1), 0.4), lambda x: x.sum(axis=0)),
}
bases = pytest.mark.parametrize("base", BASES.values(), ids=BASES)


def residuals(base):
    """The observed residuals over their noise, and the sum of log noise, in float64."""
    if isinstance(base, ObservedPixels):
        seen = np.asarray(MASK) > 0
        residual = (np.asarray(TRUTH) - np.asarray(IMAGE))[seen].ravel()
        noise = np.full(residual.shape, 0.2)
    elif isinstance(base, LowResolution):
        blocks = np.asarray(IMAGE).reshape(2, 2, 2, 2).mean(axis=(1, 3))
        residual = (np.asarray(TRUTH)[:2, :2, 0] - blocks).ravel()
        noise = np.full(residual.shape, 0.3)
    else:
        residual = (np.asarray(TRUTH) - np.asarray(IMAGE)).sum(axis=0).ravel()
        noise = np.full(residual.shape, 0.4)
    return residual / noise, np.log(noise).sum()


@bases
def test_a_given_level_is_the_normal_density(base):
    white, log_noise = residuals(base)
    np.testing.assert_allclose(base(IMAGE), stats.norm.logpdf(white).sum() - log_noise, rtol=1e-5)


@bases
@pytest.mark.parametrize(("a", "b"), [(1.0, 1.0), (2.5, 0.3)])
def test_inverse_gamma_noise_is_the_integral_over_levels(base, a, b):
    white, log_noise = residuals(base)

    def density(variance):
        prior = stats.invgamma(a, scale=b).pdf(variance)
        return prior * np.prod(stats.norm(0, np.sqrt(variance)).pdf(white))

    wanted, _ = integrate.quad(density, 0, np.inf, limit=400)
    condition = LearnedNoise(base, a, b)
    np.testing.assert_allclose(condition(IMAGE), np.log(wanted) - log_noise, rtol=1e-4)
    second, _ = integrate.quad(lambda v: v * density(v), 0, np.inf, limit=400)
    np.testing.assert_allclose(condition.noise_scale(IMAGE) ** 2, second / wanted, rtol=1e-3)


def test_inverse_gamma_noise_is_a_density_of_what_is_observed():
    def density(y):
        condition = LearnedNoise(
            Operator(jnp.full((1,), y), 0.5, lambda x: x.sum()[None]), 1.5, 0.7
        )
        return float(jnp.exp(condition(jnp.zeros((1, 1, 1)))))

    total = np.sum([density(y) for y in np.linspace(-40, 40, 801)]) * 0.1
    np.testing.assert_allclose(total, 1.0, atol=2e-3)


@bases
def test_jeffreys_prior_leaves_a_power_of_the_squared_error(base):
    condition = LearnedNoise(base, 0.0, 0.0)
    white, _ = residuals(base)
    misfit = base.misfit(IMAGE)
    other = jnp.asarray(RNG.uniform(size=(4, 4, 1)), jnp.float32)
    difference = condition(IMAGE) - condition(other)
    ratio = np.log(np.sum(white**2) / float(base.misfit(other).chi_square))
    np.testing.assert_allclose(difference, -0.5 * len(white) * ratio, rtol=1e-4)
    assert int(misfit.count) == len(white)


@bases
def test_levels_are_a_mixture_of_conditions(base):
    scales = jnp.array([0.3, 1.0, 4.0])
    white, log_noise = residuals(base)
    each = [stats.norm(0, s).logpdf(white).sum() - log_noise for s in (0.3, 1.0, 4.0)]
    condition = NoiseLevels(base, scales)
    np.testing.assert_allclose(condition(IMAGE), np.logaddexp.reduce(each) - np.log(3), rtol=1e-5)
    weights = np.exp(each - np.logaddexp.reduce(each))
    wanted = np.sqrt(weights @ np.array([0.3, 1.0, 4.0]) ** 2)
    np.testing.assert_allclose(condition.noise_scale(IMAGE), wanted, rtol=1e-4)


def test_hidden_pixels_have_no_say_in_the_level():
    base = BASES["pixels"]
    spoilt = IMAGE + 9.0 * (1 - MASK[..., None])
    for condition in (LearnedNoise(base), NoiseLevels(base, jnp.array([0.5, 1.0]))):
        np.testing.assert_allclose(condition(spoilt), condition(IMAGE), rtol=1e-6)
        gradient = jax.grad(condition)(IMAGE)
        assert np.all(np.asarray(gradient)[np.asarray(MASK) == 0] == 0)


@pytest.mark.parametrize(
    ("condition", "name"),
    [
        (LearnedNoise(lambda x: x.sum()), "Gaussian noise"),
        (LearnedNoise(BASES["pixels"], -1.0, 1.0), "LearnedNoise.shape"),
        (NoiseLevels(BASES["pixels"], jnp.array([1.0, 0.0])), "NoiseLevels.scales"),
    ],
)
def test_errors(condition, name):
    with pytest.raises(InputError, match=name):
        condition.check((4, 4, 1))


@bases
@pytest.mark.parametrize("make", [LearnedNoise, lambda b, **k: NoiseLevels(b, jnp.ones(1), **k)])
def test_redundant_residuals_count_less(base, make):
    white, _ = residuals(base)
    once, thrice = (make(base, redundancy=float(k)) for k in (1, 3))
    other = jnp.asarray(RNG.uniform(size=(4, 4, 1)), jnp.float32)
    if make is not LearnedNoise:  # one level: a power of the normal density
        ratio = (thrice(IMAGE) - thrice(other)) / (once(IMAGE) - once(other))
        np.testing.assert_allclose(ratio, 1 / 3, rtol=1e-3)
    else:
        square, n = np.sum(white**2), len(white)
        np.testing.assert_allclose(
            thrice.noise_scale(IMAGE) ** 2, (1 + square / 6) / max(n / 6, 0.5), rtol=1e-4
        )
    with pytest.raises(InputError, match="redundancy"):
        make(base, redundancy=0.5).check((4, 4, 1))
