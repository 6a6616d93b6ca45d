"""Inception-v3 as torchvision has it (Szegedy et al. 2016), names of layers included.

The auxiliary classifier of training is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
from flax import nnx

from jaxgen.core.types import Array
from jaxgen.models.ported.blocks import ConvNorm, avg_pool, max_pool, spatial_mean, standardise

__all__ = ["InceptionV3"]

_ROW, _COLUMN = ((0, 0), (3, 3)), ((3, 3), (0, 0))


class _A(nnx.Module):
    """35 x 35: 1x1; 5x5; two 3x3; pooling."""

    def __init__(self, inputs: int, pool: int, rngs: nnx.Rngs):
        unit = partial(ConvNorm, rngs=rngs)
        self.branch1x1 = unit(inputs, 64, 1)
        self.branch5x5_1 = unit(inputs, 48, 1)
        self.branch5x5_2 = unit(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = unit(inputs, 64, 1)
        self.branch3x3dbl_2 = unit(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = unit(96, 96, 3, padding=1)
        self.branch_pool = unit(inputs, pool, 1)

    def __call__(self, x: Array) -> Array:
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        pool = self.branch_pool(avg_pool(x, 3, 1, 1))
        return jnp.concatenate([self.branch1x1(x), five, three, pool], -1)


class _B(nnx.Module):
    """35 to 17 pixels."""

    def __init__(self, inputs: int, rngs: nnx.Rngs):
        unit = partial(ConvNorm, rngs=rngs)
        self.branch3x3 = unit(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = unit(inputs, 64, 1)
        self.branch3x3dbl_2 = unit(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = unit(96, 96, 3, stride=2)

    def __call__(self, x: Array) -> Array:
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return jnp.concatenate([self.branch3x3(x), three, max_pool(x, 3, 2)], -1)


class _C(nnx.Module):
    """17 x 17: 7x7 convolutions as rows and columns."""

    def __init__(self, inputs: int, c: int, rngs: nnx.Rngs):
        unit = partial(ConvNorm, rngs=rngs)
        self.branch1x1 = unit(inputs, 192, 1)
        self.branch7x7_1 = unit(inputs, c, 1)
        self.branch7x7_2 = unit(c, c, (1, 7), padding=_ROW)
        self.branch7x7_3 = unit(c, 192, (7, 1), padding=_COLUMN)
        self.branch7x7dbl_1 = unit(inputs, c, 1)
        self.branch7x7dbl_2 = unit(c, c, (7, 1), padding=_COLUMN)
        self.branch7x7dbl_3 = unit(c, c, (1, 7), padding=_ROW)
        self.branch7x7dbl_4 = unit(c, c, (7, 1), padding=_COLUMN)
        self.branch7x7dbl_5 = unit(c, 192, (1, 7), padding=_ROW)
        self.branch_pool = unit(inputs, 192, 1)

    def __call__(self, x: Array) -> Array:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        pool = self.branch_pool(avg_pool(x, 3, 1, 1))
        return jnp.concatenate([self.branch1x1(x), seven, double, pool], -1)


class _D(nnx.Module):
    """17 to 8 pixels."""

    def __init__(self, inputs: int, rngs: nnx.Rngs):
        unit = partial(ConvNorm, rngs=rngs)
        self.branch3x3_1 = unit(inputs, 192, 1)
        self.branch3x3_2 = unit(192, 320, 3, stride=2)
        self.branch7x7x3_1 = unit(inputs, 192, 1)
        self.branch7x7x3_2 = unit(192, 192, (1, 7), padding=_ROW)
        self.branch7x7x3_3 = unit(192, 192, (7, 1), padding=_COLUMN)
        self.branch7x7x3_4 = unit(192, 192, 3, stride=2)

    def __call__(self, x: Array) -> Array:
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_2(self.branch7x7x3_1(x))
        seven = self.branch7x7x3_4(self.branch7x7x3_3(seven))
        return jnp.concatenate([three, seven, max_pool(x, 3, 2)], -1)


class _E(nnx.Module):
    """8 x 8: 3x3 convolutions as a row beside a column."""

    def __init__(self, inputs: int, rngs: nnx.Rngs):
        unit = partial(ConvNorm, rngs=rngs)
        row, column = ((0, 0), (1, 1)), ((1, 1), (0, 0))
        self.branch1x1 = unit(inputs, 320, 1)
        self.branch3x3_1 = unit(inputs, 384, 1)
        self.branch3x3_2a = unit(384, 384, (1, 3), padding=row)
        self.branch3x3_2b = unit(384, 384, (3, 1), padding=column)
        self.branch3x3dbl_1 = unit(inputs, 448, 1)
        self.branch3x3dbl_2 = unit(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = unit(384, 384, (1, 3), padding=row)
        self.branch3x3dbl_3b = unit(384, 384, (3, 1), padding=column)
        self.branch_pool = unit(inputs, 192, 1)

    def __call__(self, x: Array) -> Array:
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        parts = [
            self.branch1x1(x),
            self.branch3x3_2a(three),
            self.branch3x3_2b(three),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(avg_pool(x, 3, 1, 1)),
        ]
        return jnp.concatenate(parts, -1)


class InceptionV3(nnx.Module):
    """Image `[..., H, W, 3]` in [0, 1], made for 299 x 299, to logits `[..., classes]`."""

    def __init__(
        self,
        classes: int,
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
        *,
        rngs: nnx.Rngs,
    ):
        unit = partial(ConvNorm, rngs=rngs)
        self.mean, self.std = tuple(mean), tuple(std)
        self.Conv2d_1a_3x3 = unit(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = unit(32, 32, 3)
        self.Conv2d_2b_3x3 = unit(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = unit(64, 80, 1)
        self.Conv2d_4a_3x3 = unit(80, 192, 3)
        self.Mixed_5b = _A(192, 32, rngs)
        self.Mixed_5c = _A(256, 64, rngs)
        self.Mixed_5d = _A(288, 64, rngs)
        self.Mixed_6a = _B(288, rngs)
        self.Mixed_6b = _C(768, 128, rngs)
        self.Mixed_6c = _C(768, 160, rngs)
        self.Mixed_6d = _C(768, 160, rngs)
        self.Mixed_6e = _C(768, 192, rngs)
        self.Mixed_7a = _D(768, rngs)
        self.Mixed_7b = _E(1280, rngs)
        self.Mixed_7c = _E(2048, rngs)
        self.fc = nnx.Linear(2048, classes, rngs=rngs)

    def __call__(self, image: Array) -> Array:
        """Return the logits of an image, or of a batch of them."""
        x = standardise(image, self.mean, self.std)
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(max_pool(x, 3, 2)))
        x = max_pool(x, 3, 2)
        for block in (
            self.Mixed_5b, self.Mixed_5c, self.Mixed_5d, self.Mixed_6a, self.Mixed_6b,
            self.Mixed_6c, self.Mixed_6d, self.Mixed_6e, self.Mixed_7a, self.Mixed_7b,
            self.Mixed_7c,
        ):  # fmt: skip
            x = block(x)
        return self.fc(spatial_mean(x))
