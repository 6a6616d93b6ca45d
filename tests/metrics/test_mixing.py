"""Autocorrelation of a process whose own is known, and counting of modes."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.core.errors import InputError
from jaxgen.metrics import autocorrelation, integrated_time, modes_visited


def test_autocorrelation_equals_a_loop():
    x = np.random.default_rng(0).normal(size=(3, 12, 2, 2)).cumsum(axis=1)
    flat = x.reshape(3, 12, 4)
    flat = flat - flat.mean(axis=(0, 1))
    total = np.mean((flat**2).sum(-1))
    wanted = [
        np.mean([flat[c, t] @ flat[c, t + k] for c in range(3) for t in range(12 - k)]) / total
        for k in range(6)
    ]
    np.testing.assert_allclose(autocorrelation(x.astype(np.float32), 5), wanted, atol=1e-4)


def test_autoregressive_process_has_its_known_time():
    rng, phi = np.random.default_rng(1), 0.8
    x = np.empty((40, 2000, 1))
    x[:, 0] = rng.normal(size=(40, 1))
    for t in range(1, 2000):
        x[:, t] = phi * x[:, t - 1] + np.sqrt(1 - phi**2) * rng.normal(size=(40, 1))
    rho = autocorrelation(x.astype(np.float32), 100)
    np.testing.assert_allclose(rho[:5], phi ** np.arange(5), atol=0.03)
    np.testing.assert_allclose(integrated_time(rho), (1 + phi) / (1 - phi), rtol=0.08)


def test_stuck_chains_look_stuck():
    stuck = np.repeat(np.arange(5.0)[:, None, None], 30, axis=1)
    np.testing.assert_allclose(autocorrelation(stuck.astype(np.float32), 20), 1.0, atol=1e-5)
    assert integrated_time(jnp.ones(21)) == 41.0


def test_modes_are_counted():
    centres = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]], np.float32)
    chains = np.array(
        [
            [[0.1, 0.0], [0.2, 0.1], [5.1, 0.0], [0.0, 0.0]],
            [[0.0, 5.0], [0.0, 5.2], [9.0, 9.0], [0.1, 5.0]],
        ],
        np.float32,
    )
    near = modes_visited(chains, centres, 1.0)
    assert near.by_chain.tolist() == [2, 1]
    assert int(near.by_all) == 3
    assert near.switches.tolist() == [2, 0]
    anywhere = modes_visited(chains[1:], centres[:2])
    assert anywhere.by_chain.tolist() == [2]


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="max_lag"):
        autocorrelation(np.zeros((2, 5, 1)), 5)
    with pytest.raises(InputError, match="features"):
        autocorrelation(np.zeros((2, 5)), 1)
    with pytest.raises(InputError, match="centres"):
        modes_visited(np.zeros((2, 5, 3)), np.zeros((4, 2)))
