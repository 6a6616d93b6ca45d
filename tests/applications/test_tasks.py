"""Co-generation on a linear generator, where the posterior is known; and what goes wrong."""

import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen import Posterior, tasks
from jaxgen.core.errors import InputError
from jaxgen.core.pytree import pytree
from jaxgen.target.conditions import (
    GaussianBlur,
    LearnedNoise,
    NoiseLevels,
    ObservedPixels,
    Operator,
)

SIZE, D = 4, 3
RNG = np.random.default_rng(0)
MATRIX = 0.1 * RNG.normal(size=(SIZE * SIZE, D))
Z = np.array([0.6, -1.0, 0.3])
TRUTH = (0.5 + MATRIX @ Z).reshape(SIZE, SIZE, 1).astype(np.float32)
MASK = np.ones((SIZE, SIZE), np.float32)
MASK[2:] = 0
PRIOR = jaxgen.Gaussian.standard(D)
KERNEL = jaxgen.kernels.HMC(6, jitter=True)
QUICK = {"num_chains": 64, "num_steps": 20, "kernel": KERNEL, "num_mcmc_steps": 1}


@pytree
class Linear:
    """G(z) = 1/2 + A z."""

    matrix: jax.Array

    def __call__(self, z):
        return (0.5 + self.matrix @ z).reshape(SIZE, SIZE, 1)


G = Linear(jnp.asarray(MATRIX, jnp.float32))


def exact(operator, observation, noise):
    """Mean and deviation of the image given A(x) + noise, A as a matrix on pixels."""
    a = operator @ MATRIX
    covariance = np.linalg.inv(np.eye(D) + a.T @ a / noise**2)
    mean = covariance @ a.T @ (observation - operator @ np.full(SIZE * SIZE, 0.5)) / noise**2
    spread = np.sqrt(np.einsum("ij,jk,ik->i", MATRIX, covariance, MATRIX))
    return 0.5 + MATRIX @ mean, spread


def check(found, operator, observation, noise):
    mean, spread = exact(operator, observation, noise)
    # 64 chains of nearly independent draws: four standard errors of that many.
    assert np.all(np.abs(found.mean.ravel() - mean) < 4 * spread / 8 + 1e-3)
    np.testing.assert_allclose(found.deviation.ravel(), spread, rtol=0.25, atol=1e-3)
    width = (found.high - found.low).ravel()
    np.testing.assert_allclose(width, 2 * 1.645 * spread, rtol=0.3, atol=2e-3)
    assert not found.out_of_reach
    assert found.samples.shape == (64, SIZE, SIZE, 1)


@pytest.fixture(scope="module")
def completed():
    image = TRUTH + 9.0 * (1 - MASK[..., None])  # hidden pixels may hold anything
    return tasks.inpaint(jax.random.key(0), G, image, MASK, noise=0.05, prior=PRIOR, **QUICK)


def test_inpainting_has_the_posterior_of_a_linear_generator(completed):
    rows = np.eye(SIZE * SIZE)[MASK.ravel() > 0]
    check(completed, rows, rows @ TRUTH.ravel(), 0.05)
    assert completed.noise == pytest.approx(0.05)
    assert completed.result.draws["image"].shape == (64, 20, SIZE, SIZE, 1)


def test_draws_need_not_be_kept(completed):
    streamed = tasks.inpaint(
        jax.random.key(0), G, TRUTH, MASK, noise=0.05, prior=PRIOR, keep=False, **QUICK
    )
    np.testing.assert_allclose(streamed.mean, completed.mean, atol=1e-6)
    np.testing.assert_allclose(streamed.deviation, completed.deviation, atol=1e-6)
    np.testing.assert_array_equal(streamed.samples, completed.samples)
    assert np.max(np.abs(streamed.low - completed.low)) < 1.5 / 256
    assert np.max(np.abs(streamed.high - completed.high)) < 1.5 / 256
    assert streamed.residual == pytest.approx(completed.residual, rel=1e-5)
    assert streamed.result.draws.counts.sum() == 64 * 20 * SIZE * SIZE
    with pytest.raises(InputError, match="keep"):
        tasks.inpaint(
            jax.random.key(0), G, TRUTH, MASK, prior=PRIOR, keep=False, resample=None, **QUICK
        )


