"""AlexNet as torchvision has it (Krizhevsky 2014, "One weird trick"): no groups, no LRN."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from jaxgen.core.types import Array
from jaxgen.models.conv.layers import Conv
from jaxgen.models.ported.blocks import adaptive_avg_pool, max_pool, standardise

__all__ = ["AlexNet"]


class AlexNet(nnx.Module):
    """Image `[..., H, W, 3]` in [0, 1], made for 224 x 224, to logits `[..., classes]`."""

    def __init__(
        self,
        classes: int,
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
        *,
        rngs: nnx.Rngs,
    ):
        self.mean, self.std = tuple(mean), tuple(std)
        self.conv1 = Conv(3, 64, 11, stride=4, padding=2, rngs=rngs)
        self.conv2 = Conv(64, 192, 5, padding=2, rngs=rngs)
        self.conv3 = Conv(192, 384, 3, padding=1, rngs=rngs)
        self.conv4 = Conv(384, 256, 3, padding=1, rngs=rngs)
        self.conv5 = Conv(256, 256, 3, padding=1, rngs=rngs)
        self.fc6 = nnx.Linear(256 * 6 * 6, 4096, rngs=rngs)
        self.fc7 = nnx.Linear(4096, 4096, rngs=rngs)
        self.fc8 = nnx.Linear(4096, classes, rngs=rngs)

    def __call__(self, image: Array) -> Array:
        """Return the logits of an image, or of a batch of them."""
        x = standardise(image, self.mean, self.std)
        x = max_pool(jax.nn.relu(self.conv1(x)), 3, 2)
        x = max_pool(jax.nn.relu(self.conv2(x)), 3, 2)
        x = jax.nn.relu(self.conv4(jax.nn.relu(self.conv3(x))))
        x = max_pool(jax.nn.relu(self.conv5(x)), 3, 2)
        x = adaptive_avg_pool(x, 6)
        x = jnp.reshape(x, (*x.shape[:-3], -1))
        return self.fc8(jax.nn.relu(self.fc7(jax.nn.relu(self.fc6(x)))))
