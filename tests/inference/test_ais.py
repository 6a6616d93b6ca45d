"""Annealed importance sampling against closed forms; its invariances; its refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen import InputError, kernels, schedules
from jaxgen.target.path import geometric_path, likelihood_path, tempered_prior_path
from tests.toys import LinearGaussian, skewed_moments, skewed_posterior


@pytest.mark.parametrize("kernel", [kernels.MALA(), kernels.HMC(3)], ids=lambda k: k.name)
@pytest.mark.parametrize("size", [2, 8])
def test_log_z_with_coarse_schedules(kernel, size):
    # Coarse ones: with 200 temperatures even a cache left over from the last beta looks right.
    problem = LinearGaussian(size, noise=1.0, seed=1)
    for betas in (schedules.linear(4), schedules.geometric(10, 0.01)):
        result = jaxgen.ais(
            jax.random.key(0), problem.posterior, kernel, betas, num_chains=2048, step_size=0.3
        )
        assert result.exactness == "exact"
        assert result.log_z_standard_error < 0.1
        assert abs(result.log_z - problem.log_z) < 4 * result.log_z_standard_error
        weights = np.asarray(jax.nn.softmax(result.log_weight))
        mean = weights @ np.asarray(result.position)
        np.testing.assert_allclose(mean, problem.mean, atol=0.15)


def test_weights_repair_a_skewed_target():
    a = 2.0
    result = jaxgen.ais(
        jax.random.key(1),
        skewed_posterior(1, a),
        kernels.MALA(),
        schedules.linear(5),
        num_chains=4096,
        step_size=0.1,
    )
    weights = np.asarray(jax.nn.softmax(result.log_weight))
    z = np.asarray(result.position)[:, 0]
    for power in (1, 3):
        want = skewed_moments(a, 1.0, power)
        error = np.sqrt(np.sum(weights**2 * (z**power - want) ** 2))
        assert abs(weights @ z**power - want) < 4 * error


@pytest.mark.parametrize("resample", [None, "systematic"])
def test_adaptive_betas_reach_one_and_agree(resample):
    problem = LinearGaussian(8, noise=0.5, seed=2)
    result = jaxgen.ais(
        jax.random.key(2), problem.posterior, num_chains=512, resample=resample, num_mcmc_steps=2
    )
    assert result.exactness == "adapted"
    assert result.beta == 1.0
    assert np.all(np.diff(result.history.beta) > 0)
    assert abs(result.log_z - problem.log_z) < 4 * result.log_z_standard_error + 0.05
    if resample:
        assert result.history.resampled.any()
        assert result.history.ess.min() > 0.3 * 512


def test_raw_schedules_end_where_they_say():
    problem = LinearGaussian(2, noise=1.0)
    betas = schedules.sigmoid(30, -10, 2, rescale=False)
    result = jaxgen.ais(
        jax.random.key(0), problem.posterior, kernels.HMC(3), betas, num_chains=64, step_size=0.3
    )
    assert result.beta == pytest.approx(0.8808, abs=1e-3)
    np.testing.assert_allclose(result.history.beta, betas[1:], rtol=1e-5)


@pytest.mark.slow
def test_the_other_paths_give_the_same_evidence():
    problem = LinearGaussian(2, noise=1.0, seed=1)
    prior = jaxgen.Gaussian(jnp.asarray(problem.mean, jnp.float32), jnp.full(2, 0.8))
    results = [
        jaxgen.ais(
            jax.random.key(3),
            path,
            kernels.HMC(3),
            schedules.linear(20),
            num_chains=1024,
            step_size=0.3,
        )
        for path in (
            geometric_path(prior, problem.posterior),
            likelihood_path(_with(problem.posterior, problem.posterior.condition.untempered())),
        )
    ]
    for result in results:
        assert abs(result.log_z - problem.log_z) < 4 * result.log_z_standard_error + 1e-3
    # The tempered-prior path integrates the likelihood alone: N(b; ., .) over flat z.
    flat = jaxgen.ais(
        jax.random.key(4),
        tempered_prior_path(problem.posterior),
        kernels.HMC(5),
        schedules.linear(60),
        num_chains=2048,
        step_size=0.3,
    )
    want = -np.linalg.slogdet(problem.a)[1]
    assert abs(flat.log_z - want) < 4 * flat.log_z_standard_error + 0.02


def _with(posterior, condition):
    return jaxgen.Posterior(posterior.prior, posterior.generator, condition)


def test_a_chain_is_the_same_alone_or_among_others():
    problem = LinearGaussian(3).posterior
    options = {"betas": schedules.linear(15), "step_size": 0.2}
    few = jaxgen.ais(jax.random.key(5), problem, kernels.HMC(3), num_chains=3, **options)
    many = jaxgen.ais(jax.random.key(5), problem, kernels.HMC(3), num_chains=40, **options)
    np.testing.assert_allclose(few.position, many.position[:3], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(few.log_weight, many.log_weight[:3], rtol=1e-3, atol=1e-4)


def test_with_a_tile_chains_agree_to_the_last_bit():
    problem = LinearGaussian(3).posterior
    options = {"betas": schedules.linear(15), "step_size": 0.2, "tile": 4}
    few = jaxgen.ais(jax.random.key(5), problem, kernels.HMC(3), num_chains=3, **options)
    many = jaxgen.ais(jax.random.key(5), problem, kernels.HMC(3), num_chains=10, **options)
    np.testing.assert_array_equal(few.position, many.position[:3])
    np.testing.assert_array_equal(few.log_weight, many.log_weight[:3])


def test_collapsed_weights_are_noted():
    problem = LinearGaussian(8, noise=0.05).posterior
    result = jaxgen.ais(
        jax.random.key(0), problem, kernels.MALA(), [0.0, 1.0], num_chains=64, step_size=1e-5
    )
    assert any("weights collapsed" in note for note in result.notes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_chains": 0}, "num_chains: expected an integer of at least 1; got 0"),
        ({"num_chains": 2.5}, "num_chains"),
        ({"num_mcmc_steps": 0}, "num_mcmc_steps"),
        ({"tile": 0}, "tile"),
        ({"resample": "best"}, "resample"),
        ({"resample_threshold": 2.0}, "resample_threshold"),
        ({"betas": schedules.Adaptive(1.5)}, "Adaptive.cess"),
        ({"betas": [0.0, 0.5, 0.4]}, "betas"),
        ({"kernel": "hmc"}, "kernel: expected a kernel of"),
        ({"kernel": kernels.HMC(0)}, "HMC.num_steps"),
    ],
)
def test_bad_arguments_are_one_line(options, words):
    with pytest.raises(InputError, match=words) as caught:
        jaxgen.ais(jax.random.key(0), LinearGaussian(2).posterior, **options)
    assert "\n" not in str(caught.value)


def test_targets_that_do_not_fit_are_refused():
    problem = LinearGaussian(3).posterior
    with pytest.raises(InputError, match="target: expected a Posterior"):
        jaxgen.ais(jax.random.key(0), lambda z: 0.0)
    wrong = jaxgen.Posterior(jaxgen.Gaussian.standard(4), problem.generator, problem.condition)
    with pytest.raises(InputError, match="prior: expected latents that the generator takes"):
        jaxgen.ais(jax.random.key(0), wrong)
    impossible = _with(problem, lambda image: jnp.log(jnp.zeros(())) + 0 * image.sum())
    with pytest.raises(InputError, match="finite log likelihood"):
        jaxgen.ais(jax.random.key(0), impossible, num_chains=4)


def test_an_adaptive_schedule_that_runs_out_says_so():
    problem = LinearGaussian(8, noise=0.01).posterior
    with pytest.raises(InputError, match=r"after 3 temperatures beta is"):
        jaxgen.ais(
            jax.random.key(0),
            problem,
            betas=schedules.Adaptive(0.9, max_temperatures=3),
            num_chains=32,
        )


def test_score_priors_have_no_importance_weights():
    problem = LinearGaussian(2).posterior
    prior = jaxgen.ScorePrior(jnp.negative, jaxgen.Gaussian.standard(2))
    posterior = jaxgen.Posterior(prior, problem.generator, problem.condition)
    with pytest.raises(InputError, match="importance weights"):
        jaxgen.ais(jax.random.key(0), posterior, kernels.MALAApprox.langevin(0.01), num_chains=4)
