"""Infillers and readers of filled text against NumPy and against sums over all fillings."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgen.core.errors import InputError
from jaxgen.models.text.infillers import FilledReader, Infiller

V, T = 3, 4
INFILLER = Infiller(V, 4, 5, scale=0.8, rngs=nnx.Rngs(0))
READER = FilledReader(V, 4, 5, scale=0.8, rngs=nnx.Rngs(1))
CRITIC = FilledReader(V, 4, 5, critic=True, scale=0.8, rngs=nnx.Rngs(2))
ROW = jnp.asarray([[2, 0, 1, 1]])
PRESENT = jnp.asarray([[True, False, True, False]])
ALL = jnp.asarray(list(itertools.product(range(V), repeat=T)))
LOG_PROBS, FILL = jax.jit(INFILLER.log_probs), jax.jit(INFILLER.fill)


def fits(present):
    """Which of all sequences are fillings of the row."""
    return np.all((np.asarray(ALL) == np.asarray(ROW[0])) | ~np.asarray(present), axis=1)


def advance(cell, state, token):
    """SeqGAN's recurrence in float64."""
    h, c = state
    w, u, b, embedding = (
        np.asarray(x[...], np.float64) for x in (cell.w, cell.u, cell.b, cell.embedding)
    )
    i, f, o, candidate = np.split(embedding[token] @ w + h @ u + b, 4)
    i, f, o = (1 / (1 + np.exp(-x)) for x in (i, f, o))
    c = f * c + i * np.tanh(candidate)
    return o * np.tanh(c), c


def transcription(network, tokens, present, shift):
    """h~ of one sequence, loop by loop."""
    state, memory = (np.zeros(5), np.zeros(5)), []
    for token, known in zip(tokens, present, strict=True):
        state = advance(network.encoder, state, token if known else V)
        memory.append(state[0])
    found = []
    for token in [V, *tokens[:-1]] if shift else tokens:
        state = advance(network.decoder, state, token)
        scores = np.array([state[0] @ network.w_a[...] @ e for e in memory])
        weights = np.exp(scores) / np.exp(scores).sum()
        context = sum(a * e for a, e in zip(weights, memory, strict=True))
        found.append(np.tanh(np.concatenate([context, state[0]]) @ network.w_c[...]))
    return np.array(found)


def test_log_probs_are_the_networks_transcribed():
    tokens, present = np.asarray(ROW[0]), np.asarray(PRESENT[0])
    logits = transcription(INFILLER, tokens, present, True) @ np.asarray(INFILLER.out.kernel[...])
    logits = logits + np.asarray(INFILLER.out.bias[...])
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    wanted = np.where(present, 0, log_p[np.arange(T), tokens])
    np.testing.assert_allclose(INFILLER.log_probs(ROW, PRESENT)[0], wanted, rtol=1e-4)


