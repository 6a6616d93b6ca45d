"""SqueezeNet 1.0 and 1.1 as torchvision has them (Iandola et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from jaxgen.core.types import Array
from jaxgen.models.conv.layers import Conv
from jaxgen.models.ported.blocks import max_pool, spatial_mean, standardise

__all__ = ["LAYOUTS", "SqueezeNet"]

LAYOUTS = {"1.0": (96, 7, (3, 4, 1)), "1.1": (64, 3, (2, 2, 4))}
"""Version -> channels and kernel of the first convolution, fires between poolings."""

_FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))


class _Fire(nnx.Module):
    """A 1x1 convolution to few channels, then 1x1 and 3x3 side by side."""

    def __init__(self, inputs: int, squeeze: int, expand: int, rngs: nnx.Rngs):
        self.squeeze = Conv(inputs, squeeze, 1, rngs=rngs)
        self.expand1x1 = Conv(squeeze, expand, 1, rngs=rngs)
        self.expand3x3 = Conv(squeeze, expand, 3, padding=1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = jax.nn.relu(self.squeeze(x))
        return jax.nn.relu(jnp.concatenate([self.expand1x1(x), self.expand3x3(x)], -1))


class SqueezeNet(nnx.Module):
    """Image `[..., H, W, 3]` in [0, 1], made for 224 x 224, to logits `[..., classes]`."""

    def __init__(
        self,
        version: str,
        classes: int = 1000,
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
        *,
        rngs: nnx.Rngs,
    ):
        width, kernel, self.stages = LAYOUTS[version]
        self.mean, self.std = tuple(mean), tuple(std)
        self.conv1 = Conv(3, width, kernel, stride=2, rngs=rngs)
        fires = []
        for squeeze, expand in _FIRES:
            fires.append(_Fire(width, squeeze, expand, rngs))
            width = 2 * expand
        self.fires = nnx.List(fires)
        self.classifier = Conv(width, classes, 1, rngs=rngs)

    def __call__(self, image: Array) -> Array:
        """Return the logits of an image, or of a batch of them."""
        x = jax.nn.relu(self.conv1(standardise(image, self.mean, self.std)))
        at = 0
        for count in self.stages:
            x = max_pool(x, 3, 2, ceil=True)
            for fire in self.fires[at : at + count]:
                x = fire(x)
            at += count
        return spatial_mean(jax.nn.relu(self.classifier(x)))
