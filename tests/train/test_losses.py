"""The losses of GANs and of beta-VAEs against direct transcriptions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgen.core.errors import InputError
from jaxgen.models.fashion_mnist.dcgan import Discriminator
from jaxgen.train import gan, vae
from jaxgen.train.divergences import DIVERGENCES

REAL, FAKE = (jax.random.normal(jax.random.key(i), (6, 3, 3, 1)) for i in (0, 1))


def test_the_penalty_of_a_linear_critic_is_known():
    slope = jax.random.normal(jax.random.key(2), (3, 3, 1))
    wanted = (float(jnp.linalg.norm(slope.ravel())) - 1) ** 2
    for real, fake in ((REAL, FAKE), (REAL, REAL)):
        got = gan.gradient_penalty(
            lambda x: jnp.tensordot(x, slope, 3) + 5.0, real, fake, jax.random.key(3)
        )
        assert float(got) == pytest.approx(wanted, rel=1e-5)


def test_the_penalty_is_taken_between_real_and_fake():
    # The gradient of |x|^2 / 2 is x, so the penalty tells where it was taken.
    def penalty(real, fake):
        return gan.gradient_penalty(
            lambda x: 0.5 * jnp.sum(x**2, axis=(1, 2, 3)), real, fake, jax.random.key(3)
        )

    ones = jnp.ones((2000, 1, 1, 1))
    # y = e + 3 (1 - e), uniform on [1, 3]: E (y - 1)^2 = 4 / 3.
    assert float(penalty(ones, 3 * ones)) == pytest.approx(4 / 3, rel=0.06)
    assert float(penalty(ones, ones)) == pytest.approx(0.0, abs=1e-6)
    assert float(penalty(3 * ones, 3 * ones)) == pytest.approx(4.0, rel=1e-5)
    # A dead critic has a finite slope.
    slope = jax.grad(
        lambda a: gan.gradient_penalty(lambda x: a * x[:, 0, 0, 0], ones, ones, jax.random.key(0))
    )(0.0)
    assert np.isfinite(slope)


def test_losses_are_what_they_are_called():
    real, fake = (np.asarray(x.ravel()) for x in (REAL, FAKE))

    def both(name):
        critic, generator = gan.losses(gan.GANConfig(1, loss=name))
        return float(critic(real, fake)), float(generator(fake))

    p, q = (1 / (1 + np.exp(-x)) for x in (real, fake))
    original = -np.mean(np.log(p)) - np.mean(np.log(1 - q)), -np.mean(np.log(q))
    np.testing.assert_allclose(both("non-saturating"), original, rtol=1e-5)
    np.testing.assert_allclose(both("gan"), original, rtol=1e-5)
    np.testing.assert_allclose(
        both("wgan-gp"), (fake.mean() - real.mean(), -fake.mean()), rtol=1e-5
    )
    # Nowozin et al., Table 2: T = v and f* = exp(t - 1) for KL.
    wanted = np.mean(np.exp(fake - 1)) - real.mean(), -fake.mean()
    np.testing.assert_allclose(both("kl"), wanted, rtol=1e-5)
    for name, divergence in DIVERGENCES.items():
        assert both(name)[0] == pytest.approx(-float(divergence.value(real, fake)), rel=1e-5)


def test_what_cannot_be_trained():
    with pytest.raises(InputError, match="one of non-saturating, wgan-gp, kl"):
        gan.init(jax.random.key(0), gan.GANConfig(1, loss="hinge"))
    with pytest.raises(InputError, match="critic_steps"):
        gan.init(jax.random.key(0), gan.GANConfig(1, critic_steps=0))


@pytest.mark.slow
def test_a_wgan_s_critic_goes_downhill_and_keeps_its_kernels():
    config = gan.GANConfig(
        12, batch=8, latent=3, width=2, loss="wgan-gp", spectral=False, critic_steps=3, beta1=0.0
    )
    images = jnp.broadcast_to(jnp.linspace(0, 1, 28)[:, None, None], (24, 28, 28, 1))
    state = gan.init(jax.random.key(0), config)
    step = jax.jit(gan.make_step(config))
    seen = []
    for i in range(12):
        state, metrics = step(state, images, jax.random.key(i))
        seen.append({name: float(value) for name, value in metrics.items()})
    assert seen[-1]["loss_d"] < seen[0]["loss_d"]
    assert seen[-1]["real"] - seen[-1]["fake"] > seen[0]["real"] - seen[0]["fake"]
    assert int(state.opt_discriminator[0].count) == 36  # three updates for one of the generator
    assert int(state.opt_generator[0].count) == 12
    _, discriminator = gan.finish(jax.random.key(3), state, config, count=20)
    for a, b in zip(
        jax.tree.leaves(nnx.state(discriminator)), jax.tree.leaves(state.discriminator), strict=True
    ):
        np.testing.assert_array_equal(a, b)  # not divided by a norm
    assert isinstance(discriminator, Discriminator)


def test_the_loss_of_a_beta_vae():
    config = vae.VAEConfig(4, batch=5, latent=2, beta=4.0)
    state = vae.init(jax.random.key(0), config)
    images = jax.random.uniform(jax.random.key(1), (5, 28, 28, 1))
    key = jax.random.key(2)
    _, metrics = jax.jit(vae.make_step(config))(state, images, key)
    encoder, decoder = vae.finish(state, config)
    mean, log_variance = (np.asarray(encoder(images), np.float64)[:, i] for i in (0, 1))
    noise = np.asarray(jax.random.normal(key, (5, 2)))
    z = mean + np.exp(log_variance / 2) * noise
    p = np.asarray(decoder(jnp.asarray(z, jnp.float32)), np.float64)
    x = np.asarray(images)
    fit = np.sum(x * np.log(p) + (1 - x) * np.log(1 - p), axis=(1, 2, 3)).mean()
    # KL of N(m, s^2) from N(0, 1): -log s + (s^2 + m^2 - 1) / 2, summed over latents.
    s = np.exp(log_variance / 2)
    kl = np.sum(-np.log(s) + (s**2 + mean**2 - 1) / 2, axis=1).mean()
    assert float(metrics["kl"]) == pytest.approx(kl, rel=1e-4)
    assert float(metrics["log_likelihood"]) == pytest.approx(fit, rel=1e-5)
    assert float(metrics["loss"]) == pytest.approx(4.0 * kl - fit, rel=1e-5)
