"""Writers and readers of token sequences against NumPy and against sums over all sequences."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxgen.models.text.language_models import LanguageModel, TextCNN, draw_token

V, T = 4, 3
ALL = jnp.asarray(list(itertools.product(range(V), repeat=T)))
WRITER = LanguageModel(V, 5, 6, scale=0.8, rngs=nnx.Rngs(0))


def transcription(writer, tokens):
    """SeqGAN's recurrence, one token of one sequence at a time, in float64."""
    w, u, b = (np.asarray(x[...], np.float64) for x in (writer.w, writer.u, writer.b))
    embedding, w_out, b_out = (
        np.asarray(x[...], np.float64) for x in (writer.embedding, writer.w_out, writer.b_out)
    )
    size = len(u)
    h, c, last, found = np.zeros(size), np.zeros(size), writer.start, []
    for token in tokens:
        gates = embedding[last] @ w + h @ u + b
        i, f, o = (1 / (1 + np.exp(-gates[k * size : (k + 1) * size])) for k in range(3))
        c = f * c + i * np.tanh(gates[3 * size :])
        h = o * np.tanh(c)
        logits = h @ w_out + b_out
        found.append(logits[token] - np.log(np.sum(np.exp(logits))))
        last = token
    return np.array(found)


def test_log_probs_are_the_recurrence_s():
    got = WRITER.log_probs(ALL)
    for row in (0, 17, 63):
        np.testing.assert_allclose(got[row], transcription(WRITER, np.asarray(ALL[row])), rtol=1e-4)


def test_the_probabilities_of_all_sequences_add_up_to_one():
    assert abs(float(jnp.sum(jnp.exp(WRITER.log_probs(ALL).sum(axis=1)))) - 1) < 1e-5


def test_samples_occur_as_often_as_they_should():
    tokens = np.asarray(WRITER.sample(jax.random.key(1), 20_000, T))
    index = tokens @ np.array([V * V, V, 1])
    share = np.bincount(index, minlength=len(ALL)) / len(tokens)
    wanted = np.exp(np.asarray(WRITER.log_probs(ALL).sum(axis=1)))
    assert np.all(np.abs(share - wanted) < 4.5 * np.sqrt(wanted / len(tokens)) + 1e-4)


def test_completions_keep_what_is_known_and_draw_the_rest_by_its_conditionals():
    prefix = jnp.broadcast_to(jnp.asarray([2, 1, 3]), (20_000, T))
    found = np.asarray(jax.jit(WRITER.complete)(jax.random.key(2), prefix, jnp.asarray(2)))
    np.testing.assert_array_equal(found[:, :2], prefix[:, :2])
    last = jnp.asarray([[2, 1, v] for v in range(V)])
    wanted = np.exp(np.asarray(WRITER.log_probs(last)[:, 2]))
    share = np.bincount(found[:, 2], minlength=V) / len(found)
    np.testing.assert_allclose(share, wanted, atol=0.02)
    whole = WRITER.complete(jax.random.key(2), prefix[:5], jnp.asarray(T))
    np.testing.assert_array_equal(whole, prefix[:5])


def test_tokens_of_large_vocabularies_are_drawn_right():
    logits = jnp.full((4000, 5000), -30.0).at[:, 4999].set(0.0).at[:, 17].set(jnp.log(3.0))
    drawn = np.asarray(draw_token(jax.random.key(0), logits))
    assert set(np.unique(drawn)) == {17, 4999}
    assert abs(np.mean(drawn == 17) - 0.75) < 0.03


def test_a_reader_is_kim_s_network():
    reader = TextCNN(V, 3, ((1, 4), (2, 5)), rngs=nnx.Rngs(3))
    got = reader(ALL[:7])
    for row in range(7):
        x = np.asarray(reader.embedding[...])[np.asarray(ALL[row])]
        h = []
        for layer, width in zip(reader.filters, (1, 2), strict=True):
            kernel = np.asarray(layer.kernel[...]).reshape(width, 3, -1)
            maps = [
                np.maximum(np.einsum("we,weo->o", x[t : t + width], kernel) + layer.bias[...], 0)
                for t in range(T - width + 1)
            ]
            h.append(np.max(maps, axis=0))
        h = np.concatenate(h)
        gate = 1 / (1 + np.exp(-(h @ reader.gate.kernel[...] + reader.gate.bias[...])))
        moved = np.maximum(h @ reader.transform.kernel[...] + reader.transform.bias[...], 0)
        h = gate * moved + (1 - gate) * h
        wanted = h @ reader.out.kernel[...] + reader.out.bias[...]
        np.testing.assert_allclose(got[row], wanted[0], rtol=1e-4, atol=1e-5)


def test_units_are_dropped_in_training_only():
    reader = TextCNN(V, 3, ((1, 40),), 0.5, rngs=nnx.Rngs(3))
    np.testing.assert_array_equal(reader(ALL), reader(ALL))
    one, two = reader(ALL, jax.random.key(0)), reader(ALL, jax.random.key(1))
    assert not np.allclose(one, two)
    np.testing.assert_array_equal(one, reader(ALL, jax.random.key(0)))
