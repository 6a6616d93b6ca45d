"""Denoising autoencoders, whose residual R(x) - x is sigma^2 times the score.

Alain & Bengio (JMLR 2014). One for images, convolutional, and one for codes, a
multi-layer perceptron: the priors of PPGN-x and PPGN-h (Nguyen et al., CVPR 2017, S9).
"""

from __future__ import annotations

import jax
from flax import nnx

from jaxgen.models.layers import Conv, ConvTranspose
from jaxgen.models.mlp import MLP
from jaxgen.types import Array

__all__ = ["CodeAutoencoder", "ImageAutoencoder"]


class ImageAutoencoder(nnx.Module):
    """Two convolutions k4 s2 and two transposed ones, leaky ReLU 0.2 between.

    Shapes: image `[..., 28, 28, 1]` in and out.
    """

    def __init__(self, width: int = 32, *, rngs: nnx.Rngs):
        options = {
            "stride": 2,
            "padding": 1,
            "kernel_init": nnx.initializers.he_normal(),
            "rngs": rngs,
        }
        self.conv1 = Conv(1, width, 4, **options)
        self.conv2 = Conv(width, 2 * width, 4, **options)
        self.up1 = ConvTranspose(2 * width, width, 4, **options)
        self.up2 = ConvTranspose(width, 1, 4, **options)

    def __call__(self, image: Array) -> Array:
        h = 2.0 * image - 1.0
        for layer in (self.conv1, self.conv2, self.up1):
            h = jax.nn.leaky_relu(layer(h), 0.2)
        return 0.5 + 0.5 * self.up2(h)


class CodeAutoencoder(MLP):
    """Seven hidden layers that narrow to `narrow` and widen again, in steps.

    The paper's are 4096-2048-1024-500-1024-2048-4096 for a code of 4096; for one of 128
    here 128-128-96-64-96-128-128. Shapes: code `[..., size]` in and out.
    """

    def __init__(self, size: int = 128, narrow: int = 64, *, rngs: nnx.Rngs):
        down = (size, (size + 2 * narrow) // 2, (size + 4 * narrow) // 4)
        sizes = (size, *down, narrow, *reversed(down), size)
        super().__init__(sizes, "leaky_relu", rngs=rngs)
