"""The generator of Progressive GAN (Karras et al. 2018, "Progressive growing of GANs").

z / sqrt(mean z^2 + 1e-8), a matrix to 4 x 4 pixels, a 3x3 convolution; then for every doubling
of the size a nearest-neighbour upsampling and two 3x3 convolutions; leaky ReLU and pixel
normalisation (eps 1e-8) after each; 1x1 to RGB without a nonlinearity. Weights are kept with
the equalised learning rate's constants multiplied in.

The latent's length does not matter: a likelihood through this network says nothing about |z|.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from jaxgen.core.types import Array
from jaxgen.models.conv.layers import Conv
from jaxgen.models.ported.blocks import UpConv

__all__ = ["ProGAN"]

_EPSILON = 1e-8


class _Block(nnx.Module):
    """Twice the size: upsample, convolution, convolution."""

    def __init__(self, inputs: int, outputs: int, slope: float, rngs: nnx.Rngs):
        self.slope = slope
        self.conv0 = UpConv(inputs, outputs, rngs)
        self.conv1 = Conv(outputs, outputs, 3, padding=1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return _normalised(self.conv1(_normalised(self.conv0(x), self.slope)), self.slope)


class ProGAN(nnx.Module):
    """Latent `[..., latent]` to image `[..., S, S, 3]`, S = 4 * 2^(len(channels) - 1).

    Args:
      latent: size of the latent, standard normal.
      channels: of the convolutions at 4, 8, 16, ... pixels.
      colours: of the image.
      slope: of the leaky ReLU.
      gain, shift: image = gain * rgb + shift; 0.5 and 0.5 for a network trained to [-1, 1].
        Nothing is clipped.
    """

    def __init__(
        self,
        latent: int,
        channels: Sequence[int],
        colours: int = 3,
        slope: float = 0.2,
        gain: float = 0.5,
        shift: float = 0.5,
        *,
        rngs: nnx.Rngs,
    ):
        first = channels[0]
        self.slope, self.gain, self.shift = slope, gain, shift
        self.dense = nnx.Linear(latent, 16 * first, rngs=rngs)
        self.conv = Conv(first, first, 3, padding=1, rngs=rngs)
        pairs = itertools.pairwise(channels)
        self.blocks = nnx.List([_Block(a, b, slope, rngs) for a, b in pairs])
        self.rgb = Conv(channels[-1], colours, 1, rngs=rngs)

    def __call__(self, z: Array) -> Array:
        """Return the image of a latent, or of a batch of them."""
        z = z * jax.lax.rsqrt(jnp.mean(z * z, -1, keepdims=True) + _EPSILON)
        x = self.dense(z)
        x = _normalised(x.reshape((*z.shape[:-1], 4, 4, -1)), self.slope)
        x = _normalised(self.conv(x), self.slope)
        for block in self.blocks:
            x = block(x)
        return self.gain * self.rgb(x) + self.shift


def _normalised(x: Array, slope: float) -> Array:
    """Leaky ReLU, then every pixel divided by the root mean square of its channels."""
    x = jax.nn.leaky_relu(x, slope)
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + _EPSILON)
