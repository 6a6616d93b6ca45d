"""Training a classifier: cross entropy, label smoothing, AdamW on a cosine, averaging.

Images are shifted by up to two pixels and mirrored, both at random; the weights kept are
an exponential moving average.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jaxgen.core.types import Array, ArrayTree, PRNGKey
from jaxgen.train.averaging import averaged
from jaxgen.train.loop import Step

__all__ = ["ClassifierConfig", "ClassifierState", "augment", "init", "make_step"]


class ClassifierConfig(NamedTuple):
    """Hyper-parameters; the cosine ends at `steps`."""

    steps: int
    batch: int = 128
    lr: float = 1e-3
    warmup: int = 200
    weight_decay: float = 1e-2
    dropout: float = 0.3
    label_smoothing: float = 0.05
    shift: int = 2
    mirror: bool = True
    ema: float = 0.998


class ClassifierState(NamedTuple):
    """Everything that a step reads and writes."""

    params: ArrayTree
    rest: ArrayTree
    average: ArrayTree
    opt: optax.OptState
    step: Array


def init(model: nnx.Module, config: ClassifierConfig) -> ClassifierState:
    """Return the state before the first update."""
    _, params, rest = nnx.split(model, nnx.Param, ...)
    return ClassifierState(
        params,
        rest,
        jax.tree.map(jnp.array, params),
        _optimiser(config).init(params),
        jnp.zeros((), jnp.int32),
    )


def make_step(model: nnx.Module, config: ClassifierConfig) -> Step:
    """Return the update of a classifier of the structure of `model`.

    The batch is (images `[B, 28, 28, 1]` in [0, 1], labels `[B]`).
    """
    graphdef, _, _ = nnx.split(model, nnx.Param, ...)
    optimiser = _optimiser(config)

    def step(
        state: ClassifierState, batch: tuple[Array, Array], key: PRNGKey
    ) -> tuple[ClassifierState, dict[str, Array]]:
        images, labels = batch
        images = augment(key, images, config.shift, mirror=config.mirror)

        def loss_of(params: ArrayTree) -> tuple[Array, tuple[Array, ArrayTree]]:
            module = nnx.merge(graphdef, params, state.rest, copy=True)
            logits = module(images)
            wanted = optax.smooth_labels(
                jax.nn.one_hot(labels, logits.shape[-1]), config.label_smoothing
            )
            loss = jnp.mean(optax.softmax_cross_entropy(logits, wanted))
            accuracy = jnp.mean(jnp.argmax(logits, -1) == labels)
            return loss, (accuracy, nnx.state(module, nnx.Not(nnx.Param)))

        (loss, (accuracy, rest)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        updates, opt = optimiser.update(grads, state.opt, state.params)
        params = optax.apply_updates(state.params, updates)
        average = averaged(state.average, params, state.step, config.ema)
        new = ClassifierState(params, rest, average, opt, state.step + 1)
        return new, {"loss": loss, "accuracy": accuracy}

    return step  # type: ignore[return-value]


def augment(key: PRNGKey, images: Array, shift: int, *, mirror: bool = True) -> Array:
    """Each image shifted by up to `shift` pixels each way and mirrored half of the time.

    The key is consumed. Shapes: `[B, H, W, C]` in and out.
    """
    shift_key, mirror_key = jax.random.split(key)
    count, height, width, channels = images.shape
    if mirror:
        flipped = jax.random.bernoulli(mirror_key, 0.5, (count, 1, 1, 1))
        images = jnp.where(jnp.broadcast_to(flipped, images.shape), images[:, :, ::-1], images)
    if not shift:
        return images
    padded = jnp.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
    offsets = jax.random.randint(shift_key, (count, 2), 0, 2 * shift + 1)

    def cut(image: Array, offset: Array) -> Array:
        return jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), (height, width, channels))

    return jax.vmap(cut)(padded, offsets)


def _optimiser(config: ClassifierConfig) -> optax.GradientTransformation:
    warmup = min(config.warmup, config.steps // 2)
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.lr, warmup, config.steps)

    def kernels(params: ArrayTree) -> ArrayTree:
        return jax.tree.map(lambda w: w.ndim > 1, params)

    return optax.adamw(schedule, weight_decay=config.weight_decay, mask=kernels)
