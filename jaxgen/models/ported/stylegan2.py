"""The StyleGAN2 generator (Karras et al. 2020), "skip" architecture, with constant noise.

A mapping network turns z / rms(z) into a style w. Every convolution multiplies its inputs by a
style s = A w + a, and demodulates: divides output channel o by
sqrt(sum_{k,i} (kernel[k, i, o] s_i)^2 + 1e-8). RGB images of every size are added up.
The low-pass filter of all changes of size is (1, 3, 3, 1).

The noise is the fixed image that the file holds (random noise would make the network no
function of z). Weights are kept with the equalised learning rate's constants multiplied in.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxgen.core.types import Array
from jaxgen.models.conv.layers import conv, conv_transpose

__all__ = ["StyleGAN2"]

_EPSILON = 1e-8
_FILTER = (0.25, 0.75, 0.75, 0.25)  # (1, 3, 3, 1) / 8, times 2 for the zeros put in between
_GAIN = 2.0**0.5


def _leaky(x: Array) -> Array:
    """Leaky ReLU 0.2 that keeps the variance."""
    return _GAIN * jax.nn.leaky_relu(x, 0.2)


def _filtered(x: Array, pads: tuple[int, int]) -> Array:
    """Return the low-pass filter along rows and columns, after zeros before and after."""
    for axis in (x.ndim - 3, x.ndim - 2):
        x = jnp.pad(x, [pads if i == axis else (0, 0) for i in range(x.ndim)])
        size = x.shape[axis] - len(_FILTER) + 1
        parts = [jax.lax.slice_in_dim(x, k, k + size, axis=axis) for k in range(len(_FILTER))]
        x = sum(f * part for f, part in zip(_FILTER[1:], parts[1:], strict=True)) + (
            _FILTER[0] * parts[0]
        )
    return x


def _doubled(x: Array) -> Array:
    """Twice the size: a zero after every row and column, then the filter."""
    for axis in (x.ndim - 3, x.ndim - 2):
        shape = (*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])
        x = jnp.stack([x, jnp.zeros_like(x)], axis + 1).reshape(shape)
    return _filtered(x, (2, 1))


class Modulated(nnx.Module):
    """A convolution whose inputs are scaled by a style.

    Args:
      inputs, outputs, kernel: of the convolution.
      style: size of w.
      size: side of the output in pixels, for the noise; None for none and no demodulation,
        as in the layers to RGB.
      up: double the size.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        style: int,
        size: int | None,
        up: bool,
        rngs: nnx.Rngs,
    ):
        init = nnx.initializers.lecun_normal()
        self.up, self.plain = up, size is None
        self.affine = nnx.Linear(style, inputs, rngs=rngs)
        self.kernel = nnx.Param(init(rngs.params(), (kernel, kernel, inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.noise = None if size is None else nnx.Param(jnp.zeros((size, size)))
        self.noise_strength = None if size is None else nnx.Param(jnp.zeros(()))

    def __call__(self, x: Array, w: Array) -> Array:
        style, kernel = self.affine(w), self.kernel[...]
        x = x * style[..., None, None, :]
        if self.up:
            x = _filtered(conv_transpose(x, kernel[::-1, ::-1], stride=2), (1, 1))
        else:
            x = conv(x, kernel, padding=kernel.shape[0] // 2)
        if self.noise is None or self.noise_strength is None:
            return x + jnp.broadcast_to(self.bias[...], x.shape)
        power = (style * style) @ jnp.sum(kernel * kernel, (0, 1))
        x = x * jax.lax.rsqrt(power + _EPSILON)[..., None, None, :]
        noise = (self.noise_strength[...] * self.noise[...])[..., None]
        x = x + jnp.broadcast_to(noise, x.shape) + jnp.broadcast_to(self.bias[...], x.shape)
        return _leaky(x)


class _Block(nnx.Module):
    """Twice the size: two convolutions and a layer to RGB."""

    def __init__(self, inputs: int, outputs: int, style: int, size: int, rngs: nnx.Rngs):
        self.conv0 = Modulated(inputs, outputs, 3, style, size, True, rngs)
        self.conv1 = Modulated(outputs, outputs, 3, style, size, False, rngs)
        self.rgb = Modulated(outputs, 3, 1, style, None, False, rngs)

    def __call__(self, x: Array, image: Array, w: Array) -> tuple[Array, Array]:
        x = self.conv1(self.conv0(x, w), w)
        return x, _doubled(image) + self.rgb(x, w)


class StyleGAN2(nnx.Module):
    """Latent `[..., latent]` to image `[..., S, S, 3]`, S = 4 * 2^(len(channels) - 1).

    Trained to [-1, 1]; the image is 0.5 * output + 0.5 and is not clipped.

    Args:
      latent: size of z, standard normal.
      style: size of w.
      mapping: number of layers of the mapping network.
      channels: at 4, 8, 16, ... pixels.
      dialect: whose state dict the weights came from; only kept.
    """

    def __init__(
        self,
        latent: int,
        style: int,
        mapping: int,
        channels: Sequence[int],
        dialect: str = "",
        *,
        rngs: nnx.Rngs,
    ):
        sizes: list[Any] = [latent, *[style] * mapping]
        self.dialect = dialect
        self.mapping = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in itertools.pairwise(sizes)])
        self.const = nnx.Param(jnp.zeros((4, 4, channels[0])))
        self.conv = Modulated(channels[0], channels[0], 3, style, 4, False, rngs)
        self.rgb = Modulated(channels[0], 3, 1, style, None, False, rngs)
        self.blocks = nnx.List(
            [
                _Block(a, b, style, 8 * 2**i, rngs)
                for i, (a, b) in enumerate(itertools.pairwise(channels))
            ]
        )

    def style(self, z: Array) -> Array:
        """Return the style w of a latent."""
        w = z * jax.lax.rsqrt(jnp.mean(z * z, -1, keepdims=True) + _EPSILON)
        for layer in self.mapping:
            w = _leaky(layer(w))
        return w

    def __call__(self, z: Array) -> Array:
        """Return the image of a latent, or of a batch of them."""
        w = self.style(z)
        x = jnp.broadcast_to(self.const[...], (*z.shape[:-1], *self.const.shape))
        x = self.conv(x, w)
        image = self.rgb(x, w)
        for block in self.blocks:
            x, image = block(x, image, w)
        return 0.5 * image + 0.5
