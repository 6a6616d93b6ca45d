"""Each training method on tiny data: it learns, and its parts are what they claim to be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgen import data
from jaxgen.models.fashion_mnist.cnn import Classifier
from jaxgen.train import classifier, gan, toy, vae
from jaxgen.train.loop import train_loop


def stripes(key, count):
    """Images of ten classes: a bright row whose height is the class."""
    labels = jnp.arange(count) % 10
    rows = jax.nn.one_hot(2 + 2 * labels, 28)
    images = 0.8 * jnp.broadcast_to(rows[:, :, None, None], (count, 28, 28, 1))
    noise = 0.1 * jax.random.uniform(key, images.shape)
    return images + noise, labels


def means(key, state, step, batcher, arrays, steps, chunk):
    seen = []
    state = train_loop(
        key,
        state,
        step,
        batcher,
        arrays,
        steps=steps,
        chunk=chunk,
        progress=lambda done, metrics: seen.append(metrics),
    )
    return state, seen


def test_classifier_learns():
    config = classifier.ClassifierConfig(
        steps=40, batch=20, lr=3e-3, warmup=5, label_smoothing=0.0, mirror=False
    )
    model = Classifier(width=4, hidden=16, dropout=0.1, rngs=nnx.Rngs(0))
    arrays = stripes(jax.random.key(0), 100)

    def batcher(arrays, key):
        rows = jax.random.randint(key, (20,), 0, 100)
        return arrays[0][rows], arrays[1][rows]

    step = classifier.make_step(model, config)
    _, seen = means(
        jax.random.key(1), classifier.init(model, config), step, batcher, arrays, 40, 10
    )
    assert seen[-1]["loss"] < 0.75 * seen[0]["loss"]
    assert seen[-1]["accuracy"] > seen[0]["accuracy"]


def test_augment_shifts_and_mirrors_whole_images():
    images = jnp.zeros((64, 9, 9, 1)).at[:, 4, 4].set(1.0).at[:, 4, 5].set(0.5)
    moved = classifier.augment(jax.random.key(0), images, 2)
    np.testing.assert_allclose(jnp.sum(moved, axis=(1, 2, 3)), 1.5)
    places = jnp.argmax(moved.reshape(64, -1), axis=1)
    assert set(np.asarray(places // 9)) == {2, 3, 4, 5, 6}
    assert set(np.asarray(places % 9)) == {2, 3, 4, 5, 6}
    still = classifier.augment(jax.random.key(0), images, 0, mirror=False)
    np.testing.assert_array_equal(still, images)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_vae_learns(likelihood):
    config = vae.VAEConfig(steps=30, likelihood=likelihood, batch=20, latent=4)
    images, _ = stripes(jax.random.key(0), 100)
    state, seen = means(
        jax.random.key(1),
        vae.init(jax.random.key(2), config),
        vae.make_step(config),
        lambda images, key: images[jax.random.randint(key, (20,), 0, 100)],
        images,
        30,
        10,
    )
    assert seen[-1]["loss"] < seen[0]["loss"] - 50
    for metrics in seen:
        np.testing.assert_allclose(
            metrics["loss"], metrics["kl"] - metrics["log_likelihood"], rtol=1e-4
        )
    encoder, decoder = vae.finish(state, config)
    assert encoder(images).shape == (100, 2, 4)
    assert decoder(jnp.zeros(4)).shape == (28, 28, 1)
    assert (decoder.log_sigma is not None) == (likelihood == "gaussian")


def test_gan_step_trains_both_players():
    config = gan.GANConfig(steps=6, batch=8, latent=4, width=4)
    images, _ = stripes(jax.random.key(0), 40)
    first = gan.init(jax.random.key(2), config)
    last, seen = means(
        jax.random.key(1),
        first,
        gan.make_step(config),
        lambda images, key: images[jax.random.randint(key, (8,), 0, 40)],
        images,
        6,
        3,
    )
    assert all(np.isfinite(v) for m in seen for v in m.values())
    assert seen[-1]["real"] - seen[-1]["fake"] > seen[0]["real"] - seen[0]["fake"]
    for part in ("generator", "discriminator", "average", "statistics"):
        old, new = (jax.tree.leaves(getattr(s, part)) for s in (first, last))
        assert any(not np.array_equal(a, b) for a, b in zip(old, new, strict=True)), part
    generator, discriminator = gan.finish(jax.random.key(3), last, config, count=200)
    drawn = generator(jax.random.normal(jax.random.key(4), (5, 4)))
    assert drawn.shape == (5, 28, 28, 1)
    # Every kernel of the kept discriminator has spectral norm 1.
    for layer in (discriminator.conv1, discriminator.conv2, discriminator.conv3):
        matrix = np.asarray(layer.kernel[...]).reshape(-1, layer.kernel.shape[-1])
        np.testing.assert_allclose(np.linalg.svd(matrix, compute_uv=False)[0], 1.0, rtol=2e-2)


def test_power_iteration_finds_the_largest_singular_value():
    matrix = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
    params, vectors = {"w": matrix}, {"w": jnp.ones(5)}
    for _ in range(200):
        vectors = gan.power_iteration(params, vectors)
    divided = gan.divide(params, vectors)["w"]
    largest = np.linalg.svd(np.asarray(matrix).reshape(-1, 5), compute_uv=False)[0]
    np.testing.assert_allclose(divided, matrix / largest, rtol=1e-4)


def test_toy_gan_moves_towards_the_modes():
    config = toy.ToyConfig(steps=500, batch=256)

    def near(state):
        points = toy.finish(state)(jax.random.normal(jax.random.key(9), (2000, 2)))
        return float(toy.coverage(points)[0])

    first = toy.init(jax.random.key(0), config)
    last = train_loop(
        jax.random.key(1),
        first,
        toy.make_step(config),
        lambda _, key: data.toy_ring(key, 256),
        (),
        steps=500,
        chunk=500,
    )
    assert near(first) < 0.2
    assert near(last) > 0.3


def test_coverage_counts_points_and_modes():
    points = jnp.concatenate([data.ring_modes(), data.ring_modes()[:1] * 1.1, jnp.zeros((2, 2))])
    near, shares = toy.coverage(points + 1e-6)
    assert near == 6 / 8
    np.testing.assert_allclose(jnp.sum(shares), 1.0)
    assert shares[0] >= 2 / 8