@pytest.mark.parametrize("equal", [True, False])
def test_summing_up_takes_no_more_memory_than_the_draws_again(completed, equal):
    draws = {
        k: np.tile(v, (1, 400, *(1,) * (v.ndim - 2))) for k, v in completed.result.draws.items()
    }
    condition = ObservedPixels(TRUTH * MASK[..., None], MASK, tasks.unit_noise(0.05))
    weights = np.full(64, 1 / 64) if equal else np.arange(1, 65) / np.arange(1, 65).sum()
    result = completed.result._replace(draws=draws, weights=weights)
    tracemalloc.start()
    try:
        found = tasks.summarise(result, Posterior(PRIOR, G, condition), condition)
        extra = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert extra < draws["image"].nbytes
    each = np.asarray(draws["image"], np.float64).mean(axis=1)
    np.testing.assert_allclose(found.mean, np.tensordot(weights, each, 1), atol=1e-6)
    if equal:
        flat = draws["image"].reshape(-1, SIZE, SIZE, 1)
        low = np.quantile(flat, 0.05, axis=0, method="weibull")
        np.testing.assert_allclose(found.low, low, atol=1e-6)
        assert found.residual == pytest.approx(completed.residual, rel=1e-5)


def test_samples_are_ranked(completed):
    flat = completed.samples.reshape(64, -1)
    z = np.linalg.lstsq(MATRIX, (flat - 0.5).T, rcond=None)[0].T
    seen = MASK.ravel() > 0
    error = np.sum((flat - TRUTH.ravel())[:, seen] ** 2, axis=1)
    density = -0.5 * np.sum(z**2, axis=1) - 0.5 * error / 0.05**2
    assert np.all(np.diff(density) <= 1e-2)


@pytest.mark.slow
def test_reconstruct_with_a_blur():
    blur = GaussianBlur.of(0.8)
    found = tasks.reconstruct(
        jax.random.key(1), G, blur(TRUTH), blur, noise=0.05, prior=PRIOR, **QUICK
    )
    basis = np.eye(SIZE * SIZE, dtype=np.float32).reshape(-1, SIZE, SIZE, 1)
    matrix = np.asarray(jax.vmap(blur)(basis)).reshape(SIZE * SIZE, -1).T
    check(found, matrix, np.asarray(blur(TRUTH)).ravel(), 0.05)


@pytest.mark.slow
def test_what_the_generator_cannot_make_is_said():
    far = np.clip(TRUTH + 0.4 * RNG.choice([-1, 1], size=TRUTH.shape), 0, 1).astype(np.float32)
    whole = np.ones((SIZE, SIZE))
    given = tasks.inpaint(jax.random.key(2), G, far, whole, noise=0.05, prior=PRIOR, **QUICK)
    assert given.out_of_reach
    assert any("out of the generator's reach" in note for note in given.notes)
    found = tasks.inpaint(jax.random.key(2), G, far, whole, noise="learn", prior=PRIOR, **QUICK)
    assert found.noise > 0.15
    assert found.out_of_reach == (found.misfit > 0.7)


def test_super_resolution_learns_a_level():
    view = np.asarray(jaxgen.target.conditions.average_pool(jnp.asarray(TRUTH), 2))
    found = tasks.super_resolve(
        jax.random.key(3), G, view, 2, noise="student-t", prior=PRIOR, **QUICK
    )
    assert found.noise < 0.3
    assert found.mean.shape == (SIZE, SIZE, 1)


def test_the_authors_settings():
    settings = tasks.cogen_settings(4) | {"betas": [0.0, 0.3, 0.9]}
    found = tasks.inpaint(
        jax.random.key(4),
        G,
        TRUTH,
        MASK,
        noise=tasks.COGEN_NOISE,
        prior=PRIOR,
        compat="cogen",
        **settings,
    )
    assert found.result.exactness == "adapted"
    assert found.samples.shape == (4, SIZE, SIZE, 1)
    assert int(found.result.num_gradients.max()) <= 20 * 3 + 2


def test_learned_names():
    base = ObservedPixels(jnp.asarray(TRUTH), jnp.asarray(MASK), jnp.float32(0.1))
    assert tasks.learned(base, 0.1) is base
    assert isinstance(tasks.learned(base, "learn"), NoiseLevels)
    assert isinstance(tasks.learned(base, "student-t"), LearnedNoise)
    with pytest.raises(InputError, match="noise"):
        tasks.learned(base, "guess")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({}, "prior"),
        ({"prior": PRIOR, "level": 1.0}, "level"),
        ({"prior": PRIOR, "compat": "paper"}, "compat"),
        ({"prior": PRIOR, "noise": -1.0}, "noise"),
    ],
)
def test_errors(arguments, name):
    with pytest.raises(InputError, match=name):
        tasks.inpaint(jax.random.key(0), G, TRUTH, MASK, **arguments)
    with pytest.raises(InputError, match="fashion-mnist/cnn, a classifier"):
        tasks.inpaint(jax.random.key(0), "fashion-mnist/cnn", TRUTH, MASK)


def test_an_operator_takes_plain_functions():
    condition = Operator(jnp.zeros(1), 0.1, lambda x: jnp.sum(x)[None])
    assert float(condition.residual(jnp.ones((2, 2, 1)))[0]) == -4.0
