"""Conditions on what a classifier sees: its class, or one of its hidden units.

A classifier gives logits. Many files end in a softmax instead (Caffe's deploy files, Keras
and ONNX models), and a log-softmax of *probabilities* is wrong without looking wrong: at most
e / (e + K - 1) for any class, -1.46 of ten classes where 0 is right. `takes="probabilities"` says
that it is so; `Posterior.check` looks at a few images and refuses what was not said.

The classifier may be a network, its name, or a callable of another library
(`jaxgen.target.adapters`); the label an integer, or a name where the classes have names.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.names import class_index
from jaxgen.core.pytree import pytree, static
from jaxgen.core.types import Array, ArrayTree, Classifier
from jaxgen.target.adapters import as_function
from jaxgen.target.conditions.algebra import Condition
from jaxgen.target.conditions.checks import check_index, check_label, outputs_of

__all__ = ["ClassCondition", "ClassLogSoftmax", "ClassLogit", "ClassProbability", "HiddenUnit"]

_TAKES = ("logits", "probabilities")


class ClassCondition(Condition):
    """Base of the three: a classifier, a label, and what the classifier gives."""

    classifier: Classifier
    label: Any
    takes: str = "logits"

    def __post_init__(self) -> None:
        # JAX also builds conditions out of placeholders: what is neither is left alone.
        classifier = as_function(self.classifier, "classifier")
        object.__setattr__(self, "classifier", classifier)
        names = getattr(classifier, "classes", ())
        if isinstance(self.label, str) and isinstance(names, tuple) and names:
            object.__setattr__(self, "label", class_index(self.label, names))

    def logits(self, image: Array) -> Array:
        """Return the classifier's logits `[K]`, or log p where it gives probabilities."""
        out = self.classifier(image)
        if self.takes == "probabilities":
            return jnp.log(jnp.maximum(out, jnp.finfo(out.dtype).tiny))
        return out

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Check that the label is one of the classifier's classes."""
        name = type(self).__name__
        if self.takes not in _TAKES:
            raise expected(f"{name}.takes", " or ".join(map(repr, _TAKES)), repr(self.takes))
        check_label(self, image_shape)

    def check_outputs(self, outputs: np.ndarray) -> None:
        """Raise `InputError` where a few outputs `[N, K]` are not what `takes` says.

        Probabilities are never negative and sum to one; logits do not, over several images.
        """
        name = type(self).__name__
        outputs = np.asarray(outputs, np.float64)
        sums = outputs.sum(axis=-1)
        are = outputs.shape[-1] > 1 and np.all(outputs >= 0) and np.allclose(sums, 1, atol=2e-3)
        if are and self.takes == "logits":
            way = f'Say {name}(classifier, label, takes="probabilities")'
            if isinstance(self, ClassLogit):
                way = 'Use ClassLogSoftmax with takes="probabilities": they hold no logits'
            raise expected(
                "classifier",
                "logits",
                "probabilities (never negative, sum 1: it ends in a softmax)",
                f"Cut it before its softmax by classifier.at(LAYER), or: {way[0].lower()}{way[1:]}",
            )
        if self.takes == "probabilities" and np.all(np.isfinite(outputs)) and not are:
            raise expected(
                f"{name}.takes",
                "'logits' for this classifier",
                f"'probabilities', and outputs from {outputs.min():.3g} to {outputs.max():.3g}"
                f" that sum to {sums[0]:.3g}",
            )


@pytree
class ClassLogSoftmax(ClassCondition):
    """The class under a classifier: log p(c | x) = logit_c - logsumexp_j logit_j.

    The default class condition, and the only one of the three that is the log of a
    probability (PPGN, Table S2c).

    Attributes:
      classifier: image -> logits `[K]`, or the name of a classifier.
      label: class index, an integer or an integer array `[]`; or a class's name.
      takes: "logits", or "probabilities" for a classifier that ends in a softmax. Logits are
        better: probabilities below 1e-38 are zero, and have no gradient.
    """

    classifier: Classifier
    label: Array | int | str
    takes: str = static(default="logits")

    def __call__(self, image: Array) -> Array:
        """log p(label | image)."""
        return jax.nn.log_softmax(self.logits(image))[self.label]


@pytree
class ClassLogit(ClassCondition):
    """The class's logit, unnormalised: DGN-AM's objective (PPGN, Table S2a).

    It grows without bound, so with it the "posterior" exists only as far as the prior
    holds it back. Probabilities hold no logits, and are refused.
    """

    classifier: Classifier
    label: Array | int | str

    def __call__(self, image: Array) -> Array:
        """logit_label(image)."""
        return self.logits(image)[self.label]


@pytree
class ClassProbability(ClassCondition):
    """The class's probability itself, p(c | x) (PPGN, Table S2b).

    Bounded by 1, it barely tilts the prior: weigh it (`20 * ClassProbability(...)`).

    Attributes:
      classifier, label, takes: as in `ClassLogSoftmax`.
    """

    classifier: Classifier
    label: Array | int | str
    takes: str = static(default="logits")

    def __call__(self, image: Array) -> Array:
        """p(label | image)."""
        return jax.nn.softmax(self.logits(image))[self.label]


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
    position: ArrayTree = None
    normalise: bool = static(default=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "network", as_function(self.network, "HiddenUnit.network"))

    def __call__(self, image: Array) -> Array:
        """Return the unit's activation, or its log probability among the channels."""
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
        shape = outputs_of("HiddenUnit.network", self.network, image_shape).shape
        check_index("HiddenUnit.channel", self.channel, shape[-1])
        if self.position is not None:
            if len(shape) != 3:
                raise expected(
                    "HiddenUnit.position", f"None for a layer of shape {shape}", "a position"
                )
            for name, index, size in zip(("row", "column"), self.position, shape[:2], strict=True):
                check_index(f"HiddenUnit.position {name}", index, size)
