"""Particle Gibbs: a move that writes the whole sequence anew, beside the one that was there.

A particle filter of N sequences in which one, the reference, is the chain's sequence; at the
end one of the N is chosen by weight. That leaves p(y) 1[y agrees with o] L(y)^beta invariant
for any N (Andrieu, Doucet & Holenstein 2010, Theorem 5). With few particles the chosen one
would mostly have the reference's beginning; ancestor sampling (Lindsten, Jordan & Schon 2014)
gives the rest of the reference, wherever the filter resamples, another beginning

    a ~ w_a p(y'_t .. y'_T | y_<t of a) L(y_<t of a, y'_t .. y'_T)^beta

with y' the reference, and leaves it invariant, too. A language model remembers everything, so
this takes T - t model steps for each particle: it is done between blocks of tokens only.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxgen.core.errors import check_integer
from jaxgen.core.pytree import pytree, static
from jaxgen.core.types import Array, ArrayTree, PRNGKey
from jaxgen.models.text.language_models import draw_token
from jaxgen.sequences.infilling.moves import SequenceState
from jaxgen.sequences.infilling.target import TokenPosterior, tempered

__all__ = ["ParticleGibbs", "block_starts"]


class _Particles(NamedTuple):
    """N sequences up to the present token; the first one follows the reference.

    Attributes:
      state: the model's, leaves `[N, ...]`.
      tokens: `[N, T]`.
      log_probs: `[N, T]`, log p(y_t | y_<t).
      fresh: `[N, T]`, True where a token was drawn here, and is not the reference's.
      log_weight: `[N]` since the last resampling, of the observed tokens.
    """

    state: ArrayTree
    tokens: Array
    log_probs: Array
    fresh: Array
    log_weight: Array


@pytree
class ParticleGibbs:
    """Conditional sequential Monte Carlo with ancestor sampling.

    Hidden tokens are drawn from the model, and weighted by the observed ones. Before each block
    of hidden tokens but the first, N - 1 particles are resampled (multinomial) and the reference
    is given an ancestor; the likelihood comes in there and at the end. What the acceptance rate
    counts is the share of hidden tokens that were drawn anew.

    The model takes N T steps, and N (T - t) more for each block that starts at t.

    Attributes:
      num_particles: N, with the reference, 2 or more (static).
      block: the most hidden tokens between two resamplings; an observed one ends a block, too.
    """

    num_particles: int = static(default=16)
    block: Any = 4

    def check(self) -> None:
        """Raise `InputError` for fewer than two particles, or an empty block."""
        check_integer("num_particles", self.num_particles, 2)
        check_integer("block", self.block, 1)

    def steps(self, vocabulary: int, length: int, hidden: np.ndarray) -> int:
        """Model steps of one sweep."""
        starts = np.flatnonzero(np.asarray(block_starts(~hidden, self.block)))
        return self.num_particles * (length + int(np.sum(length - starts)))

    def sweep(
        self, key: PRNGKey, posterior: TokenPosterior, now: SequenceState, beta: Array
    ) -> tuple[SequenceState, Array]:
        """Return a sequence after one pass, and the share of its hidden tokens that are new.

        The key is consumed; token t uses `fold_in(key, t)`, the choice at the end
        `fold_in(key, T)`. With one particle nothing changes.
        """
        count, length = self.num_particles, posterior.length
        observed = jnp.asarray(posterior.tokens, jnp.int32)
        hidden = ~jnp.asarray(posterior.observed)
        starts = block_starts(~hidden, self.block)
        free = jnp.arange(count) > 0

        def resample(key: PRNGKey, particles: _Particles, t: Array) -> _Particles:
            """Copy by weight; the reference goes on from any of the sequences so far."""
            own_key, free_key = jax.random.split(key)

            def onward(state: ArrayTree, tokens: Array) -> Array:
                whole = jnp.where(jnp.arange(length) < t, tokens, now.tokens)
                rest = posterior.continuation(state, whole, t).sum()
                return rest + tempered(beta, posterior.log_odds(whole))

            weight = particles.log_weight
            own = _choose(own_key, weight + jax.vmap(onward)(particles.state, particles.tokens))
            others = _choose(free_key, weight, count - 1)
            index = jnp.concatenate([own, others])
            particles = jax.tree.map(lambda x: x[index], particles)
            return particles._replace(log_weight=jnp.zeros_like(weight))

        def step(particles: _Particles, t: Array) -> tuple[_Particles, None]:
            draw_key, again_key = jax.random.split(jax.random.fold_in(key, t))
            particles = jax.lax.cond(
                starts[t], lambda: resample(again_key, particles, t), lambda: particles
            )
            log_p = jax.vmap(posterior.next_token)(particles.state)
            token = jnp.where(free, draw_token(draw_key, log_p), now.tokens[t])
            token = jnp.where(hidden[t], token, observed[t])
            found = jnp.take_along_axis(log_p, token[:, None], axis=1)[:, 0]
            weight = particles.log_weight + jnp.where(hidden[t], 0.0, found)
            return _Particles(
                jax.vmap(posterior.writer.advance)(particles.state, token),
                particles.tokens.at[:, t].set(token),
                particles.log_probs.at[:, t].set(found),
                particles.fresh.at[:, t].set(free & hidden[t]),
                weight,
            ), None

        start = _Particles(
            jax.tree.map(
                lambda x: jnp.broadcast_to(x[None], (count, *x.shape)), posterior.opening()
            ),
            jnp.zeros((count, length), jnp.int32),
            jnp.zeros((count, length)),
            jnp.zeros((count, length), bool),
            jnp.zeros(count),
        )
        particles, _ = jax.lax.scan(step, start, jnp.arange(length))
        odds = jax.vmap(posterior.log_odds)(particles.tokens)
        chosen = _choose(
            jax.random.fold_in(key, length), particles.log_weight + tempered(beta, odds)
        )[0]
        written = SequenceState(particles.tokens[chosen], particles.log_probs[chosen], odds[chosen])
        return written, particles.fresh[chosen].sum() / hidden.sum()


def block_starts(observed: ArrayLike, block: Any) -> Array:
    """Before which tokens the filter resamples: `[T]`, True at hidden ones alone.

    At the first hidden token after observed ones, and at every `block`-th from there; not at
    the sequence's first hidden token, before which all particles are the same.
    """
    hidden = ~jnp.asarray(observed)
    at = jnp.arange(hidden.shape[0])
    since = at - jax.lax.cummax(jnp.where(hidden, -1, at)) - 1
    return hidden & (since % block == 0) & (jnp.cumsum(hidden) > 1)


def _choose(key: PRNGKey, log_weight: Array, count: int = 1) -> Array:
    """`count` indices by weight; the reference, 0, where nothing has one."""
    # NaN, as from two infinities, is no weight.
    log_weight = jnp.where(jnp.isnan(log_weight), -jnp.inf, log_weight)
    return jax.random.categorical(key, log_weight, shape=(count,))
