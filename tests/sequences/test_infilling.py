"""Sequences with some tokens observed, against sums over all sequences."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.stats import chi2

from jaxgen import InputError, schedules
from jaxgen.core.pytree import pytree
from jaxgen.models.text.infillers import Infiller
from jaxgen.models.text.language_models import LanguageModel, TextCNN
from jaxgen.sequences.infilling import (
    BlockMH,
    Gibbs,
    MaskedProposal,
    ParticleGibbs,
    TokenPosterior,
    full_conditional,
    infill,
)
from jaxgen.sequences.infilling.moves import SequenceState
from jaxgen.sequences.infilling.particles import block_starts

V, T, C = 4, 5, 256
ALL = np.asarray(list(itertools.product(range(V), repeat=T)))
WRITER = LanguageModel(V, 5, 6, scale=2.0, rngs=nnx.Rngs(1))
LOG_P = np.asarray(WRITER.log_probs(jnp.asarray(ALL)).sum(axis=1), np.float64)
# Hidden tokens before an observed one, in a row, and at the end.
SEEN = np.array([False, False, True, False, False])
GIVEN = np.array([0, 0, 2, 0, 0])
AGREES = (ALL[:, SEEN] == GIVEN[SEEN]).all(axis=1)
KEY = jax.random.key(3)


@pytree
class Wishes:
    """Not symmetric in the tokens or in time, and impossible for some sequences."""

    weight: jax.Array

    def __call__(self, tokens):
        log_odds = self.weight * (tokens[0] == 1) - jnp.abs(tokens[3] - tokens[1])
        return jnp.where(tokens[4] == tokens[0], -jnp.inf, log_odds + 0.3 * tokens[4])


WISHES = Wishes(jnp.float32(1.5))
ODDS = np.asarray(jax.vmap(WISHES)(jnp.asarray(ALL)), np.float64)
PLAIN = TokenPosterior(WRITER, GIVEN, SEEN)
WISHED = TokenPosterior(WRITER, GIVEN, SEEN, WISHES)


def exact(beta=None):
    """log Z and the probability of every sequence, by enumeration."""
    log_p = LOG_P + (0.0 if beta is None else beta * ODDS)
    p = np.where(AGREES, np.exp(log_p), 0.0)
    return np.log(p.sum()), p / p.sum()


def shares(tokens, weights=None):
    """How often each sequence occurs."""
    index = np.asarray(tokens).reshape(-1, T) @ V ** np.arange(T)[::-1]
    found = np.bincount(index, weights, minlength=len(ALL))
    return found / found.sum()


def distance(found, p):
    """The largest total variation between distributions of two neighbouring hidden tokens."""
    found, p = found.reshape((V,) * T), p.reshape((V,) * T)
    others = [tuple(set(range(T)) - {a, b}) for a, b in ((0, 1), (1, 3), (3, 4))]
    return max(np.abs(found.sum(axis=o) - p.sum(axis=o)).sum() / 2 for o in others)


WAYS = {
    "importance": {"resample": None},
    "lookahead": {"resample": None, "lookahead": V},
    "partial lookahead": {"resample_threshold": 1.0, "lookahead": 2},
}


@pytest.mark.parametrize("way", WAYS)
def test_log_z_is_that_of_enumeration_and_z_is_unbiased(way):
    log_z, p = exact()
    keys = [jax.random.fold_in(KEY, i) for i in range(24)]
    found = [infill(key, PLAIN, num_chains=C, **WAYS[way]) for key in keys]
    for result in found:
        assert abs(result.log_z - log_z) < 4.5 * result.log_z_standard_error + 1e-5
        np.testing.assert_array_equal(result.tokens[:, SEEN], np.tile(GIVEN[SEEN], (C, 1)))
    z = np.exp([result.log_z - log_z for result in found])
    assert abs(z.mean() - 1) < 4 * z.std(ddof=1) / np.sqrt(len(z)) + 1e-5
    # The error that a run states is that which the runs show.
    stated = np.mean([result.log_z_standard_error for result in found])
    assert z.std(ddof=1) < 2 * stated + 1e-5
    tokens = np.concatenate([result.tokens for result in found])
    weights = np.concatenate([result.weights * np.exp(result.log_z) for result in found])
    assert distance(shares(tokens, weights), p) < 0.05
    result = found[0]
    assert result.exactness == "exact"
    np.testing.assert_allclose(
        result.log_prior, LOG_P[np.asarray(result.tokens) @ V ** np.arange(T)[::-1]], rtol=1e-5
    )


def test_a_masked_network_proposes_and_weights_make_up_for_it():
    """The weight of each sequence is its probability over that of drawing it."""
    infiller = Infiller(V, 4, 5, scale=0.5, rngs=nnx.Rngs(5))
    proposal = MaskedProposal(infiller, GIVEN, SEEN)
    settings = {"proposal": proposal, "num_chains": C, "resample": None}
    found = infill(KEY, PLAIN, **settings)
    present = jnp.broadcast_to(jnp.asarray(SEEN), (C, T))
    log_q = jax.jit(infiller.log_probs)(found.tokens, present).sum(axis=1)
    np.testing.assert_allclose(found.log_weight, found.log_prior - log_q, atol=2e-5)
    assert abs(found.log_z - exact()[0]) < 4 * found.log_z_standard_error
    assert found.num_evaluations == 2 * T


def test_the_whole_vocabulary_ahead_is_locally_optimal():
    """With one observed token, weights depend on what comes before its neighbour alone."""
    one, all_ = (infill(KEY, PLAIN, num_chains=C, resample=None, lookahead=k) for k in (0, V))
    assert all_.ess > one.ess
    for first in range(V):
        same = np.asarray(all_.log_weight)[np.asarray(all_.tokens)[:, 0] == first]
        if len(same):
            np.testing.assert_allclose(same, same[0], atol=1e-5)


@pytest.mark.parametrize("chunk", [None, 3])
def test_the_full_conditional_is_enumeration_s(chunk):
    beta, tokens = 0.7, np.array([1, 3, 2, 0, 2])
    run = jax.jit(lambda *args: full_conditional(WISHED, *args, beta, chunk))
    for t in range(T):
        state = WISHED.opening()
        for s in range(t):
            state = WRITER.advance(state, jnp.asarray(tokens[s]))
        got = run(state, jnp.asarray(tokens), t)
        rows = np.tile(tokens, (V, 1))
        rows[:, t] = np.arange(V)
        index = rows @ V ** np.arange(T)[::-1]
        wanted = LOG_P[index] + beta * ODDS[index]
        got, top = np.asarray(got, np.float64), wanted.max()
        np.testing.assert_allclose(
            np.exp(got - np.logaddexp.reduce(got)),
            np.exp(wanted - top) / np.exp(wanted - top).sum(),
            atol=1e-5,
        )


COUNT = 30_000


@jax.jit
def many_sweeps(kernel, keys, start, beta):
    return jax.vmap(lambda key, now: kernel.sweep(key, WISHED, now, beta))(keys, start)


def from_rows(kernel, rows, beta):
    """One sweep from the sequences of these numbers: where it leads."""
    tokens = jnp.asarray(ALL[rows], jnp.int32)
    start = SequenceState(tokens, WRITER.log_probs(tokens), jax.vmap(WISHES)(tokens))
    return many_sweeps(kernel, jax.random.split(KEY, len(rows)), start, jnp.float32(beta))


def transition(kernel, beta):
    """One sweep from exact draws of the target at beta."""
    _, p = exact(beta)
    rows = np.random.default_rng(0).choice(len(ALL), size=COUNT, p=p)
    return p, rows, *from_rows(kernel, rows, beta)


KERNELS = {
    "gibbs": Gibbs(),
    "redraw one": BlockMH(1),
    "redraw": BlockMH(3),
    "particles": ParticleGibbs(4, block=4),
    "particles, a token at a time": ParticleGibbs(4, block=1),
}


def surprise(found, p):
    """The p-value of Pearson's test that counts are draws from p; cells below 5 are one."""
    wanted = found.sum() * p
    rare = wanted < 5
    found = np.append(found[~rare], found[rare].sum())
    wanted = np.append(wanted[~rare], wanted[rare].sum())
    found, wanted = found[wanted > 0], wanted[wanted > 0]
    return chi2.sf(np.sum((found - wanted) ** 2 / wanted), len(found) - 1)


