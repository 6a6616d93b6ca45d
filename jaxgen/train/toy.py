"""Training the generator of the two-dimensional example, with snapshots on the way.

The non-saturating loss of `gan`, on points drawn afresh from the ring of five Gaussians
for every update: `jaxgen.data.toy_ring` is the data, not a file.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jaxgen.core.types import Array, ArrayTree, PRNGKey
from jaxgen.data import ring_modes
from jaxgen.models.fashion_mnist.mlp import ToyDiscriminator, ToyGenerator
from jaxgen.train.loop import Step

__all__ = ["ToyConfig", "ToyState", "coverage", "finish", "init", "make_step"]


class ToyConfig(NamedTuple):
    """Hyper-parameters; the generator's two hidden layers are of size 20."""

    steps: int = 15_000
    batch: int = 512
    lr: float = 1e-3
    beta1: float = 0.5
    beta2: float = 0.999
    hidden_discriminator: int = 64


class ToyState(NamedTuple):
    """Everything that a step reads and writes."""

    generator: ArrayTree
    discriminator: ArrayTree
    opt_generator: optax.OptState
    opt_discriminator: optax.OptState


def init(key: PRNGKey, config: ToyConfig) -> ToyState:
    """Return the state before the first update. The key is consumed."""
    g_key, d_key = jax.random.split(key)
    generator = nnx.state(ToyGenerator(rngs=nnx.Rngs(g_key)))
    discriminator = nnx.state(ToyDiscriminator(config.hidden_discriminator, rngs=nnx.Rngs(d_key)))
    adam = _optimiser(config)
    return ToyState(generator, discriminator, adam.init(generator), adam.init(discriminator))


def make_step(config: ToyConfig) -> Step:
    """Return the update: one step of D, then one of G. The batch is points `[B, 2]`."""
    g_def = nnx.graphdef(nnx.eval_shape(lambda: ToyGenerator(rngs=nnx.Rngs(0))))
    d_def = nnx.graphdef(
        nnx.eval_shape(lambda: ToyDiscriminator(config.hidden_discriminator, rngs=nnx.Rngs(0)))
    )
    adam = _optimiser(config)

    def step(state: ToyState, real: Array, key: PRNGKey) -> tuple[ToyState, dict[str, Array]]:
        z = jax.random.normal(key, (real.shape[0], 2))
        fake, pull_back = jax.vjp(lambda params: nnx.merge(g_def, params)(z), state.generator)

        def d_loss(params: ArrayTree) -> Array:
            scores = nnx.merge(d_def, params)(jnp.concatenate([real, fake]))
            on_real, on_fake = jnp.split(scores, 2)
            return jnp.mean(jax.nn.softplus(-on_real)) + jnp.mean(jax.nn.softplus(on_fake))

        loss_d, grads = jax.value_and_grad(d_loss)(state.discriminator)
        updates, opt_discriminator = adam.update(grads, state.opt_discriminator)
        discriminator = optax.apply_updates(state.discriminator, updates)
        loss_g, towards_real = jax.value_and_grad(
            lambda x: jnp.mean(jax.nn.softplus(-nnx.merge(d_def, discriminator)(x)))
        )(fake)
        (grads,) = pull_back(towards_real)
        updates, opt_generator = adam.update(grads, state.opt_generator)
        generator = optax.apply_updates(state.generator, updates)
        new = ToyState(generator, discriminator, opt_generator, opt_discriminator)
        return new, {"loss_d": loss_d, "loss_g": loss_g}

    return step  # type: ignore[return-value]


def finish(state: ToyState) -> ToyGenerator:
    """Return the generator as it stands."""
    generator = ToyGenerator(rngs=nnx.Rngs(0))
    nnx.update(generator, state.generator)
    return generator


def coverage(points: Array, radius: float = 0.2) -> tuple[Array, Array]:
    """Which share of `[N, 2]` points is within `radius` of a mode, and the nearest modes'
    shares `[5]` of them all.
    """
    distance = jnp.linalg.norm(points[:, None, :] - ring_modes()[None, :, :], axis=-1)
    nearest = jax.nn.one_hot(jnp.argmin(distance, axis=1), 5)
    return jnp.mean(jnp.min(distance, axis=1) < radius), jnp.mean(nearest, axis=0)


def _optimiser(config: ToyConfig) -> optax.GradientTransformation:
    return optax.adam(config.lr, config.beta1, config.beta2)
