"""Evaluation of many positions: the numbers of one at a time, whatever the batch."""

import jax
import numpy as np
import pytest

from jaxgen.target.evaluation import evaluate
from tests.toys import LinearGaussian


@pytest.mark.parametrize("batch", [2, 5, 64])
def test_batches_give_what_single_positions_give(batch):
    posterior = LinearGaussian(3).posterior
    z = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    found = evaluate(posterior, z, batch=batch, images=True)
    wanted = np.array([posterior(x) for x in z])
    np.testing.assert_allclose(found.log_density, wanted, rtol=1e-5)
    np.testing.assert_allclose(found.log_prior, jax.vmap(posterior.log_prior)(z), rtol=1e-5)
    np.testing.assert_allclose(found.images, jax.vmap(posterior.image)(z), atol=1e-6)
    assert evaluate(posterior, z, batch=batch).images is None
