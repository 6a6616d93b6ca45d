"""A run, and what its results have to agree in, for the tests of JAX's transformations."""

import functools

import jax
import numpy as np

import jaxgen
from jaxgen.core.pytree import replace
from tests.toys import LinearGaussian

KEY = jax.random.key(5)
TOY = LinearGaussian(4, noise=0.3, seed=1)
NUMBERS = ("log_z", "log_z_standard_error", "log_weight", "position", "num_gradients")
run = functools.partial(jaxgen.sample, num_chains=16, num_steps=4, warmup=3)


def observed(y):
    """The toy with another observation."""
    condition = TOY.posterior.condition
    return jaxgen.Posterior(
        TOY.posterior.prior, TOY.posterior.generator, replace(condition, observed=y)
    )


def same_bits(a, b, names):
    for name in names:
        np.testing.assert_array_equal(np.asarray(getattr(a, name)), np.asarray(getattr(b, name)))
