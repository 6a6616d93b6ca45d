"""Sequences of tokens: an LSTM that writes them, and a convolutional network that reads them.

The LSTM is SeqGAN's (Yu, Zhang, Wang & Yu 2017), gate for gate, so that its published oracle
can be loaded: x_1 is the embedding of a start token, and at each step

    i, f, o = sigmoid(x W + h U + b),   c <- f c + i tanh(x W_c + h U_c + b_c),   h <- o tanh(c),
    log p(y_t | y_<t) = log softmax(h W_out + b_out).

The reader is Kim's (2014) text network with a highway layer, as SeqGAN's discriminator.

Shapes: tokens `[..., T]` integers below V; log probabilities `[..., T]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxgen.core.deprecation import former_names
from jaxgen.core.types import Array, PRNGKey

__all__ = ["ORACLE_FILTERS", "LanguageModel", "LanguageModelState", "TextCNN", "draw_token"]

__getattr__ = former_names(__name__, {"Reader": "TextCNN", "Writer": "LanguageModel"})

# SeqGAN's filters for sequences of 20 tokens: (width, how many).
ORACLE_FILTERS = (
    *((1, 100), (2, 200), (3, 200), (4, 200), (5, 200), (6, 100)),
    *((7, 100), (8, 100), (9, 100), (10, 100), (15, 160), (20, 160)),
)


class LanguageModelState(NamedTuple):
    """The LSTM's between two tokens: hidden and cell, `[..., H]` each."""

    hidden: Array
    cell: Array


class LanguageModel(nnx.Module):
    """An LSTM language model over V tokens.

    Args:
      vocabulary: V.
      embedding, hidden: sizes; 32 in the paper.
      start: the token that every sequence is taken to begin after.
      scale: standard deviation of the first weights; 0.1 in the paper, 1 for its oracle.
    """

    def __init__(
        self,
        vocabulary: int,
        embedding: int = 32,
        hidden: int = 32,
        *,
        start: int = 0,
        scale: float = 0.1,
        rngs: nnx.Rngs,
    ):
        def param(*shape: int) -> nnx.Param[Array]:
            return nnx.Param(scale * jax.random.normal(rngs.params(), shape))

        self.start = start
        self.embedding = param(vocabulary, embedding)
        # Columns: input gate, forget gate, output gate, candidate.
        self.w = param(embedding, 4 * hidden)
        self.u = param(hidden, 4 * hidden)
        self.b = param(4 * hidden)
        self.w_out = param(hidden, vocabulary)
        self.b_out = param(vocabulary)

    @property
    def vocabulary(self) -> int:
        """V."""
        return self.b_out.shape[0]

    def first(self, *batch: int) -> LanguageModelState:
        """Return the state before the first token."""
        zero = jnp.zeros((*batch, self.u.shape[0]))
        return LanguageModelState(zero, zero)

    def advance(
        self, state: LanguageModelState, token: Array, context: Array | float = 0.0
    ) -> LanguageModelState:
        """Return the state after a token `[...]`; a context `[..., E]` joins its embedding."""
        x = self.embedding[...][token] + context
        z = x @ self.w[...] + state.hidden @ self.u[...]
        z = z + self.b[...].reshape((1,) * (z.ndim - 1) + (-1,))
        i, f, o, candidate = jnp.split(z, 4, axis=-1)
        cell = nnx.sigmoid(f) * state.cell + nnx.sigmoid(i) * jnp.tanh(candidate)
        return LanguageModelState(nnx.sigmoid(o) * jnp.tanh(cell), cell)

    def logits(self, state: LanguageModelState) -> Array:
        """Return the logits of the next token, `[..., V]`."""
        out = state.hidden @ self.w_out[...]
        return out + self.b_out[...].reshape((1,) * (out.ndim - 1) + (-1,))

    def log_probs(self, tokens: Array, context: Array | float = 0.0) -> Array:
        """log p(y_t | y_<t) of given sequences, `[..., T]`; with a context, see `advance`."""
        before = jnp.concatenate(
            [jnp.full_like(tokens[..., :1], self.start), tokens[..., :-1]], axis=-1
        )

        def step(
            state: LanguageModelState, pair: tuple[Array, Array]
        ) -> tuple[LanguageModelState, Array]:
            last, token = pair
            state = self.advance(state, last, context)
            log_p = jax.nn.log_softmax(self.logits(state))
            return state, jnp.take_along_axis(log_p, token[..., None], axis=-1)[..., 0]

        pairs = (jnp.moveaxis(before, -1, 0), jnp.moveaxis(tokens, -1, 0))
        _, found = jax.lax.scan(step, self.first(*tokens.shape[:-1]), pairs)
        return jnp.moveaxis(found, 0, -1)

    def sample(self, key: PRNGKey, count: int, length: int) -> Array:
        """`[count, length]` sequences. The key is consumed."""
        tokens = jnp.zeros((count, length), jnp.int32)
        return self.complete(key, tokens, jnp.zeros((), jnp.int32))

    def complete(self, key: PRNGKey, tokens: Array, known: Array) -> Array:
        """Sequences `[N, T]` whose first `known` tokens are kept and the rest drawn.

        Args:
          key: consumed; position t draws from `fold_in(key, t)`.
          tokens: `[N, T]`; those from `known` on are ignored.
          known: how many are kept, a traced number.
        """

        def step(
            carry: tuple[LanguageModelState, Array], given: tuple[Array, Array]
        ) -> tuple[tuple[LanguageModelState, Array], Array]:
            state, last = carry
            t, token = given
            state = self.advance(state, last)
            drawn = draw_token(jax.random.fold_in(key, t), self.logits(state))
            token = jnp.where(t < known, token, drawn)
            return (state, token), token

        count, length = tokens.shape
        start = (self.first(count), jnp.full(count, self.start, tokens.dtype))
        _, found = jax.lax.scan(step, start, (jnp.arange(length), tokens.T))
        return found.T


