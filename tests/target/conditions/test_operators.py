"""Linear operators against NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxgen.core.errors import InputError
from jaxgen.target.conditions import BoxAverage, GaussianBlur, Operator, RandomProjection, Stride

RNG = np.random.default_rng(0)
X, Y = (RNG.normal(size=(8, 12, 3)).astype(np.float32) for _ in range(2))
OPERATORS = {
    "box": BoxAverage(4),
    "stride": Stride(2),
    "blur": GaussianBlur.of(1.2),
    "projection": RandomProjection.of(jax.random.key(0), 7, X.shape),
}


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
def test_operators_are_linear(operator):
    np.testing.assert_allclose(
        operator(2.0 * X - 3.0 * Y), 2.0 * operator(X) - 3.0 * operator(Y), atol=2e-5
    )


def test_box_and_stride():
    wanted = [[X[r : r + 4, c : c + 4].mean(axis=(0, 1)) for c in (0, 4, 8)] for r in (0, 4)]
    np.testing.assert_allclose(BoxAverage(4)(X), wanted, atol=1e-6)
    np.testing.assert_array_equal(Stride(2)(X), X[::2, ::2])
    for operator in (BoxAverage(3), Stride(5)):
        with pytest.raises(InputError, match="divisor of 8 and 12"):
            operator(X)


def test_blur_equals_scipy():
    wanted = ndimage.gaussian_filter(X, (1.2, 1.2, 0), mode="nearest", radius=(4, 4, 0))
    np.testing.assert_allclose(GaussianBlur.of(1.2)(X), wanted, atol=1e-5)
    with pytest.raises(InputError, match="sigma"):
        GaussianBlur.of(0.0)


def test_projections_keep_lengths_on_average():
    operator = RandomProjection.of(jax.random.key(1), 400, X.shape)
    ratio = float(jnp.sum(operator(X) ** 2)) / np.sum(X**2)
    assert abs(ratio - 1) < 5 * np.sqrt(2 / 400)
    with pytest.raises(InputError, match="count"):
        RandomProjection.of(jax.random.key(1), 0, X.shape)


def test_another_blur_compiles_nothing():
    traced = []

    @jax.jit
    def density(condition, image):
        traced.append(1)
        return condition(image)

    for sigma in (0.8, 1.5):
        density(Operator(jnp.zeros(X.shape), 0.1, GaussianBlur.of(sigma, radius=4)), X)
    assert len(traced) == 1
