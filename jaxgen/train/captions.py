"""Training a captioner on captions made of the class and of what can be measured.

A caption is "a [dark|bright] [narrow|wide] CLASS": an image is dark or bright if its mean lit
pixel is in the lowest or highest third of the training set's, narrow or wide likewise by how
many columns it lights up, and neither word stands there for the third in between. The
convolutions are those of a trained classifier and stay as they are; the rest climbs

    mean over images of log p(words | image).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxgen.core.types import Array, ArrayTree, PRNGKey
from jaxgen.models.fashion_mnist.captioner import END, Captioner
from jaxgen.models.fashion_mnist.cnn import Classifier
from jaxgen.train.loop import Step

__all__ = [
    "LENGTH",
    "WORDS",
    "CaptionsConfig",
    "CaptionsState",
    "Thirds",
    "captions",
    "init",
    "make_step",
    "thirds",
]

# One word for each of Fashion-MNIST's classes, in their order.
_CLASSES = ("top", "trousers", "pullover", "dress", "coat")
_CLASSES += ("sandal", "shirt", "sneaker", "bag", "boot")
WORDS = ("<end>", "a", "dark", "bright", "narrow", "wide", *_CLASSES)
LENGTH = 5
_LIT = 0.1


class CaptionsConfig(NamedTuple):
    """Hyper-parameters."""

    steps: int
    batch: int = 128
    lr: float = 2e-3
    embedding: int = 32
    hidden: int = 64


class CaptionsState(NamedTuple):
    """The state of a step: the parameters that are trained, and their optimiser's state."""

    params: ArrayTree
    optimiser: optax.OptState


class Thirds(NamedTuple):
    """The bounds between thirds: of the mean lit pixel, and of the share of lit columns."""

    brightness: tuple[float, float]
    width: tuple[float, float]


def measured(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of the pixels above 0.1, and the share of columns that have one: `[N]` each.

    Args:
      images: `[N, H, W, 1]` in [0, 1].
    """
    lit = images > _LIT
    count = np.maximum(lit.sum(axis=(1, 2, 3)), 1)
    return np.where(lit, images, 0.0).sum(axis=(1, 2, 3)) / count, lit.any(axis=(1, 3)).mean(axis=1)


def thirds(images: np.ndarray) -> Thirds:
    """Return the bounds between thirds of a set of images `[N, H, W, 1]` in [0, 1]."""
    found = [np.quantile(values, (1 / 3, 2 / 3)) for values in measured(images)]
    return Thirds(*((float(low), float(high)) for low, high in found))


def captions(images: np.ndarray, labels: Sequence[int] | np.ndarray, bounds: Thirds) -> np.ndarray:
    """Tokens `[N, 5]` of what there is to say of images: see the module.

    Args:
      images: `[N, H, W, 1]` in [0, 1].
      labels: `[N]` classes.
      bounds: from the training set.
    """
    found = np.full((len(images), LENGTH), END, np.int32)
    attributes = (("dark", "bright"), ("narrow", "wide"))
    columns = []
    for values, (low, high), words in zip(measured(images), bounds, attributes, strict=True):
        below, above = (WORDS.index(word) for word in words)
        columns.append(np.where(values < low, below, np.where(values > high, above, END)))
    classes = np.asarray(labels) + WORDS.index(_CLASSES[0])
    said = np.stack([np.full_like(classes, WORDS.index("a")), *columns, classes], axis=1)
    for row, words in zip(found, said, strict=True):
        words = words[words != END]
        row[: len(words)] = words
    return found


def build(
    config: CaptionsConfig, classifier: Classifier | None = None, key: PRNGKey | int = 0
) -> Captioner:
    """Return a captioner with fresh weights, or with the convolutions of a classifier."""
    captioner = Captioner(
        WORDS, LENGTH, embedding=config.embedding, hidden=config.hidden, rngs=nnx.Rngs(key)
    )
    for name in ("conv1", "conv2", "conv3", "conv4") if classifier is not None else ():
        nnx.update(getattr(captioner, name), nnx.state(getattr(classifier, name)))
    return captioner


def init(key: PRNGKey, config: CaptionsConfig) -> CaptionsState:
    """Return the state before the first update. The key is consumed."""
    params = nnx.state(build(config, key=key), _trained)
    return CaptionsState(params, optax.adam(config.lr).init(params))


def make_step(config: CaptionsConfig) -> Step:
    """One update on (h1 `[B, 7, 7, C]`, tokens `[B, T]`)."""
    graph, _, rest = nnx.split(nnx.eval_shape(lambda: build(config)), _trained, ...)
    optimiser = optax.adam(config.lr)

    def step(
        state: CaptionsState, batch: tuple[Array, Array], key: PRNGKey
    ) -> tuple[CaptionsState, dict[str, Array]]:
        h1, tokens = batch

        def loss(params: ArrayTree) -> Array:
            # The convolutions take no part: their outputs are the data.
            module = nnx.merge(graph, params, rest)
            return -jnp.mean(module.log_probs(module.context_of(h1), tokens).sum(axis=-1))

        value, grads = jax.value_and_grad(loss)(state.params)
        updates, opt = optimiser.update(grads, state.optimiser)
        return CaptionsState(optax.apply_updates(state.params, updates), opt), {"nll": value}

    return step  # type: ignore[return-value]


def finish(state: CaptionsState, config: CaptionsConfig, classifier: Classifier) -> Captioner:
    """Return the trained captioner with the classifier's convolutions."""
    captioner = build(config, classifier)
    nnx.update(captioner, state.params)
    return captioner


def _trained(path: Any, value: Any) -> bool:
    """Return whether a parameter is of the LSTM or the layers before it."""
    return isinstance(value, nnx.Variable) and path[0] in ("writer", "context", "norm")
