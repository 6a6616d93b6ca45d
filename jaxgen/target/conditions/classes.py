"""Conditions on what a classifier sees: its class, or one of its hidden units."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.errors import expected
from jaxgen.core.pytree import pytree, static
from jaxgen.core.types import Array
from jaxgen.target.conditions.algebra import Condition
from jaxgen.target.conditions.checks import check_index, check_label

__all__ = ["ClassLogSoftmax", "ClassLogit", "ClassProbability", "HiddenUnit"]


@pytree
class ClassLogSoftmax(Condition):
    """The class under a classifier: log p(c | x) = logit_c - logsumexp_j logit_j.

    The default class condition, and the only one of the three that is the log of a
    probability (PPGN, Table S2c).

    Attributes:
      classifier: image -> logits `[K]`.
      label: class index, an integer or an integer array `[]`.
    """

    classifier: Any
    label: Array | int

    def __call__(self, image: Array) -> Array:
        """log p(label | image)."""
        return jax.nn.log_softmax(self.classifier(image))[self.label]

    def check(self, image_shape: tuple[int, ...]) -> None:
        """The label must be one of the classifier's classes."""
        check_label(self, image_shape)


@pytree
class ClassLogit(Condition):
    """The class's logit, unnormalised: DGN-AM's objective (PPGN, Table S2a).

    It grows without bound, so with it the "posterior" exists only as far as the prior
    holds it back.
    """

    classifier: Any
    label: Array | int

    def __call__(self, image: Array) -> Array:
        """logit_label(image)."""
        return self.classifier(image)[self.label]

    def check(self, image_shape: tuple[int, ...]) -> None:
        """The label must be one of the classifier's classes."""
        check_label(self, image_shape)


@pytree
class ClassProbability(Condition):
    """The class's probability itself, p(c | x) (PPGN, Table S2b).

    Bounded by 1, it barely tilts the prior: weigh it (`20 * ClassProbability(...)`).
    """

    classifier: Any
    label: Array | int

    def __call__(self, image: Array) -> Array:
        """p(label | image)."""
        return jax.nn.softmax(self.classifier(image))[self.label]

    def check(self, image_shape: tuple[int, ...]) -> None:
        """The label must be one of the classifier's classes."""
        check_label(self, image_shape)


@pytree
class HiddenUnit(Condition):
    """A unit of a hidden layer: its activation, or its log-softmax over channels.

    Attributes:
      network: a network cut at the layer, as `classifier.at("conv2")` gives it; its
        output is `[channels]` or `[H, W, channels]`.
      channel: which channel.
      position: (row, column) of the unit, or None for the mean over all positions.
      normalise: False for the activation; True for the log-softmax over channels at the
        position (PPGN's conditioning on conv units).
    """

    network: Any
    channel: Array | int
    position: Any = None
    normalise: bool = static(default=False)

    def __call__(self, image: Array) -> Array:
        """The unit's activation, or its log probability among the channels."""
        activation = self.network(image)
        if activation.ndim > 1:
            if self.position is None:
                activation = activation.mean(axis=tuple(range(activation.ndim - 1)))
            else:
                row, column = self.position
                activation = activation[row, column]
        if self.normalise:
            activation = jax.nn.log_softmax(activation)
        return activation[self.channel]

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Channel and position must lie inside the layer."""
        shape = jax.eval_shape(self.network, jax.ShapeDtypeStruct(image_shape, jnp.float32)).shape
        check_index("HiddenUnit.channel", self.channel, shape[-1])
        if self.position is not None:
            if len(shape) != 3:
                raise expected(
                    "HiddenUnit.position", f"None for a layer of shape {shape}", "a position"
                )
            for name, index, size in zip(("row", "column"), self.position, shape[:2], strict=True):
                check_index(f"HiddenUnit.position {name}", index, size)
