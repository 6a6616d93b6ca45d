"""ResNet-20, 32, 44, 56, 110 for CIFAR (He et al. 2016, section 4.2).

Three stages of n = (depth - 2) / 6 blocks with 16, 32, 64 channels at 32, 16, 8 pixels. Where
the shape changes, the shortcut takes every second pixel and pads the new channels with zeros,
half before and half after the old ones (option A): it has no weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from jaxgen.core.types import Array
from jaxgen.models.conv.layers import Conv
from jaxgen.models.ported.blocks import batch_norm, spatial_mean, standardise

__all__ = ["CifarResNet"]


class _Block(nnx.Module):
    """Two 3x3 convolutions around a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, rngs: nnx.Rngs):
        self.conv1 = Conv(inputs, outputs, 3, stride=stride, padding=1, use_bias=False, rngs=rngs)
        self.bn1 = batch_norm(outputs, rngs)
        self.conv2 = Conv(outputs, outputs, 3, padding=1, use_bias=False, rngs=rngs)
        self.bn2 = batch_norm(outputs, rngs)
        self.stride, self.extra = stride, outputs - inputs

    def __call__(self, x: Array) -> Array:
        y = jax.nn.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.extra or self.stride > 1:
            before = self.extra // 2
            around = [(0, 0)] * (x.ndim - 1) + [(before, self.extra - before)]
            x = jnp.pad(x[..., :: self.stride, :: self.stride, :], around)
        return jax.nn.relu(x + y)


class CifarResNet(nnx.Module):
    """Image `[..., 32, 32, 3]` in [0, 1] to logits `[..., classes]`."""

    def __init__(
        self,
        depth: int = 20,
        classes: int = 10,
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
        *,
        rngs: nnx.Rngs,
    ):
        blocks = (depth - 2) // 6
        self.mean, self.std = tuple(mean), tuple(std)
        self.conv1 = Conv(3, 16, 3, padding=1, use_bias=False, rngs=rngs)
        self.bn1 = batch_norm(16, rngs)
        self.layer1 = self._stage(16, 16, blocks, 1, rngs)
        self.layer2 = self._stage(16, 32, blocks, 2, rngs)
        self.layer3 = self._stage(32, 64, blocks, 2, rngs)
        self.linear = nnx.Linear(64, classes, rngs=rngs)

    @staticmethod
    def _stage(
        inputs: int, outputs: int, blocks: int, stride: int, rngs: nnx.Rngs
    ) -> nnx.List[_Block]:
        first = _Block(inputs, outputs, stride, rngs)
        return nnx.List([first] + [_Block(outputs, outputs, 1, rngs) for _ in range(blocks - 1)])

    def __call__(self, image: Array) -> Array:
        """Return the logits of an image, or of a batch of them."""
        x = standardise(image, self.mean, self.std)
        x = jax.nn.relu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3):
            for block in stage:
                x = block(x)
        return self.linear(spatial_mean(x))