@pytest.mark.parametrize("name", KERNELS)
def test_moves_leave_the_posterior_as_it_is(name):
    p, rows, after, rate = transition(KERNELS[name], 0.6)
    share = shares(after.tokens)
    assert share[p == 0].sum() == 0
    error = np.sqrt(p * (1 - p) / len(rows))
    assert np.all(np.abs(share - p) < 4.5 * error + 2e-4)
    assert surprise(share * len(rows), p) > 1e-3
    moved = np.mean(np.any(np.asarray(after.tokens) != ALL[rows], axis=1))
    assert moved > 0.3
    np.testing.assert_array_equal(np.asarray(after.tokens)[:, SEEN], ALL[rows][:, SEEN])
    index = np.asarray(after.tokens) @ V ** np.arange(T)[::-1]
    np.testing.assert_allclose(after.log_probs.sum(axis=1), LOG_P[index], rtol=1e-4)
    np.testing.assert_allclose(after.log_likelihood, ODDS[index], rtol=1e-5)
    rate = np.asarray(rate)
    assert np.all(rate == 1.0) if name == "gibbs" else 0.2 < rate.mean() < 1.0


def test_the_reference_alone_stays_and_among_many_is_forgotten():
    """One particle is a chain that stands still; many are as good as exact draws."""
    _, p = exact(1.0)
    first = int(np.argmin(np.where(p > 0, p, 1.0)))  # as unlikely as can be
    alone, rate = from_rows(ParticleGibbs(1), np.full(5, first), 1.0)
    np.testing.assert_array_equal(alone.tokens, np.tile(ALL[first], (5, 1)))
    np.testing.assert_allclose(alone.log_probs.sum(axis=1), LOG_P[first], rtol=1e-5)
    np.testing.assert_array_equal(rate, 0.0)
    among, rate = from_rows(ParticleGibbs(64), np.full(3_000, first), 1.0)
    assert distance(shares(among.tokens), p) < 0.06
    assert np.mean(rate) > 0.9


