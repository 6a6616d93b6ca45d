"""Training a variational autoencoder by its evidence lower bound.

    ELBO = E_q(z|x) log p(x|z) - KL(q(z|x) || N(0, I)),   z = mean + sd * noise

(Kingma and Welling 2014, Eq. 10 with one draw). The likelihood of an image in [0, 1] is
either Bernoulli's, `sum x log m + (1 - x) log(1 - m)`, which for grey values is a score
and no density, or Gaussian with one standard deviation that is learned along.

A beta-VAE multiplies the KL divergence by beta (Higgins et al. 2017, Eq. 4): above 1 its latents
say less about the image, each more by itself, and reconstructions are worse.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jaxgen.core.types import Array, ArrayTree, PRNGKey
from jaxgen.models.fashion_mnist.vae import Decoder, Encoder
from jaxgen.train.averaging import averaged
from jaxgen.train.loop import Step

__all__ = ["VAEConfig", "VAEState", "finish", "init", "make_step"]


class VAEConfig(NamedTuple):
    """Hyper-parameters; the cosine ends at `steps`, and `beta` weighs the KL divergence."""

    steps: int
    likelihood: Literal["bernoulli", "gaussian"] = "bernoulli"
    batch: int = 128
    latent: int = 20
    lr: float = 1e-3
    ema: float = 0.998
    beta: float = 1.0


class VAEState(NamedTuple):
    """Everything that a step reads and writes; `params` is (encoder, decoder)."""

    params: ArrayTree
    average: ArrayTree
    opt: optax.OptState
    step: Array


def init(key: PRNGKey, config: VAEConfig) -> VAEState:
    """Return the state before the first update. The key is consumed."""
    params = tuple(nnx.state(module) for module in _modules(key, config))
    return VAEState(
        params,
        jax.tree.map(jnp.array, params),
        _optimiser(config).init(params),
        jnp.zeros((), jnp.int32),
    )


def make_step(config: VAEConfig) -> Step:
    """Return the update. The batch is images `[B, 28, 28, 1]` in [0, 1]."""
    graphdefs = [
        nnx.graphdef(module)
        for module in nnx.eval_shape(lambda: _modules(jax.random.key(0), config))
    ]
    optimiser = _optimiser(config)

    def step(state: VAEState, images: Array, key: PRNGKey) -> tuple[VAEState, dict[str, Array]]:
        def loss_of(params: ArrayTree) -> tuple[Array, tuple[Array, Array]]:
            encoder, decoder = (nnx.merge(g, p) for g, p in zip(graphdefs, params, strict=True))
            code = encoder(images)
            mean, log_variance = code[:, 0], code[:, 1]
            z = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
            logits = decoder.logits(z)
            if config.likelihood == "bernoulli":
                terms = -optax.sigmoid_binary_cross_entropy(logits, images)
            else:
                log_sigma = decoder.log_sigma[...]
                error = (images - nnx.sigmoid(logits)) * jnp.exp(-log_sigma)
                terms = -0.5 * error**2 - log_sigma - 0.5 * jnp.log(2.0 * jnp.pi)
            log_likelihood = jnp.mean(jnp.sum(terms, axis=(1, 2, 3)))
            kl = 0.5 * jnp.mean(
                jnp.sum(mean**2 + jnp.exp(log_variance) - 1.0 - log_variance, axis=1)
            )
            return config.beta * kl - log_likelihood, (log_likelihood, kl)

        (loss, (log_likelihood, kl)), grads = jax.value_and_grad(loss_of, has_aux=True)(
            state.params
        )
        updates, opt = optimiser.update(grads, state.opt)
        params = optax.apply_updates(state.params, updates)
        average = averaged(state.average, params, state.step, config.ema)
        new = VAEState(params, average, opt, state.step + 1)
        return new, {"loss": loss, "log_likelihood": log_likelihood, "kl": kl}

    return step  # type: ignore[return-value]


def finish(state: VAEState, config: VAEConfig) -> tuple[Encoder, Decoder]:
    """Return the encoder and the decoder, with averaged weights."""
    encoder, decoder = _modules(jax.random.key(0), config)
    nnx.update(encoder, state.average[0])
    nnx.update(decoder, state.average[1])
    return encoder, decoder


def _modules(key: PRNGKey, config: VAEConfig) -> tuple[Encoder, Decoder]:
    e_key, d_key = jax.random.split(key)
    decoder = Decoder(config.latent, sigma=config.likelihood == "gaussian", rngs=nnx.Rngs(d_key))
    return Encoder(config.latent, rngs=nnx.Rngs(e_key)), decoder


def _optimiser(config: VAEConfig) -> optax.GradientTransformation:
    warmup = min(200, config.steps // 2)
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.lr, warmup, config.steps)
    return optax.chain(optax.clip_by_global_norm(200.0), optax.adam(schedule))
