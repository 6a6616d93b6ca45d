"""The posterior over latents of a generator, given a condition.

log p(z | condition) = log p(z) + log p(condition | G(z)) + const

Densities come in the floating type of the position, whatever the network computes in, so
that chains keep one type throughout, with and without `jax_enable_x64`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.pytree import pytree
from jaxgen.core.types import Array, ArrayTree, Condition, Generator, Prior, PRNGKey
from jaxgen.target.adapters import Labelled, as_function
from jaxgen.target.conditions import as_condition
from jaxgen.target.distributions import as_prior
from jaxgen.target.probe import at_hand, probe
from jaxgen.target.shapes import check_condition, check_leaves, check_prior, image_struct

__all__ = ["Posterior", "in_type_of"]


@pytree
class Posterior:
    """prior(z) x condition(generator(z)), as data.

    Attributes:
      prior: a distribution over latents: one of `jaxgen.target.priors`, or of NumPyro or TFP.
      generator: z -> image `[H, W, channels]`, in [0, 1] for the models we ship; a
        `Network`, its name, a module of flax or equinox, another callable pytree, or a plain
        function (`jaxgen.target.adapters`).
      condition: image -> log likelihood (`jaxgen.target.conditions`), or any function of an image.
    """

    prior: Prior
    generator: Generator
    condition: Condition

    def __post_init__(self) -> None:
        # JAX also builds posteriors out of placeholders: leave what is not callable alone.
        object.__setattr__(self, "prior", as_prior(self.prior))
        object.__setattr__(self, "generator", as_function(self.generator, "generator"))
        if callable(self.condition):
            object.__setattr__(self, "condition", as_condition(self.condition))

    def picture(self, latent: ArrayTree) -> Array:
        """G(z), at least in float32: half precision has no digits for a log density."""
        image = self.generator(latent)
        dtype = getattr(image, "dtype", None)
        if dtype is not None and jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4:
            return image.astype(jnp.float32)
        return image

    def image(self, position: ArrayTree) -> Array:
        """Return the image at a chain's position: G(prior.latent(position))."""
        return self.picture(self.prior.latent(position))

    def log_prior(self, position: ArrayTree) -> Array:
        """log p(z), normalised, in the prior's coordinates."""
        return in_type_of(position, self.prior.log_prob(position))

    def log_likelihood(self, position: ArrayTree) -> Array:
        """log p(condition | G(z))."""
        return in_type_of(position, self.condition(self.image(position)))

    def __call__(self, position: ArrayTree, beta: Array | float = 1.0) -> Array:
        """log p(z) + beta * log p(condition | G(z)): a scalar, not normalised."""
        beta = in_type_of(position, jnp.asarray(beta, jnp.float32))
        return self.log_prior(position) + beta * self.log_likelihood(position)

    def logdensity(self, position: ArrayTree) -> Array:
        """log p(z) + log p(condition | G(z)), as BlackJAX and TFP take it.

        `blackjax.nuts(posterior.logdensity, ...)`; `target_log_prob_fn=posterior.logdensity`.
        """
        return self(position)

    def potential(self, position: ArrayTree) -> Array:
        """-logdensity, as NumPyro takes it: `NUTS(potential_fn=posterior.potential)`."""
        return -self(position)

    def image_shape(self) -> tuple[int, ...]:
        """Return the shape of one image; nothing is computed."""
        return image_struct(self).shape

    def check(self, key: PRNGKey | None = None) -> None:
        """Raise `InputError` where prior, generator and condition do not fit each other.

        Shapes are compared first, then four prior draws evaluated (`jaxgen.target.probe`),
        once for each posterior; under `jax.jit` shapes only.

        Args:
          key: of the draws; a fixed one by default.
        """
        here = at_hand(self)
        check_prior(self.prior, values=here)
        if here and isinstance(self.generator, Labelled):
            self.generator.check()
        image = image_struct(self)
        check_condition(self.condition, image, values=here)
        check_leaves(self)
        if getattr(self, "_probed", False):
            return
        if probe(self, jax.random.key(0) if key is None else key) is not None:
            object.__setattr__(self, "_probed", True)


def in_type_of(position: ArrayTree, value: Any) -> Array:
    """Return a floating-point number in the widest floating-point type of a position."""
    kinds = [x.dtype for x in jax.tree.leaves(position) if hasattr(x, "dtype")]
    kinds = [kind for kind in kinds if jnp.issubdtype(kind, jnp.floating)]
    value = jnp.asarray(value)
    if not kinds or not jnp.issubdtype(value.dtype, jnp.floating):
        return value
    return value.astype(max(kinds, key=lambda kind: kind.itemsize))
