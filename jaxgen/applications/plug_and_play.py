"""The model of Plug & Play Generative Networks: a generator, a condition network, and a prior."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from numpy.typing import ArrayLike

from jaxgen.core.errors import expected
from jaxgen.core.pytree import as_data, pytree
from jaxgen.core.types import Array, Generator
from jaxgen.target.priors import Gaussian

__all__ = ["Denoised", "Encoded", "PlugAndPlay", "Unit", "clamp"]


@pytree
class Denoised:
    """R(h) by a denoising autoencoder of codes (or of images, where codes are images)."""

    autoencoder: Callable[[Array], Array]

    def __call__(self, code: Array, image: Array) -> Array:
        """Return autoencoder(code)."""
        return self.autoencoder(code)


@pytree
class Encoded:
    """R(h) = E(G(h)): generator and encoder together are the autoencoder of codes."""

    encoder: Callable[[Array], Array]

    def __call__(self, code: Array, image: Array) -> Array:
        """Return encoder(image), the image being G(code), clamped where pixels are known."""
        return self.encoder(image)


@pytree
class Unit:
    """A convolution's channels at one place, as the logits of a condition network.

    The softmax is then over channels at that place, and a label is a channel: PPGN's
    conditioning on hidden units. In the authors' code the layer is taken before its ReLU.

    Attributes:
      network: a network cut at a layer `[H, W, channels]`, as `classifier.at("conv4")`.
      position: (row, column).
    """

    network: Callable[[Array], Array]
    position: tuple[Array | int, Array | int]

    def __call__(self, image: Array) -> Array:
        """Return the activations at the position: `[channels]`."""
        return self.network(image)[self.position[0], self.position[1]]


@pytree
class PlugAndPlay:
    """A generator with a condition network plugged in.

    Attributes:
      generator: code -> image `[H, W, channels]`.
      classifier: image -> logits `[K]`: of classes, or a `Unit`.
      prior: (code, image) -> R(h), `Denoised` or `Encoded`; None for no prior at all.
      start: codes that chains start from, and are reset to, are drawn from it: N(0, I) over
        the code's shape in both papers' programs.
      mask: None, or 1 where pixels are missing and 0 where they are known (M of Eq. 25),
        of the image's shape. Known pixels are put into each image before classifier and
        prior see it: x <- M x + (1 - M) x_real.
      real: the image that is known where mask is 0.
    """

    generator: Generator
    classifier: Callable[[Array], Array]
    prior: Callable[[Array, Array], Array] | None
    start: Gaussian
    mask: Array | None = None
    real: Array | None = None

    def __post_init__(self) -> None:
        for name in ("generator", "classifier"):
            object.__setattr__(self, name, as_data(getattr(self, name)))

    def image(self, code: Array) -> Array:
        """Return G(code), with the known pixels put into it where there are any."""
        return clamp(self, self.generator(code))

    def check(self, labels: ArrayLike) -> None:
        """Raise `InputError` where the networks do not fit each other, or a label is not valid."""
        code = jax.eval_shape(self.start.sample, jax.random.key(0))
        try:
            image = jax.eval_shape(self.generator, code)
            logits = jax.eval_shape(self.classifier, image)
        except (TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise expected("PlugAndPlay", "networks that fit each other", reason) from error
        if len(logits.shape) != 1:
            raise expected("classifier", "logits [K] for one image", f"shape {logits.shape}")
        if self.prior is not None:
            back = jax.eval_shape(self.prior, code, image)
            if back.shape != code.shape:
                raise expected("prior", f"codes of shape {code.shape}", f"shape {back.shape}")
        if (self.mask is None) != (self.real is None):
            raise expected("mask, real", "both or neither", "one of them")
        for name, value in (("mask", self.mask), ("real", self.real)):
            if value is not None and np.shape(value) != image.shape:
                raise expected(name, f"shape {image.shape} like the image", np.shape(value))
        labels = np.asarray(labels)
        if labels.ndim != 1 or not labels.size or not np.issubdtype(labels.dtype, np.integer):
            raise expected("labels", "a list of class indices", labels)
        if labels.min() < 0 or labels.max() >= logits.shape[0]:
            raise expected("labels", f"integers from 0 to {logits.shape[0] - 1}", labels)


def clamp(model: PlugAndPlay, image: Array) -> Array:
    """Put the known pixels into an image: x <- M x + (1 - M) x_real (Eq. 25)."""
    if model.mask is None or model.real is None:
        return image
    return model.mask * image + (1.0 - model.mask) * model.real
