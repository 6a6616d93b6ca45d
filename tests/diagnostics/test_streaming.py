"""Draws summed up as they come, against all of them at once."""

import jax
import numpy as np
import pytest

from jaxgen.core.errors import InputError
from jaxgen.diagnostics.moments import pooled, quantiles
from jaxgen.diagnostics.streaming import BINS, folding, histogram_quantiles

RNG = np.random.default_rng(0)
IMAGES = RNG.beta(2, 5, size=(24, 6, 3, 4, 1)).astype(np.float32)  # [S, C, H, W, channels]


def misses(images):
    return images.mean(axis=(1, 2, 3)), images[:, 0, 0, 0]


def folded(ends):
    fold = folding(misses)
    chunks = [
        {"image": IMAGES[a:b], "position": IMAGES[a:b, :, 0, 0]}
        for a, b in zip((0, *ends[:-1]), ends, strict=True)
    ]
    sums = fold(None, chunks[0])
    for chunk in chunks[1:]:
        sums = fold(sums, chunk)
    return sums


def test_chunks_make_no_difference_and_sums_are_those_of_all_draws():
    one, many = folded((24,)), folded((1, 9, 10, 24))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), one, many)
    whole = pooled(many.moments)
    np.testing.assert_allclose(whole.mean, IMAGES.astype(float).mean(axis=(0, 1)), rtol=1e-9)
    np.testing.assert_allclose(whole.deviation, IMAGES.astype(float).std(axis=(0, 1)), rtol=1e-9)
    np.testing.assert_allclose(many.misses, IMAGES.mean(axis=(2, 3, 4)).sum(axis=0), rtol=1e-5)
    np.testing.assert_allclose(many.scales, IMAGES[:, :, 0, 0, 0].sum(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(many.last["image"], IMAGES[-1])
    np.testing.assert_array_equal(many.last["position"], IMAGES[-1, :, 0, 0])
    assert many.counts.sum() == IMAGES.size


def test_quantiles_of_the_histogram_are_within_a_grey_level():
    wanted = (0.05, 0.25, 0.5, 0.95)
    exact = quantiles(IMAGES.reshape(-1, 3, 4, 1), wanted)
    found = histogram_quantiles(folded((24,)).counts, wanted)
    spacing = 0.03  # of 144 draws, in the tails
    assert np.max(np.abs(found - exact)) < 1 / BINS + spacing
    assert np.mean(np.abs(found - exact)) < 1 / BINS
    constant = np.zeros((BINS, 2), np.int32)
    constant[[0, BINS - 1], [0, 1]] = 40  # saturated pixels: black and white
    low, high = histogram_quantiles(constant, (0.05, 0.95))
    np.testing.assert_allclose(low, [0, 1], atol=1 / BINS)
    np.testing.assert_allclose(high, [0, 1], atol=1 / BINS)
    with pytest.raises(InputError, match="probabilities"):
        histogram_quantiles(constant, (0.0,))


def test_a_later_chunk_leaves_earlier_sums_alone():
    fold = folding(misses)
    first = fold(None, {"image": IMAGES[:3], "position": IMAGES[:3]})
    before = first.counts.copy()
    fold(first, {"image": IMAGES[3:], "position": IMAGES[3:]})
    np.testing.assert_array_equal(first.counts, before)
