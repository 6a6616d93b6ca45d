"""Networks that fill blanks in sequences of tokens, and that judge what was filled in.

MaskGAN's (Fedus, Goodfellow & Dai 2018): an encoder reads the masked sequence m(x), a token V
standing at each blank; a decoder that begins in its last state goes through the sequence from
left to right; Luong, Pham & Manning's (2015, Eq. 5, 7 and 8) attention looks back at the encoder:

    a_ts = softmax_s(h_t W_a e_s),    c_t = sum_s a_ts e_s,    h~_t = tanh([c_t, h_t] W_c).

The same trunk with another last layer is the infiller (log probabilities of the next token
given those before it, drawn ones where there were blanks), the discriminator (a logit for each
token, which it has seen) and the critic (a value before it has seen the token).

Shapes: tokens `[B, T]` integers below V, present `[B, T]` true where a token is given.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxgen.core.errors import expected
from jaxgen.core.types import Array, PRNGKey
from jaxgen.models.text.language_models import LanguageModel, LanguageModelState, draw_token

__all__ = ["FilledReader", "Infiller", "Memory", "Recurrence", "Seq2Seq"]


class Memory(NamedTuple):
    """The encoding of a masked sequence: states `[B, T, H]`, and the last of them."""

    states: Array
    last: LanguageModelState


class Recurrence(LanguageModel):
    """A `LanguageModel`'s LSTM alone: tokens in, nothing out."""

    def __init__(
        self, vocabulary: int, embedding: int, hidden: int, *, scale: float, rngs: nnx.Rngs
    ):
        super().__init__(vocabulary, embedding, hidden, scale=scale, rngs=rngs)
        del self.w_out, self.b_out

    def read(self, tokens: Array, state: LanguageModelState) -> tuple[Array, LanguageModelState]:
        """Hidden states `[B, T, H]` after each of the tokens `[B, T]`, and the last state."""

        def step(state: LanguageModelState, token: Array) -> tuple[LanguageModelState, Array]:
            state = self.advance(state, token)
            return state, state.hidden

        last, states = jax.lax.scan(step, state, tokens.T)
        return jnp.moveaxis(states, 0, 1), last


class Seq2Seq(nnx.Module):
    """The trunk: encoder, decoder, attention.

    Args:
      vocabulary: V; token V is the blank for the encoder and the start for the decoder.
      embedding, hidden: sizes; 650 each in the paper, with two layers.
      scale: standard deviation of the first weights.
    """

    def __init__(
        self,
        vocabulary: int,
        embedding: int = 64,
        hidden: int = 64,
        *,
        scale: float = 0.1,
        rngs: nnx.Rngs,
    ):
        def param(*shape: int) -> nnx.Param[Array]:
            return nnx.Param(scale * jax.random.normal(rngs.params(), shape))

        self.vocabulary = vocabulary
        self.encoder = Recurrence(vocabulary + 1, embedding, hidden, scale=scale, rngs=rngs)
        self.decoder = Recurrence(vocabulary + 1, embedding, hidden, scale=scale, rngs=rngs)
        self.w_a = param(hidden, hidden)
        self.w_c = param(2 * hidden, hidden)

    def begin_from(self, other: Seq2Seq) -> None:
        """Copy the trunk of another network: all but the last layer.

        Raises:
          InputError: if it has other sizes.
        """
        mine, theirs = ([n.vocabulary, *n.decoder.w.shape] for n in (self, other))
        if mine != theirs:
            raise expected("other", f"[V, embedding, 4 hidden] = {mine}", theirs)
        self.encoder, self.decoder = nnx.clone(other.encoder), nnx.clone(other.decoder)
        self.w_a, self.w_c = nnx.Param(other.w_a[...]), nnx.Param(other.w_c[...])

    def encode(self, tokens: Array, present: Array) -> Memory:
        """Encode the masked sequence; tokens at blanks are not used.

        Raises:
          InputError: if tokens and mask are not `[B, T]` both.
        """
        if tokens.ndim != 2:
            raise expected("tokens", "shape [B, T]", list(tokens.shape))
        if present.shape != tokens.shape:
            hint = "It is true where a token is given."
            raise expected("present", f"shape {list(tokens.shape)}", list(present.shape), hint)
        masked = jnp.where(present, tokens, self.vocabulary)
        return Memory(*self.encoder.read(masked, self.encoder.first(len(tokens))))

    def attention(self, memory: Memory, hidden: Array) -> Array:
        """Weights `[B, t, T]` of the encoder's states for decoder states `[B, t, H]`."""
        return jax.nn.softmax(
            jnp.einsum("bth,hk,bsk->bts", hidden, self.w_a[...], memory.states), axis=-1
        )

    def attend(self, memory: Memory, hidden: Array) -> Array:
        """h~ `[B, t, H]` of decoder states `[B, t, H]`."""
        context = jnp.einsum("bts,bsh->bth", self.attention(memory, hidden), memory.states)
        return jnp.tanh(jnp.concatenate([context, hidden], axis=-1) @ self.w_c[...])

    def features(self, tokens: Array, present: Array, shift: bool) -> Array:
        """h~ `[B, T, H]`; with `shift`, that at t has seen only the tokens before t."""
        memory = self.encode(tokens, present)
        if shift:
            start = jnp.full_like(tokens[:, :1], self.vocabulary)
            tokens = jnp.concatenate([start, tokens[:, :-1]], axis=1)
        return self.attend(memory, self.decoder.read(tokens, memory.last)[0])


