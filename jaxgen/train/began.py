"""BEGAN: a discriminator that is an autoencoder, held in balance with the generator.

    L(v) = mean |v - D(v)|^eta,      L_D = L(x) - k L(G(z)),      L_G = L(G(z')),
    k <- clip(k + lambda (gamma L(x) - L(G(z'))), 0, 1)

keeps E L(G(z)) = gamma E L(x); small gamma asks for quality, large for diversity. Convergence
is measured by M = L(x) + |gamma L(x) - L(G(z))| (Berthelot, Schumm & Metz 2017, Sections 3.3
to 3.5). The mean is over pixels, and latents are uniform on [-1, 1], as there.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jaxgen.models.began import Autoencoder, Decoder
from jaxgen.train.averaging import averaged
from jaxgen.train.loop import Step
from jaxgen.types import Array, ArrayTree, PRNGKey

__all__ = ["BEGANConfig", "BEGANState", "balance", "finish", "init", "latents", "make_step"]


class BEGANConfig(NamedTuple):
    """Hyper-parameters: the paper's but for sizes.

    Attributes:
      gamma: the ratio of the two losses; 0.3 to 0.7 there.
      rate_k: lambda.
      eta: 1 or 2.
      lr, halve: Adam's rate, and the updates after which it is halved, down to a quarter.
      ema: of the generator that is kept.
    """

    steps: int
    batch: int = 16
    latent: int = 64
    width: int = 32
    gamma: float = 0.5
    rate_k: float = 1e-3
    eta: int = 1
    lr: float = 1e-4
    halve: int = 100_000
    beta1: float = 0.5
    ema: float = 0.999


class BEGANState(NamedTuple):
    """Everything that a step reads and writes."""

    generator: ArrayTree
    discriminator: ArrayTree
    average: ArrayTree
    opt_generator: Any
    opt_discriminator: Any
    k: Array
    step: Array


def init(key: PRNGKey, config: BEGANConfig) -> BEGANState:
    """The state before the first update, k = 0. The key is consumed."""
    g_key, d_key = jax.random.split(key)
    _, g = nnx.split(Decoder(config.latent, config.width, rngs=nnx.Rngs(g_key)))
    _, d = nnx.split(Autoencoder(config.latent, config.width, rngs=nnx.Rngs(d_key)))
    optimiser = _optimiser(config)
    return BEGANState(
        g,
        d,
        jax.tree.map(jnp.array, g),
        optimiser.init(g),
        optimiser.init(d),
        jnp.zeros(()),
        jnp.zeros((), jnp.int32),
    )


def latents(key: PRNGKey, count: int, size: int) -> Array:
    """`[count, size]`, uniform on [-1, 1]."""
    return jax.random.uniform(key, (count, size), minval=-1.0, maxval=1.0)


def balance(k: Array, on_data: Array, on_samples: Array, config: BEGANConfig) -> Array:
    """The next k from L(x) and L(G(z))."""
    step = config.rate_k * (config.gamma * on_data - on_samples)
    return jnp.clip(k + step, 0.0, 1.0)


def make_step(config: BEGANConfig) -> Step:
    """The update of both networks at once, from the same state, on images `[B, 28, 28, 1]`."""
    g_def = nnx.split(nnx.eval_shape(lambda: _generator(config)))[0]
    d_def = nnx.split(nnx.eval_shape(lambda: _autoencoder(config)))[0]
    optimiser = _optimiser(config)

    def loss(params: ArrayTree, images: Array) -> Array:
        missed = jnp.abs(images - nnx.merge(d_def, params)(images))
        return jnp.mean(missed**config.eta)

    def step(state: BEGANState, real: Array, key: PRNGKey) -> tuple[BEGANState, dict[str, Array]]:
        d_key, g_key = jax.random.split(key)

        def generate(params: ArrayTree, key: PRNGKey) -> Array:
            return nnx.merge(g_def, params)(latents(key, config.batch, config.latent))

        fixed = jax.lax.stop_gradient(generate(state.generator, d_key))

        def d_loss(params: ArrayTree) -> tuple[Array, Array]:
            on_real = loss(params, real)
            return on_real - state.k * loss(params, fixed), on_real

        (_, on_real), grads = jax.value_and_grad(d_loss, has_aux=True)(state.discriminator)
        updates, opt_d = optimiser.update(grads, state.opt_discriminator)
        discriminator = optax.apply_updates(state.discriminator, updates)

        on_fake, grads = jax.value_and_grad(
            lambda params: loss(state.discriminator, generate(params, g_key))
        )(state.generator)
        updates, opt_g = optimiser.update(grads, state.opt_generator)
        generator = optax.apply_updates(state.generator, updates)

        new = BEGANState(
            generator,
            discriminator,
            averaged(state.average, generator, state.step, config.ema),
            opt_g,
            opt_d,
            balance(state.k, on_real, on_fake, config),
            state.step + 1,
        )
        metrics = {
            "M": on_real + jnp.abs(config.gamma * on_real - on_fake),
            "k": new.k,
            "real": on_real,
            "fake": on_fake,
        }
        return new, metrics

    return step  # type: ignore[return-value]


def finish(state: BEGANState, config: BEGANConfig) -> tuple[Decoder, Autoencoder]:
    """The generator of averaged weights, and the discriminator."""
    generator, discriminator = _generator(config), _autoencoder(config)
    nnx.update(generator, state.average)
    nnx.update(discriminator, state.discriminator)
    return generator, discriminator


def _generator(config: BEGANConfig) -> Decoder:
    return Decoder(config.latent, config.width, rngs=nnx.Rngs(0))


def _autoencoder(config: BEGANConfig) -> Autoencoder:
    return Autoencoder(config.latent, config.width, rngs=nnx.Rngs(0))


def _optimiser(config: BEGANConfig) -> optax.GradientTransformation:
    schedule = optax.piecewise_constant_schedule(
        config.lr, {config.halve: 0.5, 2 * config.halve: 0.5}
    )
    return optax.adam(schedule, config.beta1)
