"""GoogLeNet with batch normalisation, as torchvision has it.

Szegedy et al. 2015; torchvision's 5x5 branches are 3x3 convolutions in fact, and its weights
came from TensorFlow (eps 1e-3). The auxiliary classifiers of training are left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx

from jaxgen.core.types import Array
from jaxgen.models.ported.blocks import ConvNorm, max_pool, spatial_mean, standardise

__all__ = ["GoogLeNet"]

_TABLE = {
    "inception3a": (192, 64, 96, 128, 16, 32, 32),
    "inception3b": (256, 128, 128, 192, 32, 96, 64),
    "inception4a": (480, 192, 96, 208, 16, 48, 64),
    "inception4b": (512, 160, 112, 224, 24, 64, 64),
    "inception4c": (512, 128, 128, 256, 24, 64, 64),
    "inception4d": (512, 112, 144, 288, 32, 64, 64),
    "inception4e": (528, 256, 160, 320, 32, 128, 128),
    "inception5a": (832, 256, 160, 320, 32, 128, 128),
    "inception5b": (832, 384, 192, 384, 48, 128, 128),
}


class _Inception(nnx.Module):
    """1x1; 1x1, 3x3; 1x1, 3x3; pooling, 1x1: side by side."""

    def __init__(self, i: int, a: int, b: int, c: int, d: int, e: int, f: int, rngs: nnx.Rngs):
        self.branch1 = ConvNorm(i, a, 1, rngs=rngs)
        self.branch2 = nnx.List(
            [ConvNorm(i, b, 1, rngs=rngs), ConvNorm(b, c, 3, padding=1, rngs=rngs)]
        )
        self.branch3 = nnx.List(
            [ConvNorm(i, d, 1, rngs=rngs), ConvNorm(d, e, 3, padding=1, rngs=rngs)]
        )
        self.branch4 = ConvNorm(i, f, 1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        second = self.branch2[1](self.branch2[0](x))
        third = self.branch3[1](self.branch3[0](x))
        fourth = self.branch4(max_pool(x, 3, 1, 1))
        return jnp.concatenate([self.branch1(x), second, third, fourth], -1)


class GoogLeNet(nnx.Module):
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
        self.conv1 = ConvNorm(3, 64, 7, stride=2, padding=3, rngs=rngs)
        self.conv2 = ConvNorm(64, 64, 1, rngs=rngs)
        self.conv3 = ConvNorm(64, 192, 3, padding=1, rngs=rngs)
        for name, sizes in _TABLE.items():
            setattr(self, name, _Inception(*sizes, rngs))
        self.fc = nnx.Linear(1024, classes, rngs=rngs)

    def __call__(self, image: Array) -> Array:
        """Return the logits of an image, or of a batch of them."""
        x = self.conv1(standardise(image, self.mean, self.std))
        x = self.conv3(self.conv2(max_pool(x, 3, 2, ceil=True)))
        x = max_pool(x, 3, 2, ceil=True)
        for name in _TABLE:
            x = getattr(self, name)(x)
            if name == "inception3b":
                x = max_pool(x, 3, 2, ceil=True)
            if name == "inception4e":
                x = max_pool(x, 2, 2, ceil=True)
        return self.fc(spatial_mean(x))
