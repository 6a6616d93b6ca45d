"""Captions from measurements, and a captioner that learns them."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxgen.models.fashion_mnist.captioner import END
from jaxgen.models.fashion_mnist.cnn import Classifier
from jaxgen.train import captions as train
from jaxgen.train.loop import train_loop

CONFIG = train.CaptionsConfig(200, batch=32, lr=1e-2, hidden=16)


def blocks():
    """Images of one lit rectangle each: 3 widths, 3 shades, 4 copies."""
    images = np.zeros((36, 28, 28, 1), np.float32)
    for i in range(36):
        images[i, 5:20, : (4, 14, 28)[i % 3], 0] = (0.2, 0.5, 0.9)[i // 3 % 3]
    return images


def words(tokens):
    return " ".join(train.WORDS[i] for i in tokens if i != END)


def test_captions_say_what_was_measured():
    images = blocks()
    bounds = train.thirds(images)
    brightness, width = train.measured(images)
    np.testing.assert_allclose(brightness[[0, 3, 6]], [0.2, 0.5, 0.9], rtol=1e-6)
    np.testing.assert_allclose(width[:3], [4 / 28, 14 / 28, 1])
    said = train.captions(images, [3] * 35 + [9], bounds)
    assert words(said[0]) == "a dark narrow dress"
    assert words(said[1]) == "a dark dress"
    assert words(said[4]) == "a dress"
    assert words(said[8]) == "a bright wide dress"
    assert words(said[35]) == "a bright wide boot"
    # Words first, then the end to the last place.
    assert np.all(np.diff((said == END).astype(int), axis=1) >= 0)
    assert np.all(said[:, -1] == END)
    # An image with nothing in it is dark and narrow, not an error.
    assert words(train.captions(np.zeros_like(images[:1]), [0], bounds)[0]) == "a dark narrow top"


def test_a_captioner_learns_them_and_leaves_the_convolutions_alone():
    images = blocks()
    classifier = Classifier(rngs=nnx.Rngs(1))
    tokens = jnp.asarray(train.captions(images, [3] * 36, train.thirds(images)))
    h1 = jax.jit(classifier.spatial)(jnp.asarray(images))

    def batcher(arrays, key):
        rows = jax.random.randint(key, (CONFIG.batch,), 0, 36)
        return jax.tree.map(lambda x: x[rows], arrays)

    state = train_loop(
        jax.random.key(0),
        train.init(jax.random.key(1), CONFIG),
        train.make_step(CONFIG),
        batcher,
        (h1, tokens),
        steps=CONFIG.steps,
    )
    captioner = train.finish(state, CONFIG, classifier)
    np.testing.assert_array_equal(captioner.conv3.kernel[...], classifier.conv3.kernel[...])
    right = np.all(np.asarray(jax.jit(captioner)(jnp.asarray(images))) == tokens, axis=1)
    assert right.mean() > 0.9
    log_p = captioner.log_probs(captioner.context_of(h1), tokens).sum(axis=-1)
    assert float(jnp.exp(log_p).mean()) > 0.8
