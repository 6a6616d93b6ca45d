"""Moves from one sequence to another that leave p(y) 1[y agrees with o] L(y)^beta invariant.

Both visit the hidden tokens from left to right and are exact whatever the model:

- `Gibbs` draws each token from its full conditional, by trying the whole vocabulary;
- `BlockMH` lets the model rewrite a few hidden tokens, and accepts by Metropolis and Hastings.

A third, `jaxgen.sequences.infilling.particles.ParticleGibbs`, writes whole sequences.

Everything here is about ONE sequence of T tokens below V.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.pytree import pytree, static
from jaxgen.core.types import Array, ArrayTree, PRNGKey
from jaxgen.models.text.language_models import draw_token
from jaxgen.sequences.infilling.target import TokenPosterior, tempered

__all__ = ["TILE", "BlockMH", "Gibbs", "SequenceState", "chunk_of", "full_conditional", "sweep"]

# Chains in one batch, and bytes of logits that a chunk of the vocabulary may fill for them.
TILE = 32
_BUDGET = 32 << 20


class SequenceState(NamedTuple):
    """A chain's sequence and what is known of it.

    Attributes:
      tokens: `[T]`.
      log_probs: `[T]`, log p(y_t | y_<t).
      log_likelihood: log L(y).
    """

    tokens: Array
    log_probs: Array
    log_likelihood: Array


@pytree
class Gibbs:
    """Each hidden token from its full conditional: no move is ever rejected.

        p(y_t = v | the rest) proportional to p(v | y_<t) prod_{s > t} p(y_s | y_<s) L(y)^beta

    The model takes V (T - t) steps for token t, and L is evaluated V times.

    Attributes:
      chunk: tokens of the vocabulary that are tried at once (static); None for as many as
        fill 32 MiB with logits.
    """

    chunk: int | None = static(default=None)

    def check(self) -> None:
        """Raise `InputError` for a chunk that is no positive integer."""
        _check_positive("chunk", self.chunk)

    def steps(self, vocabulary: int, length: int, hidden: np.ndarray) -> int:
        """Model steps of one sweep."""
        return length + vocabulary * int(np.sum(length - np.flatnonzero(hidden)))

    def update(
        self,
        key: PRNGKey,
        posterior: TokenPosterior,
        t: Array,
        state: ArrayTree,
        now: SequenceState,
        beta: Array,
    ) -> tuple[SequenceState, Array]:
        """Return a new token at t, and 1: the move is always accepted. The key is consumed."""
        log_p = full_conditional(posterior, state, now.tokens, t, beta, self.chunk)
        drawn = draw_token(key, log_p)
        # Where nothing has a probability (a constraint not yet met), stay.
        drawn = jnp.where(jnp.max(log_p) > -jnp.inf, drawn, now.tokens[t])
        tokens = now.tokens.at[t].set(drawn)
        log_probs = posterior.continuation(state, tokens, t)
        log_probs = jnp.where(jnp.arange(posterior.length) < t, now.log_probs, log_probs)
        return SequenceState(tokens, log_probs, posterior.log_odds(tokens)), jnp.ones(())

    def sweep(
        self, key: PRNGKey, posterior: TokenPosterior, now: SequenceState, beta: Array
    ) -> tuple[SequenceState, Array]:
        """`sweep` with this move."""
        return sweep(self, key, posterior, now, beta)


@pytree
class BlockMH:
    """The model rewrites the next n hidden tokens, n uniform in 1 .. block; M-H accepts.

    The proposal draws hidden tokens t_1 .. t_n from p(y_s | y_<s), left to right, with what was
    observed in between. All of the target's factors cancel but those of the tokens R from t_1
    on that were not drawn:

        alpha = min(1, prod_{s in R} p(y_s | y'_<s) / p(y_s | y_<s) (L(y') / L(y))^beta)

    The model takes T - t steps for token t, whatever V.

    Attributes:
      block: the most hidden tokens in one move; T rewrites whole suffixes, too.
    """

    block: Any = 4

    def check(self) -> None:
        """Raise `InputError` for a block that is no positive integer."""
        _check_positive("block", self.block)

    def steps(self, vocabulary: int, length: int, hidden: np.ndarray) -> int:
        """Model steps of one sweep."""
        return length + int(np.sum(length - np.flatnonzero(hidden)))

    def update(
        self,
        key: PRNGKey,
        posterior: TokenPosterior,
        t: Array,
        state: ArrayTree,
        now: SequenceState,
        beta: Array,
    ) -> tuple[SequenceState, Array]:
        """Return the sequence after one move from t on, and whether it moved; consume the key."""
        draw_key, size_key, accept_key = jax.random.split(key, 3)
        hidden = ~jnp.asarray(posterior.observed)
        rank = jnp.cumsum(hidden) - 1
        count = jax.random.randint(size_key, (), 1, self.block + 1)
        drawn = hidden & (rank >= rank[t]) & (rank < rank[t] + count)

        def step(s: Array, carry: tuple[ArrayTree, Array, Array]) -> tuple[ArrayTree, Array, Array]:
            state, tokens, log_probs = carry
            log_p = posterior.next_token(state)
            token = draw_token(jax.random.fold_in(draw_key, s), log_p)
            token = jnp.where(drawn[s], token, tokens[s])
            tokens, log_probs = tokens.at[s].set(token), log_probs.at[s].set(log_p[token])
            return posterior.writer.advance(state, token), tokens, log_probs

        start = (state, now.tokens, now.log_probs)
        _, tokens, log_probs = jax.lax.fori_loop(t, posterior.length, step, start)
        new = SequenceState(tokens, log_probs, posterior.log_odds(tokens))
        # Tokens before t are in both sums, and cancel.
        kept = jnp.where(drawn, 0.0, new.log_probs - now.log_probs).sum()
        gain = tempered(beta, new.log_likelihood) - tempered(beta, now.log_likelihood)
        # NaN, as from two impossible sequences, is a rejection.
        accept = jnp.log(jax.random.uniform(accept_key)) < kept + gain
        chosen = jax.tree.map(lambda a, b: jnp.where(accept, a, b), new, now)
        return chosen, accept.astype(jnp.float32)

    def sweep(
        self, key: PRNGKey, posterior: TokenPosterior, now: SequenceState, beta: Array
    ) -> tuple[SequenceState, Array]:
        """`sweep` with this move."""
        return sweep(self, key, posterior, now, beta)


def full_conditional(
    posterior: TokenPosterior,
    state: ArrayTree,
    tokens: Array,
    t: Array | int,
    beta: Array | float = 1.0,
    chunk: int | None = None,
) -> Array:
    """log p(y_t = v, the rest of y from t on | y_<t) + beta log L for every v: `[V]`.

    Not normalised. The vocabulary is gone through in chunks.

    Args:
      posterior: the posterior over sequences.
      state: the model's after y_<t.
      tokens: `[T]`; the token at t is ignored.
      t: a traced number.
      beta: the power of the likelihood.
      chunk: tokens at once; see `Gibbs`.
    """
    log_p = posterior.next_token(state)
    size = log_p.shape[0]

    def whole(v: Array) -> Array:
        changed = tokens.at[t].set(v)
        after = posterior.writer.advance(state, v)
        rest = posterior.continuation(after, changed, jnp.asarray(t) + 1).sum()
        return log_p[v] + rest + tempered(beta, posterior.log_odds(changed))

    every = jnp.arange(size, dtype=jnp.int32)
    return jax.lax.map(whole, every, batch_size=chunk_of(size, chunk))


def sweep(
    kernel: Gibbs | BlockMH,
    key: PRNGKey,
    posterior: TokenPosterior,
    now: SequenceState,
    beta: Array,
) -> tuple[SequenceState, Array]:
    """One update of every hidden token, left to right, and the share of accepted ones.

    The key is consumed; the update of token t uses `fold_in(key, t)`.
    """
    hidden = ~jnp.asarray(posterior.observed)

    def site(
        carry: tuple[ArrayTree, SequenceState, Array], t: Array
    ) -> tuple[tuple[ArrayTree, SequenceState, Array], None]:
        state, now, accepted = carry
        now, moved = jax.lax.cond(
            hidden[t],
            lambda: kernel.update(
                jax.random.fold_in(key, t), posterior, t, state, now, jnp.asarray(beta)
            ),
            lambda: (now, jnp.zeros(())),
        )
        return (posterior.writer.advance(state, now.tokens[t]), now, accepted + moved), None

    start = (posterior.opening(), now, jnp.zeros(()))
    (_, now, accepted), _ = jax.lax.scan(site, start, jnp.arange(posterior.length))
    return now, accepted / hidden.sum()


def chunk_of(vocabulary: int, chunk: int | None) -> int:
    """Return how many tokens are tried at once: all, or as many as fit the budget."""
    return min(vocabulary, chunk or max(1, _BUDGET // (4 * vocabulary * TILE)))


def _check_positive(name: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise expected(name, "a positive integer", value)
