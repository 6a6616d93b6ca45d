"""Boundary-seeking GANs: discrete generators trained by importance weights.

A discriminator's output estimates the log ratio of data and generator, log w(x), and w q is
then an estimate of the data's density (`jaxgen.train.divergences`). The generator q(x | z) is
pulled towards it: for each of B latents, M samples with normalised weights

    w_m = w(x_m) / sum_m' w(x_m'),       gradient = -E_z sum_m w_m grad log q(x_m | z)

(Hjelm, Jacob, Che, Trischler, Cho & Bengio 2018, Eq. 10). The "reinforce" form replaces w_m by
(log w(x_m) - b) / M with a running baseline b: the policy gradient of E log w, unbiased and of
larger variance. Samples cross no gradient, so x may be anything that has a log q.

For continuous x the generator moves to where the discriminator's boundary is:
(log w(x) - log Z)^2 / 2, log Z = 0 for a calibrated discriminator (their Section 2.4).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jaxgen.core.errors import expected
from jaxgen.core.types import Array, ArrayTree, Generator, PRNGKey
from jaxgen.train.divergences import by_name
from jaxgen.train.loop import Step

__all__ = [
    "FORMS",
    "BGANConfig",
    "BGANState",
    "bernoulli_images",
    "boundary_loss",
    "categorical_tokens",
    "importance",
    "init",
    "make_step",
    "surrogate",
]

FORMS = ("importance", "reinforce")

# (parameters' network, z [B, latent], key, M) -> samples [M, B, ...], log q(samples | z) [M, B]
Draw = Callable[[nnx.Module, Array, PRNGKey, int], tuple[Array, Array]]


class BGANConfig(NamedTuple):
    """Hyper-parameters: those of the authors' discrete experiments.

    Attributes:
      samples: M for each latent.
      form: "importance" or "reinforce".
      divergence: the discriminator's, by its name in `jaxgen.train.divergences`.
      memory: of the running baseline and of log Z.
    """

    steps: int
    batch: int = 64
    latent: int = 64
    samples: int = 20
    lr: float = 1e-4
    beta1: float = 0.5
    form: str = "importance"
    divergence: str = "gan"
    memory: float = 0.995


class BGANState(NamedTuple):
    """Everything that a step reads and writes.

    Attributes:
      generator, discriminator: parameters; opt_*: their optimisers' states.
      baseline: running mean of log w on samples.
      log_z: running mean of log mean_m w, the weights' normaliser.
    """

    generator: ArrayTree
    discriminator: ArrayTree
    opt_generator: optax.OptState
    opt_discriminator: optax.OptState
    baseline: Array
    log_z: Array


class Importance(NamedTuple):
    """Weights of M samples for each of B latents.

    Attributes:
      weights: `[M, B]`, normalised over M.
      ess: `[B]` effective number of samples 1 / sum_m w_m^2, between 1 and M.
      log_z: `[B]` log of the mean weight.
    """

    weights: Array
    ess: Array
    log_z: Array


def importance(log_ratio: Array) -> Importance:
    """Normalised weights from log w `[M, B]`."""
    weights = jax.nn.softmax(log_ratio, axis=0)
    log_z = jax.nn.logsumexp(log_ratio, axis=0) - jnp.log(log_ratio.shape[0])
    return Importance(weights, 1.0 / jnp.sum(weights**2, axis=0), log_z)


def surrogate(log_q: Array, log_ratio: Array, form: str, baseline: Array | float = 0.0) -> Array:
    """Return a scalar whose gradient is the generator's: see the module.

    Args:
      log_q: `[M, B]`, differentiable.
      log_ratio: `[M, B]` log w, taken as constants.
      form: "importance" or "reinforce".
      baseline: b, of "reinforce".
    """
    if form not in FORMS:
        raise expected("form", f"one of {', '.join(FORMS)}", repr(form))
    log_ratio = jax.lax.stop_gradient(log_ratio)
    if form == "importance":
        return -jnp.mean(jnp.sum(importance(log_ratio).weights * log_q, axis=0))
    return -jnp.mean((log_ratio - baseline) * log_q)


def boundary_loss(log_ratio: Array, log_z: Array | float = 0.0) -> Array:
    """Return the loss for continuous samples: mean of (log w(G(z)) - log Z)^2 / 2."""
    return 0.5 * jnp.mean((log_ratio - log_z) ** 2)


def init(generator: nnx.Module, discriminator: nnx.Module, config: BGANConfig) -> BGANState:
    """Return the state before the first update."""
    if config.form not in FORMS:
        raise expected("form", f"one of {', '.join(FORMS)}", repr(config.form))
    by_name(config.divergence)
    optimiser = _optimiser(config)
    # Copies: the loop may write over what it is given, and the modules are the caller's.
    g = jax.tree.map(jnp.array, nnx.split(generator)[1])
    d = jax.tree.map(jnp.array, nnx.split(discriminator)[1])
    zero = jnp.zeros(())
    return BGANState(g, d, optimiser.init(g), optimiser.init(d), zero, zero)


def make_step(
    generator: nnx.Module, discriminator: nnx.Module, draw: Draw, config: BGANConfig
) -> Step:
    """Return the update: one step of D on real samples and on one fake for each latent, one of G.

    Args:
      generator: for their structure; D maps `[N, ...]` to free outputs `[N]`.
      discriminator: likewise.
      draw: `(generator, z, key, M) -> (samples [M, B, ...], log q [M, B])`, as
        `bernoulli_images` or `categorical_tokens`.
      config: the hyper-parameters.
    """
    g_def, d_def = nnx.split(generator)[0], nnx.split(discriminator)[0]
    divergence, optimiser = by_name(config.divergence), _optimiser(config)

    def step(state: BGANState, real: Array, key: PRNGKey) -> tuple[BGANState, dict[str, Array]]:
        z_key, x_key = jax.random.split(key)
        z = jax.random.normal(z_key, (config.batch, config.latent))
        samples, _ = draw(nnx.merge(g_def, state.generator), z, x_key, config.samples)
        samples = jax.lax.stop_gradient(samples)

        def d_loss(params: ArrayTree) -> Array:
            network = nnx.merge(d_def, params)
            return -divergence.value(network(real), network(samples[0]))

        loss_d, grads = jax.value_and_grad(d_loss)(state.discriminator)
        updates, opt_d = optimiser.update(grads, state.opt_discriminator)
        discriminator = optax.apply_updates(state.discriminator, updates)

        flat = samples.reshape(-1, *samples.shape[2:])
        outputs = nnx.merge(d_def, discriminator)(flat).reshape(samples.shape[:2])
        log_ratio = divergence.log_ratio(outputs)

        def g_loss(params: ArrayTree) -> Array:
            _, log_q = draw(nnx.merge(g_def, params), z, x_key, config.samples)
            return surrogate(log_q, log_ratio, config.form, state.baseline)

        loss_g, grads = jax.value_and_grad(g_loss)(state.generator)
        updates, opt_g = optimiser.update(grads, state.opt_generator)
        found = importance(log_ratio)
        new = BGANState(
            optax.apply_updates(state.generator, updates),
            discriminator,
            opt_g,
            opt_d,
            _running(state.baseline, jnp.mean(log_ratio), config.memory),
            _running(state.log_z, jnp.mean(found.log_z), config.memory),
        )
        metrics = {
            "loss_d": loss_d,
            "loss_g": loss_g,
            "ess": jnp.mean(found.ess),
            "log_z": new.log_z,
        }
        return new, metrics

    return step  # type: ignore[return-value]


def bernoulli_images(
    generator: Generator, z: Array, key: PRNGKey, samples: int
) -> tuple[Array, Array]:
    """Binary images from a generator of probabilities: `[M, B, H, W, C]`, and their log q.

    The same key gives the same images whatever the parameters' gradient is taken of.
    """
    p = jnp.clip(generator(z), 1e-6, 1 - 1e-6)[None]
    x = jax.random.bernoulli(key, p, (samples, *p.shape[1:])).astype(p.dtype)
    x = jax.lax.stop_gradient(x)
    log_q = x * jnp.log(p) + (1 - x) * jnp.log1p(-p)
    return x, jnp.sum(log_q, axis=tuple(range(2, x.ndim)))


def categorical_tokens(
    generator: Generator, z: Array, key: PRNGKey, samples: int
) -> tuple[Array, Array]:
    """One-hot tokens `[M, B, T, V]` from a generator of logits `[B, T, V]`, and their log q."""
    log_p = jax.nn.log_softmax(generator(z))[None]
    tokens = jax.random.categorical(key, log_p, shape=(samples, *log_p.shape[1:-1]))
    x = jax.nn.one_hot(tokens, log_p.shape[-1])
    return x, jnp.sum(x * log_p, axis=(-2, -1))


def _running(old: Array, new: Array, memory: float) -> Array:
    return memory * old + (1 - memory) * new


def _optimiser(config: BGANConfig) -> optax.GradientTransformation:
    return optax.adam(config.lr, config.beta1)
