"""BEGAN's two networks for 28 x 28 grey images: one decoder, used twice.

Berthelot, Schumm and Metz (2017): the discriminator is an autoencoder whose decoder has the
generator's architecture. 3 x 3 convolutions with ELU, two at each size, nearest upsampling.
Two helps of their Section 3.5: the first tensor h0 of a decoder is enlarged and handed to every
larger size (skip connections), and at the start of training a layer that keeps the size hands its
input on,

    layer(h) = carry h + (1 - carry) elu(conv(h)),

with a carry that vanishes (vanishing residuals). A trained network has a carry of 0.

Shapes: latent `[..., latent]`, image `[..., 28, 28, 1]` in [0, 1].
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from jaxgen.core.types import Array
from jaxgen.models.conv.layers import Conv

__all__ = ["Autoencoder", "Decoder", "Generator"]


def _conv(features: int, out: int, rngs: nnx.Rngs, stride: int = 1) -> Conv:
    return Conv(features, out, 3, stride=stride, padding=1, rngs=rngs)


def _enlarged(h: Array, times: int) -> Array:
    return jnp.repeat(jnp.repeat(h, times, axis=-3), times, axis=-2)


def _layer(conv: Conv, h: Array, carry: Array | float) -> Array:
    """Return elu(conv(h)), mixed with h where the shapes are the same."""
    y = nnx.elu(conv(h))
    if y.shape != h.shape or (isinstance(carry, float) and carry == 0.0):
        return y
    return carry * h + (1.0 - carry) * y


class Decoder(nnx.Module):
    """Latent to image: Dense to 7 x 7 x n, then 7 -> 14 -> 28. The generator is one.

    Args:
      latent: its size; uniform on [-1, 1] in the paper.
      width: n, channels at every size.
      skips: whether h0 is handed to 14 x 14 and 28 x 28.
    """

    def __init__(self, latent: int = 64, width: int = 32, skips: bool = False, *, rngs: nnx.Rngs):
        self.width, self.skips = width, skips
        self.project = nnx.Linear(latent, 49 * width, rngs=rngs)
        first = 2 * width if skips else width
        self.convs = nnx.List(_conv(first if i in (2, 4) else width, width, rngs) for i in range(6))
        self.out = _conv(width, 1, rngs)

    def __call__(self, z: Array, carry: Array | float = 0.0) -> Array:
        """Return the image of a latent, or of a batch of them."""
        seed = h = self.project(z).reshape((*z.shape[:-1], 7, 7, self.width))
        for i, conv in enumerate(self.convs):
            if i in (2, 4):
                h = _enlarged(h, 2)
                if self.skips:
                    h = jnp.concatenate([h, _enlarged(seed, i)], axis=-1)
            h = _layer(conv, h, carry)
        # Free in training, where what lies beyond [0, 1] is a loss like any other.
        return self.out(h)


class Generator(Decoder):
    """A trained `Decoder` for standard normal latents u: the image at z = 2 Phi(u) - 1.

    Phi is the normal distribution function, so z is uniform on [-1, 1] as in training, and
    whatever is sampled under a standard normal prior here is sampled under the uniform one
    there. Pixels are cut to [0, 1].
    """

    def __call__(self, z: Array, carry: Array | float = 0.0) -> Array:
        """Return the image of a latent, or of a batch of them."""
        uniform = 2.0 * jax.scipy.stats.norm.cdf(z) - 1.0
        return jnp.clip(super().__call__(uniform, carry), 0.0, 1.0)


class Autoencoder(nnx.Module):
    """Image to image through a code: 28 -> 14 -> 7, Dense, and a `Decoder`.

    Args:
      latent: size of the code.
      width: n; channels are n, 2n, 3n on the way down.
      skips: of the decoder.
    """

    def __init__(self, latent: int = 64, width: int = 32, skips: bool = False, *, rngs: nnx.Rngs):
        self.first = _conv(1, width, rngs)
        self.convs = nnx.List(
            [
                _conv(width, width, rngs),
                _conv(width, 2 * width, rngs, stride=2),
                _conv(2 * width, 2 * width, rngs),
                _conv(2 * width, 3 * width, rngs, stride=2),
                _conv(3 * width, 3 * width, rngs),
            ]
        )
        self.code = nnx.Linear(49 * 3 * width, latent, rngs=rngs)
        self.decoder = Decoder(latent, width, skips, rngs=rngs)

    def encode(self, x: Array, carry: Array | float = 0.0) -> Array:
        """Return the code `[..., latent]`."""
        h = nnx.elu(self.first(x))
        for conv in self.convs:
            h = _layer(conv, h, carry)
        return self.code(h.reshape((*x.shape[:-3], -1)))

    def __call__(self, x: Array, carry: Array | float = 0.0) -> Array:
        """Return the reconstruction of an image, or of a batch of them."""
        return self.decoder(self.encode(x, carry), carry)
