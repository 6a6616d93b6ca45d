"""A network that was trained to fill blanks, as a proposal for a language model's posterior.

MaskGAN's infiller draws blanks from q(y_hidden | o) = prod_t q(y_t | y_<t, m(o)) having read what
was observed on both sides, and so proposes what comes later, too. By itself it is one draw from
what it learnt; weighted by p(y) / q(y_hidden | o) its draws are a language model's posterior.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxgen.core.pytree import pytree
from jaxgen.core.types import Array
from jaxgen.models.text.infillers import Memory
from jaxgen.models.text.language_models import LanguageModelState

__all__ = ["MaskedProposal"]


@pytree
class MaskedProposal:
    """An `Infiller` that has read one masked sequence, as an `Autoregressive` model.

    Attributes:
      infiller: a `jaxgen.models.text.infillers.Infiller`.
      tokens: `[T]`; what stands at blanks is ignored.
      observed: `[T]`, True where a token is given.
    """

    infiller: Any
    tokens: Array
    observed: Array

    @property
    def start(self) -> int:
        """The blank, which the decoder starts from."""
        return self.infiller.vocabulary

    def first(self, *batch: int) -> tuple[Array, LanguageModelState]:
        """Return what the encoder has found, `[..., T, H]`, and the decoder's first state."""
        tokens, observed = jnp.asarray(self.tokens), jnp.asarray(self.observed)
        states, last = self.infiller.encode(tokens[None], observed[None])
        states = jnp.broadcast_to(states[0], (*batch, *states.shape[1:]))
        return states, LanguageModelState(
            *(jnp.broadcast_to(x[0], (*batch, x.shape[1])) for x in last)
        )

    def advance(
        self, state: tuple[Array, LanguageModelState], token: Array
    ) -> tuple[Array, LanguageModelState]:
        """Return the state after one more token."""
        return state[0], self.infiller.decoder.advance(state[1], token)

    def logits(self, state: tuple[Array, LanguageModelState]) -> Array:
        """Return the logits of the next token, `[..., V]`."""
        states, last = state
        batch = last.hidden.shape[:-1]
        memory = Memory(states.reshape(-1, *states.shape[-2:]), last)
        hidden = last.hidden.reshape(-1, 1, last.hidden.shape[-1])
        return self.infiller.out(self.infiller.attend(memory, hidden)).reshape(*batch, -1)
