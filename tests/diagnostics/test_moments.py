"""Streamed moments against NumPy on all draws at once."""

import numpy as np
import pytest

from jaxgen.core.errors import InputError
from jaxgen.diagnostics.moments import add, merge, pooled, quantiles

RNG = np.random.default_rng(0)
DRAWS = 1000.0 + RNG.normal(size=(30, 5, 4, 3, 1)).astype(np.float32)  # [slots, C, ...]
WEIGHTS = RNG.uniform(size=(30,))


def test_chunks_add_up_to_all_draws():
    moments = None
    for first, last in ((0, 1), (1, 12), (12, 30)):
        moments = add(moments, DRAWS[first:last])
    np.testing.assert_allclose(moments.mean, DRAWS.astype(float).mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.deviation, DRAWS.astype(float).std(axis=0), rtol=1e-9)


def test_weights_and_the_order_of_merging():
    x = DRAWS[:, 0].astype(float)
    mean = np.average(x, axis=0, weights=WEIGHTS)
    variance = np.average((x - mean) ** 2, axis=0, weights=WEIGHTS)
    a, b = add(None, x[:11], WEIGHTS[:11]), add(None, x[11:], WEIGHTS[11:])
    for moments in (merge(a, b), merge(b, a)):
        np.testing.assert_allclose(moments.mean, mean, rtol=1e-12)
        np.testing.assert_allclose(moments.variance, variance, rtol=1e-9)
    none = add(None, x[:2], np.zeros(2))
    np.testing.assert_allclose(merge(none, b).mean, b.mean, rtol=1e-12)
    with pytest.raises(InputError, match="weights"):
        add(None, x, np.ones(3))


def test_chains_are_pooled_by_their_weights():
    chains = None
    for start in (0, 10, 20):
        chains = add(chains, DRAWS[start : start + 10], np.ones((10, 5)))
    w = np.array([0.1, 0.2, 0.3, 0.4, 0.0])
    flat = DRAWS.reshape(150, 4, 3, 1).astype(float)
    each = np.tile(w, 30) / 30
    mean = np.tensordot(each, flat, 1)
    whole = pooled(chains, w)
    np.testing.assert_allclose(whole.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(whole.variance, np.tensordot(each, (flat - mean) ** 2, 1), rtol=1e-9)


def test_an_interval_holds_a_new_draw_as_often_as_it_says():
    uniform = np.random.default_rng(1).uniform(size=(19, 20_000))
    low, high = quantiles(uniform, (0.05, 0.95))
    # The mass of U(0, 1) between the first and last of 19 draws is 0.9 on average.
    assert abs((high - low).mean() - 0.9) < 0.002


def test_weighted_quantiles():
    x = RNG.normal(size=(40, 6))
    same = quantiles(x, (0.1, 0.5, 0.9), np.full(40, 0.025))
    np.testing.assert_allclose(same, quantiles(x, (0.1, 0.5, 0.9)), atol=1e-9)
    only = np.zeros(40)
    only[7] = 1.0
    np.testing.assert_allclose(quantiles(x, (0.5,), only)[0], x[7])
    many = np.random.default_rng(2).normal(size=100_000)
    w = np.exp(many)  # N(0, 1) weighted by exp(x) is N(1, 1)
    np.testing.assert_allclose(quantiles(many, (0.5, 0.8413), w), [1.0, 2.0], atol=0.05)
    for bad in ((0.0,), (1.0,)):
        with pytest.raises(InputError, match="probabilities"):
            quantiles(x, bad)
