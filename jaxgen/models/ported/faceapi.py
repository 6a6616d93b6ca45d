"""The small face networks of face-api.js: expression, and age with gender.

Both take an RGB face crop `[..., 112, 112, 3]` in [0, 1] and subtract the mean colour
(122.782, 117.001, 104.298) of 255. Zeros stand around images as TensorFlow's 'SAME' puts
them: for stride 2 on an even side, one row below and one column to the right.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from jaxgen.core.types import Array
from jaxgen.models.conv.layers import Conv
from jaxgen.models.ported.blocks import Depthwise, max_pool, spatial_mean

__all__ = ["AGE_GENDER", "EXPRESSIONS", "FaceAgeGender", "FaceExpression"]

EXPRESSIONS = ("neutral", "happy", "sad", "angry", "fearful", "disgusted", "surprised")
AGE_GENDER = ("age in years", "logit of male", "logit of female")

_MEAN = (122.782, 117.001, 104.298)
_HALF = ((0, 1), (0, 1))


class Separable(nnx.Module):
    """A 3x3 convolution of each channel, then 1x1 with a bias."""

    def __init__(self, inputs: int, outputs: int, stride: int, rngs: nnx.Rngs):
        padding = 1 if stride == 1 else _HALF
        self.depthwise = Depthwise(inputs, 3, stride=stride, padding=padding, rngs=rngs)
        self.pointwise = Conv(inputs, outputs, 1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.pointwise(self.depthwise(x))


class _Dense(nnx.Module):
    """o1 = relu(conv0(x)), then each convolution sees the rectified sum of those before."""

    def __init__(self, inputs: int, outputs: int, first: bool, rngs: nnx.Rngs):
        if first:
            self.conv0 = Conv(inputs, outputs, 3, stride=2, padding=_HALF, rngs=rngs)
        else:
            self.conv0 = Separable(inputs, outputs, 2, rngs)
        self.conv1 = Separable(outputs, outputs, 1, rngs)
        self.conv2 = Separable(outputs, outputs, 1, rngs)
        self.conv3 = Separable(outputs, outputs, 1, rngs)

    def __call__(self, x: Array) -> Array:
        x = total = jax.nn.relu(self.conv0(x))
        for layer in (self.conv1, self.conv2, self.conv3):
            total = total + layer(x)
            x = jax.nn.relu(total)
        return x


class FaceExpression(nnx.Module):
    """Face crop to the logits of `EXPRESSIONS`, `[..., 7]`."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.dense0 = _Dense(3, 32, True, rngs)
        self.dense1 = _Dense(32, 64, False, rngs)
        self.dense2 = _Dense(64, 128, False, rngs)
        self.dense3 = _Dense(128, 256, False, rngs)
        self.fc = nnx.Linear(256, len(EXPRESSIONS), rngs=rngs)

    def __call__(self, image: Array) -> Array:
        """Return the logits of an image, or of a batch of them."""
        x = _centred(image)
        for block in (self.dense0, self.dense1, self.dense2, self.dense3):
            x = block(x)
        return self.fc(spatial_mean(x))


class _Reduction(nnx.Module):
    """Two separable convolutions and a pooling beside a 1x1 convolution, both of stride 2."""

    def __init__(self, inputs: int, outputs: int, activate: bool, rngs: nnx.Rngs):
        self.activate = activate
        self.conv0 = Separable(inputs, outputs, 1, rngs)
        self.conv1 = Separable(outputs, outputs, 1, rngs)
        self.expansion = Conv(inputs, outputs, 1, stride=2, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        y = self.conv0(jax.nn.relu(x) if self.activate else x)
        y = max_pool(self.conv1(jax.nn.relu(y)), 3, 2, padding=(0, 1))
        return y + self.expansion(x)


class _Main(nnx.Module):
    """Three separable convolutions, each after a ReLU, beside the identity."""

    def __init__(self, channels: int, rngs: nnx.Rngs):
        self.conv0 = Separable(channels, channels, 1, rngs)
        self.conv1 = Separable(channels, channels, 1, rngs)
        self.conv2 = Separable(channels, channels, 1, rngs)

    def __call__(self, x: Array) -> Array:
        y = x
        for layer in (self.conv0, self.conv1, self.conv2):
            y = layer(jax.nn.relu(y))
        return x + y


class FaceAgeGender(nnx.Module):
    """Face crop to `AGE_GENDER`, `[..., 3]`: a small Xception of two main blocks.

    The pixels are divided by 255 as in the package the weights come from (its ancestor
    face-api.js divided by 256 here).
    """

    def __init__(self, blocks: int = 2, *, rngs: nnx.Rngs):
        self.conv_in = Conv(3, 32, 3, stride=2, padding=_HALF, rngs=rngs)
        self.reduction0 = _Reduction(32, 64, False, rngs)
        self.reduction1 = _Reduction(64, 128, True, rngs)
        self.main = nnx.List([_Main(128, rngs) for _ in range(blocks)])
        self.reduction2 = _Reduction(128, 256, True, rngs)
        self.conv_out = Separable(256, 512, 1, rngs)
        self.age = nnx.Linear(512, 1, rngs=rngs)
        self.gender = nnx.Linear(512, 2, rngs=rngs)

    def __call__(self, image: Array) -> Array:
        """Return age and gender of a face crop, or of a batch of them: `[..., 3]`."""
        x = jax.nn.relu(self.conv_in(_centred(image)))
        x = self.reduction1(self.reduction0(x))
        for block in self.main:
            x = block(x)
        x = spatial_mean(jax.nn.relu(self.conv_out(self.reduction2(x))))
        return jnp.concatenate([self.age(x), self.gender(x)], -1)


def _centred(image: Array) -> Array:
    mean = jnp.asarray(_MEAN, image.dtype).reshape((1,) * (image.ndim - 1) + (3,))
    return image - mean / 255.0
