"""Training the generator of a Plug & Play Generative Network: a decoder of an encoder's codes.

    h1 = E1(x + s_x n),  h = E2(h1 + s_h1 n),  x' = G(h + s_h n)
    L_G = L_img + L_h1 + L_h + L_GAN
    L_img = |x' - x|^2,  L_h1 = |E1(x') - h1|^2,  L_h = |E(x') - h|^2,  L_GAN = -log D(x')

Nguyen et al. (CVPR 2017), Eqs. 18-24 of the supplement, after Dosovitskiy & Brox (2016). The
encoder E = E2(E1(.)) stays frozen. Without noise it is the generator of Noiseless Joint
PPGN-h (there without L_h); with noise on all three, that of Joint PPGN-h, three denoising
autoencoders interleaved.

Each squared error is divided by the mean square of what it is measured on, so the weights
are shares and do not depend on the encoder's scale. Adam with the paper's rates; a player
that is winning too much pauses: D where loss_D / loss_G < 0.1, G where it is > 10.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jaxgen.core.types import Array, ArrayTree, PRNGKey
from jaxgen.models.fashion_mnist.codes import Codes
from jaxgen.models.fashion_mnist.dcgan import Discriminator, Generator
from jaxgen.target.networks import Network
from jaxgen.train.averaging import averaged
from jaxgen.train.loop import Step

__all__ = [
    "PPGNConfig",
    "PPGNState",
    "Scales",
    "begin_from",
    "finish",
    "init",
    "make_step",
    "pauses",
]


class PPGNConfig(NamedTuple):
    """Hyper-parameters; `noise_*` are standard deviations as shares of the mean."""

    steps: int
    batch: int = 16
    code: int = 128
    width: int = 64
    discriminator: int = 32
    lr: float = 3e-4
    beta1: float = 0.9
    beta2: float = 0.999
    image: float = 1.0
    h1: float = 1.0
    h: float = 0.0
    gan: float = 0.03
    noise_x: float = 0.0
    noise_h1: float = 0.0
    noise_h: float = 0.0
    decay_from: float = 0.5
    ema: float = 0.99


class Scales(NamedTuple):
    """Measure images, h1 and h over the training data: mean squares, and means (of magnitudes)."""

    square: tuple[float, float, float]
    mean: tuple[float, float, float]


class PPGNState(NamedTuple):
    """Everything that a step reads and writes."""

    generator: ArrayTree
    discriminator: ArrayTree
    average: ArrayTree
    opt_generator: optax.OptState
    opt_discriminator: optax.OptState
    step: Array


def init(key: PRNGKey, config: PPGNConfig) -> PPGNState:
    """Return the state before the first update. The key is consumed."""
    generator, discriminator = _modules(key, config)
    g, d = nnx.state(generator), nnx.state(discriminator)
    optimiser = _optimiser(config)
    return PPGNState(
        g,
        d,
        jax.tree.map(jnp.array, g),
        optimiser.init(g),
        optimiser.init(d),
        jnp.zeros((), jnp.int32),
    )


def make_step(config: PPGNConfig, codes: Codes, scales: Scales) -> Step:
    """Return the update: one step of D and one of G on the same reconstructions.

    The batch is images `[B, 28, 28, 1]` in [0, 1].
    """
    g_def, d_def = (
        nnx.graphdef(module)
        for module in nnx.eval_shape(lambda: _modules(jax.random.key(0), config))
    )
    optimiser = _optimiser(config)
    sigma = [
        share * mean
        for share, mean in zip(
            (config.noise_x, config.noise_h1, config.noise_h), scales.mean, strict=True
        )
    ]

    def logits(params: ArrayTree, images: Array) -> Array:
        return nnx.merge(d_def, params)(images)

    def step(state: PPGNState, x: Array, key: PRNGKey) -> tuple[PPGNState, dict[str, Array]]:
        def noisy(clean: Array, index: int) -> Array:
            if not sigma[index]:
                return clean
            noise = jax.random.normal(jax.random.fold_in(key, index), clean.shape)
            return clean + sigma[index] * noise

        h1 = codes.spatial(noisy(x, 0))
        h = codes.hidden(noisy(h1, 1))
        given = noisy(h, 2)

        def g_loss(params: ArrayTree) -> tuple[Array, tuple[Array, dict[str, Array]]]:
            made = nnx.merge(g_def, params)(given)
            h1_made = codes.spatial(made)
            errors = {"image": made - x, "h1": h1_made - h1}
            if config.h:
                errors["h"] = codes.hidden(h1_made) - h
            terms = {
                name: jnp.mean(error**2) / scales.square[k]
                for (name, error), k in zip(errors.items(), (0, 1, 2), strict=False)
            }
            terms["gan"] = jnp.mean(jax.nn.softplus(-logits(state.discriminator, made)))
            total = sum(getattr(config, name) * value for name, value in terms.items())
            return jnp.asarray(total), (made, terms)

        (_, (made, terms)), g_grads = jax.value_and_grad(g_loss, has_aux=True)(state.generator)

        def d_loss(params: ArrayTree) -> Array:
            on_real, on_made = jnp.split(logits(params, jnp.concatenate([x, made])), 2)
            return jnp.mean(jax.nn.softplus(-on_real)) + jnp.mean(jax.nn.softplus(on_made))

        loss_d, d_grads = jax.value_and_grad(d_loss)(state.discriminator)
        pause_d, pause_g = pauses(loss_d, terms["gan"])
        generator, opt_generator = _update(
            optimiser, g_grads, state.opt_generator, state.generator, pause_g
        )
        discriminator, opt_discriminator = _update(
            optimiser, d_grads, state.opt_discriminator, state.discriminator, pause_d
        )
        average = averaged(state.average, generator, state.step, config.ema)
        new = PPGNState(
            generator, discriminator, average, opt_generator, opt_discriminator, state.step + 1
        )
        metrics = {
            **terms,
            "loss_d": loss_d,
            "paused_d": pause_d.astype(jnp.float32),
            "paused_g": pause_g.astype(jnp.float32),
        }
        return new, metrics

    return step  # type: ignore[return-value]


def pauses(loss_d: Array, loss_g: Array) -> tuple[Array, Array]:
    """Return whether D, and whether G, sits this update out: r = loss_D / loss_G < 0.1, r > 10."""
    ratio = loss_d / loss_g
    return ratio < 0.1, ratio > 10.0


def begin_from(
    key: PRNGKey, generator: Network, codes: Codes, config: PPGNConfig, count: int = 4000
) -> Generator:
    """Return a decoder to begin with: that of a generator of other latents, or of codes already.

    A generator's upper layers know how to draw; only its first layer must be told of codes.
    That one is found by ridge regression, from the codes h = E(G(z)) of `count` draws to
    what its own first layer made of z. It saves most of the training. Not in the paper.

    Args:
      key: consumed.
      generator: a `dcgan.Generator` of the same width, without batch normalisation.
      codes: the encoder.
      config: of the decoder.
      count: draws.
    """
    module = nnx.merge(generator.graphdef, generator.params)
    latent = module.project.kernel.shape[0]
    decoder, _ = _modules(key, config)
    for old, new in ((module.up1, decoder.up1), (module.up2, decoder.up2)):
        new.kernel[...] = old.kernel[...]
        new.bias = nnx.Param(old.bias[...])
    if latent == config.code:
        decoder.project.kernel[...] = module.project.kernel[...]
        decoder.project.bias = nnx.Param(module.project.bias[...])
        return decoder

    @jax.jit
    def pairs(generator: Network, codes: Codes, z: Array) -> tuple[Array, Array]:
        def pair(z: Array) -> tuple[Array, Array]:
            first = nnx.merge(generator.graphdef, generator.params).project(z)
            return codes(generator(z)), first

        return jax.lax.map(pair, z, batch_size=100)

    h, first = pairs(generator, codes, jax.random.normal(key, (count, latent)))
    h = jnp.concatenate([h, jnp.ones((count, 1))], axis=1)
    gram = h.T @ h + 1e-2 * count * jnp.eye(h.shape[1]) * jnp.mean(h**2)
    weights = jnp.linalg.solve(gram, h.T @ first)
    decoder.project.kernel[...] = weights[:-1]
    decoder.project.bias = nnx.Param(weights[-1])
    return decoder


def finish(state: PPGNState, config: PPGNConfig) -> Generator:
    """Return the generator with averaged weights."""
    module = Generator(config.code, config.width, rngs=nnx.Rngs(0))
    nnx.update(module, state.average)
    return module


def _update(
    optimiser: optax.GradientTransformation,
    grads: ArrayTree,
    memory: Any,
    params: ArrayTree,
    pause: Array,
) -> tuple[ArrayTree, Any]:
    """One step of the optimiser, or none at all."""
    updates, new_memory = optimiser.update(grads, memory)
    new = optax.apply_updates(params, updates)
    keep = lambda old, new: jnp.where(pause, old, new)  # noqa: E731
    return jax.tree.map(keep, params, new), jax.tree.map(keep, memory, new_memory)


def _modules(key: PRNGKey, config: PPGNConfig) -> tuple[Generator, Discriminator]:
    g_key, d_key = jax.random.split(key)
    generator = Generator(config.code, config.width, rngs=nnx.Rngs(g_key))
    # Codes are not standard normal and no batch norm follows: keep the variance instead.
    he = nnx.initializers.he_normal()
    kernel = generator.project.kernel
    kernel[...] = he(g_key, kernel.shape)
    for layer in (generator.up1, generator.up2):
        layer.form = "xla"
        layer.kernel[...] = 2.0 * he(g_key, layer.kernel.shape)  # a fourth of the taps meet
    discriminator = Discriminator(config.discriminator, rngs=nnx.Rngs(d_key))
    for layer in (discriminator.conv1, discriminator.conv2, discriminator.conv3):
        layer.form = "xla"
    return generator, discriminator


def _optimiser(config: PPGNConfig) -> optax.GradientTransformation:
    begin = int(config.decay_from * config.steps)
    schedule = optax.linear_schedule(
        config.lr, 0.05 * config.lr, max(1, config.steps - begin), begin
    )
    return optax.adam(schedule, config.beta1, config.beta2)
