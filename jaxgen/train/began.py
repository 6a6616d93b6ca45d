"""BEGAN: a discriminator that is an autoencoder, held in balance with the generator.

    L(v) = mean |v - D(v)|^eta,      L_D = L(x) - k L(G(z)),      L_G = L(G(z')),
    k <- clip(k + lambda (gamma L(x) - L(G(z'))), 0, 1)

keeps E L(G(z)) = gamma E L(x); small gamma asks for quality, large for diversity. Convergence
is measured by M = L(x) + |gamma L(x) - L(G(z))| (Berthelot, Schumm & Metz 2017, Sections 3.3
to 3.5). The mean is over pixels, and latents are uniform on [-1, 1], as there. The rate is
halved whenever the mean of M has not fallen for a while, as there. One draw of z serves both
losses, as in the usual program: the autoencoder runs once on it, forwards and back.

Not in the paper: with `features`, L also has the differences of what a trained classifier makes
of v and of D(v),

    L(v) = mean |v - D(v)|^eta + features sum_l mean |h_l(v) - h_l(D(v))| / mean |h_l(x)|,

so that texture counts which an error of pixels hardly has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from optax.contrib import reduce_on_plateau

from jaxgen.core.errors import expected
from jaxgen.core.types import Array, ArrayTree, PRNGKey
from jaxgen.models.conv.layers import Conv, Form
from jaxgen.models.fashion_mnist.began import Autoencoder, Decoder, Generator
from jaxgen.train.averaging import averaged
from jaxgen.train.loop import Step

__all__ = [
    "BEGANConfig",
    "BEGANState",
    "balance",
    "carry",
    "finish",
    "history",
    "init",
    "latents",
    "make_step",
    "optimiser",
    "rate_share",
]

# Of how many equal parts of a run the mean M and k are kept.
PARTS = 50


class BEGANConfig(NamedTuple):
    """Hyper-parameters: the paper's but for sizes.

    Attributes:
      gamma: the ratio of the two losses; 0.3 to 0.7 there.
      rate_k: lambda.
      eta: 1 or 2.
      lr: Adam's rate at the start.
      window, patience: the rate is halved when the mean of M over `window` updates has not
        fallen by 1% for `patience` windows.
      least: the least share of the rate that is left.
      skips: whether the decoders hand their first tensor on, see the networks.
      residual: the updates over which the carry of the vanishing residuals goes from 1 to 0;
        16,000 in the paper; 0 for none.
      ema: of the generator that is kept.
      features: the weight of a classifier's maps in the loss; 0 in the paper.
    """

    steps: int
    batch: int = 16
    latent: int = 64
    width: int = 32
    gamma: float = 0.5
    rate_k: float = 1e-3
    eta: int = 1
    lr: float = 1e-4
    window: int = 250
    patience: int = 8
    least: float = 1 / 16
    skips: bool = True
    residual: int = 16_000
    beta1: float = 0.5
    ema: float = 0.999
    features: float = 0.0


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
    _, g = nnx.split(_network(Decoder, config, g_key))
    _, d = nnx.split(_network(Autoencoder, config, d_key))
    rule = optimiser(config)
    return BEGANState(
        g,
        d,
        jax.tree.map(jnp.array, g),
        rule.init(g),
        rule.init(d),
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


def carry(step: Array, config: BEGANConfig) -> Array | float:
    """Return how much of a layer's input is handed on at an update: from 1 to 0."""
    return jnp.maximum(0.0, 1.0 - step / config.residual) if config.residual else 0.0


def optimiser(config: BEGANConfig) -> optax.GradientTransformationExtraArgs:
    """Return Adam, its rate halved at the plateaus of `value`, which each update must be given."""
    return optax.chain(
        optax.adam(config.lr, config.beta1),
        reduce_on_plateau(
            factor=0.5,
            patience=config.patience,
            rtol=0.01,
            accumulation_size=config.window,
            min_scale=config.least,
        ),
    )


def rate_share(state: Any) -> Array:
    """Return how much of the first rate a state of `optimiser` still uses."""
    return state[1].scale


def make_step(
    config: BEGANConfig,
    form: Form = "auto",
    maps: Callable[[Array], Sequence[Array]] | None = None,
) -> Step:
    """Return the update of both networks at once, from the same state, on images `[B, 28, 28, 1]`.

    Args:
      config: the hyper-parameters.
      form: of the convolutions, see `jaxgen.models.conv.layers`; on CPU "xla" is the faster one in
        training outside a compiled loop, and much the slower one inside.
      maps: images to h_l, each over its mean magnitude; needed where `config.features` is not 0.

    Raises:
      InputError: for features without maps.
    """
    if config.features and maps is None:
        raise expected("maps", f"a function, for features {config.features}", None)
    g_def = _graph(Decoder, config, form)
    d_def = _graph(Autoencoder, config, form)
    rule = optimiser(config)

    def loss(params: ArrayTree, images: Array, carry: Array | float) -> Array:
        made = nnx.merge(d_def, params)(images, carry)
        error = jnp.mean(jnp.abs(images - made) ** config.eta)
        if not config.features or maps is None:
            return error
        pairs = zip(maps(images), maps(made), strict=True)
        return error + config.features * sum(jnp.mean(jnp.abs(a - b)) for a, b in pairs)

    def step(state: BEGANState, real: Array, key: PRNGKey) -> tuple[BEGANState, dict[str, Array]]:
        left = carry(state.step, config)
        z = latents(key, config.batch, config.latent)
        fake, pull = jax.vjp(lambda params: nnx.merge(g_def, params)(z, left), state.generator)
        on_real, by_real = jax.value_and_grad(loss)(state.discriminator, real, left)
        on_fake, (by_fake, by_image) = jax.value_and_grad(loss, (0, 1))(
            state.discriminator, fake, left
        )
        for_d = jax.tree.map(lambda r, f: r - state.k * f, by_real, by_fake)
        (for_g,) = pull(by_image)
        measure = on_real + jnp.abs(config.gamma * on_real - on_fake)

        updates, opt_d = rule.update(for_d, state.opt_discriminator, value=measure)
        discriminator = optax.apply_updates(state.discriminator, updates)
        updates, opt_g = rule.update(for_g, state.opt_generator, value=measure)
        generator = optax.apply_updates(state.generator, updates)

        k = balance(state.k, on_real, on_fake, config)
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
        return new, {
            "M": measure,
            "k": k,
            "real": on_real,
            "fake": on_fake,
            "rate": config.lr * rate_share(opt_g),
        }

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
    key = jax.random.key(0)
    generator, discriminator = _network(Generator, config, key), _network(Autoencoder, config, key)
    nnx.update(generator, state.average)
    nnx.update(discriminator, state.discriminator)
    return generator, discriminator


def _part(step: Any, config: BEGANConfig) -> Any:
    """Which of the run's parts an update belongs to."""
    return step // -(-config.steps // PARTS)


def _network(make: Callable[..., Any], config: BEGANConfig, key: PRNGKey) -> Any:
    return make(config.latent, config.width, config.skips, rngs=nnx.Rngs(key))


def _graph(make: Callable[..., nnx.Module], config: BEGANConfig, form: Form) -> Any:
    """Return the structure of a network, its convolutions in the given form."""
    module = nnx.eval_shape(lambda: _network(make, config, jax.random.key(0)))
    for _, layer in nnx.iter_graph(module):
        if isinstance(layer, Conv):
            layer.form = form
    return nnx.graphdef(module)
