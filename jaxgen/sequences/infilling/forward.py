"""From left to right: sequential importance sampling of the hidden tokens, and resampling.

Hidden tokens are drawn from the model's own conditionals, observed ones are put in, and a
sequence's weight is the probability that the model gave to them (Kong, Liu & Wong 1994):

    log w = sum_{t observed} log p(o_t | y_<t),   E w = p(o)

With resampling when the weights' ESS is low this is a particle filter, and its estimate of
p(o) stays unbiased (Del Moral 2004). With `lookahead`, a hidden token before an observed one is
drawn by what the model then says of the observed one,

    q(y_t) proportional to p(y_t | y_<t) g(y_t),   g(v) = p(o_{t+1} | y_<t, v),

whose weight is the sum of these products over the vocabulary, whatever was drawn: the locally
optimal proposal. It takes one model step for each token v that is tried. Where only the K most
likely are tried, g of the others is the tried ones' mean, and the weights make up for it.

With a `proposal`, another model draws the hidden tokens, and the ratio of the two is a weight.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core.types import Array, ArrayTree, PRNGKey, Resampling
from jaxgen.models.text.language_models import draw_token
from jaxgen.sampler.sharding import over_chains
from jaxgen.sequences.infilling.moves import SequenceState, chunk_of
from jaxgen.sequences.infilling.target import TokenPosterior, opening
from jaxgen.tempering.resampling import effective_sample_size, log_mean_exp, scheme

__all__ = ["SHARED", "ParticleState", "forward", "log_evidence", "resample_cloud"]

# Folded into the run's key for what belongs to no single chain.
SHARED = 0xFFFFFFFF


class ParticleState(NamedTuple):
    """C weighted sequences.

    Attributes:
      written: leaves `[C, ...]`.
      log_weight: `[C]` since the last resampling.
      log_z: what the resamplings before have estimated of log Z.
      ancestor: `[C]` index of the first sequence that each descends from.
    """

    written: SequenceState
    log_weight: Array
    log_z: Array
    ancestor: Array


class Rows(NamedTuple):
    """For each token: ESS of the weights, running log Z, and whether chains were resampled."""

    ess: Array
    log_z: Array
    resampled: Array


def log_evidence(cloud: ParticleState) -> Array:
    """Return the estimate of log Z."""
    return cloud.log_z + log_mean_exp(cloud.log_weight)


def resample_cloud(
    key: PRNGKey, cloud: ParticleState, name: str, extra: object = ()
) -> tuple[ParticleState, Any]:
    """Copy by weight, which is then equal; `extra` leaves `[C, ...]` are copied along."""
    count = cloud.log_weight.shape[0]
    index = scheme(name)(key, jax.nn.softmax(cloud.log_weight), count)
    written, ancestor, extra = jax.tree.map(
        lambda x: x[index], (cloud.written, cloud.ancestor, extra)
    )
    log_z = log_evidence(cloud)
    return ParticleState(written, jnp.zeros_like(cloud.log_weight), log_z, ancestor), extra


def forward(
    key: PRNGKey,
    chain_keys: Array,
    posterior: TokenPosterior,
    threshold: Array,
    proposal: Any = None,
    *,
    resample: Resampling | None,
    lookahead: int,
    tile: int,
) -> tuple[ParticleState, Rows]:
    """C sequences that agree with what was observed, weighted for p(y) 1[y agrees with o].

    The likelihood is not yet in the weights; it is in `written`.

    Args:
      key: for resampling; token t uses `fold_in(key, t)`.
      chain_keys: `[C]`; token t of chain i uses `fold_in(chain_keys[i], t)`.
      posterior: the posterior over sequences.
      threshold: resample where the ESS is below this share of C.
      proposal: another `Autoregressive` model, to draw hidden tokens from.
      resample: the scheme, or None for importance weights alone.
      lookahead: K, or 0 for none.
      tile: chains at a time.
    """
    count, length = chain_keys.shape[0], posterior.length
    shown = posterior.observed
    ahead = ~shown & jnp.append(shown[1:], False)
    following = jnp.append(posterior.tokens[1:], 0)

    def one(
        key: PRNGKey, ahead_of: tuple[ArrayTree, ArrayTree], promised: Array, t: Array
    ) -> tuple[tuple[ArrayTree, ArrayTree], Array, Array, Array, Array]:
        """Token t of one chain: states after it, token, log p, weight, what was promised."""
        state, guess = ahead_of
        log_p = posterior.next_token(state)
        log_q, weight, log_g = log_p, jnp.zeros(()), jnp.zeros_like(log_p)
        if proposal is not None:
            log_q = jax.nn.log_softmax(proposal.logits(guess))
        if lookahead:
            look = functools.partial(_promise, posterior, state, log_p, following[t], lookahead)
            log_g = jax.lax.cond(ahead[t], look, lambda: log_g)
            log_q = log_q + log_g
            weight = jnp.where(ahead[t], jax.nn.logsumexp(log_q), 0.0)
        drawn = draw_token(jax.random.fold_in(key, t), log_q)
        token = jnp.where(shown[t], posterior.tokens[t].astype(jnp.int32), drawn)
        if proposal is not None:
            # Its own factor of the target over that of the normalised proposal.
            weight = weight + log_p[token] + log_g[token] - log_q[token]
            guess = proposal.advance(guess, token)
        # A promise of 0 has made the weight 0 already.
        kept = log_p[token] - jnp.where(jnp.isfinite(promised), promised, 0.0)
        weight, promise = jnp.where(shown[t], kept, weight), log_g[token]
        state = posterior.writer.advance(state, token)
        return (state, guess), token, log_p[token], weight, promise

    def step(carry: tuple[ParticleState, Any], t: Array) -> tuple[tuple[ParticleState, Any], Rows]:
        cloud, (state, promised) = carry
        state, token, log_p, weight, promised = over_chains(
            lambda key, state, promised: one(key, state, promised, t),
            (chain_keys, state, promised),
            tile,
        )
        written = cloud.written._replace(
            tokens=cloud.written.tokens.at[:, t].set(token),
            log_probs=cloud.written.log_probs.at[:, t].set(log_p),
        )
        cloud = cloud._replace(written=written, log_weight=cloud.log_weight + weight)
        ess, log_z = effective_sample_size(cloud.log_weight), log_evidence(cloud)
        again = jnp.array(False)
        if resample is not None:
            # After the last token the weights are kept: they are the result.
            again = (ess < threshold * count) & (ess > 0) & (t + 1 < length)
            cloud, (state, promised) = jax.lax.cond(
                again,
                lambda: resample_cloud(
                    jax.random.fold_in(key, t), cloud, str(resample), (state, promised)
                ),
                lambda: (cloud, (state, promised)),
            )
        return (cloud, (state, promised)), Rows(ess, log_z, again)

    openings = (posterior.opening(), () if proposal is None else opening(proposal))
    state = jax.tree.map(lambda x: jnp.broadcast_to(x[None], (count, *x.shape)), openings)
    blank = SequenceState(
        jnp.zeros((count, length), jnp.int32), jnp.zeros((count, length)), jnp.zeros(count)
    )
    start = ParticleState(blank, jnp.zeros(count), jnp.zeros(()), jnp.arange(count))
    carry = (start, (state, jnp.zeros(count)))
    (cloud, _), rows = jax.lax.scan(step, carry, jnp.arange(length))
    odds = over_chains(posterior.log_odds, (cloud.written.tokens,), tile)
    return cloud._replace(written=cloud.written._replace(log_likelihood=odds)), rows


def _promise(
    posterior: TokenPosterior, state: ArrayTree, log_p: Array, following: Array, tried: int
) -> Array:
    """log g of the module's docstring, `[V]`."""
    size = log_p.shape[0]
    best, tokens = jax.lax.top_k(log_p, min(tried, size))

    def probability(token: Array) -> Array:
        return posterior.next_token(posterior.writer.advance(state, token))[following]

    chunk = chunk_of(size, min(tried, size))
    log_g = jax.lax.map(probability, tokens.astype(jnp.int32), batch_size=chunk)
    # Any positive number is right for those that were not tried; their weights correct it.
    mean = jax.nn.logsumexp(best + log_g) - jax.nn.logsumexp(best)
    others = jnp.where(jnp.isfinite(mean), mean, 0.0)
    return jnp.full(size, others).at[tokens].set(log_g)
