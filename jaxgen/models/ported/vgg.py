"""VGG-11, 13, 16, 19, with batch normalisation or without (Simonyan and Zisserman 2015)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from jaxgen.core.types import Array
from jaxgen.models.conv.layers import Conv
from jaxgen.models.ported.blocks import adaptive_avg_pool, batch_norm, max_pool, standardise

__all__ = ["VGG"]


class VGG(nnx.Module):
    """Image `[..., H, W, 3]` in [0, 1], made for 224 x 224, to logits `[..., classes]`.

    Args:
      stages: channels of the 3x3 convolutions between poolings, as in `((64,), (128,), ...)`.
      norm: batch normalisation after each convolution.
      classes: number of classes.
      hidden: width of the two hidden layers.
      mean, std: subtracted from the image, and divided by.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[int]],
        norm: bool = False,
        classes: int = 1000,
        hidden: int = 4096,
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
        *,
        rngs: nnx.Rngs,
    ):
        self.mean, self.std = tuple(mean), tuple(std)
        self.sizes = tuple(len(stage) for stage in stages)
        widths = [3, *(width for stage in stages for width in stage)]
        self.convs = nnx.List(
            [Conv(a, b, 3, padding=1, rngs=rngs) for a, b in itertools.pairwise(widths)]
        )
        self.norms = nnx.List([batch_norm(width, rngs) for width in widths[1:]] if norm else [])
        self.fc1 = nnx.Linear(widths[-1] * 7 * 7, hidden, rngs=rngs)
        self.fc2 = nnx.Linear(hidden, hidden, rngs=rngs)
        self.fc3 = nnx.Linear(hidden, classes, rngs=rngs)

    def __call__(self, image: Array) -> Array:
        """Return the logits of an image, or of a batch of them."""
        x = standardise(image, self.mean, self.std)
        at = 0
        for size in self.sizes:
            for i in range(at, at + size):
                x = self.convs[i](x)
                x = jax.nn.relu(self.norms[i](x) if len(self.norms) else x)
            at += size
            x = max_pool(x, 2)
        x = adaptive_avg_pool(x, 7)
        x = jnp.reshape(x, (*x.shape[:-3], -1))
        return self.fc3(jax.nn.relu(self.fc2(jax.nn.relu(self.fc1(x)))))
