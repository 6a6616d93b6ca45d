"""Layout transforms against plain loops in the source's own layout."""

import itertools

import numpy as np
import pytest

from weights_convert import layouts


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_dense_after_flatten_reads_the_image_in_the_new_order(rng):
    image, matrix = rng.normal(size=(3, 4, 5)), rng.normal(size=(7, 60))
    converted = layouts.dense_after_flatten(3, 4, 5)(matrix)
    np.testing.assert_allclose(
        layouts.chw_to_hwc(image).reshape(-1) @ converted, matrix @ image.reshape(-1), rtol=1e-12
    )


def test_dense_before_reshape_writes_the_image_in_the_new_order(rng):
    code, matrix, bias = rng.normal(size=7), rng.normal(size=(60, 7)), rng.normal(size=60)
    image = (matrix @ code + bias).reshape(3, 4, 5)
    flat = code @ layouts.dense_before_reshape(3, 4, 5)(matrix)
    flat = flat + layouts.vector_before_reshape(3, 4, 5)(bias)
    np.testing.assert_allclose(flat.reshape(4, 5, 3), layouts.chw_to_hwc(image), rtol=1e-12)


def test_conv_is_a_correlation_in_hwio(rng):
    kernel = rng.normal(size=(4, 3, 2, 5))
    converted = layouts.conv(kernel)
    for o, i, y, x in itertools.product(range(4), range(3), range(2), range(5)):
        assert converted[y, x, i, o] == kernel[o, i, y, x]


@pytest.mark.parametrize("groups", [1, 2])
def test_deconv_is_the_turned_kernel_of_each_group(rng, groups):
    kernel = rng.normal(size=(4, 3, 2, 5))
    converted = layouts.deconv(groups)(kernel)
    assert converted.shape == (2, 5, 4 // groups, 3 * groups)
    per_group = 4 // groups
    for g, i, o, y, x in itertools.product(
        range(groups), range(per_group), range(3), range(2), range(5)
    ):
        assert converted[1 - y, 4 - x, i, g * 3 + o] == kernel[g * per_group + i, o, y, x]


def test_chw_and_hwc_are_inverse(rng):
    image = rng.normal(size=(2, 3, 4, 5))
    assert layouts.chw_to_hwc(image).shape == (2, 4, 5, 3)
    np.testing.assert_array_equal(layouts.hwc_to_chw(layouts.chw_to_hwc(image)), image)


def test_fold_caffe_batch_norm_divides_by_the_factor():
    mean, variance = layouts.fold_caffe_batch_norm(
        np.float32([4, 8]), np.float32([2, 6]), np.float32([4])
    )
    np.testing.assert_array_equal(mean, [1, 2])
    np.testing.assert_array_equal(variance, [0.5, 1.5])
    zeros = layouts.fold_caffe_batch_norm(np.float32([4]), np.float32([2]), np.float32([0]))
    assert zeros[0] == 0
    assert zeros[1] == 0


@pytest.mark.parametrize(
    "call",
    [
        lambda: layouts.conv(np.zeros((2, 3))),
        lambda: layouts.dense(np.zeros(3)),
        lambda: layouts.deconv(3)(np.zeros((4, 3, 2, 2))),
        lambda: layouts.dense_after_flatten(2, 3, 4)(np.zeros((5, 25))),
        lambda: layouts.dense_before_reshape(2, 3, 4)(np.zeros((25, 5))),
        lambda: layouts.chw_to_hwc(np.zeros((2, 3))),
        lambda: layouts.fold_caffe_batch_norm(np.zeros(2), np.zeros(2), np.zeros(2)),
    ],
)
def test_wrong_shapes_are_named(call):
    with pytest.raises(ValueError, match="expected"):
        call()
