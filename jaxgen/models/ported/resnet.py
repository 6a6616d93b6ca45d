"""ResNet-18 to 152, ResNeXt and Wide ResNet for ImageNet, as torchvision has them.

He et al. 2016, with the stride of a bottleneck block in its 3x3 convolution ("v1.5").
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
from flax import nnx

from jaxgen.core.types import Array
from jaxgen.models.conv.layers import Conv
from jaxgen.models.ported.blocks import batch_norm, max_pool, spatial_mean, standardise

__all__ = ["ResNet"]


class _Block(nnx.Module):
    """Convolutions around a shortcut: 3x3, 3x3, or 1x1, 3x3, 1x1 in a bottleneck."""

    def __init__(
        self,
        inputs: int,
        inner: int,
        outputs: int,
        stride: int,
        groups: int,
        bottleneck: bool,
        rngs: nnx.Rngs,
    ):
        if bottleneck:
            self.conv1 = Conv(inputs, inner, 1, use_bias=False, rngs=rngs)
            self.conv2 = Conv(
                inner, inner, 3, stride=stride, padding=1, groups=groups, use_bias=False, rngs=rngs
            )
            self.conv3 = Conv(inner, outputs, 1, use_bias=False, rngs=rngs)
            self.bn3 = batch_norm(outputs, rngs)
        else:
            self.conv1 = Conv(inputs, inner, 3, stride=stride, padding=1, use_bias=False, rngs=rngs)
            self.conv2 = Conv(inner, inner, 3, padding=1, use_bias=False, rngs=rngs)
            self.conv3 = self.bn3 = None
        self.bn1 = batch_norm(inner, rngs)
        self.bn2 = batch_norm(inner, rngs)
        shortcut = stride > 1 or inputs != outputs
        self.downsample_conv = (
            Conv(inputs, outputs, 1, stride=stride, use_bias=False, rngs=rngs) if shortcut else None
        )
        self.downsample_norm = batch_norm(outputs, rngs) if shortcut else None

    def __call__(self, x: Array) -> Array:
        y = self.bn2(self.conv2(jax.nn.relu(self.bn1(self.conv1(x)))))
        if self.conv3 is not None and self.bn3 is not None:
            y = self.bn3(self.conv3(jax.nn.relu(y)))
        if self.downsample_conv is not None and self.downsample_norm is not None:
            x = self.downsample_norm(self.downsample_conv(x))
        return jax.nn.relu(x + y)


class ResNet(nnx.Module):
    """Image `[..., H, W, 3]` in [0, 1], made for 224 x 224, to logits `[..., classes]`.

    Args:
      blocks: number of blocks in each of four stages.
      bottleneck: blocks of three convolutions whose output is wider than `64 * 2^stage`
        by a factor of four.
      width: channels inside the bottlenecks of the first stage; doubled in each stage.
      groups: of the bottlenecks' 3x3 convolutions.
      classes: number of classes.
      mean, std: subtracted from the image, and divided by.
    """

    def __init__(
        self,
        blocks: Sequence[int],
        bottleneck: bool = False,
        width: int = 64,
        groups: int = 1,
        classes: int = 1000,
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
        *,
        rngs: nnx.Rngs,
    ):
        self.mean, self.std = tuple(mean), tuple(std)
        self.conv1 = Conv(3, 64, 7, stride=2, padding=3, use_bias=False, rngs=rngs)
        self.bn1 = batch_norm(64, rngs)
        inputs = 64
        for stage, count in enumerate(blocks):
            outputs = (256 if bottleneck else 64) * 2**stage
            made = []
            for i in range(count):
                stride = 2 if stage and i == 0 else 1
                inner = width * 2**stage
                made.append(_Block(inputs, inner, outputs, stride, groups, bottleneck, rngs))
                inputs = outputs
            setattr(self, f"layer{stage + 1}", nnx.List(made))
        self.fc = nnx.Linear(inputs, classes, rngs=rngs)

    def __call__(self, image: Array) -> Array:
        """Return the logits of an image, or of a batch of them."""
        x = standardise(image, self.mean, self.std)
        x = max_pool(jax.nn.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for stage in range(1, 5):
            for block in getattr(self, f"layer{stage}"):
                x = block(x)
        return self.fc(spatial_mean(x))
