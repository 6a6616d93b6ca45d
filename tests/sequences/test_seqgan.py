"""SeqGAN's estimator against sums over all sequences, and short runs of its parts."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgen.models.text.language_models import LanguageModel, TextCNN
from jaxgen.sequences import seqgan
from jaxgen.train.loop import train_loop

V, T = 3, 3
ALL = jnp.asarray(list(itertools.product(range(V), repeat=T)))
REWARD = jnp.sin(jnp.arange(len(ALL)) * 1.7) ** 2  # of each sequence
WRITER = LanguageModel(V, 4, 5, scale=0.7, rngs=nnx.Rngs(0))
GRAPH, PARAMS = nnx.split(WRITER)


def score(tokens):
    return REWARD[tokens[:, 0] * V * V + tokens[:, 1] * V + tokens[:, 2]]


def probabilities(params):
    return jnp.exp(nnx.merge(GRAPH, params).log_probs(ALL).sum(axis=1))


P = np.asarray(jax.jit(probabilities)(PARAMS))


def exact_value(prefix):
    """E[reward | the sequence begins so], by enumeration."""
    p = P
    fits = np.all(np.asarray(ALL)[:, : len(prefix)] == np.asarray(prefix), axis=1)
    return np.sum(p[fits] * np.asarray(REWARD)[fits]) / np.sum(p[fits])


def test_action_values_are_conditional_expectations():
    tokens = jnp.asarray([[0, 2, 1], [1, 1, 0]])
    got = seqgan.action_values(jax.random.key(0), WRITER, score, tokens, 4000)
    for row, sequence in zip(np.asarray(got), np.asarray(tokens), strict=True):
        for t in range(T):
            assert abs(row[t] - exact_value(sequence[: t + 1])) < 0.03
    np.testing.assert_allclose(got[:, -1], score(tokens), rtol=1e-6)


def test_the_policy_gradient_is_that_of_the_expected_reward():
    exact = jax.grad(lambda params: -jnp.sum(probabilities(params) * REWARD))(PARAMS)
    # The expectation over every sequence of the estimator with exact values, by its own code.
    values = jnp.asarray(
        [[exact_value(s[: t + 1]) for t in range(T)] for s in np.asarray(ALL)], jnp.float32
    )
    p = probabilities(PARAMS)

    def estimate(params, tokens, value):
        return seqgan.policy_loss(nnx.merge(GRAPH, params), tokens[None], value[None])

    each = jax.jit(jax.vmap(jax.grad(estimate), (None, 0, 0)))(PARAMS, ALL, values)
    jax.tree.map(
        lambda got, want: np.testing.assert_allclose(jnp.tensordot(p, got, 1), want, atol=2e-5),
        each,
        exact,
    )


def test_the_sampled_policy_gradient_agrees_with_enumeration():
    exact = jax.grad(lambda params: -jnp.sum(probabilities(params) * REWARD))(PARAMS)

    @jax.jit
    def estimate(key):
        draw, roll = jax.random.split(key)
        tokens = WRITER.sample(draw, 200, T)
        values = seqgan.action_values(roll, WRITER, score, tokens, 2)

        def loss(params):
            return seqgan.policy_loss(nnx.merge(GRAPH, params), tokens, values) / 200

        return jax.grad(loss)(PARAMS)

    found = [estimate(key) for key in jax.random.split(jax.random.key(5), 60)]
    flat = np.stack([np.concatenate([x.ravel() for x in jax.tree.leaves(f)]) for f in found])
    want = np.concatenate([np.asarray(x).ravel() for x in jax.tree.leaves(exact)])
    error = flat.std(axis=0, ddof=1) / np.sqrt(len(flat))
    assert np.mean(np.abs(flat.mean(axis=0) - want) < 3 * error + 1e-6) > 0.98
    assert np.linalg.norm(error) < 0.25 * np.linalg.norm(want)


CONFIG = seqgan.SeqGANConfig(batch=32, length=T, rollouts=4, lr_reader=3e-3, penalty=0.01)


def batcher(data, key):
    return data[jax.random.randint(key, (32,), 0, len(data))]


def pretrained(data, steps=150):
    step = seqgan.likelihood_step(WRITER, CONFIG)
    state = seqgan.begin_likelihood(WRITER, CONFIG)
    return train_loop(jax.random.key(1), state, step, batcher, data, steps=steps)


def test_maximum_likelihood_reaches_the_data_s_entropy():
    data = jnp.asarray([[0, 1, 2]] * 3 + [[2, 2, 0]])
    state = pretrained(data)
    writer = nnx.merge(GRAPH, state.writer)
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25)) / T
    assert abs(float(seqgan.negative_log_likelihood(writer, data)) - entropy) < 0.03


def adversarial(data, steps, path=None):
    reader = TextCNN(V, 4, ((1, 8), (2, 8), (3, 8)), rngs=nnx.Rngs(2))
    state = seqgan.begin_adversarial(PARAMS, reader, CONFIG)
    return train_loop(
        jax.random.key(3),
        state,
        seqgan.round_step(WRITER, reader, CONFIG),
        lambda data, key: batcher(data, key)[None],
        data,
        steps=steps,
        chunk=2 if steps < 50 else 50,
        checkpoint=path,
    )


DATA = jnp.asarray([[0, 1, 2], [2, 2, 0]])


@pytest.mark.slow
def test_adversarial_training_alone_finds_what_the_data_are():
    state = adversarial(DATA, 400)

    def share(params):
        tokens = np.asarray(nnx.merge(GRAPH, params).sample(jax.random.key(9), 1000, T))
        return np.mean([list(s) in ([0, 1, 2], [2, 2, 0]) for s in tokens])

    assert share(state.writer) > 2 * share(PARAMS) + 0.1


@pytest.mark.slow
def test_a_stopped_run_goes_on_bit_for_bit(tmp_path):
    straight = adversarial(DATA, 4)
    adversarial(DATA, 2, tmp_path / "run")
    resumed = adversarial(DATA, 4, tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, straight, resumed)
    pairs = zip(jax.tree.leaves(straight.policy), jax.tree.leaves(straight.writer), strict=True)
    assert any(not np.array_equal(a, b) for a, b in pairs)  # the policy lags behind
