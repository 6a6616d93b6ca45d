"""The generator and the discriminator of a small DCGAN for 28 x 28 grey images.

After Radford, Metz and Chintala, Unsupervised Representation Learning with Deep
Convolutional GANs (2016), cut down so that the gradient of one image costs little:
14 MFLOP for a generator's forward pass at width 64.

Shapes: latent `[..., 64]`, image `[..., 28, 28, 1]` in [0, 1], logit `[...]`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from jaxgen.core.types import Array
from jaxgen.models.conv.layers import Conv, ConvTranspose
from jaxgen.models.conv.norms import affine

__all__ = ["Discriminator", "Generator"]


class Generator(nnx.Module):
    """Latent to image: Dense 7x7x2w, then two transposed convolutions k4 s2, ReLU between.

    Args:
      latent: size of the latent, standard normal.
      width: channels at 14 x 14; there are twice as many at 7 x 7.
      norm: batch normalisation before each ReLU, as in training. `fold` removes it.
    """

    def __init__(
        self,
        latent: int = 64,
        width: int = 64,
        *,
        norm: bool = False,
        rngs: nnx.Rngs,
    ):
        init = nnx.initializers.normal(0.02)
        bias = not norm
        self.width = width
        self.project = nnx.Linear(
            latent, 7 * 7 * 2 * width, use_bias=bias, kernel_init=init, rngs=rngs
        )
        options = {"stride": 2, "padding": 1, "kernel_init": init, "rngs": rngs}
        self.up1 = ConvTranspose(2 * width, width, 4, use_bias=bias, **options)
        self.up2 = ConvTranspose(width, 1, 4, **options)
        self.norm0 = nnx.BatchNorm(2 * width, momentum=0.9, rngs=rngs) if norm else None
        self.norm1 = nnx.BatchNorm(width, momentum=0.9, rngs=rngs) if norm else None

    def __call__(self, z: Array) -> Array:
        """Return the image of a latent, or of a batch of them."""
        h = self.project(z).reshape((*z.shape[:-1], 7, 7, 2 * self.width))
        h = nnx.relu(h if self.norm0 is None else self.norm0(h))
        h = self.up1(h)
        h = nnx.relu(h if self.norm1 is None else self.norm1(h))
        return 0.5 + 0.5 * jnp.tanh(self.up2(h))

    def fold(self) -> Generator:
        """Return the same function without batch normalisation: its running statistics go into
        the weights before it, `w * scale / sqrt(var + eps)`.
        """
        if self.norm0 is None or self.norm1 is None:
            return self
        latent = self.project.kernel.shape[0]
        folded = Generator(latent, self.width, rngs=nnx.Rngs(0))
        scale, shift = affine(self.norm0)
        folded.project.kernel[...] = self.project.kernel[...] * jnp.tile(scale, 49)[None, :]
        folded.project.bias = nnx.Param(jnp.tile(shift, 49))
        scale, shift = affine(self.norm1)
        folded.up1.kernel[...] = self.up1.kernel[...] * scale[None, None, None, :]
        folded.up1.bias = nnx.Param(shift)
        folded.up2.kernel[...] = self.up2.kernel[...]
        folded.up2.bias = nnx.Param(self.up2.bias[...])  # type: ignore[index]
        return folded


class Discriminator(nnx.Module):
    """Image to the logit of being real: three convolutions k4 s2, leaky ReLU 0.2, Dense.

    It has no normalisation of its own; training divides each kernel by its spectral norm
    (Miyato et al. 2018), and the weights are kept after that division.
    """

    def __init__(self, width: int = 64, *, rngs: nnx.Rngs):
        init = nnx.initializers.orthogonal()
        options = {"stride": 2, "padding": 1, "kernel_init": init, "rngs": rngs}
        self.conv1 = Conv(1, width, 4, **options)
        self.conv2 = Conv(width, 2 * width, 4, **options)
        self.conv3 = Conv(2 * width, 4 * width, 4, **options)
        self.out = nnx.Linear(3 * 3 * 4 * width, 1, kernel_init=init, rngs=rngs)

    def __call__(self, image: Array) -> Array:
        """Return the logit of an image, or of each of a batch, `[...]`."""
        h = 2.0 * image - 1.0
        for layer in (self.conv1, self.conv2, self.conv3):
            h = jax.nn.leaky_relu(layer(h), 0.2)
        return self.out(h.reshape((*image.shape[:-3], -1)))[..., 0]
