"""Bounds on the evidence from both sides, against closed forms; the path backwards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxgen
from jaxgen import InputError, adapt, kernels, schedules
from jaxgen.core.pytree import pytree
from jaxgen.inference import batched
from jaxgen.inference.bdmc import (
    DecoderPaths,
    Reversed,
    bdmc,
    reverse_ais,
    reverse_betas,
    reverse_path,
    reverse_steps,
    simulate,
)
from jaxgen.target.observations import BernoulliObservation, GaussianObservation
from jaxgen.target.path import geometric_path, likelihood_path
from tests.toys import Affine, LinearGaussian, skewed_posterior

SIZE, NOISE = 3, 0.6


def affine(seed=0):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(SIZE, SIZE)) / np.sqrt(SIZE)
    return Affine(
        jnp.asarray(a, jnp.float32), jnp.asarray(0.1 * rng.normal(size=SIZE), jnp.float32)
    )


def exact(generator, images):
    a = np.asarray(generator.matrix, np.float64)
    marginal = a @ a.T + NOISE**2 * np.eye(SIZE)
    flat = np.asarray(images, np.float64).reshape(len(images), SIZE)
    return stats.multivariate_normal(np.asarray(generator.offset), marginal).logpdf(flat)


@pytree
class Wide:
    """A rough encoder: too wide, not quite centred."""

    matrix: jax.Array

    def __call__(self, image):
        mean = 0.8 * self.matrix @ image[:, 0, 0]
        return jnp.stack([mean, jnp.full(SIZE, -0.5)])


def encoder(generator):
    a = np.asarray(generator.matrix)
    return Wide(jnp.asarray(np.linalg.solve(a.T @ a + NOISE**2 * np.eye(SIZE), a.T)))


def test_the_reversed_path_is_the_same_path_from_its_end():
    posterior = skewed_posterior(2)
    z = jnp.array([0.3, -1.2])
    for path in (
        likelihood_path(posterior),
        geometric_path(jaxgen.Gaussian(jnp.ones(2), jnp.full(2, 0.7)), posterior),
    ):
        back = reverse_path(path, z)
        for beta in (0.0, 0.25, 1.0):
            np.testing.assert_allclose(back(z + 1, beta), path(z + 1, 1 - beta), rtol=1e-5)
        again, log_weight = back.draw(jax.random.key(0))
        np.testing.assert_array_equal(again, z)
        assert log_weight == 0
        # There and back.
        twice = reverse_path(back, z)
        np.testing.assert_allclose(twice(z, 0.3), path(z, 0.3), rtol=1e-5)


def test_schedules_and_steps_backwards():
    betas = np.array([0.0, 0.1, 0.4, 1.0])
    np.testing.assert_allclose(reverse_betas(betas), [0.0, 0.6, 0.9, 1.0])
    # At the forward betas 0.4, 0.1 and 0.
    np.testing.assert_allclose(reverse_steps([3.0, 2.0, 1.0]), [2.0, 3.0, 3.0])
    np.testing.assert_allclose(reverse_steps([[3.0], [1.0]]), [[3.0], [1.0]])
    with pytest.raises(InputError, match="from 0 to 1"):
        reverse_betas([0.1, 1.0])


def bounds(betas, pairs=300, **more):
    return bdmc(
        jax.random.key(0),
        jaxgen.Gaussian.standard(SIZE),
        affine(),
        GaussianObservation(NOISE),
        kernels.HMC(3),
        betas,
        num_pairs=pairs,
        num_chains=8,
        step_sizes=0.25,
        **more,
    )


@pytest.fixture(scope="module")
def coarse():
    # T = 5, where the weights matter and a wrong one shows.
    return bounds(schedules.linear(5))


@pytest.mark.parametrize("with_encoder", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_both_estimates_are_unbiased_and_bound_the_truth(coarse, with_encoder):
    generator = affine()
    result = coarse
    if with_encoder:
        result = bounds(schedules.linear(5), encoder=encoder(generator))
    truth = exact(generator, result.images)
    low, up = np.exp(result.lower - truth), np.exp(truth - result.upper)
    for ratio in (low, up):
        error = ratio.std() / np.sqrt(len(ratio))
        assert error < 0.1
        assert abs(ratio.mean() - 1) < 4 * error
    assert result.lower.mean() < truth.mean() < result.upper.mean()
    assert result.gap == pytest.approx(np.mean(result.upper - result.lower), rel=1e-4)
    assert 0 < result.gap_standard_error < result.gap
    # Five moves of 3 gradients, one more for each backwards, and those at the start.
    assert 5 * 7 <= result.num_gradients <= 5 * 7 + 4


@pytest.mark.slow
def test_the_gap_shrinks_with_temperatures(coarse):
    fine = bounds(schedules.linear(50), pairs=100)
    assert fine.gap < coarse.gap / 2
    assert fine.gap > -3 * fine.gap_standard_error
    assert fine.forward.ess.mean() > coarse.forward.ess.mean()


def test_one_posterior_from_both_sides():
    problem = LinearGaussian(SIZE, noise=NOISE)
    betas, table = schedules.linear(40), adapt.PerTemperature(jnp.linspace(0.5, 0.3, 40))
    settings = {"num_chains": 256, "step_size": table}
    kernel = kernels.HMC(3)
    low = jaxgen.ais(jax.random.key(0), problem.posterior, kernel, betas, **settings)
    rng = np.random.default_rng(0)
    ups = []
    for i in range(20):
        z = rng.multivariate_normal(problem.mean, problem.covariance).astype(np.float32)
        key = jax.random.key(100 + i)
        up = reverse_ais(key, problem.posterior, jnp.asarray(z), kernel, betas, **settings)
        assert up.exactness == "exact"
        ups.append(up.log_z)
    assert abs(low.log_z - problem.log_z) < 4 * low.log_z_standard_error
    assert abs(np.mean(ups) - problem.log_z) < 4 * np.std(ups) / np.sqrt(20) + 0.01


@pytest.mark.parametrize("backwards", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_many_at_once_are_the_same_as_one_by_one(backwards):
    generator = affine(2)
    paths = DecoderPaths(jaxgen.Gaussian.standard(SIZE), generator, GaussianObservation(NOISE))
    latents, images = simulate(jax.random.key(0), paths, 5)
    betas, key, kernel = schedules.linear(12), jax.random.key(3), kernels.HMC(3)
    steps = np.random.default_rng(0).uniform(0.2, 0.4, (5, 12))
    settings = {"num_chains": 4, "num_mcmc_steps": 2}
    calls = []
    family, items, size = (paths, images, None)
    if backwards:
        family, items, size = Reversed(paths), (images, latents), 2
    whole = batched.anneal(
        key,
        family,
        items,
        kernel,
        betas,
        steps,
        batch=size,
        progress=lambda *done: calls.append(done),
        **settings,
    )
    for i in range(5):
        item = jax.tree.map(lambda x, i=i: x[i], items)
        one = jaxgen.ais(
            jax.random.fold_in(key, i),
            family(item),
            kernel,
            betas,
            step_size=adapt.PerTemperature(jnp.asarray(steps[i])),
            **settings,
        )
        np.testing.assert_allclose(whole.log_z[i], one.log_z, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(whole.position[i], one.position, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(whole.acceptance_rate[i], one.acceptance_rate, rtol=1e-4)
    wanted = (10, 12, 22, 24, 34, 36) if backwards else (10, 12)
    assert calls == [(n, wanted[-1]) for n in wanted]


def test_binary_images_are_simulated_as_they_are_scored():
    @pytree
    class Flat:
        def __call__(self, z):
            return jax.nn.sigmoid(z[:, None, None] * jnp.ones((4, 5, 1)))

    paths = DecoderPaths(jaxgen.Gaussian.standard(4), Flat(), BernoulliObservation())
    latents, images = simulate(jax.random.key(0), paths, 3000)
    assert set(np.unique(images)) == {0.0, 1.0}
    mean = jax.vmap(Flat())(latents)
    assert abs(float(jnp.mean(images - mean))) < 4 * 0.5 / np.sqrt(images.size)
    want = stats.bernoulli(np.asarray(mean[0])).logpmf(np.asarray(images[0])).sum()
    got = paths.posterior(images[0]).log_likelihood(latents[0])
    np.testing.assert_allclose(got, want, rtol=1e-4)


def test_what_cannot_be_used():
    prior, generator = jaxgen.Gaussian.standard(SIZE), affine()
    with pytest.raises(InputError, match="noise: expected a positive number"):
        bdmc(jax.random.key(0), prior, generator, GaussianObservation(0.0))
    with pytest.raises(InputError, match="betas"):
        bdmc(jax.random.key(0), prior, generator, GaussianObservation(1.0), betas=[0.0, 0.5])
    kernel = kernels.PreconditionedCrankNicolson()
    with pytest.raises(InputError, match="Gaussian"):
        bdmc(jax.random.key(0), prior, generator, GaussianObservation(1.0), kernel)
