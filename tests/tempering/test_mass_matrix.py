import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen.tempering import mass_matrix
from tests.toys import LinearGaussian


def oas(x, weights):
    """Oracle-approximating shrinkage, written out in NumPy (float64)."""
    x, weights = np.asarray(x, np.float64), np.asarray(weights, np.float64)
    centred = x - weights @ x
    s = sum(w * np.outer(c, c) for w, c in zip(weights, centred, strict=True))
    n, p = 1 / np.sum(weights**2), x.shape[1]
    top = (1 - 2 / p) * np.trace(s @ s) + np.trace(s) ** 2
    rho = min(1.0, top / ((n + 1 - 2 / p) * (np.trace(s @ s) - np.trace(s) ** 2 / p)))
    return (1 - rho) * s + rho * np.trace(s) / p * np.eye(p)


@pytest.mark.parametrize("chains", [5, 40])
def test_dense_is_the_shrunk_covariance(chains):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(chains, 6)) @ np.diag([3, 1, 1, 0.3, 0.1, 1.0])
    log_weight = rng.normal(size=chains)
    weights = np.exp(log_weight) / np.exp(log_weight).sum()
    split = {"a": jnp.asarray(x[:, :2], jnp.float32), "b": jnp.asarray(x[:, 2:], jnp.float32)}
    got = mass_matrix.ensemble(split, jnp.asarray(log_weight, jnp.float32), "dense")
    np.testing.assert_allclose(got, oas(x, weights), rtol=2e-4, atol=2e-5)


def test_one_chain_and_copies_of_one_chain_give_a_usable_matrix():
    for count in (1, 4):
        got = mass_matrix.ensemble(jnp.ones((count, 3)), jnp.zeros(count), "dense")
        assert np.all(np.linalg.eigvalsh(np.asarray(got)) > 0)


@pytest.mark.slow
def test_a_dense_mass_takes_longer_steps_on_a_correlated_posterior():
    model = LinearGaussian(8, noise=0.05)
    settings = {"num_chains": 256, "num_steps": 20, "collect": None}
    kernel = jaxgen.kernels.HMC(5)
    key = jax.random.key(0)
    dense = jaxgen.sample(key, model.posterior, kernel, precondition="dense", **settings)
    plain = jaxgen.sample(key, model.posterior, kernel, precondition=False, **settings)
    assert dense.state.inverse_mass.shape == (8, 8)
    # A dense mass makes the target round: the step is about 1, not the smallest deviation.
    assert dense.step_size > 5 * plain.step_size
    flat = np.asarray(dense.position)
    error = np.abs(flat.mean(0) - model.mean) / np.sqrt(np.diag(model.covariance) / len(flat))
    assert error.max() < 5
    ratio = np.diag(np.cov(flat.T)) / np.diag(model.covariance)
    assert np.all((ratio > 0.6) & (ratio < 1.6))


def test_score_is_the_averaged_inverse_of_the_mean_squared_gradient():
    rng = np.random.default_rng(1)
    g, log_weight = rng.normal(size=(30, 4)) * [10, 3, 1, 1], rng.normal(size=30)
    weights = np.exp(log_weight) / np.exp(log_weight).sum()
    start, old = np.diag([4.0, 1, 1, 1]), np.diag([1.0, 2, 3, 4])
    second = sum(w * np.outer(x, x) for w, x in zip(weights, g, strict=True))
    precision = 0.7 * np.linalg.inv(old) + 0.3 * (second + np.linalg.inv(start) / 4)
    arrays = (jnp.asarray(x, jnp.float32) for x in (g, log_weight, old, start))
    got = mass_matrix.score(*arrays)
    np.testing.assert_allclose(got, np.linalg.inv(precision), rtol=2e-4, atol=1e-6)


def test_score_keeps_what_it_has_when_gradients_are_hopeless():
    old = jnp.diag(jnp.array([1.0, 2.0]))
    for bad in (jnp.full((3, 2), 1e30), jnp.full((3, 2), jnp.nan)):
        got = mass_matrix.score(bad, jnp.zeros(3), old, jnp.eye(2))
        np.testing.assert_array_equal(got, old)


@pytest.mark.slow
def test_score_finds_the_narrow_directions_of_a_posterior():
    model = LinearGaussian(16, noise=0.02)
    key = jax.random.key(0)
    settings = {"num_chains": 64, "num_steps": 30, "thin": 1}
    score = jaxgen.sample(key, model.posterior, precondition="score", **settings)
    plain = jaxgen.sample(key, model.posterior, precondition="diagonal", **settings)

    def autocorrelation(draws):
        z = draws - draws.mean((0, 1))
        return float(((z[:, 5:] * z[:, :-5]).mean((0, 1)) / (z * z).mean((0, 1))).max())

    assert autocorrelation(score.draws) < 0.35
    assert autocorrelation(plain.draws) > 0.6
    # The default is the one that mixes.
    default = jaxgen.sample(key, model.posterior, **settings)
    np.testing.assert_array_equal(default.draws, score.draws)


@pytest.mark.parametrize(
    ("precondition", "kernel", "wanted"),
    [
        ("full", None, "precondition: expected True, False or one of none, diagonal, dense, score"),
        ("dense", jaxgen.kernels.Barker(), "HMC and NUTS take a dense"),
    ],
)
def test_what_cannot_be_used_is_refused(precondition, kernel, wanted):
    posterior = LinearGaussian(2).posterior
    with pytest.raises(jaxgen.InputError, match=wanted):
        jaxgen.sample(jax.random.key(0), posterior, kernel, precondition=precondition)


def test_a_dense_matrix_for_thousands_of_latents_is_refused():
    with pytest.raises(jaxgen.InputError, match="at most 1024 latent"):
        mass_matrix.as_form("dense", 4096, 64, True, "HMC")


@pytest.mark.parametrize(
    ("dimension", "chains", "dense", "form"),
    [(64, 64, True, "score"), (64, 31, True, "diagonal"), (2, 1, False, "diagonal")],
)
def test_the_choice_of_a_form(dimension, chains, dense, form):
    assert mass_matrix.as_form(True, dimension, chains, dense, "") == form
