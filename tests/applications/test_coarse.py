"""Completion by a cheap view of an expensive generator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen.applications.coarse import cells, complete
from jaxgen.core.errors import InputError
from jaxgen.core.pytree import pytree


@pytree
class Smooth:
    """z -> an image of 16 x 16 pixels, from 8 numbers."""

    weights: object

    def __call__(self, z):
        return 0.5 + jnp.tensordot(jnp.tanh(z), self.weights, 1)


@pytree
class Cells:
    """The means of 4 x 4 pixels of another generator, and a little more."""

    generator: object
    more: object

    def __call__(self, z):
        return self.generator(z).reshape(4, 4, 4, 4, 1).mean((1, 3)) + self.more


@pytest.fixture
def pair():
    rng = np.random.default_rng(1)
    coarse = 0.06 * rng.normal(size=(8, 4, 4, 1))
    fine = coarse.repeat(4, 1).repeat(4, 2) + 0.01 * rng.normal(size=(8, 16, 16, 1))
    expensive = Smooth(jnp.asarray(fine, jnp.float32))
    return Cells(expensive, jnp.asarray(0.01 * rng.normal(size=(4, 4, 1)), jnp.float32)), expensive


def test_draws_are_the_generators_and_cover_what_is_hidden(pair):
    cheap, expensive = pair
    truth = np.asarray(expensive(jax.random.normal(jax.random.key(5), (8,))))
    mask = np.ones((4, 4), np.float32)
    mask[2:, 1:3] = 0
    y = cells(truth, 4) + 0.02 * np.random.default_rng(2).normal(size=(4, 4, 1))
    found = complete(
        0, cheap, expensive, y, mask, prior=jaxgen.Gaussian.standard(8), noise=0.02, error=0.01,
        num_chains=16, draws=4, num_steps=16, leapfrog=4, pool=8, probes=64,
    )  # fmt: skip
    assert found.images.shape == (64, 16, 16, 1)
    drawn = np.asarray(jax.vmap(expensive)(jnp.asarray(found.latents)))
    np.testing.assert_allclose(found.images, drawn, atol=1e-5)
    own = np.stack([cells(image, 4) for image in found.images])
    shown = np.asarray(found.result.draws["image"]).reshape(own.shape) + found.correction
    # The cheap view is off by the same amount everywhere, all of which the correction finds.
    np.testing.assert_allclose(found.correction, -np.asarray(cheap.more), atol=1e-5)
    np.testing.assert_allclose(own, shown, atol=1e-5)
    assert found.view_error < 1e-5
    assert found.residual < 0.04
    np.testing.assert_allclose(found.mean, found.images.mean(0), atol=1e-6)
    hidden = np.kron(mask, np.ones((4, 4))) == 0
    inside = (truth >= found.low) & (truth <= found.high)
    assert inside[hidden].mean() > 0.6
    # What lies in hidden cells makes no difference.
    again = complete(
        0, cheap, expensive, np.where(mask[..., None] > 0, y, 9.0), mask,
        prior=jaxgen.Gaussian.standard(8), noise=0.02, error=0.01, num_chains=16, draws=4,
        num_steps=16, leapfrog=4, pool=8, probes=64,
    )  # fmt: skip
    np.testing.assert_array_equal(found.images, again.images)


def test_draws_are_as_wide_as_the_posterior(pair):
    cheap, expensive = pair
    rng = np.random.default_rng(3)
    noise, mask = 0.1, np.ones((4, 4), np.float32)
    mask[2:, 1:3] = 0
    y = cells(np.asarray(expensive(jax.random.normal(jax.random.key(6), (8,)))), 4)
    y = y + noise * rng.normal(size=y.shape)
    found = complete(
        1, cheap, expensive, y, mask, prior=jaxgen.Gaussian.standard(8), noise=noise, error=0.001,
        num_chains=64, num_islands=4, draws=4, num_steps=16, leapfrog=4, pool=4, probes=64,
    )  # fmt: skip
    # The truth, by prior draws: each counts the likelihood of its own cells.
    z = rng.normal(size=(100_000, 8)).astype(np.float32)
    images = np.asarray(jax.vmap(expensive)(z))
    own = images.reshape(-1, 4, 4, 4, 4, 1).mean((2, 4))
    misfit = np.sum(mask[..., None] * (own - y) ** 2, axis=(1, 2, 3))
    weights = np.exp(-0.5 * (misfit - misfit.min()) / (noise**2 + 0.001**2))
    weights /= weights.sum()
    assert 1 / np.sum(weights**2) > 500
    mean = np.tensordot(weights, images, 1)
    deviation = np.sqrt(np.tensordot(weights, (images - mean) ** 2, 1))
    # 256 draws of 64 chains, of which about 100 are independent.
    assert np.abs(found.mean - mean).mean() < 0.2 * deviation.mean()
    assert np.mean(found.deviation) == pytest.approx(np.mean(deviation), rel=0.12)
    # Another draw lies inside the interval as often as it says.
    inside = ((images >= found.low) & (images <= found.high)).mean((1, 2, 3))
    assert weights @ inside == pytest.approx(0.9, abs=0.03)


def test_an_image_out_of_reach_is_named(pair):
    cheap, expensive = pair
    found = complete(
        0, cheap, expensive, np.full((4, 4, 1), 5.0), np.ones((4, 4)), noise=0.9,
        prior=jaxgen.Gaussian.standard(8), error=0.01, num_chains=8, draws=1, num_steps=2,
        warmup=1, leapfrog=2, pool=2, probes=16, reduction=2,
    )  # fmt: skip
    assert found.images.shape == (8, 8, 8, 1)
    assert any("the draws miss what was seen" in note for note in found.notes)


def test_cells_are_means_and_arguments_are_checked(pair):
    image = np.arange(16.0).reshape(4, 4)
    np.testing.assert_allclose(cells(image, 2), [[2.5, 4.5], [10.5, 12.5]])
    with pytest.raises(InputError, match="sides that 3 cells share"):
        cells(image, 3)
    prior = jaxgen.Gaussian.standard(8)
    for bad in ({"draws": 5}, {"level": 1.0}, {"burn_in": 0}, {"rounds": 0}, {"num_islands": 3}):
        with pytest.raises(InputError, match=next(iter(bad))):
            complete(0, *pair, np.zeros((4, 4, 1)), np.ones((4, 4)), prior=prior, **bad)


def test_chains_that_have_not_arrived_go_on_and_say_so(pair):
    cheap, expensive = pair
    arguments = {
        "prior": jaxgen.Gaussian.standard(8), "noise": 0.02, "error": 0.3, "num_chains": 8,
        "draws": 1, "num_steps": 2, "warmup": 1, "burn_in": 1, "leapfrog": 2, "pool": 2,
        "probes": 16,
    }  # fmt: skip
    # No latent makes this checkered image: misses are expected for the error, not for the noise.
    y = 0.5 + 0.3 * (-1.0) ** np.add.outer(np.arange(4), np.arange(4))[..., None]
    once = complete(0, cheap, expensive, y, np.ones((4, 4)), rounds=1, **arguments)
    thrice = complete(0, cheap, expensive, y, np.ones((4, 4)), rounds=3, **arguments)
    assert 1.3 * 0.02 < once.residual < 1.5 * 0.3
    assert np.all(thrice.result.num_gradients > once.result.num_gradients)
    for found in (once, thrice):
        assert any("the chains have not arrived" in note for note in found.notes)
