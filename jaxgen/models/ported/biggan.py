"""The generator of BigGAN-deep (Brock et al. 2019), as in pytorch-pretrained-BigGAN.

A latent and a class embedding condition every batch normalisation:
y = (x - mean) / sqrt(var + eps) * (1 + S c) + O c. Mean and variance are those of one truncation
level, chosen at conversion. Spectral normalisation is divided out of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from jaxgen.core.errors import expected
from jaxgen.core.types import Array
from jaxgen.models.conv.layers import Conv
from jaxgen.models.ported.blocks import UpConv, batch_norm, max_pool, upsample

__all__ = ["BigGANDeep"]


class ConditionalNorm(nnx.Module):
    """Batch normalisation whose scale and shift depend on the condition."""

    def __init__(self, features: int, condition: int, epsilon: float, rngs: nnx.Rngs):
        self.epsilon = epsilon
        self.mean = nnx.BatchStat(jnp.zeros(features))
        self.var = nnx.BatchStat(jnp.ones(features))
        self.scale = nnx.Linear(condition, features, use_bias=False, rngs=rngs)
        self.offset = nnx.Linear(condition, features, use_bias=False, rngs=rngs)

    def __call__(self, x: Array, c: Array) -> Array:
        mean = jnp.broadcast_to(self.mean[...], x.shape)
        rate = jax.lax.rsqrt(self.var[...] + self.epsilon)
        scale = (1.0 + self.scale(c)) * jnp.broadcast_to(rate, (*c.shape[:-1], rate.shape[0]))
        return (x - mean) * scale[..., None, None, :] + self.offset(c)[..., None, None, :]


class _Block(nnx.Module):
    """1x1, 3x3, 3x3, 1x1 convolutions beside a shortcut that drops channels."""

    def __init__(
        self, inputs: int, outputs: int, condition: int, up: bool, epsilon: float, rngs: nnx.Rngs
    ):
        inner = inputs // 4
        self.up, self.kept = up, inputs if inputs == outputs else inputs // 2
        self.bn_0 = ConditionalNorm(inputs, condition, epsilon, rngs)
        self.conv_0 = Conv(inputs, inner, 1, rngs=rngs)
        self.bn_1 = ConditionalNorm(inner, condition, epsilon, rngs)
        self.conv_1 = (
            UpConv(inner, inner, rngs) if up else Conv(inner, inner, 3, padding=1, rngs=rngs)
        )
        self.bn_2 = ConditionalNorm(inner, condition, epsilon, rngs)
        self.conv_2 = Conv(inner, inner, 3, padding=1, rngs=rngs)
        self.bn_3 = ConditionalNorm(inner, condition, epsilon, rngs)
        self.conv_3 = Conv(inner, outputs, 1, rngs=rngs)

    def __call__(self, x: Array, c: Array) -> Array:
        y = self.conv_0(jax.nn.relu(self.bn_0(x, c)))
        y = self.conv_1(jax.nn.relu(self.bn_1(y, c)))
        y = self.conv_2(jax.nn.relu(self.bn_2(y, c)))
        y = self.conv_3(jax.nn.relu(self.bn_3(y, c)))
        x = x[..., : self.kept]
        return y + (upsample(x) if self.up else x)


class _Attention(nnx.Module):
    """Every pixel attends to the 2x2-pooled pixels; added with weight gamma."""

    def __init__(self, channels: int, rngs: nnx.Rngs):
        self.theta = Conv(channels, channels // 8, 1, use_bias=False, rngs=rngs)
        self.phi = Conv(channels, channels // 8, 1, use_bias=False, rngs=rngs)
        self.g = Conv(channels, channels // 2, 1, use_bias=False, rngs=rngs)
        self.o_conv = Conv(channels // 2, channels, 1, use_bias=False, rngs=rngs)
        self.gamma = nnx.Param(jnp.zeros(1))

    def __call__(self, x: Array) -> Array:
        lead, sides = x.shape[:-3], x.shape[-3:-1]
        theta = self.theta(x).reshape((*lead, sides[0] * sides[1], -1))
        phi, g = max_pool(self.phi(x), 2), max_pool(self.g(x), 2)
        phi, g = (v.reshape((*lead, sides[0] * sides[1] // 4, v.shape[-1])) for v in (phi, g))
        weights = jax.nn.softmax(theta @ jnp.swapaxes(phi, -1, -2), axis=-1)
        return x + self.gamma[0] * self.o_conv((weights @ g).reshape((*lead, *sides, -1)))


class BigGANDeep(nnx.Module):
    """Latent `[..., latent]` to image `[..., S, S, 3]` in [0, 1].

    Args:
      layers: (up, input channels, output channels) of every block.
      width: channels before the layer to RGB.
      attention: number of the block before which attention stands.
      latent: size of the latent, and of the class embedding.
      classes: number of classes.
      label: the class that is drawn, unless the call gives another.
      epsilon: of the normalisations.
      truncation: the level of the statistics; only kept.
    """

    def __init__(
        self,
        layers: Sequence[Sequence[int]],
        width: int,
        attention: int,
        latent: int = 128,
        classes: int = 1000,
        label: int = 0,
        epsilon: float = 1e-4,
        truncation: float = 1.0,
        *,
        rngs: nnx.Rngs,
    ):
        self.truncation = truncation
        if not 0 <= label < classes:
            raise expected("label", f"a class below {classes}", label)
        condition = 2 * latent
        self.label, self.first, self.attend = label, layers[0][1], attention
        self.embeddings = nnx.Linear(classes, latent, use_bias=False, rngs=rngs)
        self.gen_z = nnx.Linear(condition, 16 * self.first, rngs=rngs)
        self.blocks = nnx.List(
            [_Block(a, b, condition, bool(up), epsilon, rngs) for up, a, b in layers]
        )
        self.attention = _Attention(layers[attention][1], rngs)
        self.bn = batch_norm(width, rngs, epsilon)
        self.rgb = Conv(width, 3, 3, padding=1, rngs=rngs)

    def __call__(self, z: Array, label: Array | None = None) -> Array:
        """Draw an image.

        Args:
          z: `[..., latent]`; the weights expect a normal truncated at the converted level.
          label: class probabilities `[..., classes]`; None for the configured class.
        """
        if label is None:
            embedding = self.embeddings.kernel[self.label]
            embedding = jnp.broadcast_to(embedding, z.shape)
        else:
            embedding = self.embeddings(label)
        c = jnp.concatenate([z, embedding], -1)
        x = self.gen_z(c).reshape((*z.shape[:-1], 4, 4, self.first))
        for i, block in enumerate(self.blocks):
            x = block(self.attention(x) if i == self.attend else x, c)
        x = self.rgb(jax.nn.relu(self.bn(x)))
        return 0.5 + 0.5 * jnp.tanh(x)
