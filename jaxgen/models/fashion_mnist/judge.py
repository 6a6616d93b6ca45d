"""The judge: a second classifier, of another architecture and seed, that only measures.

Samples that were drawn under one classifier are scored by another one, or the score says
no more than that the sampler did its work. `judge.at("features")` is the space in which
Frechet distances are taken.

Shapes: image `[..., 28, 28, 1]` in [0, 1], logits `[..., classes]`, features `[..., 128]`.
"""

from __future__ import annotations

import jax
from flax import nnx

from jaxgen.core.types import Array
from jaxgen.models.conv.layers import Conv

__all__ = ["Judge"]


class Judge(nnx.Module):
    """Three 3 x 3 convolutions with ReLU and average pooling, features, and the logits.

    Args:
      classes: number of classes.
      width: channels of the first convolution; they double twice.
      features: size of the penultimate layer, the sub-module `features`, before its ReLU.
      dropout: share of the features dropped in training; none is, once frozen.
    """

    def __init__(
        self,
        classes: int = 10,
        width: int = 32,
        features: int = 128,
        dropout: float = 0.0,
        *,
        rngs: nnx.Rngs,
    ):
        init = nnx.initializers.he_normal()
        self.conv1 = Conv(1, width, 3, padding=1, kernel_init=init, rngs=rngs)
        self.conv2 = Conv(width, 2 * width, 3, padding=1, kernel_init=init, rngs=rngs)
        self.conv3 = Conv(2 * width, 4 * width, 3, padding=1, kernel_init=init, rngs=rngs)
        self.features = nnx.Linear(49 * 4 * width, features, kernel_init=init, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs) if dropout else None
        self.logits = nnx.Linear(features, classes, rngs=rngs)

    def __call__(self, image: Array) -> Array:
        """Return the logits of an image, or of a batch of them."""
        h = (image - 0.286) / 0.353  # the mean and deviation of Fashion-MNIST's pixels
        h = _halve(nnx.relu(self.conv1(h)))
        h = _halve(nnx.relu(self.conv2(h)))
        h = nnx.relu(self.conv3(h))
        h = nnx.relu(self.features(h.reshape((*image.shape[:-3], -1))))
        return self.logits(h if self.dropout is None else self.dropout(h))


def _halve(x: Array) -> Array:
    """Return the mean of every 2 x 2 block of pixels."""
    *lead, height, width, channels = x.shape
    blocks = x.reshape((*lead, height // 2, 2, width // 2, 2, channels))
    return jax.numpy.mean(blocks, axis=(-4, -2))
