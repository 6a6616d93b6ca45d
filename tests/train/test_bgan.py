"""Boundary-seeking GANs: estimators against sums over all outcomes, and a run that learns."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgen.core.errors import InputError
from jaxgen.train import bgan
from jaxgen.train.loop import train_loop

V, T = 3, 2
ALL = jnp.asarray(list(itertools.product(range(V), repeat=T)))  # all nine sequences
SCORES = jnp.linspace(-1.0, 1.5, len(ALL)) ** 2  # any log w(x)
LOGITS = jax.random.normal(jax.random.key(0), (T, V))


def log_q(logits, tokens):
    log_p = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.take_along_axis(log_p, tokens[..., None], axis=-1)[..., 0], axis=-1)


def each(logits):
    """log q of all sequences."""
    return jax.vmap(lambda tokens: log_q(logits, tokens))(ALL)


def test_reinforce_is_unbiased():
    exact = jax.grad(lambda x: -jnp.sum(jnp.exp(each(x)) * SCORES))(LOGITS)
    q = jnp.exp(each(LOGITS))

    def estimate(i, baseline):
        score = SCORES[i].reshape(1, 1)
        return jax.grad(
            lambda x: bgan.surrogate(each(x)[i].reshape(1, 1), score, "reinforce", baseline)
        )(LOGITS)

    for baseline in (0.0, 0.7):
        # The expectation of the estimator over every sample, by its own code.
        estimates = jax.vmap(estimate, (0, None))(jnp.arange(len(ALL)), baseline)
        np.testing.assert_allclose(jnp.tensordot(q, estimates, 1), exact, atol=1e-5)


def test_importance_weights_pull_towards_w_q():
    """With many samples the gradient is that of the cross-entropy from w q / Z to q."""
    target = jax.nn.softmax(SCORES + each(LOGITS))
    exact = jax.grad(lambda x: -jnp.sum(target * each(x)))(LOGITS)

    def estimate(key):
        index = jax.random.categorical(key, each(LOGITS), shape=(4000, 1))
        return jax.grad(lambda x: bgan.surrogate(each(x)[index], SCORES[index], "importance"))(
            LOGITS
        )

    found = jax.vmap(estimate)(jax.random.split(jax.random.key(1), 64))
    error = found.std(axis=0) / 8
    assert jnp.all(jnp.abs(found.mean(axis=0) - exact) < 4 * error + 1e-3)
    assert jnp.max(error) < 0.05 * jnp.max(jnp.abs(exact))


def test_all_pairs_of_samples_give_the_expectation_of_two():
    """M = 2 by enumeration: the estimator's expectation is that of its weights."""
    q = jnp.exp(each(LOGITS))
    i, j = (x.ravel() for x in jnp.meshgrid(jnp.arange(len(ALL)), jnp.arange(len(ALL))))
    w = jax.nn.sigmoid(SCORES[i] - SCORES[j])
    exact = jax.grad(lambda x: -jnp.sum(q[i] * q[j] * (w * each(x)[i] + (1 - w) * each(x)[j])))
    pairs = jnp.stack([i, j])

    def one(pair):
        column = pair[:, None]
        return jax.grad(lambda x: bgan.surrogate(each(x)[column], SCORES[column], "importance"))(
            LOGITS
        )

    found = jnp.tensordot(q[i] * q[j], jax.vmap(one, 1)(pairs), 1)
    np.testing.assert_allclose(found, exact(LOGITS), atol=1e-5)


def test_weights_and_their_monitors():
    log_w = jnp.log(jnp.asarray([[1.0, 5.0], [3.0, 5.0]]))
    found = bgan.importance(log_w)
    np.testing.assert_allclose(found.weights, [[0.25, 0.5], [0.75, 0.5]], rtol=1e-5)
    np.testing.assert_allclose(found.ess, [1.6, 2.0], rtol=1e-5)
    np.testing.assert_allclose(found.log_z, np.log([2.0, 5.0]), rtol=1e-5)
    assert float(bgan.boundary_loss(jnp.asarray([1.0, 3.0]), 1.0)) == pytest.approx(1.0)


