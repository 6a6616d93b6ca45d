"""The encoder and decoder of a variational autoencoder for 28 x 28 grey images.

After Kingma and Welling, Auto-Encoding Variational Bayes (2014): perceptrons on the
pixels. The activation is GELU, so that the log posterior of a latent is smooth.

Shapes: latent `[..., 20]`, image `[..., 28, 28, 1]` in [0, 1].
"""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx

from jaxgen.core.types import Array
from jaxgen.models.fashion_mnist.mlp import MLP

__all__ = ["Decoder", "Encoder"]

_PIXELS = 28 * 28


class Encoder(nnx.Module):
    """Image to the mean and the log variance of the latent's approximate posterior.

    Returns `[..., 2, latent]`, so that `mean, log_variance = encoder(image)` unpacks one
    sample.
    """

    def __init__(
        self,
        latent: int = 20,
        hidden: tuple[int, ...] = (512, 256),
        *,
        rngs: nnx.Rngs,
    ):
        self.latent = latent
        self.net = MLP((_PIXELS, *hidden, 2 * latent), "gelu", rngs=rngs)

    def __call__(self, image: Array) -> Array:
        """Return mean and log variance of the latent, `[..., 2, latent]`."""
        h = 2.0 * image.reshape((*image.shape[:-3], _PIXELS)) - 1.0
        return self.net(h).reshape((*image.shape[:-3], 2, self.latent))


class Decoder(nnx.Module):
    """Latent to the mean of every pixel, in [0, 1].

    Args:
      latent: size of the latent, standard normal.
      hidden: sizes of the hidden layers.
      sigma: whether there is a standard deviation, one for all pixels (`log_sigma`):
        a Gaussian likelihood `N(image; mean, sigma^2)`, not a Bernoulli one.
    """

    def __init__(
        self,
        latent: int = 20,
        hidden: tuple[int, ...] = (256, 512),
        *,
        sigma: bool = False,
        rngs: nnx.Rngs,
    ):
        self.net = MLP((latent, *hidden, _PIXELS), "gelu", rngs=rngs)
        self.log_sigma = nnx.Param(jnp.asarray(-1.5)) if sigma else None

    def __call__(self, z: Array) -> Array:
        """Return the mean of every pixel, `[..., 28, 28, 1]`."""
        return nnx.sigmoid(self.logits(z))

    def logits(self, z: Array) -> Array:
        """Return the means before the sigmoid, `[..., 28, 28, 1]`."""
        return self.net(z).reshape((*z.shape[:-1], 28, 28, 1))
