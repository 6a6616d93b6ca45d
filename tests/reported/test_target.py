"""Situations reported elsewhere that concern what is sampled, each with the right answer.

The sources are repositories and their issues; nothing of theirs is copied.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen.core.errors import InputError

SHAPE = (4, 4, 1)
WEIGHTS = jax.random.normal(jax.random.key(1), (4, 16), jnp.float32)
PRIOR = jaxgen.Gaussian.standard(4)
SEEN = jaxgen.ObservedPixels(jnp.full(SHAPE, 0.4), jnp.ones((4, 4)), 0.2)


def plain(z):
    return jax.nn.sigmoid(z @ WEIGHTS).reshape(SHAPE)


def test_x64():
    """FlowMC 200 (mended there by PR 209): every posterior was refused under `jax_enable_x64`."""
    wanted = jaxgen.Posterior(PRIOR, plain, SEEN)(jnp.ones(4))
    with jax.enable_x64(True):
        posterior = jaxgen.Posterior(
            jaxgen.Gaussian.standard(4),
            plain,
            jaxgen.ObservedPixels(jnp.full(SHAPE, 0.4), jnp.ones((4, 4)), 0.2),
        )
        posterior.check()
        z = jnp.ones(4)
        assert z.dtype == jnp.float64
        np.testing.assert_allclose(posterior(z), wanted, rtol=1e-5)


def test_equinox_mlp():
    """Equinox 1127 and 149: an equinox MLP as generator died of its activation function."""
    eqx = pytest.importorskip("equinox")
    mlp = eqx.nn.MLP(4, 16, 8, 2, key=jax.random.key(0))
    posterior = jaxgen.Posterior(PRIOR, mlp, lambda x: -jnp.sum((x - 0.1) ** 2))
    posterior.check()
    z = jnp.ones(4)
    np.testing.assert_allclose(jax.jit(lambda p, z: p.image(z))(posterior, z), mlp(z), rtol=1e-5)


def test_generator_with_a_host_random_generator():
    """Rosinality/stylegan2-pytorch 78: noise drawn outside JAX was frozen in, and called exact."""

    def generator(z):
        return plain(z) + np.random.default_rng().normal(size=SHAPE).astype(np.float32)

    with pytest.raises(InputError, match="generator: expected the same value"):
        jaxgen.Posterior(PRIOR, generator, SEEN).check()


def test_generator_that_changes_a_global():
    """StyleGAN2-ada-pytorch 285: a counter moved on between two calls."""
    calls = []

    def generator(z):
        calls.append(1)
        return plain(z) * (1 + 0.01 * len(calls))

    with pytest.raises(InputError, match="generator: expected the same value"):
        jaxgen.Posterior(PRIOR, generator, SEEN).check()


def test_latents_as_a_dict_with_a_key_named_position():
    """Rosinality/stylegan2-pytorch 78 and 197: w and noise as a dict."""
    prior = jaxgen.Gaussian(
        {"position": jnp.zeros(4), "noise": jnp.zeros(SHAPE)},
        {"position": jnp.ones(4), "noise": jnp.ones(SHAPE)},
    )
    posterior = jaxgen.Posterior(prior, lambda z: plain(z["position"]) + 0.1 * z["noise"], SEEN)
    posterior.check()
    z = prior.sample(jax.random.key(0))
    gradient = jax.grad(posterior.logdensity)(z)
    assert jax.tree.structure(gradient) == jax.tree.structure(z)


def test_gaussian_of_plain_numbers_and_of_lists():
    """`Gaussian(0., 1.)` and `Gaussian([0.], [1.])` ended in raw errors."""
    one = jaxgen.Gaussian(0.0, 1.0)
    one.check()
    assert one.sample(jax.random.key(0)).shape == ()
    np.testing.assert_allclose(one.log_prob(jnp.float32(0)), -0.5 * np.log(2 * np.pi), rtol=1e-6)
    listed = jaxgen.Gaussian([0.0], [1.0])
    listed.check()
    assert listed.sample(jax.random.key(0))[0].shape == ()


def test_bfloat16_latents():
    """They ended in errors of a loop's carry; chains of 8 bits do not move."""
    with pytest.raises(InputError, match=r"Gaussian.mean: .*float32 or float64; got bfloat16"):
        jaxgen.Posterior(jaxgen.Gaussian.standard(4, jnp.bfloat16), plain, SEEN).check()


def test_numpy_generator_is_blamed_itself():
    """A NumPy generator was blamed on the prior."""

    def generator(z):
        return np.tanh(np.asarray(z) @ np.asarray(WEIGHTS)).reshape(SHAPE)

    with pytest.raises(InputError, match=r"^generator: .*NumPy"):
        jaxgen.Posterior(PRIOR, generator, SEEN).check()


def test_batch_norm_in_training_mode_within_a_closure():
    """A BatchNorm that sees one sample gives the same image for every latent: refused."""

    def generator(z, train=True):
        hidden = z[None] @ WEIGHTS
        if train:  # what such a layer computes of its batch
            hidden = (hidden - hidden.mean(axis=0, keepdims=True)) / jnp.sqrt(
                hidden.var(axis=0, keepdims=True) + 1e-5
            )
        return jax.nn.sigmoid(hidden).reshape(SHAPE)

    with pytest.raises(InputError, match=r"generator: .*BatchNorm in training mode"):
        jaxgen.Posterior(PRIOR, generator, SEEN).check()
    jaxgen.Posterior(PRIOR, lambda z: generator(z, train=False), SEEN).check()


def test_large_latents_of_w_plus():
    """StyleGAN3-CLIP-notebooks 13: W+ latents, one row for each layer."""
    posterior = jaxgen.Posterior(
        jaxgen.Gaussian.standard((6, 4)), lambda w: plain(w.sum(axis=0) / 6**0.5), SEEN
    )
    posterior.check()
    assert jax.grad(posterior.logdensity)(jnp.ones((6, 4))).shape == (6, 4)
