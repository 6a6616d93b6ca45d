"""Training a held-out discriminator: real images against draws of finished generators.

    L = E softplus(-D(x)) + E softplus(D(G_k(z))),   k uniform over the generators

The discriminator that was trained together with a generator is no judge of it: each has
adapted to the other. This one meets generators that are frozen and several, so its logit
says how an image differs from real ones and not how one generator differs from them.
Nothing samples under it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jaxgen.core.types import Array, ArrayTree, PRNGKey
from jaxgen.models.fashion_mnist.dcgan import Discriminator
from jaxgen.train.averaging import averaged
from jaxgen.train.classifier import augment
from jaxgen.train.loop import Step

__all__ = ["RealismConfig", "RealismState", "finish", "init", "make_step"]


class RealismConfig(NamedTuple):
    """Hyper-parameters; the cosine ends at `steps`, and half of a batch is real."""

    steps: int
    batch: int = 96
    width: int = 32
    lr: float = 1e-3
    weight_decay: float = 1e-2
    shift: int = 1
    ema: float = 0.99


class RealismState(NamedTuple):
    """Everything that a step reads and writes."""

    params: ArrayTree
    average: ArrayTree
    opt: optax.OptState
    step: Array


def init(key: PRNGKey, config: RealismConfig) -> RealismState:
    """Return the state before the first update. The key is consumed."""
    params = nnx.state(_module(config, nnx.Rngs(key)))
    return RealismState(
        params,
        jax.tree.map(jnp.array, params),
        _optimiser(config).init(params),
        jnp.zeros((), jnp.int32),
    )


def make_step(config: RealismConfig) -> Step:
    """Return the update. The batch is (real, drawn), images `[B / 2, 28, 28, 1]` in [0, 1] each."""
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: _module(config, nnx.Rngs(0))))
    optimiser = _optimiser(config)

    def step(
        state: RealismState, batch: tuple[Array, Array], key: PRNGKey
    ) -> tuple[RealismState, dict[str, Array]]:
        images = augment(key, jnp.concatenate(batch), config.shift)
        sign = jnp.repeat(jnp.array([1.0, -1.0]), images.shape[0] // 2)

        def loss_of(params: ArrayTree) -> tuple[Array, Array]:
            logits = nnx.merge(graphdef, params)(images)
            right = jnp.mean(sign * logits > 0)
            return 2 * jnp.mean(jax.nn.softplus(-sign * logits)), right

        (loss, right), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        updates, opt = optimiser.update(grads, state.opt, state.params)
        params = optax.apply_updates(state.params, updates)
        average = averaged(state.average, params, state.step, config.ema)
        new = RealismState(params, average, opt, state.step + 1)
        return new, {"loss": loss, "accuracy": right}

    return step  # type: ignore[return-value]


def finish(state: RealismState, config: RealismConfig) -> Discriminator:
    """Return the discriminator with averaged weights."""
    module = Discriminator(config.width, rngs=nnx.Rngs(0))
    nnx.update(module, state.average)
    return module


def _module(config: RealismConfig, rngs: nnx.Rngs) -> Discriminator:
    module = Discriminator(config.width, rngs=rngs)
    for layer in (module.conv1, module.conv2, module.conv3):
        layer.form = "xla"  # the faster one in training, outside a compiled loop
    return module


def _optimiser(config: RealismConfig) -> optax.GradientTransformation:
    warmup = min(100, config.steps // 2)
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.lr, warmup, config.steps)
    return optax.adamw(schedule, weight_decay=config.weight_decay)
