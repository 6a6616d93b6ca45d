"""Training a DCGAN: the loss, spectral norm, and averaged weights.

Losses, by the name in `GANConfig.loss`, D giving a free output for each image:

- "non-saturating" (Goodfellow et al. 2014):
  L_D = E softplus(-D(x)) + E softplus(D(G(z))),   L_G = E softplus(-D(G(z)));
- "wgan-gp" (Gulrajani et al. 2017, Eq. 3): L_D = E D(G(z)) - E D(x) + lambda E (|grad D(y)| - 1)^2
  with y = e x + (1 - e) G(z), e uniform on [0, 1] for each image,   L_G = -E D(G(z));
- the name of an f-divergence (`jaxgen.train.divergences`; Nowozin et al. 2016): L_D is minus its
  bound, L_G = -E T(G(z)), the form of their Section 3.2 that does not saturate.

If `spectral`, each kernel of D is divided by its largest singular value, estimated by one power
iteration per update (Miyato et al. 2018, Algorithm 1). The generator that is kept is an
exponential moving average of the trained one, with batch statistics measured anew over many
latents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jaxgen.core.errors import expected
from jaxgen.core.types import Array, ArrayTree, PRNGKey
from jaxgen.models.fashion_mnist.dcgan import Discriminator, Generator
from jaxgen.train.averaging import averaged
from jaxgen.train.divergences import DIVERGENCES
from jaxgen.train.loop import Step

__all__ = [
    "LOSSES",
    "GANConfig",
    "GANState",
    "finish",
    "first_vectors",
    "gradient_penalty",
    "init",
    "losses",
    "make_step",
    "optimisers",
    "with_statistics",
]

LOSSES = ("non-saturating", "wgan-gp", *DIVERGENCES)


class GANConfig(NamedTuple):
    """Hyper-parameters.

    Attributes:
      steps: updates of G; the rates decay linearly to `final` times themselves over them.
      batch, latent, width: images in a batch, size of z, channels of both networks.
      lr_generator, lr_discriminator, beta1, beta2: Adam's.
      decay_from: the share of the updates before the decay begins.
      ema: memory of the averaged generator.
      loss: one of `LOSSES`.
      spectral: whether D's kernels are divided by their spectral norms; not in WGAN-GP's paper.
      critic_steps: updates of D for one of G; 5 in WGAN-GP's paper.
      penalty: lambda, of "wgan-gp".
    """

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
    loss: str = "non-saturating"
    spectral: bool = True
    critic_steps: int = 1
    penalty: float = 10.0


class GANState(NamedTuple):
    """Everything that a step reads and writes."""

    generator: ArrayTree
    statistics: ArrayTree
    discriminator: ArrayTree
    vectors: ArrayTree
    average: ArrayTree
    opt_generator: optax.OptState
    opt_discriminator: optax.OptState
    step: Array


def init(key: PRNGKey, config: GANConfig) -> GANState:
    """Return the state before the first update. The key is consumed.

    Raises:
      InputError: for another loss than `LOSSES` has, or no update of D.
    """
    losses(config)
    if config.critic_steps < 1:
        raise expected("critic_steps", "at least 1", config.critic_steps)
    g_key, d_key, u_key = jax.random.split(key, 3)
    generator = Generator(config.latent, config.width, norm=True, rngs=nnx.Rngs(g_key))
    discriminator = Discriminator(config.width, rngs=nnx.Rngs(d_key))
    _, params, statistics = nnx.split(generator, nnx.Param, ...)
    _, d_params = nnx.split(discriminator)
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


def losses(config: GANConfig) -> tuple[Callable[[Array, Array], Array], Callable[[Array], Array]]:
    """L_D from D's outputs on real and on generated images, penalty left out; L_G from the latter.

    Raises:
      InputError: for another loss than `LOSSES` has.
    """
    softplus = jax.nn.softplus
    if config.loss == "non-saturating":
        return (
            lambda real, fake: jnp.mean(softplus(-real)) + jnp.mean(softplus(fake)),
            lambda fake: jnp.mean(softplus(-fake)),
        )
    if config.loss == "wgan-gp":
        return lambda real, fake: jnp.mean(fake) - jnp.mean(real), lambda fake: -jnp.mean(fake)
    if config.loss not in DIVERGENCES:
        raise expected("loss", f"one of {', '.join(LOSSES)}", repr(config.loss))
    divergence = DIVERGENCES[config.loss]
    return (
        lambda real, fake: -divergence.value(real, fake),
        lambda fake: -jnp.mean(divergence.output(fake)),
    )


def gradient_penalty(
    critic: Callable[[Array], Array], real: Array, fake: Array, key: PRNGKey
) -> Array:
    """Mean of (|grad critic(y)| - 1)^2 at y = e real + (1 - e) fake, e uniform for each sample.

    Args:
      critic: `[B, ...]` -> `[B]`, each output of its own sample alone.
      real: `[B, ...]`.
      fake: likewise.
      key: draws e; consumed.
    """
    share = jax.random.uniform(key, (real.shape[0],) + (1,) * (real.ndim - 1))
    gradient = jax.grad(lambda x: jnp.sum(critic(x)))(share * real + (1.0 - share) * fake)
    squares = jnp.sum(gradient**2, axis=tuple(range(1, real.ndim)))
    # The root's slope at zero is infinite, and zero is where a dead critic's gradient is.
    return jnp.mean((jnp.sqrt(squares + 1e-12) - 1.0) ** 2)


def make_step(config: GANConfig) -> Step:
    """Return the update: `critic_steps` of D on real and generated batches, then one of G.

    The batch is `critic_steps * batch` images `[..., 28, 28, 1]` in [0, 1].
    """
    g_def, *_ = nnx.split(nnx.eval_shape(lambda: _train_generator(config)), nnx.Param, ...)
    d_def, _ = nnx.split(nnx.eval_shape(lambda: Discriminator(config.width, rngs=nnx.Rngs(0))))
    opt_g, opt_d = optimisers(config)
    of_critic, of_generator = losses(config)

    def generate(params: ArrayTree, statistics: ArrayTree, z: Array) -> tuple[Array, ArrayTree]:
        module = nnx.merge(g_def, params, statistics, copy=True)
        images = module(z)
        return images, nnx.state(module, nnx.BatchStat)

    def logits(params: ArrayTree, images: Array) -> Array:
        return nnx.merge(d_def, params)(images)

    def kernels(params: ArrayTree, vectors: ArrayTree) -> ArrayTree:
        return divide(params, vectors) if config.spectral else params

    def criticise(
        state: GANState, real: Array, fake: Array, key: PRNGKey
    ) -> tuple[GANState, tuple[Array, Array, Array]]:
        """One update of D; also its loss, and its mean outputs on real and fake."""
        vectors = state.vectors
        if config.spectral:
            vectors = power_iteration(state.discriminator, vectors)

        def d_loss(params: ArrayTree) -> tuple[Array, tuple[Array, Array]]:
            fixed = kernels(params, vectors)
            scores = logits(fixed, jnp.concatenate([real, fake]))
            on_real, on_fake = jnp.split(scores, 2)
            loss = of_critic(on_real, on_fake)
            if config.loss == "wgan-gp":
                steep = gradient_penalty(lambda x: logits(fixed, x), real, fake, key)
                loss += config.penalty * steep
            return loss, (jnp.mean(on_real), jnp.mean(on_fake))

        (loss, means), grads = jax.value_and_grad(d_loss, has_aux=True)(state.discriminator)
        updates, opt = opt_d.update(grads, state.opt_discriminator)
        discriminator = optax.apply_updates(state.discriminator, updates)
        new = state._replace(discriminator=discriminator, vectors=vectors, opt_discriminator=opt)
        return new, (loss, *means)

    def earlier(
        state: GANState, batch_and_key: tuple[Array, PRNGKey]
    ) -> tuple[GANState, tuple[Array, Array, Array]]:
        """Return an update of D that none of G follows."""
        real, key = batch_and_key
        z_key, d_key = jax.random.split(key)
        z = jax.random.normal(z_key, (config.batch, config.latent))
        fake, _ = generate(state.generator, state.statistics, z)
        return criticise(state, real, fake, d_key)

    def step(state: GANState, real: Array, key: PRNGKey) -> tuple[GANState, dict[str, Array]]:
        more = config.critic_steps - 1
        if more:
            batches = real.reshape(config.critic_steps, config.batch, *real.shape[1:])
            keys = jax.random.split(jax.random.fold_in(key, 1), more)
            state, _ = jax.lax.scan(earlier, state, (batches[:-1], keys))
            real = batches[-1]
        z = jax.random.normal(key, (config.batch, config.latent))
        fake, pull_back, statistics = jax.vjp(
            lambda params: generate(params, state.statistics, z), state.generator, has_aux=True
        )
        state, (loss_d, on_real, on_fake) = criticise(state, real, fake, jax.random.fold_in(key, 0))
        fixed = kernels(state.discriminator, state.vectors)
        # The same fakes against the updated D: one forward pass of G serves both losses.
        loss_g, towards_real = jax.value_and_grad(
            lambda images: of_generator(logits(fixed, images))
        )(fake)
        (grads,) = pull_back(towards_real)
        updates, opt_generator = opt_g.update(grads, state.opt_generator)
        generator = optax.apply_updates(state.generator, updates)
        new = state._replace(
            generator=generator,
            statistics=statistics,
            average=averaged(state.average, generator, state.step, config.ema),
            opt_generator=opt_generator,
            step=state.step + 1,
        )
        metrics = {"loss_d": loss_d, "loss_g": loss_g, "real": on_real, "fake": on_fake}
        return new, metrics

    return step  # type: ignore[return-value]


def finish(
    key: PRNGKey, state: GANState, config: GANConfig, count: int = 10_000
) -> tuple[Generator, Discriminator]:
    """Return the generator of averaged weights with batch norm folded in, and D.

    Batch statistics are measured over `count` latents at once. The key is consumed.
    """
    module = _train_generator(config)
    nnx.update(module, state.average)
    z = jax.random.normal(key, (count, config.latent))
    module = with_statistics(module, (module.norm0, module.norm1), z)
    discriminator = Discriminator(config.width, rngs=nnx.Rngs(0))
    if not config.spectral:
        nnx.update(discriminator, state.discriminator)
        return module.fold(), discriminator

    @jax.jit
    def converged(params: ArrayTree, vectors: ArrayTree) -> ArrayTree:
        vectors = jax.lax.fori_loop(0, 50, lambda _, v: power_iteration(params, v), vectors)
        return divide(params, vectors)

    nnx.update(discriminator, converged(state.discriminator, state.vectors))
    return module.fold(), discriminator


def with_statistics(module: nnx.Module, norms: Iterable[nnx.BatchNorm | None], z: Array) -> Any:
    """Return a generator whose batch statistics are those of the latents `z`, `[N, latent]`.

    Averaged weights never ran in training, so theirs are measured once, over many latents.

    Args:
      module: in training mode.
      norms: all of its batch normalisations.
      z: the latents.
    """
    for norm in norms:
        assert norm is not None
        norm.momentum = 0.0  # keep the last batch's statistics
    graph, variables = nnx.split(module)

    @jax.jit
    def measure(variables: ArrayTree, z: Array) -> ArrayTree:
        module = nnx.merge(graph, variables, copy=True)
        module(z)
        return nnx.state(module)

    nnx.update(module, measure(variables, z))
    return module


def first_vectors(key: PRNGKey, params: ArrayTree) -> ArrayTree:
    """Return random vectors for `power_iteration` to begin with. The key is consumed."""
    return jax.tree.map(
        lambda w: jax.random.normal(key, (w.shape[-1],)) if w.ndim > 1 else jnp.zeros(0),
        nnx.to_pure_dict(params),
    )


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


def optimisers(
    config: Any,
) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    """Adam for the generator and for the discriminator, by a `GANConfig` or one with its rates."""

    def adam(rate: float) -> optax.GradientTransformation:
        begin = int(config.decay_from * config.steps)
        schedule = optax.linear_schedule(
            rate, config.final * rate, max(1, config.steps - begin), begin
        )
        return optax.adam(schedule, config.beta1, config.beta2)

    return adam(config.lr_generator), adam(config.lr_discriminator)
