"""Pairwise similarity against scikit-image, the jackknife against a loop and a simulation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from jaxgen.core.errors import InputError
from jaxgen.metrics import (
    class_similarity,
    jackknife_standard_error,
    ms_ssim,
    mse,
    pairwise_similarity,
    share_of_diverse_classes,
    within_class_diversity,
)


def images_of(seed, count=7, shape=(12, 10, 2)):
    return np.random.default_rng(seed).uniform(size=(count, *shape)).astype(np.float32)


def similarity_matrix(images):
    return np.array(
        [
            [
                structural_similarity(
                    a.astype(float), b.astype(float), data_range=1.0, channel_axis=-1
                )
                for b in images
            ]
            for a in images
        ]
    )


@pytest.mark.parametrize("batch_size", [1, 4, 1000])
def test_pairwise_similarity_equals_scikit_image(batch_size):
    images = images_of(0)
    np.testing.assert_allclose(
        pairwise_similarity(images, batch_size=batch_size), similarity_matrix(images), atol=1e-5
    )


def test_diversity_and_its_standard_error_equal_a_loop():
    images = images_of(1)
    matrix, count = similarity_matrix(images), len(images)

    def diversity(kept):
        return 1 - np.mean([matrix[i, j] for i in kept for j in kept if i < j])

    without_one = [diversity([j for j in range(count) if j != i]) for i in range(count)]
    error = np.sqrt((count - 1) / count * np.sum((without_one - np.mean(without_one)) ** 2))
    result = jax.jit(within_class_diversity)(images)
    np.testing.assert_allclose(result.diversity, diversity(range(count)), atol=1e-5)
    np.testing.assert_allclose(result.standard_error, error, rtol=1e-3)


def test_copies_have_no_diversity_and_noise_has_nearly_all():
    copies = np.repeat(images_of(2, count=1, shape=(28, 28, 1)), 5, axis=0)
    result = within_class_diversity(copies)
    np.testing.assert_allclose(result.diversity, 0.0, atol=1e-5)
    np.testing.assert_allclose(result.standard_error, 0.0, atol=1e-5)
    assert within_class_diversity(images_of(3, shape=(28, 28, 1))).diversity > 0.9
    multi_scale = functools.partial(ms_ssim, num_scales=1)
    np.testing.assert_allclose(within_class_diversity(copies, multi_scale).diversity, 0, atol=1e-5)


def test_jackknife_of_a_mean_is_the_textbook_standard_error():
    values = np.random.default_rng(4).normal(size=(20, 3)).astype(np.float32)
    without_one = (values.sum(axis=0) - values) / 19
    wanted = values.std(axis=0, ddof=1) / np.sqrt(20)
    np.testing.assert_allclose(
        jackknife_standard_error(jnp.asarray(without_one)), wanted, rtol=1e-4
    )


def test_standard_error_predicts_the_spread_over_repetitions():
    """Images of one grey level each: 1 - similarity is the squared difference of the levels."""

    def one(key):
        levels = jax.random.uniform(key, (30, 1, 1, 1))
        return within_class_diversity(levels, lambda a, b: 1.0 - mse(a, b))

    result = jax.vmap(one)(jax.random.split(jax.random.key(0), 300))
    np.testing.assert_allclose(result.diversity.mean(), 1 / 6, atol=0.005)
    spread = result.diversity.std()
    np.testing.assert_allclose(result.standard_error.mean(), spread, rtol=0.12)


def test_bad_images_are_refused():
    with pytest.raises(InputError, match="images"):
        within_class_diversity(images_of(5, count=2))
    with pytest.raises(InputError, match="images"):
        pairwise_similarity(images_of(5)[0])
    with pytest.raises(InputError, match="batch_size"):
        pairwise_similarity(images_of(5), batch_size=0)


def test_class_similarity_takes_pairs_within_a_class_only():
    images = images_of(6, count=9, shape=(16, 16, 1))
    labels = np.array([0, 1, 0, 1, 1, 2, 0, 1, 0])
    result = class_similarity(images, labels, 4)
    for label in (0, 1):
        rows = np.flatnonzero(labels == label)
        pairs = [ms_ssim(images[i], images[j]) for i in rows for j in rows if i < j]
        np.testing.assert_allclose(result.by_class[label], np.mean(pairs), atol=1e-5)
    assert np.isnan(result.by_class[2:]).all()
    np.testing.assert_allclose(result.mean, result.by_class[:2].mean(), rtol=1e-6)
    with pytest.raises(InputError, match="two images"):
        class_similarity(images[:2], np.array([0, 1]), 2)


def test_share_of_classes_more_diverse_than_the_least_diverse_real_one():
    real = np.array([0.1, 0.3, 0.2])
    assert share_of_diverse_classes(np.array([0.25, 0.35, 0.29]), real) == pytest.approx(2 / 3)
    assert share_of_diverse_classes(np.array([0.25, np.nan, 0.4]), real) == 0.5
