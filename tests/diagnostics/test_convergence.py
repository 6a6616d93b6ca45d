"""R-hat and ESS against arviz; symmetries; verdicts on chains that mix and that do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen import InputError, kernels, schedules
from jaxgen.core.pytree import pytree
from jaxgen.diagnostics import diagnose, effective_sizes, split_rhat, symmetries
from tests.toys import LinearGaussian, RowImage

PRIOR = jaxgen.Gaussian.standard(6)


def ar1(rho, chains=4, count=400, seed=0, quantities=3):
    """Chains x_t = rho x_{t-1} + noise, stationary: ESS is about N (1 - rho) / (1 + rho)."""
    rng = np.random.default_rng(seed)
    x = np.empty((chains, count, quantities))
    x[:, 0] = rng.normal(size=(chains, quantities))
    for t in range(1, count):
        noise = rng.normal(size=(chains, quantities))
        x[:, t] = rho * x[:, t - 1] + np.sqrt(1 - rho**2) * noise
    return x


@pytest.fixture(scope="module")
def arviz():
    return pytest.importorskip("arviz")


@pytest.mark.parametrize("rho", [0.0, 0.6, 0.95])
@pytest.mark.parametrize("count", [31, 400])
def test_agrees_with_arviz(arviz, rho, count):
    x = ar1(rho, count=count)
    x[..., 1] = np.exp(2 * x[..., 1])  # heavy tails
    x[..., 2] = np.round(x[..., 2])  # ties
    x[0] += 0.5  # a chain that is elsewhere
    rhat, sizes = split_rhat(x), effective_sizes(x)
    for k in range(3):
        one = x[..., k]
        np.testing.assert_allclose(rhat[k], arviz.rhat(one), rtol=1e-4)
        np.testing.assert_allclose(sizes.bulk[k], arviz.ess(one, method="bulk"), rtol=0.15)
        np.testing.assert_allclose(sizes.tail[k], arviz.ess(one, method="tail"), rtol=0.1)


def test_effective_size_of_an_autoregression():
    x = ar1(0.7, chains=8, count=2000, quantities=8)
    want = 16000 * 0.3 / 1.7
    np.testing.assert_allclose(effective_sizes(x).bulk.mean(), want, rtol=0.1)
    assert np.all(split_rhat(x) < 1.02)


def test_shapes_and_what_says_nothing():
    x = ar1(0.0, count=40).reshape(4, 40, 3, 1)
    assert split_rhat(x).shape == effective_sizes(x).tail.shape == (3, 1)
    assert split_rhat(x[..., 0, 0]).shape == ()
    assert np.all(np.isnan(split_rhat(x[:, :3])))
    assert np.isnan(split_rhat(np.ones((4, 10))))
    stuck = np.repeat(np.arange(4.0)[:, None], 10, 1)
    assert np.isinf(split_rhat(stuck))
    with pytest.raises(InputError, match="draws"):
        split_rhat(np.ones(3))


@pytree
class Blind:
    """Sees the direction of the first four of six coordinates."""

    def __call__(self, z):
        used = z[:4] / jnp.linalg.norm(z[:4])
        return jnp.outer(used, used + 1.0)[..., None]


@pytree
class Even:
    def __call__(self, z):
        return (z * z)[None, :, None]


def test_symmetries_of_a_generator():
    key = jax.random.key(0)
    blind = symmetries(key, Blind(), PRIOR)
    assert blind.radius
    assert not blind.sign
    np.testing.assert_array_equal(blind.ignored, [4, 5])
    assert "Sphere" in blind.notes[0]
    assert "ignores 2 of 6" in blind.notes[1]
    assert not any("Sphere" in n for n in symmetries(key, Blind(), jaxgen.Sphere.of(6)).notes)
    even = symmetries(key, Even(), PRIOR)
    assert even.sign
    assert not even.radius
    plain = symmetries(key, RowImage(), PRIOR)
    assert not plain.radius
    assert not plain.sign
    assert plain.notes == ()


def run(step_size, num_steps, **more):
    problem = LinearGaussian(4, noise=0.5)
    result = jaxgen.sample(
        jax.random.key(0),
        problem.posterior,
        kernels.HMC(3, jitter=True),
        num_chains=16,
        num_steps=num_steps,
        thin=1,
        warmup=0,
        betas=schedules.linear(5),
        step_size=step_size,
        precondition=False,
        resample=None,
        **more,
    )
    return problem, result


def test_a_run_that_mixes_and_one_that_does_not():
    problem, good = run(0.5, 60)
    judged = diagnose(good, problem.posterior)
    assert judged.verdict.startswith("mixed")
    assert set(judged.rhat) == {"latent", "log density", "image"}
    assert max(judged.rhat.values()) < 1.05
    assert min(judged.ess_bulk.values()) > 100
    assert judged.num_draws == 16 * 60
    # The spaces see the same chains: an affine image's R-hat cannot be far from the latent's.
    np.testing.assert_allclose(judged.rhat["image"], judged.rhat["latent"], atol=0.05)
    _, bad = run(0.002, 60)
    judged = diagnose(bad, problem.posterior)
    assert judged.verdict.startswith("stuck")
    assert max(judged.rhat.values()) > 1.5
    # Independent first states that islands agree on, but a log Z that is not known well.
    _, halfway = run(0.1, 60)
    found = {"island_log_z": np.array([-3.0, -3.9]), "num_lineages": 16}
    for error, verdict in ((0.4, "islands agree"), (0.7, "uncertain"), (1.2, "stuck")):
        after = halfway._replace(log_z_standard_error=error, **found)
        assert diagnose(after, problem.posterior).verdict.startswith(verdict)
    _, short = run(0.5, 2)
    assert diagnose(short, problem.posterior).verdict.startswith("unknown")


def test_images_that_were_kept_are_used():
    problem, kept = run(0.5, 8, collect=jaxgen.images)
    made = kept._replace(draws=kept.draws["position"])
    a, b = (diagnose(r, problem.posterior, batch=50) for r in (kept, made))
    np.testing.assert_allclose(a.rhat["image"], b.rhat["image"], rtol=1e-3)
    np.testing.assert_allclose(a.radius, b.radius, rtol=1e-6)
    _, nothing = run(0.5, 2, collect=None)
    with pytest.raises(InputError, match="positions"):
        diagnose(nothing, problem.posterior)
