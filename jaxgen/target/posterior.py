"""The posterior over latents of a generator, given a condition.

log p(z | condition) = log p(z) + log p(condition | G(z)) + const
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.pytree import as_data, pytree
from jaxgen.core.types import Array, ArrayTree, PRNGKey
from jaxgen.target.conditions import as_condition

__all__ = ["Posterior"]


@pytree
class Posterior:
    """prior(z) x condition(generator(z)), as data.

    Attributes:
      prior: a distribution over latents (`jaxgen.target.priors`).
      generator: z -> image `[H, W, channels]`, in [0, 1] for the models we ship; a
        `Network`, another callable pytree, or a plain function.
      condition: image -> log likelihood (`jaxgen.target.conditions`), or any function of an image.
    """

    prior: Any
    generator: Any
    condition: Any

    def __post_init__(self) -> None:
        # JAX also builds posteriors out of placeholders: leave what is not callable alone.
        object.__setattr__(self, "generator", as_data(self.generator))
        if callable(self.condition):
            object.__setattr__(self, "condition", as_condition(self.condition))

    def image(self, position: ArrayTree) -> Array:
        """The image at a chain's position: G(prior.latent(position))."""
        return self.generator(self.prior.latent(position))

    def log_prior(self, position: ArrayTree) -> Array:
        """log p(z), normalised, in the prior's coordinates."""
        return self.prior.log_prob(position)

    def log_likelihood(self, position: ArrayTree) -> Array:
        """log p(condition | G(z))."""
        return self.condition(self.image(position))

    def __call__(self, position: ArrayTree, beta: Array | float = 1.0) -> Array:
        """log p(z) + beta * log p(condition | G(z)): a scalar, not normalised."""
        return self.log_prior(position) + beta * self.log_likelihood(position)

    def image_shape(self) -> tuple[int, ...]:
        """The shape of one image; nothing is computed."""
        return self._image_struct().shape

    def check(self) -> None:
        """Raise `InputError` where prior, generator and condition do not fit each other."""
        check = getattr(self.prior, "check", None)
        if check is not None:
            check()
        if not callable(self.generator):
            raise expected("generator", "a function of a latent", type(self.generator).__name__)
        image = self._image_struct()
        if not isinstance(image, jax.ShapeDtypeStruct) or image.dtype != jnp.float32:
            raise expected("generator", "one float32 array for one latent", image)
        if not callable(self.condition):
            raise expected("condition", "a condition or a function of an image", self.condition)
        self.condition.check(image.shape)
        out = jax.eval_shape(self.condition, image)
        if out.shape != ():
            raise expected("condition", "a scalar for one image", f"shape {out.shape}")

    def _image_struct(self) -> Any:
        def draw(key: PRNGKey) -> Array:
            return self.image(self.prior.sample(key))

        try:
            return jax.eval_shape(draw, jax.random.key(0))
        except (TypeError, ValueError) as error:
            latent = jax.eval_shape(
                lambda key: self.prior.latent(self.prior.sample(key)), jax.random.key(0)
            )
            shapes = [np.shape(leaf) for leaf in jax.tree.leaves(latent)]
            reason = str(error).splitlines()[0]
            raise expected(
                "prior", "latents that the generator takes", f"shape {shapes}: {reason}"
            ) from error