def test_from_what_cannot_be_to_what_can():
    """A constraint not yet met: the reference has no weight, and stays until another has."""
    worst = int(np.argmax(np.where(AGREES & np.isinf(ODDS), LOG_P, -np.inf)))
    after, _ = from_rows(KERNELS["particles"], np.full(COUNT, worst), 1.0)
    met = np.isfinite(after.log_likelihood)
    assert 0.5 < met.mean() < 1
    assert np.all(np.asarray(after.tokens)[~met] == ALL[worst])
    assert not np.isnan(after.log_probs).any()


def test_blocks_end_at_observed_tokens_and_when_full():
    observed = np.array([1, 0, 0, 0, 1, 1, 0, 1, 0, 0, 0, 0, 0], bool)
    for block, starts in ((1, [2, 3, 6, 8, 9, 10, 11, 12]), (2, [3, 6, 8, 10, 12]), (9, [6, 8])):
        np.testing.assert_array_equal(np.flatnonzero(block_starts(observed, block)), starts)


# The settings of several tests, which then share what is compiled.
CHAINS = {
    "gibbs": {"kernel": Gibbs(), "resample": None, "betas": schedules.linear(4)},
    "redraw": {"kernel": BlockMH(3), "betas": schedules.Adaptive(0.8)},
    "particles": {
        "kernel": ParticleGibbs(3),
        "resample": None,
        "betas": schedules.linear(4),
    },
}


