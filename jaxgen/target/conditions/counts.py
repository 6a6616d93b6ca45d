"""Counts: pixels that are numbers of photons or events, not real numbers with noise."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.pytree import pytree, short
from jaxgen.core.types import Array, Scalar
from jaxgen.target.conditions.algebra import Condition
from jaxgen.target.conditions.checks import check_forward
from jaxgen.target.conditions.operators import as_operator
from jaxgen.target.conditions.precision import like

__all__ = ["PoissonCounts"]


@pytree
class PoissonCounts(Condition):
    """Counts y of independent Poisson variables with means lambda = gain A(x) + background.

    log p(y | x) = sum y log lambda - lambda - log y!, a normalised probability. Means are kept
    above 1e-6, where an image of 0 could not have made any count.

    Attributes:
      observed: y, whole numbers of at least 0, of the shape of A(x).
      gain: counts at a pixel of value 1.
      forward: A, an operator as in `Operator`; None for the image itself.
      background: counts where the image is 0, a number or of the shape of y.
    """

    observed: Array
    gain: Scalar
    forward: Any = None
    background: Array | float = 0.0

    def __post_init__(self) -> None:
        if self.forward is not None:
            object.__setattr__(self, "forward", as_operator(self.forward))

    def mean(self, image: Array) -> Array:
        """lambda, of the shape of y."""
        made = image if self.forward is None else self.forward(image)
        return jnp.maximum(like(self.gain, made) * made + like(self.background, made), 1e-6)

    def __call__(self, image: Array) -> Array:
        """Return the Poisson log probability of the counts."""
        mean = self.mean(image)
        count = like(self.observed, mean)
        return jnp.sum(count * jnp.log(mean) - mean - jax.scipy.special.gammaln(count + 1.0))

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Check that counts are whole numbers of the shape of A(x), and that gain is positive."""
        forward = _same if self.forward is None else self.forward
        out = check_forward("PoissonCounts", forward, (), image_shape)
        if not jnp.issubdtype(out.dtype, jnp.floating):
            raise expected("PoissonCounts.forward", "real values", out.dtype)
        if np.shape(self.observed) != out.shape:
            raise expected("PoissonCounts.observed", f"shape {out.shape}", np.shape(self.observed))
        counts = np.asarray(self.observed)
        if not np.all(np.isfinite(counts)) or np.any(counts < 0) or np.any(counts % 1 != 0):
            raise expected("PoissonCounts.observed", "whole numbers of at least 0", "others")
        if np.shape(self.gain) != () or not (np.isfinite(self.gain) and self.gain > 0):
            raise expected("PoissonCounts.gain", "a positive number", short(self.gain))
        if not np.all(np.isfinite(self.background)) or np.any(np.asarray(self.background) < 0):
            raise expected("PoissonCounts.background", "numbers of at least 0", "others")
        if np.shape(self.background) not in ((), out.shape):
            raise expected(
                "PoissonCounts.background",
                f"one number, or shape {out.shape}",
                np.shape(self.background),
            )


def _same(image: Array) -> Array:
    return image
