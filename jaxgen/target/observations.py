"""Observation models p(x | G(z)) of whole images: what a decoder's log likelihood is under.

An observation model makes conditions from images and draws images from means, so that pairs
(z, x) can be simulated from the model: what bidirectional Monte Carlo and calibration need.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.pytree import pytree
from jaxgen.core.types import Array, PRNGKey, Scalar
from jaxgen.target.conditions import BernoulliPixels, Condition, ObservedPixels
from jaxgen.target.conditions.checks import check_mask, check_noise
from jaxgen.target.conditions.precision import like

__all__ = ["BernoulliObservation", "GaussianObservation", "NoisyPixels", "Observation"]


class Observation(Protocol):
    """A family of conditions, one for each image that may be observed."""

    def condition(self, observed: Array, /) -> Condition:
        """log p(observed | .), a condition on the generator's image."""
        ...

    def sample(self, key: PRNGKey, image: Array, /) -> Array:
        """Draw an observation of one image of the generator."""
        ...

    def check(self) -> None:
        """Raise `InputError` for numbers that no model has."""
        ...


@pytree
class NoisyPixels(ObservedPixels):
    """`ObservedPixels` of an image that carries its noise, which may lead out of [0, 1]."""

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Shapes must fit the generator, and numbers be finite."""
        check_mask(self.mask, image_shape)
        if np.shape(self.observed) != tuple(image_shape):
            raise expected("observed", f"shape {tuple(image_shape)}", np.shape(self.observed))
        if not np.all(np.isfinite(self.observed)):
            raise expected("observed", "finite pixels", "NaN or infinity")
        check_noise(self.noise, image_shape)


@pytree
class GaussianObservation:
    """x = G(z) + noise n, n standard normal at every pixel: a density over pixel values.

    Attributes:
      noise: standard deviation in pixel units (images in [0, 1]).
      mask: 1 where observed, `[H, W]`; None for all pixels.
    """

    noise: Scalar
    mask: Any = None

    discrete: ClassVar[bool] = False

    def condition(self, observed: Array) -> NoisyPixels:
        """log N(observed; image, noise^2), summed over pixels."""
        mask = jnp.ones(observed.shape[:2]) if self.mask is None else self.mask
        return NoisyPixels(observed, mask, self.noise)

    def sample(self, key: PRNGKey, image: Array) -> Array:
        """Return the image and noise."""
        return image + like(self.noise, image) * jax.random.normal(key, image.shape, image.dtype)

    def check(self) -> None:
        """Check that the noise is positive."""
        check_noise(self.noise)


@pytree
class BernoulliObservation:
    """Every pixel is 1 with probability G(z), else 0: a probability of binary images.

    Grey pixels may be observed as well; their cross entropy is then no log probability.

    Attributes:
      mask: 1 where observed, `[H, W]`; None for all pixels.
    """

    mask: Any = None

    discrete: ClassVar[bool] = True

    def condition(self, observed: Array) -> BernoulliPixels:
        """Sum of y log x + (1 - y) log(1 - x)."""
        mask = jnp.ones(observed.shape[:2]) if self.mask is None else self.mask
        return BernoulliPixels(observed, mask)

    def sample(self, key: PRNGKey, image: Array) -> Array:
        """Return a binary image."""
        # The same clip as in the condition, so that it is the same model.
        mean = jnp.clip(image, 1e-6, 1 - 1e-6)
        return jax.random.bernoulli(key, mean).astype(image.dtype)

    def check(self) -> None:
        """Nothing can be wrong."""