@pytest.mark.parametrize("network", [READER, CRITIC])
def test_readers_are_the_networks_transcribed(network):
    tokens, present = np.asarray(ROW[0]), np.asarray(PRESENT[0])
    h = transcription(network, tokens, present, network.critic)
    wanted = h @ np.asarray(network.out.kernel[...]) + np.asarray(network.out.bias[...])
    np.testing.assert_allclose(network(ROW, PRESENT)[0], wanted[:, 0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mask", list(itertools.product([True, False], repeat=T)))
def test_the_probabilities_of_all_fillings_add_up_to_one(mask):
    present = jnp.broadcast_to(jnp.asarray(mask), ALL.shape)
    total = np.sum(np.exp(np.asarray(LOG_PROBS(ALL, present)).sum(axis=1))[fits(mask)])
    assert abs(total - 1) < 1e-5


def test_fillings_occur_as_often_as_they_should_and_given_tokens_stay():
    count = 20_000
    present = jnp.broadcast_to(PRESENT, (count, T))
    found = np.asarray(FILL(jax.random.key(1), jnp.broadcast_to(ROW, (count, T)), present))
    np.testing.assert_array_equal(found[:, [0, 2]], np.tile([2, 1], (count, 1)))
    share = np.bincount(found[:, 1] * V + found[:, 3], minlength=V * V) / count
    log_p = np.asarray(LOG_PROBS(ALL, jnp.broadcast_to(PRESENT, ALL.shape)).sum(axis=1))
    wanted = np.exp(log_p[fits(PRESENT[0])])
    assert np.all(np.abs(share - wanted) < 4.5 * np.sqrt(wanted / count) + 1e-4)


def test_given_tokens_are_never_changed():
    tokens = jax.random.randint(jax.random.key(2), (500, T), 0, V)
    present = jax.random.bernoulli(jax.random.key(3), 0.5, (500, T))
    filled = FILL(jax.random.key(4), tokens, present)
    np.testing.assert_array_equal(filled[present], tokens[present])
    assert np.any(filled[~present] != tokens[~present])
    assert filled.dtype == tokens.dtype
    assert int(filled.min()) >= 0
    assert int(filled.max()) < V


def test_what_stood_at_a_blank_is_not_seen():
    other = ROW.at[0, 1].set(2).at[0, 3].set(0)
    key = jax.random.key(5)
    np.testing.assert_array_equal(FILL(key, ROW, PRESENT), FILL(key, other, PRESENT))


def test_who_sees_which_token():
    """The discriminator's number at t sees token t and none after it; the critic's not even t."""
    others = [ROW.at[0, t].set((ROW[0, t] + 1) % V) for t in range(T)]
    rows = jnp.concatenate([ROW, *others])
    for network, later in ((READER, 0), (CRITIC, 1)):
        found = np.asarray(network(rows, jnp.zeros(rows.shape, bool)))
        for t in range(T):
            moved = found[1 + t] != found[0]
            assert not moved[: t + later].any()
            assert moved[t + later :].all()


def test_attention_weights_add_up_to_one():
    tokens = jax.random.randint(jax.random.key(6), (7, T), 0, V)
    memory = jax.jit(INFILLER.encode)(tokens, tokens > 0)
    hidden = jax.random.normal(jax.random.key(7), (7, 3, 5))
    weights = INFILLER.attention(memory, hidden)
    assert weights.shape == (7, 3, T)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-6)
    assert float(weights.min()) >= 0
    assert float(weights.std()) > 0.01  # it does not just average


@pytest.mark.parametrize("network", [INFILLER.log_probs, READER, CRITIC])
def test_masks_of_another_shape_are_refused(network):
    with pytest.raises(InputError, match=r"present: expected shape \[1, 4\]; got \[4\]"):
        network(ROW, PRESENT[0])
    with pytest.raises(InputError, match=r"tokens: expected shape \[B, T\]; got \[4\]"):
        network(ROW[0], PRESENT[0])
    with pytest.raises(InputError, match="present"):
        INFILLER.fill(jax.random.key(0), ROW, PRESENT[:, :3])


def test_a_reader_begins_from_the_infiller_s_trunk():
    reader = FilledReader(V, 4, 5, critic=True, rngs=nnx.Rngs(9))
    before = reader(ROW, PRESENT)
    reader.begin_from(INFILLER)
    h = INFILLER.features(ROW, PRESENT, shift=True)
    np.testing.assert_allclose(reader(ROW, PRESENT), reader.out(h)[..., 0], rtol=1e-6)
    assert not np.allclose(before, reader(ROW, PRESENT))
    # A copy: what is learned in one does not move the other.
    reader.decoder.b[...] = reader.decoder.b[...] + 1
    reader.w_c[...] = reader.w_c[...] + 1
    np.testing.assert_array_equal(h, INFILLER.features(ROW, PRESENT, shift=True))
    with pytest.raises(InputError, match=r"other: expected .* = \[3, 4, 20\]; got \[3, 4, 24\]"):
        reader.begin_from(Infiller(V, 4, 6, rngs=nnx.Rngs(9)))