class Infiller(Seq2Seq):
    """Fills the blanks from left to right: the arguments are `Seq2Seq`'s."""

    def __init__(
        self,
        vocabulary: int,
        embedding: int = 64,
        hidden: int = 64,
        *,
        scale: float = 0.1,
        rngs: nnx.Rngs,
    ):
        super().__init__(vocabulary, embedding, hidden, scale=scale, rngs=rngs)
        self.out = nnx.Linear(
            hidden, vocabulary, kernel_init=nnx.initializers.normal(scale), rngs=rngs
        )

    def log_probs(self, tokens: Array, present: Array) -> Array:
        """log p(x_t | x_<t, m(x)) at the blanks, `[B, T]`, and 0 at the given tokens."""
        log_p = jax.nn.log_softmax(self.out(self.features(tokens, present, shift=True)))
        found = jnp.take_along_axis(log_p, tokens[..., None], axis=-1)[..., 0]
        return jnp.where(present, 0.0, found)

    def fill(self, key: PRNGKey, tokens: Array, present: Array) -> Array:
        """Return the sequences with their blanks drawn, `[B, T]`; given tokens are kept.

        Args:
          key: consumed; position t draws from `fold_in(key, t)`.
          tokens: what stands at the blanks is ignored.
          present: true where a token is given.
        """
        memory = self.encode(tokens, present)

        def step(
            carry: tuple[LanguageModelState, Array], given: tuple[Array, Array, Array]
        ) -> tuple[tuple[LanguageModelState, Array], Array]:
            state, before = carry
            t, token, known = given
            state = self.decoder.advance(state, before)
            logits = self.out(self.attend(memory, state.hidden[:, None])[:, 0])
            drawn = draw_token(jax.random.fold_in(key, t), logits).astype(tokens.dtype)
            token = jnp.where(known, token, drawn)
            return (state, token), token

        count, length = tokens.shape
        start = (memory.last, jnp.full(count, self.vocabulary, tokens.dtype))
        _, found = jax.lax.scan(step, start, (jnp.arange(length), tokens.T, present.T))
        return found.T


class FilledReader(Seq2Seq):
    """One number `[B, T]` for each token of a filled sequence: the discriminator or the critic.

    Args:
      critic: whether the number at t may depend on the tokens before t only, as a baseline's
        must; if not, it has seen token t.
      vocabulary, embedding, hidden, scale: `Seq2Seq`'s.
    """

    def __init__(
        self,
        vocabulary: int,
        embedding: int = 64,
        hidden: int = 64,
        *,
        critic: bool = False,
        scale: float = 0.1,
        rngs: nnx.Rngs,
    ):
        super().__init__(vocabulary, embedding, hidden, scale=scale, rngs=rngs)
        self.critic = critic
        self.out = nnx.Linear(hidden, 1, kernel_init=nnx.initializers.normal(scale), rngs=rngs)

    def __call__(self, filled: Array, present: Array) -> Array:
        """Return the logit for each token of the filled sequence, given where the blanks were."""
        return self.out(self.features(filled, present, shift=self.critic))[..., 0]
