"""A residual generator of 28 x 28 grey images, and the discriminator that it is trained against.

The generator is the DCGAN's (Radford, Metz and Chintala 2016) with a residual block at each
size: 55 MFLOP for one image at width 64. The discriminator has four outputs: one from the pixels,
as the DCGAN's, and three from what a trained classifier makes of the image at its second and
fourth convolution and at its hidden layer (after Sauer et al., Projected GANs Converge Faster,
2021). Its layers have no normalisation of their own; training divides each kernel by its
spectral norm.

Shapes: latent `[..., 64]`, image `[..., 28, 28, 1]` in [0, 1], outputs of D `[..., 4]`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from jaxgen.core.types import Array
from jaxgen.models.conv.layers import Conv, ConvTranspose
from jaxgen.models.conv.norms import affine
from jaxgen.models.fashion_mnist.cnn import Maps

__all__ = ["Discriminator", "Generator"]


class Generator(nnx.Module):
    """Latent to image: Dense 7x7x2w, then twice a transposed convolution k4 s2 and a block.

        h <- relu(norm(up(h))),   h <- relu(h + norm(conv(h)))

    Args:
      latent: size of the latent, standard normal.
      width: channels at 14 x 14; twice as many at 7 x 7, half as many at 28 x 28.
      norm: batch normalisation, as in training. `fold` removes it.
    """

    def __init__(self, latent: int = 64, width: int = 64, *, norm: bool = False, rngs: nnx.Rngs):
        self.width = width
        init = nnx.initializers.normal(0.02)
        plain = {"use_bias": not norm, "kernel_init": init, "rngs": rngs}
        up = {"stride": 2, "padding": 1, **plain}
        self.project = nnx.Linear(latent, 7 * 7 * 2 * width, **plain)
        self.up1 = ConvTranspose(2 * width, width, 4, **up)
        self.block1 = Conv(width, width, 3, padding=1, **plain)
        self.up2 = ConvTranspose(width, width // 2, 4, **up)
        self.block2 = Conv(width // 2, width // 2, 3, padding=1, **plain)
        self.out = Conv(width // 2, 1, 3, padding=1, kernel_init=init, rngs=rngs)
        widths = {"project": 2 * width, "up1": width, "block1": width}
        widths |= {"up2": width // 2, "block2": width // 2}
        self.norms = nnx.Dict(
            {name: nnx.BatchNorm(n, momentum=0.9, rngs=rngs) for name, n in widths.items()}
            if norm
            else {}
        )

    def _normal(self, name: str, h: Array) -> Array:
        return self.norms[name](h) if name in self.norms else h

    def __call__(self, z: Array) -> Array:
        """Return the image of a latent, or of a batch of them."""
        h = self.project(z).reshape((*z.shape[:-1], 7, 7, 2 * self.width))
        h = nnx.relu(self._normal("project", h))
        h = nnx.relu(self._normal("up1", self.up1(h)))
        h = nnx.relu(h + self._normal("block1", self.block1(h)))
        h = nnx.relu(self._normal("up2", self.up2(h)))
        h = nnx.relu(h + self._normal("block2", self.block2(h)))
        return 0.5 + 0.5 * jnp.tanh(self.out(h))

    def fold(self) -> Generator:
        """Return the same function without batch normalisation: its running statistics go into
        the weights before it, `w * scale / sqrt(var + eps)`.
        """
        if not self.norms:
            return self
        latent = self.project.kernel.shape[0]
        folded = Generator(latent, self.width, rngs=nnx.Rngs(0))
        for name, norm in self.norms.items():
            scale, shift = affine(norm)
            if name == "project":  # its channels come round at each of 49 pixels
                scale, shift = jnp.tile(scale, 49), jnp.tile(shift, 49)
            layer, kernel = getattr(folded, name), getattr(self, name).kernel[...]
            layer.kernel[...] = kernel * jnp.broadcast_to(scale, kernel.shape)
            layer.bias = nnx.Param(shift)
        folded.out.kernel[...] = self.out.kernel[...]
        folded.out.bias = nnx.Param(self.out.bias[...])  # type: ignore[index]
        return folded


class Discriminator(nnx.Module):
    """Image and a classifier's maps of it to four logits of being real.

    Args:
      width: of the convolutions.
      maps: channels at the classifier's two convolutions, and the size of its hidden layer.
    """

    def __init__(
        self, width: int = 64, maps: tuple[int, int, int] = (32, 64, 128), *, rngs: nnx.Rngs
    ):
        init = nnx.initializers.orthogonal()
        plain = {"kernel_init": init, "rngs": rngs}
        halve = {"stride": 2, "padding": 1, **plain}
        early, late, hidden = maps
        self.conv1 = Conv(1, width, 4, **halve)
        self.conv2 = Conv(width, 2 * width, 4, **halve)
        self.conv3 = Conv(2 * width, 4 * width, 4, **halve)
        self.out = nnx.Linear(3 * 3 * 4 * width, 1, **plain)
        self.early1 = Conv(early, width, 4, **halve)
        self.early2 = Conv(width, 1, 3, padding=1, **plain)
        self.late1 = Conv(late, width, 3, padding=1, **plain)
        self.late2 = nnx.Linear(7 * 7 * width, 1, **plain)
        self.hidden1 = nnx.Linear(hidden, 4 * width, **plain)
        self.hidden2 = nnx.Linear(4 * width, 1, **plain)

    def __call__(self, image: Array, maps: Maps) -> Array:
        """Return the four logits of each image: by pixels, early, late and hidden maps."""
        lead = image.shape[:-3]
        h = 2.0 * image - 1.0
        for layer in (self.conv1, self.conv2, self.conv3):
            h = _leaky(layer(h))
        pixels = self.out(h.reshape((*lead, -1)))[..., 0]
        # Each patch of the early maps is judged by itself.
        early = jnp.mean(self.early2(_leaky(self.early1(maps.early))), axis=(-3, -2, -1))
        late = self.late2(_leaky(self.late1(maps.late)).reshape((*lead, -1)))[..., 0]
        hidden = self.hidden2(_leaky(self.hidden1(maps.hidden)))[..., 0]
        return jnp.stack([pixels, early, late, hidden], axis=-1)


def _leaky(h: Array) -> Array:
    return jax.nn.leaky_relu(h, 0.2)
