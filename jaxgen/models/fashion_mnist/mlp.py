"""Small multi-layer perceptrons: the generator and discriminator of the toy example.

The sizes are those of Fang and Schwing's two-dimensional co-generation example:
a latent of 2, two hidden layers of 20 with ReLU, an output of 2.
"""

from __future__ import annotations

import itertools

import jax.numpy as jnp
from flax import nnx

from jaxgen.core.types import Array

__all__ = ["MLP", "ToyDiscriminator", "ToyGenerator"]


class MLP(nnx.Module):
    """Dense layers `sizes[0] -> ... -> sizes[-1]` with an activation between them.

    Args:
      sizes: input, hidden and output sizes; at least two.
      activation: name of a function in `flax.nnx`, as in "relu" or "gelu".
    """

    def __init__(self, sizes: tuple[int, ...], activation: str = "relu", *, rngs: nnx.Rngs):
        self.layers = nnx.List(
            [
                nnx.Linear(a, b, kernel_init=nnx.initializers.he_normal(), rngs=rngs)
                for a, b in itertools.pairwise(sizes)
            ]
        )
        self.activation = activation

    def __call__(self, x: Array) -> Array:
        """Return the last layer, which has no activation."""
        activate = getattr(nnx, self.activation)
        for layer in self.layers[:-1]:
            x = activate(layer(x))
        return self.layers[-1](x)


class ToyGenerator(MLP):
    """Latent `[..., 2]` to a point of the plane `[..., 2]`."""

    def __init__(self, hidden: int = 20, *, rngs: nnx.Rngs):
        super().__init__((2, hidden, hidden, 2), rngs=rngs)


class ToyDiscriminator(MLP):
    """A point `[..., 2]` to the logit of being real `[...]`."""

    def __init__(self, hidden: int = 20, *, rngs: nnx.Rngs):
        super().__init__((2, hidden, hidden, 1), rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Return the logit of each point, `[...]`."""
        return jnp.squeeze(super().__call__(x), -1)
