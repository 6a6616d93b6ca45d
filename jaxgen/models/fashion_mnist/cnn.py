"""The classifier to condition on: smooth, so that HMC's gradients are good through it.

Strided convolutions in place of pooling and GELU in place of ReLU: the logits are smooth
functions of the pixels. 11 MFLOP for one image.

Shapes: image `[..., 28, 28, 1]` in [0, 1], logits `[..., classes]`.
"""

from __future__ import annotations

import jax
from flax import nnx

from jaxgen.core.types import Array
from jaxgen.models.conv.layers import Conv

__all__ = ["Classifier"]


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
        h = (image - 0.286) / 0.353  # the mean and deviation of Fashion-MNIST's pixels
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            h = jax.nn.gelu(layer(h))
        return h

    def __call__(self, image: Array) -> Array:
        """Return the logits of an image, or of a batch of them."""
        h = self.spatial(image)
        h = jax.nn.gelu(self.hidden(h.reshape((*image.shape[:-3], -1))))
        return self.logits(h if self.dropout is None else self.dropout(h))
