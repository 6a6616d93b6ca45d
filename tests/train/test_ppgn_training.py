"""Training of PPGN's parts on tiny data: they learn, and the pause rule pauses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgen import InputError, freeze, load
from jaxgen.models.fashion_mnist.autoencoders import CodeAutoencoder, ImageAutoencoder
from jaxgen.models.fashion_mnist.cnn import Classifier
from jaxgen.models.fashion_mnist.codes import Codes
from jaxgen.models.fashion_mnist.dcgan import Generator
from jaxgen.train import autoencoder, ppgn, realism
from jaxgen.train.loop import train_loop


def stripes(key, count):
    """Images with one bright row."""
    rows = jax.nn.one_hot(2 + 2 * (jnp.arange(count) % 10), 28)
    images = 0.8 * jnp.broadcast_to(rows[:, :, None, None], (count, 28, 28, 1))
    return images + 0.1 * jax.random.uniform(key, images.shape)


def rows_of(count):
    return lambda images, key: images[jax.random.randint(key, (count,), 0, images.shape[0])]


def small_codes():
    return Codes.of(freeze(Classifier(width=4, hidden=16, rngs=nnx.Rngs(0))))


def test_codes_are_the_classifiers_own_layers():
    classifier = freeze(Classifier(width=4, hidden=16, rngs=nnx.Rngs(1)))
    codes = Codes.of(classifier)
    images = stripes(jax.random.key(0), 3)
    np.testing.assert_allclose(codes.logits(codes(images)), classifier(images), atol=1e-4)
    raw = classifier.at("conv4")(images)
    np.testing.assert_allclose(codes.spatial(images), jax.nn.gelu(raw), atol=1e-4)
    np.testing.assert_allclose(codes(images[0]), codes(images)[0], atol=1e-4)
    xla = codes.trained_with_xla()
    np.testing.assert_allclose(xla(images), codes(images), atol=1e-4)
    with pytest.raises(InputError, match=r"cnn\.Classifier"):
        Codes.of(load("fashion-mnist/judge"))


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_generator_learns_to_decode(noise):
    config = ppgn.PPGNConfig(
        16, batch=8, code=16, width=4, discriminator=4, lr=3e-3, h=1.0,
        noise_x=noise, noise_h1=noise, noise_h=noise,
    )  # fmt: skip
    images = stripes(jax.random.key(0), 40)
    scales = ppgn.Scales((0.05, 1.0, 1.0), (0.1, 0.5, 0.5))
    seen = []
    state = train_loop(
        jax.random.key(1),
        ppgn.init(jax.random.key(2), config),
        ppgn.make_step(config, small_codes(), scales),
        rows_of(8),
        images,
        steps=16,
        chunk=4,
        scan=False,
        progress=lambda done, metrics: seen.append(metrics),
    )
    assert set(seen[0]) == {"image", "h1", "h", "gan", "loss_d", "paused_d", "paused_g"}
    assert all(np.isfinite(v) for metrics in seen for v in metrics.values())
    assert seen[-1]["image"] < 0.8 * seen[0]["image"]
    assert ppgn.finish(state, config)(jnp.zeros(16)).shape == (28, 28, 1)


def test_whoever_wins_too_much_pauses():
    for loss_d, loss_g, want in ((0.01, 1.0, (1, 0)), (1.0, 1.0, (0, 0)), (2.0, 0.1, (0, 1))):
        pause = ppgn.pauses(jnp.float32(loss_d), jnp.float32(loss_g))
        assert tuple(int(p) for p in pause) == want


def test_a_paused_generator_stays_as_it_was():
    """A D that calls everything real has lost to G, which waits; else G moves."""
    config = ppgn.PPGNConfig(2, batch=4, code=16, width=4, discriminator=4)
    state = ppgn.init(jax.random.key(0), config)
    images, ones = jnp.ones((4, 28, 28, 1)), (1.0, 1.0, 1.0)
    step = jax.jit(ppgn.make_step(config, small_codes(), ppgn.Scales(ones, ones)))
    zeros = jax.tree.map(jnp.zeros_like, state.discriminator)
    for bias, paused in ((30.0, True), (-30.0, False)):
        # Only the last bias has one element: every logit is the bias. loss_D is 30 either way.
        constant = jax.tree.map(lambda x, b=bias: x + b if x.shape == (1,) else x, zeros)
        new, seen = step(state._replace(discriminator=constant), images, jax.random.key(1))
        assert float(seen["paused_g"]) == paused
        assert float(seen["paused_d"]) == 0
        pairs = zip(jax.tree.leaves(new.generator), jax.tree.leaves(state.generator), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs) == paused


def test_code_autoencoder_begins_as_wieners_filter():
    """Of normal codes nothing does better: sigma^2 tr(C (C + sigma^2 I)^-1) / d is left."""
    rng = np.random.default_rng(0)
    mix, mean = rng.standard_normal((128, 128)) / 8.0, rng.standard_normal(128)
    codes = (rng.standard_normal((20_000, 128)) @ mix + mean).astype(np.float32)
    sigma, module = 0.7, CodeAutoencoder(rngs=nnx.Rngs(0))
    module.fit(jnp.asarray(codes), sigma)
    clean = rng.standard_normal((4_000, 128)) @ mix + mean
    noisy = clean + sigma * rng.standard_normal(clean.shape)
    left = np.mean((np.asarray(module(jnp.asarray(noisy, jnp.float32))) - clean) ** 2)
    spectrum = np.linalg.eigvalsh(mix.T @ mix)
    best = sigma**2 * np.mean(spectrum / (spectrum + sigma**2))
    assert 0.98 * best < left < 1.05 * best


def test_image_autoencoder_begins_near_the_identity():
    image = jax.random.uniform(jax.random.key(0), (28, 28, 1))
    off = ImageAutoencoder(rngs=nnx.Rngs(0))(image) - image
    assert 0 < float(jnp.mean(off**2)) < 0.01


@pytest.mark.slow
def test_denoising_autoencoder_learns_the_score():
    """Codes on a line in 128 dimensions: what noise adds across the line is taken away."""
    config = autoencoder.AutoencoderConfig(300, batch=64, lr=3e-3)
    line = jax.random.normal(jax.random.key(0), (128,))
    clean = jax.random.normal(jax.random.key(1), (512, 1)) * line[None]
    module = CodeAutoencoder(rngs=nnx.Rngs(0))
    sigma, seen = 0.5, []
    module.fit(clean, sigma)
    train_loop(
        jax.random.key(2),
        autoencoder.init(module, config),
        autoencoder.make_step(module, config, sigma, 1.0),
        rows_of(64),
        clean,
        steps=300,
        chunk=100,
        progress=lambda done, metrics: seen.append(metrics["loss"]),
    )
    assert seen[-1] < 0.3 * sigma**2


def test_realism_learns_to_tell_drawn_from_real():
    config = realism.RealismConfig(30, batch=16, width=4, lr=3e-3)
    real = stripes(jax.random.key(0), 40)
    drawn = jnp.swapaxes(real, 1, 2)
    seen = []

    def batcher(arrays, key):
        return tuple(rows_of(8)(a, key) for a in arrays)

    state = train_loop(
        jax.random.key(1),
        realism.init(jax.random.key(2), config),
        realism.make_step(config),
        batcher,
        (real, drawn),
        steps=30,
        chunk=10,
        scan=False,
        progress=lambda done, metrics: seen.append(metrics),
    )
    assert seen[-1]["loss"] < seen[0]["loss"]
    network = realism.finish(state, config)
    assert network(real).mean() > network(drawn).mean()


@pytest.mark.slow
def test_a_decoder_begins_from_a_generator():
    config = ppgn.PPGNConfig(2, code=16, width=4)
    codes = small_codes()
    module = Generator(3, 4, rngs=nnx.Rngs(3))
    for layer in (module.project, module.up1, module.up2):
        layer.kernel[...] = 8.0 * layer.kernel[...]
    generator = freeze(module)
    decoder = ppgn.begin_from(jax.random.key(0), generator, codes, config, count=500)
    images = generator(jax.random.normal(jax.random.key(1), (50, 3)))
    error = jnp.mean((decoder(codes(images)) - images) ** 2)
    assert error < 0.5 * jnp.mean(jnp.var(images, axis=0))
    # From a generator of codes nothing is learned: it is taken as it is.
    again = ppgn.begin_from(jax.random.key(0), freeze(decoder), codes, config)
    h = codes(images)
    np.testing.assert_allclose(again(h), decoder(h), atol=1e-5)
