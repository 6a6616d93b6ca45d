"""The parts of the recipe of a classifier that rejects: failures and the temperature."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgen.metrics import expected_calibration_error
from jaxgen.models.fashion_mnist.cnn import Classifier
from jaxgen.train.rejecting import distances, fitted_temperature, with_temperature


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found(true):
    logits = 3.0 * jax.random.normal(jax.random.key(0), (20_000, 5))
    labels = jax.random.categorical(jax.random.key(1), logits / true)
    found = fitted_temperature(logits, labels)
    np.testing.assert_allclose(found, true, rtol=0.05)
    assert expected_calibration_error(logits / found, labels) < 0.012


def test_distances_are_those_of_the_nth_neighbour():
    points, others = (jax.random.normal(jax.random.key(k), (n, 4)) for k, n in ((0, 7), (1, 60)))
    every = np.linalg.norm(np.asarray(points)[:, None] - np.asarray(others)[None], axis=-1)
    for neighbour in (1, 3):
        found = distances(points, others, neighbour, batch=3)
        np.testing.assert_allclose(found, np.sort(every, axis=1)[:, neighbour - 1], rtol=1e-4)
    np.testing.assert_allclose(distances(others[:2], others, 1), 0.0, atol=1e-2)


def test_a_temperature_goes_into_the_weights():
    classifier = Classifier(3, width=4, hidden=5, rngs=nnx.Rngs(0))
    classifier.logits.bias[...] = jnp.array([1.0, -2.0, 0.5])
    images = jax.random.uniform(jax.random.key(0), (4, 28, 28, 1))
    before = classifier(images)
    np.testing.assert_allclose(with_temperature(classifier, 2.5)(images), before / 2.5, rtol=1e-5)


def test_the_maps_are_those_that_the_logits_are_made_of():
    classifier = Classifier(3, width=4, hidden=5, rngs=nnx.Rngs(0))
    image = jax.random.uniform(jax.random.key(0), (28, 28, 1))
    maps = classifier.maps(image)
    assert [m.shape for m in maps] == [(14, 14, 4), (7, 7, 8), (5,)]
    np.testing.assert_allclose(classifier.spatial(image), maps.late)
    logits = classifier.logits(jax.nn.gelu(maps.hidden))
    np.testing.assert_allclose(classifier(image), logits, rtol=1e-5)
