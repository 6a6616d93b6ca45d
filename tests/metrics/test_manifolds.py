"""Precision and recall against a double loop."""

import numpy as np
import pytest

from jaxgen.core.errors import InputError
from jaxgen.metrics import precision_recall


def loop(generated, real, k):
    def inside(points, centres):
        radii = [np.sort(np.linalg.norm(centres - c, axis=1))[k] for c in centres]
        return np.mean(
            [
                any(np.linalg.norm(p - c) <= r for c, r in zip(centres, radii, strict=True))
                for p in points
            ]
        )

    return inside(generated, real), inside(real, generated)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_equals_a_loop(k):
    rng = np.random.default_rng(k)
    generated = rng.normal(0.8, 0.6, size=(40, 3)).astype(np.float32)
    real = rng.normal(size=(55, 3)).astype(np.float32)
    got = precision_recall(generated, real, neighbours=k)
    np.testing.assert_allclose(got, loop(generated, real, k), atol=1e-4)


def test_missing_modes_cost_recall_and_outliers_precision():
    rng = np.random.default_rng(0)
    real = np.concatenate([rng.normal(size=(50, 4)), 40 + rng.normal(size=(50, 4))])
    half = precision_recall(real[:50], real)
    assert (float(half.precision), float(half.recall)) == (1.0, 0.5)
    off = precision_recall(np.concatenate([real[:50], -99 - real[:50]]), real)
    assert float(off.precision) == 0.5
    same = precision_recall(real, real)
    assert (float(same.precision), float(same.recall)) == (1.0, 1.0)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="generated"):
        precision_recall(np.zeros((3, 2)), np.zeros((9, 2)))
    with pytest.raises(InputError, match="real"):
        precision_recall(np.zeros((9, 2)), np.zeros((9, 3)))
