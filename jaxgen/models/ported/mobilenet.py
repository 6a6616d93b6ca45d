"""MobileNet-v2 as torchvision has it (Sandler et al. 2018): inverted residual blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
from flax import nnx

from jaxgen.core.types import Array
from jaxgen.models.conv.layers import Conv
from jaxgen.models.ported.blocks import Depthwise, batch_norm, spatial_mean, standardise

__all__ = ["STRIDES", "MobileNetV2"]

STRIDES = (1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)


class _Unit(nnx.Module):
    """Convolution, batch normalisation and, if asked for, ReLU6."""

    def __init__(self, conv: Callable[[Array], Array], channels: int, act: bool, rngs: nnx.Rngs):
        self.conv, self.act = conv, act
        self.bn = batch_norm(channels, rngs)

    def __call__(self, x: Array) -> Array:
        x = self.bn(self.conv(x))
        return jax.nn.relu6(x) if self.act else x


def _pointwise(inputs: int, outputs: int, act: bool, rngs: nnx.Rngs) -> _Unit:
    return _Unit(Conv(inputs, outputs, 1, use_bias=False, rngs=rngs), outputs, act, rngs)


class _Block(nnx.Module):
    """Widen, convolve each channel, narrow; beside the identity where shapes allow."""

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int, rngs: nnx.Rngs):
        self.skip = stride == 1 and inputs == outputs
        self.expand = None if inner == inputs else _pointwise(inputs, inner, True, rngs)
        depthwise = Depthwise(inner, 3, stride=stride, padding=1, rngs=rngs)
        self.depthwise = _Unit(depthwise, inner, True, rngs)
        self.project = _pointwise(inner, outputs, False, rngs)

    def __call__(self, x: Array) -> Array:
        y = x if self.expand is None else self.expand(x)
        y = self.project(self.depthwise(y))
        return x + y if self.skip else y


class MobileNetV2(nnx.Module):
    """Image `[..., H, W, 3]` in [0, 1], made for 224 x 224, to logits `[..., classes]`.

    Args:
      blocks: for each of 17 blocks its inner and its output channels.
      stem: channels of the first convolution.
      head: channels of the last.
      classes: number of classes.
      mean, std: subtracted from the image, and divided by.
    """

    def __init__(
        self,
        blocks: Sequence[Sequence[int]],
        stem: int = 32,
        head: int = 1280,
        classes: int = 1000,
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
        *,
        rngs: nnx.Rngs,
    ):
        self.mean, self.std = tuple(mean), tuple(std)
        first = Conv(3, stem, 3, stride=2, padding=1, use_bias=False, rngs=rngs)
        self.stem = _Unit(first, stem, True, rngs)
        made, inputs = [], stem
        for (inner, outputs), stride in zip(blocks, STRIDES, strict=True):
            made.append(_Block(inputs, inner, outputs, stride, rngs))
            inputs = outputs
        self.blocks = nnx.List(made)
        self.head = _pointwise(inputs, head, True, rngs)
        self.classifier = nnx.Linear(head, classes, rngs=rngs)

    def __call__(self, image: Array) -> Array:
        """Return the logits of an image, or of a batch of them."""
        x = self.stem(standardise(image, self.mean, self.std))
        for block in self.blocks:
            x = block(x)
        return self.classifier(spatial_mean(self.head(x)))