def draw_token(key: PRNGKey, logits: Array) -> Array:
    """One token for each row of logits `[..., V]`, by inversion: one random number a row.

    (Gumbel noise would take V of them, which is most of the time for thousands of words.)
    """
    # Relative to the last entry of the sum itself: rounding never passes it.
    mass = jnp.cumsum(jax.nn.softmax(logits), axis=-1)
    u = jax.random.uniform(key, (*logits.shape[:-1], 1)) * mass[..., -1:]
    return jnp.sum(mass <= u, axis=-1).astype(jnp.int32)


class TextCNN(nnx.Module):
    """Tokens `[N, T]` to a logit `[N]` of being real: filters, maxima over time, highway.

    Args:
      vocabulary: V.
      embedding: size; 64 in the paper.
      filters: (width, how many), widths at most T.
      dropout: of the highway's output, in training; 0.25 in the paper.
    """

    def __init__(
        self,
        vocabulary: int,
        embedding: int = 64,
        filters: Sequence[tuple[int, int]] = ORACLE_FILTERS,
        dropout: float = 0.25,
        *,
        rngs: nnx.Rngs,
    ):
        self.embedding = nnx.Param(
            jax.random.uniform(rngs.params(), (vocabulary, embedding), minval=-1.0, maxval=1.0)
        )
        init = nnx.initializers.truncated_normal(0.1)
        bias = nnx.initializers.constant(0.1)
        self.filters = nnx.List(
            nnx.Linear(width * embedding, count, kernel_init=init, bias_init=bias, rngs=rngs)
            for width, count in filters
        )
        size = sum(count for _, count in filters)
        self.transform = nnx.Linear(size, size, rngs=rngs)
        self.gate = nnx.Linear(size, size, bias_init=nnx.initializers.constant(-2.0), rngs=rngs)
        self.dropout = nnx.Dropout(dropout)
        self.out = nnx.Linear(size, 1, kernel_init=init, bias_init=bias, rngs=rngs)

    def __call__(self, tokens: Array, key: PRNGKey | None = None) -> Array:
        """Return the logits; with a key (consumed) units are dropped, as in training."""
        x = self.embedding[...][tokens]
        found = []
        for layer in self.filters:
            width = layer.kernel.shape[0] // x.shape[-1]
            count = x.shape[1] - width + 1
            # Windows side by side: a convolution along time as one product.
            windows = jnp.concatenate([x[:, i : i + count] for i in range(width)], axis=-1)
            found.append(jnp.max(nnx.relu(layer(windows)), axis=1))
        h = jnp.concatenate(found, axis=-1)
        gate = nnx.sigmoid(self.gate(h))
        h = gate * nnx.relu(self.transform(h)) + (1 - gate) * h
        h = self.dropout(h, deterministic=key is None, rngs=key)
        return self.out(h)[:, 0]
