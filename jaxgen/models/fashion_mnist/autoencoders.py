"""Denoising autoencoders, whose residual R(x) - x is sigma^2 times the score.

Alain & Bengio (JMLR 2014). One for images, convolutional, and one for codes, a
multi-layer perceptron: the priors of PPGN-x and PPGN-h (Nguyen et al., CVPR 2017, S9).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from jaxgen.core.types import Array
from jaxgen.models.conv.layers import Conv, ConvTranspose
from jaxgen.models.fashion_mnist.mlp import MLP

__all__ = ["CodeAutoencoder", "ImageAutoencoder"]


class ImageAutoencoder(nnx.Module):
    """R(x) = x + f(x): f is two convolutions k4 s2 and two transposed ones, leaky ReLU 0.2 between.

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
        self.up2.kernel[...] = 0.05 * self.up2.kernel[...]  # at first R(x) is nearly x

    def __call__(self, image: Array) -> Array:
        """Return the denoised image, or a batch of them."""
        h = 2.0 * image - 1.0
        for layer in (self.conv1, self.conv2, self.up1):
            h = jax.nn.leaky_relu(layer(h), 0.2)
        return image + 0.5 * self.up2(h)


class CodeAutoencoder(nnx.Module):
    """R(h) = A h + b + f(h): a linear filter beside two hidden layers.

    The filter alone can be the best linear one (Wiener's); what is not linear in the codes is
    left to f. The paper's autoencoder, seven hidden layers that narrow to an eighth, has to
    learn first of all to give back what it was given: ours of that kind left all the noise.

    Shapes: code `[..., size]` in and out.
    """

    def __init__(self, size: int = 128, width: int = 256, *, rngs: nnx.Rngs):
        self.filter = nnx.Linear(size, size, rngs=rngs)
        self.net = MLP((size, width, width, size), "leaky_relu", rngs=rngs)

    def __call__(self, code: Array) -> Array:
        """Return the denoised code, or a batch of them."""
        return self.filter(code) + self.net(code)

    def fit(self, codes: Array, sigma: float) -> None:
        """Begin as Wiener's filter of `codes` `[N, size]` under noise of `sigma`, and f near 0.

            A = C (C + sigma^2 I)^-1,   b = (I - A) mean,   C the covariance of the codes

        f's first layer is scaled so that it is given codes less their mean, over 2 sigma.
        """
        mean, size = jnp.mean(codes, axis=0), codes.shape[-1]
        first, last = self.net.layers[0], self.net.layers[-1]
        start = first.kernel[...] / (2.0 * sigma)
        covariance = jnp.cov(codes, rowvar=False)
        keep = jnp.linalg.solve(covariance + sigma**2 * jnp.eye(size), covariance)
        self.filter.kernel[...] = keep
        self.filter.bias = nnx.Param(mean - mean @ keep)
        first.kernel[...] = start
        first.bias = nnx.Param(-mean @ start)
        last.kernel[...] = 0.05 * last.kernel[...]
