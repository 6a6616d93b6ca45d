"""Schedules against the seeds' own lists, and the adaptive one against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import InputError, schedules


def logistic(x):
    return 1 / (1 + np.exp(-x))


def test_linear_and_geometric():
    np.testing.assert_allclose(schedules.linear(4), [0, 0.25, 0.5, 0.75, 1])
    betas = schedules.geometric(5, 1e-4)
    np.testing.assert_allclose(betas, [0, 1e-4, 1e-3, 1e-2, 1e-1, 1])


def test_wu_et_al_rescale_and_the_co_generation_code_does_not():
    t = np.linspace(-4, 4, 10000)
    want = (logistic(t) - logistic(t).min()) / (logistic(t).max() - logistic(t).min())
    np.testing.assert_allclose(schedules.by_name("wu2017"), want, atol=1e-12)
    np.testing.assert_allclose(
        schedules.by_name("cogen-toy"), logistic(np.linspace(-10, 2, 10000)), atol=1e-12
    )
    images = schedules.by_name("cogen-images")
    np.testing.assert_allclose(images, logistic(np.linspace(-5, 5, 500)), atol=1e-12)
    assert abs(images[0] - 0.0067) < 1e-4
    assert abs(images[-1] - 0.9933) < 1e-4
    assert abs(schedules.by_name("cogen-toy")[-1] - 0.881) < 1e-3
    with pytest.raises(InputError, match="expected one of cogen-images"):
        schedules.by_name("cogen")


@pytest.mark.parametrize("name", ["wu2017", "cogen-toy", "cogen-toy-paper", "cogen-images"])
def test_named_lists_are_valid_schedules(name):
    schedules.check_betas(schedules.by_name(name))


@pytest.mark.parametrize(
    "betas", [[0.0], [0.0, 0.5, 0.5], [0.5, 0.2], [-0.1, 1.0], [0.0, 1.1], [0.0, np.nan], [[0, 1]]]
)
def test_lists_that_do_not_increase_inside_the_unit_interval_are_refused(betas):
    with pytest.raises(InputError, match="betas"):
        schedules.check_betas(betas)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1e4, 1e8])
@pytest.mark.parametrize("beta", [0.0, 1e-3, 0.4])
def test_adaptive_keeps_the_conditional_ess(scale, beta):
    rng = np.random.default_rng(1)
    tilt = scale * rng.normal(size=200)
    log_weight = rng.normal(size=200)
    rule = schedules.Adaptive(0.7)
    chosen = float(rule.next_beta(jnp.float32(beta), jnp.asarray(log_weight), jnp.asarray(tilt)))
    assert beta < chosen <= 1
    weights = np.exp(log_weight) / np.exp(log_weight).sum()

    def cess(new):
        u = np.exp((new - beta) * (tilt - tilt.max()))
        return (weights @ u) ** 2 / (weights @ u**2)

    if chosen == 1.0:
        assert cess(1.0) >= 0.7 - 1e-3
    elif chosen - beta > 3e-5 * beta:
        assert abs(cess(chosen) - 0.7) < 0.02
    # Otherwise the smallest step that float32 can take was taken.


def test_adaptive_ignores_chains_that_are_lost():
    tilt = jnp.array([-1.0, -2.0, -jnp.inf, -1.5])
    chosen = schedules.Adaptive(0.5).next_beta(jnp.float32(0.0), jnp.zeros(4), tilt)
    same = schedules.Adaptive(0.5).next_beta(
        jnp.float32(0.0), jnp.zeros(3), tilt[jnp.array([0, 1, 3])]
    )
    np.testing.assert_allclose(chosen, same, rtol=1e-5)


def test_step_schedules_are_data():
    decay = jax.jit(lambda f, t: f(t))
    np.testing.assert_allclose(
        decay(schedules.PolynomialDecay(2.0, 1.0, 0.55), 9.0), 2 * 10**-0.55, rtol=1e-5
    )
    decay(schedules.PolynomialDecay(3.0, 2.0, 0.7), 9.0)
    assert decay._cache_size() == 1


def test_a_chain_that_is_left_behind_does_not_limit_the_step():
    """Its density is so low that it rounds to thousands, and one chain held up a whole run."""
    rng = np.random.default_rng(0)
    tilt = jnp.asarray(rng.normal(size=64), jnp.float32)
    density = jnp.asarray(rng.normal(size=64), jnp.float32)
    lost = tilt.at[3].set(-1e9), density.at[3].set(-1e8)
    beta, weight = jnp.float32(0.1), jnp.zeros(64)
    rule = schedules.Adaptive(0.9)
    without = float(rule.next_beta(beta, weight.at[3].set(-jnp.inf), tilt, density))
    assert without > 0.3
    assert float(rule.next_beta(beta, weight, *lost)) == pytest.approx(without, rel=0.1)
    # Where such densities are those of the chains that stay, rounding is real, and it does.
    assert float(rule.next_beta(beta, weight, tilt, density - 1e8)) < 0.1003
