"""The table of f-divergences against its definitions, numerically."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.core.errors import InputError
from jaxgen.train.divergences import DIVERGENCES, by_name

U = jnp.asarray([0.2, 0.7, 1.0, 1.9, 6.0])
V = jnp.asarray([-1.5, -0.3, 0.0, 0.8, 2.0])
P = jnp.asarray([0.5, 0.2, 0.2, 0.1])
Q = jnp.asarray([0.1, 0.4, 0.3, 0.2])

# Written down independently, over distributions instead of f.
EXACT = {
    "kl": jnp.sum(P * jnp.log(P / Q)),
    "reverse-kl": jnp.sum(Q * jnp.log(Q / P)),
    "pearson": jnp.sum((P - Q) ** 2 / Q),
    "squared-hellinger": jnp.sum((jnp.sqrt(P) - jnp.sqrt(Q)) ** 2),
    "jensen-shannon": jnp.sum(P * jnp.log(2 * P / (P + Q))) + jnp.sum(Q * jnp.log(2 * Q / (P + Q))),
    "gan": jnp.sum(P * jnp.log(P / (P + Q))) + jnp.sum(Q * jnp.log(Q / (P + Q))),
}


@pytest.mark.parametrize("name", DIVERGENCES)
def test_it_is_the_divergence_of_its_name(name):
    found = jnp.sum(Q * by_name(name).f(P / Q))
    assert float(found) == pytest.approx(float(EXACT[name]), abs=1e-6)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_conjugate_is_the_largest_t_u_minus_f(name):
    divergence = by_name(name)
    t = divergence.output(V)
    u = jnp.exp(jnp.linspace(-12.0, 6.0, 200_001))
    largest = jax.vmap(lambda t: jnp.max(t * u - divergence.f(u)))(t)
    np.testing.assert_allclose(divergence.conjugate(t), largest, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_best_t_is_f_s_slope_and_gives_back_the_ratio(name):
    divergence = by_name(name)
    slope = jax.vmap(jax.grad(lambda u: divergence.f(u)))(U)
    np.testing.assert_allclose(divergence.best(U), slope, rtol=1e-5, atol=1e-6)
    ratio = jax.vmap(jax.grad(lambda t: divergence.conjugate(t)))(divergence.best(U))
    np.testing.assert_allclose(ratio, U, rtol=1e-4)
    log_ratio = jnp.log(jax.vmap(jax.grad(lambda t: divergence.conjugate(t)))(divergence.output(V)))
    np.testing.assert_allclose(divergence.log_ratio(V), log_ratio, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_bound_is_reached_at_the_best_t_and_nowhere_passed(name):
    divergence = by_name(name)

    def bound(t):
        return jnp.sum(P * t) - jnp.sum(Q * divergence.conjugate(t))

    assert float(bound(divergence.best(P / Q))) == pytest.approx(float(EXACT[name]), abs=1e-5)
    for v in (V[:4], V[1:], -V[:4]):
        assert float(bound(divergence.output(v))) < float(EXACT[name]) + 1e-6


def test_the_bound_of_outputs_is_a_mean_over_samples():
    divergence = by_name("gan")
    found = divergence.value(V, V)
    wanted = np.mean(np.log(1 / (1 + np.exp(-V)))) + np.mean(np.log(1 - 1 / (1 + np.exp(-V))))
    assert float(found) == pytest.approx(wanted, abs=1e-6)


def test_an_unknown_name():
    with pytest.raises(InputError, match="jensen-shannon"):
        by_name("js")
