"""What people bring: generators, priors, conditions of other libraries. Each works.

Every case is a posterior that passes its check, has a finite log density with a finite
gradient, and travels through `jit` as data. The slow variant draws from each.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxgen
from jaxgen.target.conditions import operators

KEY = jax.random.key(0)
SHAPE = (8, 8, 1)
PIXELS = jnp.full(SHAPE, 0.4, jnp.float32)
SEEN = jaxgen.ObservedPixels(PIXELS, jnp.ones(SHAPE[:2]), 0.3)
PRIOR = jaxgen.Gaussian.standard(5)
WEIGHTS = jax.random.normal(jax.random.key(1), (5, 64), jnp.float32) / 2


def plain(z):
    return jax.nn.sigmoid(z @ WEIGHTS).reshape(SHAPE)


class Net(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(5, 64, rngs=rngs)
        self.norm = nnx.BatchNorm(64, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, z):
        return nnx.sigmoid(self.drop(self.norm(self.dense(z)))).reshape(*z.shape[:-1], *SHAPE)


def linen():
    from flax import linen as nn

    class Linen(nn.Module):
        @nn.compact
        def __call__(self, z):
            return nn.sigmoid(nn.Dense(64)(nn.relu(nn.Dense(16)(z)))).reshape(SHAPE)

    return Linen()


def linen_bound():
    module = linen()
    return module.bind(module.init(KEY, jnp.zeros(5)))


def linen_apply():
    module = linen()
    return jaxgen.Apply(module.apply, module.init(KEY, jnp.zeros(5)))


def linen_in_nnx():
    return nnx.bridge.ToNNX(linen(), rngs=nnx.Rngs(0)).lazy_init(jnp.zeros(5))


def equinox():
    eqx = pytest.importorskip("equinox")

    class Shaped(eqx.Module):
        mlp: eqx.nn.MLP
        drop: eqx.nn.Dropout

        def __call__(self, z):
            return jax.nn.sigmoid(self.drop(self.mlp(z))).reshape(SHAPE)

    return Shaped(eqx.nn.MLP(5, 64, 16, 1, key=KEY), eqx.nn.Dropout(0.5))


def haiku_net():
    hk = pytest.importorskip("haiku")
    net = hk.transform(lambda z: jax.nn.sigmoid(hk.nets.MLP([16, 64])(z)).reshape(SHAPE))
    return net, net.init(KEY, jnp.zeros(5))


def haiku_closure():
    net, params = haiku_net()
    return lambda z: net.apply(params, None, z)


def classed(z, label):
    return plain(z + 0.3 * label.astype(z.dtype))


def one_hot(z, label):
    return plain(z + 0.3 * label)


def sampled_label():
    prior = jaxgen.RandomLabel.uniform(PRIOR, 10)
    return jaxgen.Posterior(prior, jaxgen.Labelled(classed), SEEN)


def numpyro(make):
    dist = pytest.importorskip("numpyro.distributions")
    return jaxgen.Posterior(make(dist), plain, SEEN)


def tfp(make):
    tfd = pytest.importorskip("tensorflow_probability.substrates.jax.distributions")
    return jaxgen.Posterior(make(tfd), plain, SEEN)


def dict_latent():
    prior = jaxgen.Gaussian(
        {"w": jnp.zeros(5), "noise": jnp.zeros(SHAPE)}, {"w": jnp.ones(5), "noise": jnp.ones(SHAPE)}
    )
    return jaxgen.Posterior(prior, lambda z: plain(z["w"]) + 0.01 * z["noise"], SEEN)


def wplus():
    return jaxgen.Posterior(jaxgen.Gaussian.standard((3, 5)), lambda w: plain(w.mean(axis=0)), SEEN)


def half(z):
    return plain(z.astype(jnp.bfloat16).astype(jnp.float32)).astype(jnp.bfloat16)


def observed(condition):
    return jaxgen.Posterior(PRIOR, plain, condition)


def mri():
    mask = np.zeros(SHAPE[:2])
    mask[::2] = 1
    operator = operators.Fourier.of(mask)
    return observed(jaxgen.Operator(operator(PIXELS), 0.1, operator))


def mri_by_hand():
    mask = np.arange(64).reshape(8, 8) % 3 == 0
    forward = lambda image: jnp.fft.fft2(image[..., 0], norm="ortho")[mask]  # noqa: E731
    return observed(jaxgen.Operator(forward(PIXELS), 0.1, forward))


def phase_retrieval():
    operator = operators.Intensity(lambda image: jnp.fft.fft2(image[..., 0], norm="ortho"))
    return observed(jaxgen.Operator(operator(PIXELS), 0.1, operator))


def blur():
    kernel = jnp.asarray(np.outer([1, 2, 1], [1, 2, 1]) / 16, jnp.float32)
    operator = operators.Convolution(kernel)
    return observed(jaxgen.Operator(operator(PIXELS), 0.1, operator))


def poisson():
    return observed(jaxgen.PoissonCounts(jnp.round(30 * PIXELS), 30.0))


def physics():
    torch = pytest.importorskip("torch")

    class Physics(torch.nn.Module):
        """As a physics object of deepinv: `A` on a batch of channels-first images."""

        def A(self, x):
            return torch.nn.functional.avg_pool2d(x, 2)

    object_ = Physics()

    def forward(image):
        x = torch.from_numpy(image).movedim(-1, 0)[None]
        return object_.A(x)[0].movedim(0, -1).numpy()

    operator = operators.Matrix.of(forward, SHAPE)
    np.testing.assert_allclose(operator(PIXELS), operators.BoxAverage(2)(PIXELS), rtol=1e-5)
    return observed(jaxgen.Operator(operator(PIXELS), 0.1, operator))


def simulated():
    noise = 0.5 * jax.random.normal(KEY, SHAPE, jnp.float32)
    y = plain(jnp.ones(5)) + noise
    assert y.min() < -0.2
    assert y.max() > 1.2
    return observed(jaxgen.ObservedPixels(y, jnp.ones(SHAPE[:2]), 0.5))


def by_names():
    condition = jaxgen.ClassLogSoftmax("fashion-mnist/cnn", "sneaker")
    return jaxgen.Posterior(jaxgen.Gaussian.standard(64), "fashion-mnist/dcgan", condition)


CASES = {
    "function": lambda: jaxgen.Posterior(PRIOR, plain, SEEN),
    "nnx frozen": lambda: jaxgen.Posterior(PRIOR, jaxgen.freeze(Net(nnx.Rngs(0))), SEEN),
    "nnx as it is": lambda: jaxgen.Posterior(PRIOR, Net(nnx.Rngs(0)), SEEN),
    "linen bound": lambda: jaxgen.Posterior(PRIOR, linen_bound(), SEEN),
    "linen apply": lambda: jaxgen.Posterior(PRIOR, linen_apply(), SEEN),
    "linen ToNNX": lambda: jaxgen.Posterior(PRIOR, linen_in_nnx(), SEEN),
    "equinox": lambda: jaxgen.Posterior(PRIOR, equinox(), SEEN),
    "haiku apply": lambda: jaxgen.Posterior(PRIOR, jaxgen.Apply(*haiku_net()), SEEN),
    "haiku closure": lambda: jaxgen.Posterior(PRIOR, haiku_closure(), SEEN),
    "fixed label": lambda: jaxgen.Posterior(PRIOR, jaxgen.Labelled(classed, jnp.int32(3)), SEEN),
    "one-hot label": lambda: jaxgen.Posterior(PRIOR, jaxgen.Labelled(one_hot, 3, classes=5), SEEN),
    "sampled label": sampled_label,
    "numpyro Laplace": lambda: numpyro(lambda d: d.Laplace(0.0, 1.0).expand([5]).to_event(1)),
    "numpyro Uniform": lambda: numpyro(lambda d: d.Uniform(-jnp.ones(5), jnp.ones(5))),
    "tfp Sample": lambda: tfp(lambda d: d.Sample(d.Normal(0.0, 1.0), 5)),
    "tfp Gamma": lambda: tfp(lambda d: d.Gamma(2.0 * jnp.ones(5), 1.0)),
    "dict latent": dict_latent,
    "W+ latent": wplus,
    "bfloat16 images": lambda: jaxgen.Posterior(PRIOR, half, SEEN),
    "MRI": mri,
    "MRI by hand": mri_by_hand,
    "phase retrieval": phase_retrieval,
    "blur kernel": blur,
    "Poisson": poisson,
    "torch physics": physics,
    "simulated": simulated,
    "names": by_names,
    "sum": lambda: observed(sum([SEEN, lambda image: -image.mean()])),
}


def evaluate(posterior, key):
    position = posterior.prior.sample(key)
    return position, *jax.value_and_grad(posterior.logdensity)(position)


# Programs that run once: optimising them takes longer than they do.
density = jax.jit(evaluate, compiler_options={"xla_backend_optimization_level": 0})


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", CASES)
def test_it_works(name):
    posterior = CASES[name]()
    posterior.check()
    position, value, gradient = density(posterior, KEY)
    assert value.shape == ()
    assert value.dtype == jnp.float32
    assert np.isfinite(value)
    slopes = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient)])
    assert np.all(np.isfinite(slopes))
    assert np.any(slopes != 0)
    assert len(repr(posterior)) < 500
    both = posterior.log_prior(position) + posterior.log_likelihood(position)
    np.testing.assert_allclose(value, both, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", CASES)
def test_it_can_be_sampled(name):
    result = jaxgen.sample(KEY, CASES[name](), num_chains=8, num_steps=4, betas=[0, 0.1, 1])
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(result.draws))


def test_modules_are_data_and_give_what_they_gave():
    """The adapters change nothing, and new weights compile nothing."""
    z = jnp.linspace(-1, 1, 5)
    run = jax.jit(lambda posterior, z: posterior.image(z))
    for make in (linen_bound, linen_in_nnx):
        module = make()
        image = run(jaxgen.Posterior(PRIOR, module, SEEN), z)
        np.testing.assert_allclose(image, module(z), rtol=1e-5)
    net, params = haiku_net()
    applied = jaxgen.Apply(net.apply, params)
    np.testing.assert_allclose(applied(z), net.apply(params, None, z), rtol=1e-5)
    count = run._cache_size()
    for scale in (1.0, 2.0):
        scaled = jax.tree.map(lambda x, s=scale: s * x, params)
        run(jaxgen.Posterior(PRIOR, jaxgen.Apply(net.apply, scaled), SEEN), z)
    assert run._cache_size() == count + 1


def test_equinox_keeps_its_activation_and_leaves_dropout_out():
    eqx = pytest.importorskip("equinox")
    z = jnp.linspace(-1, 1, 5)
    module = equinox()
    still = eqx.nn.inference_mode(module)
    posterior = jaxgen.Posterior(PRIOR, module, SEEN)
    np.testing.assert_allclose(posterior.image(z), still(z), rtol=1e-6)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(posterior.generator))


def test_a_label_is_data():
    run = jax.jit(lambda generator, z: generator(z))
    z = jnp.linspace(-1, 1, 5)
    for label in (1, 4):
        image = run(jaxgen.Labelled(classed, jnp.int32(label)), z)
        np.testing.assert_allclose(image, plain(z + 0.3 * label), rtol=1e-5)
    assert run._cache_size() == 1
    with_vector = jaxgen.Labelled(one_hot, 2, classes=5)(z)
    np.testing.assert_allclose(with_vector, plain(z + 0.3 * np.eye(5)[2]), rtol=1e-5)
