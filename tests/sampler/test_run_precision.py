"""With JAX's x64 switched on, runs keep the precision of their latents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen import kernels
from tests import toys


@pytest.mark.parametrize(
    "kernel", [None, kernels.MALA(), kernels.EllipticalSlice()], ids=["HMC", "MALA", "slice"]
)
def test_float32_latents_stay_so_under_x64(kernel):
    with jax.enable_x64(True):
        model = toys.LinearGaussian(3, noise=0.5, seed=3)
        result = jaxgen.sample(
            jax.random.key(0), model.posterior, kernel, num_chains=64, num_steps=4
        )
        assert result.position.dtype == jnp.float32
        assert result.state.beta.dtype == jnp.float32
        assert result.draws.dtype == np.float32
        error = abs(result.log_z - model.log_z)
        assert error < 5 * result.log_z_standard_error + 0.02


@pytest.mark.slow
def test_float64_latents_are_sampled_in_float64():
    with jax.enable_x64(True):
        like = jaxgen.Gaussian(jnp.zeros(2, jnp.float64), jnp.ones(2, jnp.float64))
        posterior = jaxgen.Posterior(
            like, toys.RowImage(), jaxgen.conditions.Term(toys.Skewed(jnp.float64(1.5)))
        )
        result = jaxgen.sample(jax.random.key(0), posterior, num_chains=64, num_steps=4)
        assert result.position.dtype == jnp.float64
        assert result.state.log_weight.dtype == jnp.float64
        z = np.linspace(-12, 6, 20001)
        density = np.exp(-0.5 * z**2 + 1.5 * z - np.exp(z)) / np.sqrt(2 * np.pi)
        truth = 2 * np.log(np.sum(density) * (z[1] - z[0]))
        assert result.log_z == pytest.approx(truth, abs=5 * result.log_z_standard_error + 0.02)