@pytest.mark.parametrize("name", CHAINS)
def test_chains_find_the_posterior_from_anywhere(name):
    _, p = exact(1.0)
    result = infill(KEY, WISHED, num_chains=C, **CHAINS[name], num_steps=80, thin=2)
    assert result.draws.shape == (C, 40, T)
    assert distance(shares(result.draws[:, 10:]), p) < 0.04
    assert result.acceptance_rate.shape == (C,)
    np.testing.assert_array_equal(
        result.draws[..., SEEN], np.broadcast_to(GIVEN[SEEN], (C, 40, SEEN.sum()))
    )
    hidden = np.flatnonzero(~SEEN)
    each = T + int(np.sum(T - hidden)) * (V if name == "gibbs" else 1)
    if name == "particles":
        each = 3 * (T + T - 3)  # again from the first token after the observed one
    assert result.num_evaluations == T + (len(result.history.beta) - T + 80) * each


@pytest.mark.parametrize(("name", "exactness"), [("gibbs", "exact"), ("redraw", "adapted")])
def test_annealing_finds_log_z_with_a_likelihood(name, exactness):
    log_z, p = exact(1.0)
    keys = [jax.random.fold_in(KEY, i) for i in range(16)]
    found = [infill(key, WISHED, num_chains=C, **CHAINS[name]) for key in keys]
    z = np.exp([result.log_z - log_z for result in found])
    assert abs(z.mean() - 1) < 4 * z.std(ddof=1) / np.sqrt(len(z)) + 1e-3
    for result in found:
        assert abs(result.log_z - log_z) < 4.5 * result.log_z_standard_error
        assert result.exactness == exactness
    tokens = np.concatenate([result.tokens for result in found])
    weights = np.concatenate([result.weights * np.exp(result.log_z) for result in found])
    assert distance(shares(tokens, weights), p) < 0.08
    history = found[0].history
    assert len(history.beta) >= T + 2
    assert history.beta[T - 1] == 0
    assert history.beta[-1] == 1
    assert history.log_z[-1] == pytest.approx(found[0].log_z, abs=1e-5)


@pytest.mark.parametrize("move", ["gibbs", "particles"])
def test_a_chain_depends_on_its_key_alone(move):
    few, many = (infill(KEY, WISHED, num_chains=n, **CHAINS[move], num_steps=2) for n in (7, C))
    for name in ("draws", "tokens", "log_weight", "log_prior", "log_likelihood"):
        np.testing.assert_array_equal(getattr(few, name), np.asarray(getattr(many, name))[:7])


def test_new_tokens_masks_and_weights_compile_nothing():
    infill(KEY, PLAIN, num_chains=C, resample=None)
    with jax.log_compiles(), pytest.MonkeyPatch.context() as patch:
        seen = []
        patch.setattr("logging.Logger.warning", lambda self, text, *args: seen.append(text % args))
        other = LanguageModel(V, 5, 6, rngs=nnx.Rngs(9))
        infill(KEY, TokenPosterior(other, GIVEN + 1, ~SEEN), num_chains=C, resample=None)
    assert not [line for line in seen if "forward" in line and "ompil" in line]


def test_a_discriminator_s_odds_are_a_likelihood():
    """SeqGAN's reader: its logit is log D / (1 - D), the log density ratio of data to model."""
    reader = TextCNN(V, 3, ((1, 4), (2, 5)), rngs=nnx.Rngs(3))

    @pytree
    class Odds:
        network: nnx.Module

        def __call__(self, tokens):
            return self.network(tokens[None])[0]

    posterior = TokenPosterior(WRITER, GIVEN, SEEN, Odds(reader))
    posterior.check()
    log_p = jax.jit(jax.vmap(posterior))(jnp.asarray(ALL))
    wanted = np.where(AGREES, LOG_P + np.asarray(jax.jit(reader)(jnp.asarray(ALL))), -np.inf)
    np.testing.assert_allclose(log_p, wanted, rtol=1e-4)


