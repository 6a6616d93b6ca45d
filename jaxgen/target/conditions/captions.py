"""A condition on what a captioning network says of the image (PPGN, Section 3.5)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.pytree import pytree
from jaxgen.core.types import Array
from jaxgen.target.conditions.algebra import Condition
from jaxgen.target.conditions.checks import check_index

__all__ = ["Caption"]


@pytree
class Caption(Condition):
    """A caption under a captioner: log p(words | x) = sum_t log p(w_t | w_<t, x).

    `Caption.of(jaxgen.load("fashion-mnist/captioner"), "a dark narrow dress")`.

    Attributes:
      captioner: a frozen `jaxgen.models.fashion_mnist.captioner.Captioner`, or any frozen module
        with its `look(image)`, `log_probs(context, tokens)`, `tokens(words)` and `vocabulary()`.
      tokens: `[T]` integers; what follows the first end takes no part.
    """

    captioner: Any
    tokens: Array

    @classmethod
    def of(cls, captioner: Any, words: str) -> Caption:
        """Return the condition for a caption in words; unknown words raise `InputError`."""
        return cls(captioner, captioner.call("tokens", words))

    def __call__(self, image: Array) -> Array:
        """log p(words | image)."""
        context = self.captioner.call("look", image)
        return self.captioner.call("log_probs", context, self.tokens).sum()

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Check that the captioner is one, and the tokens are of its vocabulary."""
        if np.ndim(self.tokens) != 1:
            raise expected("Caption.tokens", "shape [T]", list(np.shape(self.tokens)))
        vocabulary = self.captioner.call("vocabulary")
        for token in np.asarray(self.tokens):
            check_index("Caption.tokens", token, vocabulary)
        out = jax.eval_shape(self, jax.ShapeDtypeStruct(image_shape, jnp.float32))
        if out.shape != ():
            raise expected("Caption", "a captioner of one image", f"output of shape {out.shape}")
