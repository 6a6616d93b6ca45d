"""Training a GAN whose discriminator also looks at what a trained classifier makes of images.

    L_D = sum_k E softplus(-D_k(x)) + E softplus(D_k(G(z))),    L_G = sum_k E softplus(-D_k(G(z)))

over the four outputs of `jaxgen.models.fashion_mnist.residual.Discriminator`: one of the pixels,
three of the classifier's maps (Sauer et al., Projected GANs Converge Faster, 2021). The
classifier does not learn, and neither do its gradients change it. Kernels of D are divided by
their spectral norms, and the generator that is kept is a moving average, as in
`jaxgen.train.gan`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jaxgen.core.types import Array, ArrayTree, PRNGKey
from jaxgen.models.fashion_mnist.cnn import Classifier, Maps
from jaxgen.models.fashion_mnist.residual import Discriminator, Generator
from jaxgen.train.averaging import averaged
from jaxgen.train.gan import (
    GANState,
    divide,
    first_vectors,
    optimisers,
    power_iteration,
    with_statistics,
)
from jaxgen.train.loop import Step

__all__ = ["ProjectedConfig", "finish", "init", "make_step"]


class ProjectedConfig(NamedTuple):
    """Hyper-parameters.

    Attributes:
      steps: updates of G, and as many of D.
      batch, latent, width: images in a batch, size of z, channels of both networks.
      lr_generator, lr_discriminator, beta1, beta2: Adam's.
      decay_from: the share of the updates before the rates begin to fall, linearly.
      final: to how many times themselves the rates fall.
      ema: memory of the averaged generator.
    """

    steps: int
    batch: int = 64
    latent: int = 64
    width: int = 64
    lr_generator: float = 2e-4
    lr_discriminator: float = 4e-4
    beta1: float = 0.0
    beta2: float = 0.99
    decay_from: float = 0.5
    final: float = 0.05
    ema: float = 0.999


def init(key: PRNGKey, config: ProjectedConfig) -> GANState:
    """Return the state before the first update. The key is consumed."""
    g_key, d_key, u_key = jax.random.split(key, 3)
    generator = Generator(config.latent, config.width, norm=True, rngs=nnx.Rngs(g_key))
    _, params, statistics = nnx.split(generator, nnx.Param, ...)
    d_params = nnx.state(Discriminator(config.width, rngs=nnx.Rngs(d_key)))
    opt_g, opt_d = optimisers(config)
    return GANState(
        params,
        statistics,
        d_params,
        first_vectors(u_key, d_params),
        jax.tree.map(jnp.array, params),
        opt_g.init(params),
        opt_d.init(d_params),
        jnp.zeros((), jnp.int32),
    )


def make_step(config: ProjectedConfig, classifier: Classifier) -> Step:
    """Return the update: one of D on `config.batch` real and generated images each, one of G.

    The batch is images `[batch, 28, 28, 1]` in [0, 1].

    Args:
      config: the hyper-parameters.
      classifier: gives the maps; its weights become constants of the step.
    """
    g_def, *_ = nnx.split(nnx.eval_shape(lambda: _generator(config)), nnx.Param, ...)
    d_def, _ = nnx.split(nnx.eval_shape(lambda: Discriminator(config.width, rngs=nnx.Rngs(0))))
    opt_g, opt_d = optimisers(config)
    maps_of = classifier.maps

    def generate(params: ArrayTree, statistics: ArrayTree, z: Array) -> tuple[Array, ArrayTree]:
        module = nnx.merge(g_def, params, statistics, copy=True)
        images = module(z)
        return images, nnx.state(module, nnx.BatchStat)

    def logits(params: ArrayTree, images: Array, maps: Maps) -> Array:
        return nnx.merge(d_def, params)(images, maps)

    def total(losses: Array) -> Array:
        return jnp.mean(jnp.sum(losses, axis=-1))

    def step(state: GANState, real: Array, key: PRNGKey) -> tuple[GANState, dict[str, Array]]:
        z = jax.random.normal(key, (config.batch, config.latent))
        fake, pull_back, statistics = jax.vjp(
            lambda params: generate(params, state.statistics, z), state.generator, has_aux=True
        )
        vectors = power_iteration(state.discriminator, state.vectors)
        images = jnp.concatenate([real, fake])
        maps = maps_of(images)

        def d_loss(params: ArrayTree) -> tuple[Array, tuple[Array, Array]]:
            on_real, on_fake = jnp.split(logits(divide(params, vectors), images, maps), 2)
            loss = total(jax.nn.softplus(-on_real) + jax.nn.softplus(on_fake))
            return loss, (jnp.mean(on_real), jnp.mean(on_fake))

        (loss_d, (on_real, on_fake)), grads = jax.value_and_grad(d_loss, has_aux=True)(
            state.discriminator
        )
        updates, opt_discriminator = opt_d.update(grads, state.opt_discriminator)
        discriminator = optax.apply_updates(state.discriminator, updates)
        fixed = divide(discriminator, vectors)
        # The same fakes against the updated D: one forward pass of G serves both losses.
        loss_g, towards_real = jax.value_and_grad(
            lambda x: total(jax.nn.softplus(-logits(fixed, x, maps_of(x))))
        )(fake)
        (grads,) = pull_back(towards_real)
        updates, opt_generator = opt_g.update(grads, state.opt_generator)
        generator = optax.apply_updates(state.generator, updates)
        new = GANState(
            generator,
            statistics,
            discriminator,
            vectors,
            averaged(state.average, generator, state.step, config.ema),
            opt_generator,
            opt_discriminator,
            state.step + 1,
        )
        return new, {"loss_d": loss_d, "loss_g": loss_g, "real": on_real, "fake": on_fake}

    return step  # type: ignore[return-value]


def finish(key: PRNGKey, state: GANState, config: ProjectedConfig, count: int = 5_000) -> Generator:
    """Return the generator of averaged weights with batch norm folded in.

    Batch statistics are measured over `count` latents at once. The key is consumed.
    """
    module = _generator(config)
    nnx.update(module, state.average)
    z = jax.random.normal(key, (count, config.latent))
    return with_statistics(module, module.norms.values(), z).fold()


def _generator(config: ProjectedConfig) -> Generator:
    return Generator(config.latent, config.width, norm=True, rngs=nnx.Rngs(0))