def test_a_posterior_is_a_log_density():
    other = np.where(SEEN, (GIVEN + 1) % V, 0)
    assert float(PLAIN(jnp.asarray(other))) == -np.inf
    tokens = jnp.asarray([1, 1, 2, 3, 0])
    index = int(np.asarray(tokens) @ V ** np.arange(T)[::-1])
    np.testing.assert_allclose(WISHED(tokens, 0.5), LOG_P[index] + 0.5 * ODDS[index], rtol=1e-5)
    np.testing.assert_allclose(PLAIN.log_prior(tokens), LOG_P[index], rtol=1e-5)


# Equal first and last tokens are what the wishes forbid.
ENDS = np.array([True, False, False, False, True])
MISTAKES = [
    ({"tokens": GIVEN[None]}, {}, "tokens: expected integers"),
    ({"tokens": GIVEN + 0.5}, {}, "tokens: expected integers"),
    ({"tokens": GIVEN + 2}, {}, "from 0 to 3; got 4 to 4"),
    ({"observed": SEEN[1:]}, {}, "observed: expected booleans"),
    ({"observed": SEEN.astype(int)}, {}, "observed: expected booleans"),
    ({"observed": SEEN | True}, {}, "at least one hidden token"),
    ({"writer": lambda tokens: 0.0}, {}, "writer: expected a model with start"),
    ({"log_likelihood": 3.0}, {}, "log_likelihood: expected None or a function"),
    ({"log_likelihood": lambda tokens: tokens}, {}, "a scalar for one sequence"),
    (
        {"log_likelihood": WISHES, "tokens": np.array([1, 0, 0, 0, 1]), "observed": ENDS},
        {"num_chains": C, "resample": None},
        "some sequence satisfies",
    ),
    ({}, {"betas": [0, 1]}, "betas: expected None where there is no log_likelihood"),
    ({"log_likelihood": WISHES}, {"betas": [0, 2]}, "betas: expected numbers in"),
    ({}, {"proposal": 3}, "proposal: expected a model with start"),
    (
        {},
        {"proposal": LanguageModel(V + 1, 3, 3, rngs=nnx.Rngs(0))},
        "proposal: expected a model of 4",
    ),
    ({}, {"kernel": "gibbs"}, "kernel: expected Gibbs, BlockMH or ParticleGibbs"),
    ({}, {"kernel": ParticleGibbs(1)}, "num_particles: expected an integer of at least 2"),
    ({}, {"kernel": ParticleGibbs(2, block=0)}, "block: expected an integer of at least 1"),
    ({}, {"kernel": BlockMH(0)}, "block: expected a positive integer"),
    ({}, {"kernel": Gibbs(1.5)}, "chunk: expected a positive integer"),
    ({}, {"num_chains": 0}, "num_chains: expected an integer of at least 1"),
    ({}, {"lookahead": -1}, "lookahead: expected an integer of at least 0"),
    ({}, {"resample": "best"}, "None or one of systematic"),
    ({}, {"resample_threshold": 2}, "resample_threshold: expected a fraction"),
]


@pytest.mark.parametrize(("parts", "settings", "message"), MISTAKES)
def test_mistakes_are_named(parts, settings, message):
    made = {"writer": WRITER, "tokens": GIVEN, "observed": SEEN, **parts}
    with pytest.raises(InputError, match=message):
        infill(KEY, TokenPosterior(**made), **settings)


def test_what_is_not_a_posterior_is_refused():
    with pytest.raises(InputError, match="posterior: expected a TokenPosterior"):
        infill(KEY, WRITER)
