"""BEGAN: a discriminator that is an autoencoder, held in balance with the generator.

    L(v) = mean |v - D(v)|^eta,      L_D = L(x) - k L(G(z)),      L_G = L(G(z')),
    k <- clip(k + lambda (gamma L(x) - L(G(z'))), 0, 1)

keeps E L(G(z)) = gamma E L(x); small gamma asks for quality, large for diversity. Convergence
is measured by M = L(x) + |gamma L(x) - L(G(z))| (Berthelot, Schumm & Metz 2017, Sections 3.3
to 3.5). The mean is over pixels, and latents are uniform on [-1, 1], as there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxgen.core.types import Array, ArrayTree, PRNGKey
from jaxgen.models.conv.layers import Conv, Form
from jaxgen.models.fashion_mnist.began import Autoencoder, Decoder, Generator
from jaxgen.train.averaging import averaged
from jaxgen.train.loop import Step

__all__ = [
    "BEGANConfig",
    "BEGANState",
    "balance",
    "finish",
    "history",
    "init",
    "latents",
    "make_step",
]

# Of how many equal parts of a run the mean M and k are kept.
PARTS = 50


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
    """Everything that a step reads and writes.

    Attributes:
      generator, discriminator: parameters; average: running, of the generator's.
      opt_generator, opt_discriminator: their optimisers' states.
      k: the balance.
      step: updates done.
      sums: `[PARTS, 2]`, of M and k over each part of the run; see `history`.
    """

    generator: ArrayTree
    discriminator: ArrayTree
    average: ArrayTree
    opt_generator: optax.OptState
    opt_discriminator: optax.OptState
    k: Array
    step: Array
    sums: Array


def init(key: PRNGKey, config: BEGANConfig) -> BEGANState:
    """Return the state before the first update, k = 0. The key is consumed."""
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
        jnp.zeros((PARTS, 2)),
    )


def latents(key: PRNGKey, count: int, size: int) -> Array:
    """`[count, size]`, uniform on [-1, 1]."""
    return jax.random.uniform(key, (count, size), minval=-1.0, maxval=1.0)


def balance(k: Array, on_data: Array, on_samples: Array, config: BEGANConfig) -> Array:
    """Return the next k from L(x) and L(G(z))."""
    step = config.rate_k * (config.gamma * on_data - on_samples)
    return jnp.clip(k + step, 0.0, 1.0)


def make_step(config: BEGANConfig, form: Form = "auto") -> Step:
    """Return the update of both networks at once, from the same state, on images `[B, 28, 28, 1]`.

    `form` is the convolutions', see `jaxgen.models.conv.layers`; on CPU "xla" is the faster one in
    training outside a compiled loop, and much the slower one inside.
    """
    g_def = _graph(Decoder, config, form)
    d_def = _graph(Autoencoder, config, form)
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

        k = balance(state.k, on_real, on_fake, config)
        measure = on_real + jnp.abs(config.gamma * on_real - on_fake)
        part = jnp.minimum(_part(state.step, config), PARTS - 1)
        new = BEGANState(
            generator,
            discriminator,
            averaged(state.average, generator, state.step, config.ema),
            opt_g,
            opt_d,
            k,
            state.step + 1,
            state.sums.at[part].add(jnp.stack([measure, k])),
        )
        return new, {"M": measure, "k": k, "real": on_real, "fake": on_fake}

    return step  # type: ignore[return-value]


def history(state: BEGANState, config: BEGANConfig) -> dict[str, list[float]]:
    """Columns `updates`, `M` and `k`: means over each part of the run that was trained.

    `updates` is how many were done at the part's end. Kept in the state, so that a run which
    was stopped and went on has the whole of it.
    """
    parts = np.asarray(_part(np.arange(min(int(state.step), config.steps)), config))
    counts = np.bincount(parts)
    means = np.asarray(state.sums)[: len(counts)] / counts[:, None]
    return {
        "updates": np.cumsum(counts).tolist(),
        "M": [round(float(x), 5) for x in means[:, 0]],
        "k": [round(float(x), 5) for x in means[:, 1]],
    }


def finish(state: BEGANState, config: BEGANConfig) -> tuple[Generator, Autoencoder]:
    """Return the generator of averaged weights, and the discriminator.

    The generator takes standard normal latents, and makes uniform ones of them.
    """
    generator = Generator(config.latent, config.width, rngs=nnx.Rngs(0))
    discriminator = Autoencoder(config.latent, config.width, rngs=nnx.Rngs(0))
    nnx.update(generator, state.average)
    nnx.update(discriminator, state.discriminator)
    return generator, discriminator


def _part(step: Any, config: BEGANConfig) -> Any:
    """Which of the run's parts an update belongs to."""
    return step // -(-config.steps // PARTS)


def _graph(make: Callable[..., nnx.Module], config: BEGANConfig, form: Form) -> Any:
    """Return the structure of a network, its convolutions in the given form."""
    module = nnx.eval_shape(lambda: make(config.latent, config.width, rngs=nnx.Rngs(0)))
    for _, layer in nnx.iter_graph(module):
        if isinstance(layer, Conv):
            layer.form = form
    return nnx.graphdef(module)


def _optimiser(config: BEGANConfig) -> optax.GradientTransformation:
    schedule = optax.piecewise_constant_schedule(
        config.lr, {config.halve: 0.5, 2 * config.halve: 0.5}
    )
    return optax.adam(schedule, config.beta1)
