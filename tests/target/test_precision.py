"""Types: float64 switched on, strict promotion, and who decides the precision."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen.target import conditions as c
from jaxgen.target.conditions import operators, regularizers

SHAPE = (28, 28, 1)
DCGAN = jaxgen.load("fashion-mnist/dcgan")
CNN = jaxgen.load("fashion-mnist/cnn")
PIXELS = np.full(SHAPE, 0.4)  # float64, as NumPy makes it
MASK = np.arange(28 * 28).reshape(28, 28) % 2
PLAIN = np.random.default_rng(0).normal(size=(64, 784)) / 8


def conditions():
    """Made anew, under whatever settings hold: arrays are then float64 where they may be."""
    pixels = c.ObservedPixels(jnp.asarray(PIXELS), jnp.asarray(MASK > 0), 0.1)
    kernel = jnp.asarray(np.full((3, 3), 1 / 9))
    mri = operators.Fourier.of(jnp.asarray(MASK))
    return {
        "class": c.ClassLogSoftmax(CNN, 7),
        "pixels": pixels,
        "bernoulli": c.BernoulliPixels(jnp.asarray(PIXELS), jnp.asarray(MASK)),
        "view": c.LowResolution(jnp.asarray(PIXELS[::4, ::4]), 0.1, 4),
        "learned": c.LearnedNoise(pixels),
        "levels": c.NoiseLevels(pixels, jnp.asarray([0.5, 1.0, 2.0])),
        "weighted": 2.0 * pixels + 0.5 * c.ClassLogSoftmax(CNN, 7),
        "untempered": pixels + regularizers.TotalVariation(0.1).untempered(),
        "decay": c.as_condition(regularizers.L2Decay(jnp.asarray(0.1))),
        "centre": c.as_condition(regularizers.CentreBias(jnp.asarray(0.1))),
        "blur": c.Operator(jnp.asarray(PIXELS), 0.1, operators.Convolution(kernel)),
        "gaussian blur": c.Operator(jnp.asarray(PIXELS), 0.1, operators.GaussianBlur.of(1.0)),
        "mri": c.Operator(mri(jnp.asarray(PIXELS, jnp.float32)), 0.1, mri),
        "counts": c.PoissonCounts(jnp.asarray(np.full(SHAPE, 3)), 10.0),
        "function": lambda image: -jnp.sum((image - 0.5) ** 2),
    }


def values(posterior, z):
    return np.array(
        [posterior.log_prior(z), posterior.log_likelihood(z), posterior(z, jnp.asarray(0.5))]
    )


@pytest.mark.parametrize("name", conditions())
@pytest.mark.parametrize("setting", ["x64", "strict"])
def test_the_same_numbers_in_float32(setting, name):
    z = jaxgen.Gaussian.standard(64).sample(jax.random.key(3))
    wanted = values(jaxgen.Posterior(jaxgen.Gaussian.standard(64), DCGAN, conditions()[name]), z)
    switch = jax.enable_x64(True) if setting == "x64" else jax.numpy_dtype_promotion("strict")
    with switch:
        posterior = jaxgen.Posterior(jaxgen.Gaussian.standard(64), DCGAN, conditions()[name])
        assert posterior.image(z).dtype == jnp.float32
        path = jaxgen.likelihood_path(posterior)
        types = {f(z).dtype for f in (posterior.log_prior, posterior, path.base, path.tilt)}
        assert types == {jnp.dtype(jnp.float32)}
        np.testing.assert_allclose(values(posterior, z), wanted, rtol=2e-5)


def test_float64_where_it_is_asked_for():
    with jax.enable_x64(True):
        prior = jaxgen.Gaussian.standard(64, dtype=jnp.float64)
        weights = jnp.asarray(PLAIN)
        assert weights.dtype == jnp.float64
        own = jaxgen.Posterior(
            prior, lambda z: jax.nn.sigmoid(z @ weights).reshape(SHAPE), conditions()["pixels"]
        )
        own.check()
        z = prior.sample(jax.random.key(0))
        gradient = jax.grad(own.logdensity)(z)
        assert own.image(z).dtype == own(z).dtype == gradient.dtype == jnp.float64
        # A float32 network stays what it is, and the density of chains in float64 is float64.
        mixed = jaxgen.Posterior(prior, DCGAN, conditions()["class"])
        mixed.check()
        assert mixed.image(z).dtype == jnp.float32
        assert mixed(z).dtype == jax.grad(mixed.logdensity)(z).dtype == jnp.float64
        # And float32 chains through a float64 function.
        short = jaxgen.Posterior(jaxgen.Gaussian.standard(64), own.generator, own.condition)
        short.check()
        z = z.astype(jnp.float32)
        assert short(z).dtype == jax.grad(short.logdensity)(z).dtype == jnp.float32


@pytest.mark.parametrize("name", jaxgen.models.registry.available())
def test_shipped_weights_stay_float32_under_x64(name):
    plain = jaxgen.load(name)
    with jax.enable_x64(True):
        network = jaxgen.load(name)
        kinds = {leaf.dtype for leaf in jax.tree.leaves(network.params)}
        assert jnp.dtype(jnp.float64) not in kinds
        if network.input_shape is not None and "captioner" not in name:
            x = jnp.full(network.input_shape, 0.3)
            assert x.dtype == jnp.float64
            out = network(x)
            assert out.dtype == jnp.float32
    if "captioner" not in name:
        # Convolutions are summed in another order where constants are of another type.
        np.testing.assert_allclose(out, plain(np.float32(x)), rtol=1e-3, atol=1e-4)


def test_priors_are_float32_unless_asked():
    with jax.enable_x64(True):
        for prior in (jaxgen.Gaussian.standard(3), jaxgen.Box.symmetric(3), jaxgen.Sphere.of(3)):
            u = prior.sample(jax.random.key(0))
            assert u.dtype == prior.log_prob(u).dtype == prior.latent(u).dtype == jnp.float32
        for kind in (jaxgen.Gaussian.standard, jaxgen.Box.symmetric, jaxgen.Sphere.of):
            prior = kind(3, dtype=jnp.float64)
            u = prior.sample(jax.random.key(0))
            assert u.dtype == prior.log_prob(u).dtype == prior.latent(u).dtype == jnp.float64
