"""Training a DCGAN: the non-saturating loss, spectral norm, and averaged weights.

    L_D = E softplus(-D(x)) + E softplus(D(G(z)))        L_G = E softplus(-D(G(z)))

Goodfellow et al. 2014; each kernel of D is divided by its largest singular value,
estimated by one power iteration per update (Miyato et al. 2018, Algorithm 1); the
generator that is kept is an exponential moving average of the trained one, with batch
statistics measured anew over many latents.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jaxgen.models.dcgan import Discriminator, Generator
from jaxgen.train.averaging import averaged
from jaxgen.train.loop import Step
from jaxgen.types import Array, ArrayTree, PRNGKey

__all__ = ["GANConfig", "GANState", "finish", "init", "make_step"]


class GANConfig(NamedTuple):
    """Hyper-parameters; `steps` is the length of the linear decay to `final` times the rate."""

    steps: int
    batch: int = 64
    latent: int = 64
    width: int = 64
    lr_generator: float = 2e-4
    lr_discriminator: float = 4e-4
    beta1: float = 0.5
    beta2: float = 0.999
    decay_from: float = 0.5
    final: float = 0.05
    ema: float = 0.999


class GANState(NamedTuple):
    """Everything that a step reads and writes."""

    generator: ArrayTree
    statistics: ArrayTree
    discriminator: ArrayTree
    vectors: ArrayTree
    average: ArrayTree
    opt_generator: Any
    opt_discriminator: Any
    step: Array


def init(key: PRNGKey, config: GANConfig) -> GANState:
    """The state before the first update. The key is consumed."""
    g_key, d_key, u_key = jax.random.split(key, 3)
    generator = Generator(config.latent, config.width, norm=True, rngs=nnx.Rngs(g_key))
    discriminator = Discriminator(config.width, rngs=nnx.Rngs(d_key))
    _, params, statistics = nnx.split(generator, nnx.Param, ...)
    _, d_params = nnx.split(discriminator)
    vectors = jax.tree.map(
        lambda w: jax.random.normal(u_key, (w.shape[-1],)) if w.ndim > 1 else jnp.zeros(0),
        nnx.to_pure_dict(d_params),
    )
    opt_g, opt_d = _optimisers(config)
    return GANState(
        params,
        statistics,
        d_params,
        vectors,
        jax.tree.map(jnp.array, params),
        opt_g.init(params),
        opt_d.init(d_params),
        jnp.zeros((), jnp.int32),
    )


def make_step(config: GANConfig) -> Step:
    """The update: one step of D on a real and a generated batch, then one of G.

    The batch is images `[B, 28, 28, 1]` in [0, 1].
    """
    g_def, *_ = nnx.split(nnx.eval_shape(lambda: _train_generator(config)), nnx.Param, ...)
    d_def, _ = nnx.split(nnx.eval_shape(lambda: Discriminator(config.width, rngs=nnx.Rngs(0))))
    opt_g, opt_d = _optimisers(config)

    def generate(params: ArrayTree, statistics: ArrayTree, z: Array) -> tuple[Array, ArrayTree]:
        module = nnx.merge(g_def, params, statistics, copy=True)
        images = module(z)
        return images, nnx.state(module, nnx.BatchStat)

    def logits(params: ArrayTree, images: Array) -> Array:
        return nnx.merge(d_def, params)(images)

    def step(state: GANState, real: Array, key: PRNGKey) -> tuple[GANState, dict[str, Array]]:
        z = jax.random.normal(key, (config.batch, config.latent))
        fake, pull_back, statistics = jax.vjp(
            lambda params: generate(params, state.statistics, z), state.generator, has_aux=True
        )
        vectors = power_iteration(state.discriminator, state.vectors)

        def d_loss(params: ArrayTree) -> tuple[Array, tuple[Array, Array]]:
            scores = logits(divide(params, vectors), jnp.concatenate([real, fake]))
            on_real, on_fake = jnp.split(scores, 2)
            loss = jnp.mean(jax.nn.softplus(-on_real)) + jnp.mean(jax.nn.softplus(on_fake))
            return loss, (jnp.mean(on_real), jnp.mean(on_fake))

        (loss_d, (on_real, on_fake)), grads = jax.value_and_grad(d_loss, has_aux=True)(
            state.discriminator
        )
        updates, opt_discriminator = opt_d.update(grads, state.opt_discriminator)
        discriminator = optax.apply_updates(state.discriminator, updates)
        fixed = divide(discriminator, vectors)
        # The same fakes against the updated D: one forward pass of G serves both losses.
        loss_g, towards_real = jax.value_and_grad(
            lambda images: jnp.mean(jax.nn.softplus(-logits(fixed, images)))
        )(fake)
        (grads,) = pull_back(towards_real)
        updates, opt_generator = opt_g.update(grads, state.opt_generator)
        generator = optax.apply_updates(state.generator, updates)
        average = averaged(state.average, generator, state.step, config.ema)
        new = GANState(
            generator,
            statistics,
            discriminator,
            vectors,
            average,
            opt_generator,
            opt_discriminator,
            state.step + 1,
        )
        metrics = {"loss_d": loss_d, "loss_g": loss_g, "real": on_real, "fake": on_fake}
        return new, metrics

    return step  # type: ignore[return-value]


def finish(
    key: PRNGKey, state: GANState, config: GANConfig, count: int = 10_000
) -> tuple[Generator, Discriminator]:
    """The generator of averaged weights, batch norm folded in, and D with divided kernels.

    The averaged weights never ran in training, so their batch statistics are measured
    here, over `count` latents at once. The key is consumed.
    """
    module = _train_generator(config)
    nnx.update(module, state.average)
    for norm in (module.norm0, module.norm1):
        assert norm is not None
        norm.momentum = 0.0  # keep the last batch's statistics
    graph, variables = nnx.split(module)

    @jax.jit
    def measure(variables: ArrayTree, z: Array) -> ArrayTree:
        module = nnx.merge(graph, variables, copy=True)
        module(z)
        return nnx.state(module)

    nnx.update(module, measure(variables, jax.random.normal(key, (count, config.latent))))
    discriminator = Discriminator(config.width, rngs=nnx.Rngs(0))

    @jax.jit
    def converged(params: ArrayTree, vectors: ArrayTree) -> ArrayTree:
        vectors = jax.lax.fori_loop(0, 50, lambda _, v: power_iteration(params, v), vectors)
        return divide(params, vectors)

    nnx.update(discriminator, converged(state.discriminator, state.vectors))
    return module.fold(), discriminator


def power_iteration(params: ArrayTree, vectors: ArrayTree) -> ArrayTree:
    """One power iteration for the largest singular value of each `[-1, out]` kernel."""

    def iterate(w: Array, v: Array) -> Array:
        if w.ndim < 2:
            return v
        matrix = w.reshape(-1, w.shape[-1])
        u = _unit(matrix @ v)
        return _unit(u @ matrix)

    pure = nnx.to_pure_dict(params) if isinstance(params, nnx.State) else params
    return jax.lax.stop_gradient(jax.tree.map(iterate, pure, vectors))


def divide(params: ArrayTree, vectors: ArrayTree) -> ArrayTree:
    """Each kernel over its spectral norm `|W v|`, v its leading right singular vector."""

    def normal(w: Array, v: Array) -> Array:
        if w.ndim < 2:
            return w
        matrix = w.reshape(-1, w.shape[-1])
        return w / jnp.linalg.norm(matrix @ v)

    structure = jax.tree.structure(params)
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(vectors), strict=True)
    return jax.tree.unflatten(structure, [normal(w, v) for w, v in pairs])


def _unit(v: Array) -> Array:
    return v / (jnp.linalg.norm(v) + 1e-12)


def _train_generator(config: GANConfig) -> Generator:
    return Generator(config.latent, config.width, norm=True, rngs=nnx.Rngs(0))


def _optimisers(
    config: GANConfig,
) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    def adam(rate: float) -> optax.GradientTransformation:
        begin = int(config.decay_from * config.steps)
        schedule = optax.linear_schedule(
            rate, config.final * rate, max(1, config.steps - begin), begin
        )
        return optax.adam(schedule, config.beta1, config.beta2)

    return adam(config.lr_generator), adam(config.lr_discriminator)
