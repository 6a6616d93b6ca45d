"""The classifier to condition on: smooth, so that HMC's gradients are good through it.

Strided convolutions in place of pooling and GELU in place of ReLU: the logits are smooth
functions of the pixels. 11 MFLOP for one image.

Shapes: image `[..., 28, 28, 1]` in [0, 1], logits `[..., classes]`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
from flax import nnx

from jaxgen.core.types import Array
from jaxgen.models.conv.layers import Conv

__all__ = ["Classifier", "Maps"]


class Maps(NamedTuple):
    """What a classifier makes of an image on the way to its logits.

    Attributes:
      early: after the second convolution, `[..., 14, 14, width]`.
      late: after the last convolution, `[..., 7, 7, 2 * width]`.
      hidden: the hidden layer before its GELU, `[..., hidden]`.
    """

    early: Array
    late: Array
    hidden: Array


class Classifier(nnx.Module):
    """Four convolutions (28 -> 14 -> 14 -> 7 -> 7), a hidden layer and the logits.

    Args:
      classes: number of classes.
      width: channels at 14 x 14; there are twice as many at 7 x 7.
      hidden: size of the hidden layer.
      dropout: share of the hidden layer dropped in training; none is, once frozen.
    """

    def __init__(
        self,
        classes: int = 10,
        width: int = 32,
        hidden: int = 128,
        dropout: float = 0.0,
        *,
        rngs: nnx.Rngs,
    ):
        init = nnx.initializers.he_normal()
        w = width
        self.conv1 = Conv(1, w, 4, stride=2, padding=1, kernel_init=init, rngs=rngs)
        self.conv2 = Conv(w, w, 3, padding=1, kernel_init=init, rngs=rngs)
        self.conv3 = Conv(w, 2 * w, 4, stride=2, padding=1, kernel_init=init, rngs=rngs)
        self.conv4 = Conv(2 * w, 2 * w, 3, padding=1, kernel_init=init, rngs=rngs)
        self.hidden = nnx.Linear(49 * 2 * w, hidden, kernel_init=init, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout else None
        self.logits = nnx.Linear(hidden, classes, rngs=rngs)

    def spatial(self, image: Array) -> Array:
        """Return what the last convolution makes of an image: `[..., 7, 7, 2 * width]`."""
        return self._convolved(image)[1]

    def maps(self, image: Array) -> Maps:
        """Return what three of the layers make of an image."""
        early, late = self._convolved(image)
        return Maps(early, late, self.hidden(late.reshape((*late.shape[:-3], -1))))

    def _convolved(self, image: Array) -> tuple[Array, Array]:
        """Return what the second and the last convolution make of an image."""
        h = (image - 0.286) / 0.353  # the mean and deviation of Fashion-MNIST's pixels
        early = jax.nn.gelu(self.conv2(jax.nn.gelu(self.conv1(h))))
        return early, jax.nn.gelu(self.conv4(jax.nn.gelu(self.conv3(early))))

    def __call__(self, image: Array) -> Array:
        """Return the logits of an image, or of a batch of them."""
        h = self.spatial(image)
        h = jax.nn.gelu(self.hidden(h.reshape((*image.shape[:-3], -1))))
        return self.logits(h if self.dropout is None else self.dropout(h))