def test_log_q_of_what_is_drawn():
    p = jnp.asarray([0.2, 0.9, 0.5]).reshape(1, 1, 3, 1)
    x, got = bgan.bernoulli_images(lambda z: p, jnp.zeros((1, 4)), jax.random.key(0), 500)
    assert x.shape == (500, 1, 1, 3, 1)
    wanted = np.sum(np.where(x > 0.5, np.log(p), np.log(1 - p)), axis=(2, 3, 4))
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    np.testing.assert_allclose(x.mean(axis=0)[0], p[0], atol=0.08)
    x, got = bgan.categorical_tokens(
        lambda z: LOGITS[None], jnp.zeros((1, 4)), jax.random.key(0), 2000
    )
    assert x.shape == (2000, 1, T, V)
    wanted = jax.vmap(lambda tokens: log_q(LOGITS, tokens))(x.argmax(-1)[:, 0])
    np.testing.assert_allclose(got[:, 0], wanted, rtol=1e-5)
    np.testing.assert_allclose(x.mean(axis=0)[0], jax.nn.softmax(LOGITS), atol=0.05)


class Tokens(nnx.Module):
    """Logits of T tokens from a latent."""

    def __init__(self, rngs):
        self.layer = nnx.Linear(2, T * V, rngs=rngs)

    def __call__(self, z):
        return self.layer(z).reshape(-1, T, V)


class Ratio(nnx.Module):
    """A free output for one-hot sequences."""

    def __init__(self, rngs):
        self.one = nnx.Linear(T * V, 32, rngs=rngs)
        self.two = nnx.Linear(32, 1, rngs=rngs)

    def __call__(self, x):
        return self.two(nnx.relu(self.one(x.reshape(-1, T * V))))[:, 0]


def trained(form, steps):
    config = bgan.BGANConfig(
        steps=steps, batch=32, latent=2, samples=8, lr=3e-3, form=form, memory=0.95
    )
    generator, discriminator = Tokens(nnx.Rngs(0)), Ratio(nnx.Rngs(1))
    step = bgan.make_step(generator, discriminator, bgan.categorical_tokens, config)
    data = jnp.asarray([[0, 1], [0, 1], [2, 1], [0, 2]])

    def batcher(data, key):
        return jax.nn.one_hot(data[jax.random.randint(key, (32,), 0, len(data))], V)

    seen = []
    state = train_loop(
        jax.random.key(2),
        bgan.init(generator, discriminator, config),
        step,
        batcher,
        data,
        steps=steps,
        progress=lambda done, metrics: seen.append(metrics),
    )
    nnx.update(generator, state.generator)
    z = jax.random.normal(jax.random.key(3), (2000, 2))
    x, _ = bgan.categorical_tokens(generator, z, jax.random.key(4), 1)
    tokens = np.asarray(x.argmax(-1)[0])
    share = [np.mean(np.all(tokens == s, axis=1)) for s in ([0, 1], [2, 1], [0, 2])]
    return share, seen


@pytest.mark.parametrize("form", bgan.FORMS)
def test_it_learns_a_distribution_over_sequences(form):
    share, seen = trained(form, 800)
    assert sum(share) > 0.85  # three of nine sequences occur in the data
    assert share[0] > max(share[1:])
    assert 1.0 <= seen[-1]["ess"] <= 8.0


def test_what_cannot_be_used():
    with pytest.raises(InputError, match="form"):
        bgan.surrogate(jnp.zeros((1, 1)), jnp.zeros((1, 1)), "straight-through")
    config = bgan.BGANConfig(steps=1, divergence="wasserstein")
    with pytest.raises(InputError, match="divergence"):
        bgan.init(Tokens(nnx.Rngs(0)), Ratio(nnx.Rngs(1)), config)
