"""Of every training method: a stopped run goes on bit for bit, and devices do not matter.

Tiny networks, two updates before the stop and two after. On two devices a sum over the batch is
two sums and their sum, so results are compared to float32's rounding, after one update: Adam's
first steps are of the size of the rate whatever the gradient's, and rounding alone decides the
sign of a gradient that is zero.
"""

import shutil
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgen.core.errors import InputError
from jaxgen.models.fashion_mnist.cnn import Classifier
from jaxgen.models.fashion_mnist.mlp import MLP
from jaxgen.models.text.language_models import LanguageModel, TextCNN
from jaxgen.sequences import seqgan
from jaxgen.train import autoencoder, began, bgan, classifier, gan, projected, realism, toy, vae
from jaxgen.train.loop import train_loop

STEPS, BATCH = 4, 8
KEY = jax.random.key(1)


def pictures():
    return jax.random.uniform(jax.random.key(0), (40, 28, 28, 1))


def drawn(count=BATCH):
    return lambda data, key: data[jax.random.randint(key, (count,), 0, len(data))]


def of_gan(**options):
    config = gan.GANConfig(STEPS, batch=BATCH, latent=3, width=2, **options)
    batcher = drawn(config.critic_steps * BATCH)
    return gan.init(KEY, config), gan.make_step(config), batcher, pictures()


def of_projected():
    config = projected.ProjectedConfig(STEPS, batch=BATCH, latent=3, width=4)
    step = projected.make_step(config, Classifier(rngs=nnx.Rngs(0)))
    return projected.init(KEY, config), step, drawn(), pictures()


def of_vae(**options):
    config = vae.VAEConfig(STEPS, batch=BATCH, latent=2, **options)
    return vae.init(KEY, config), vae.make_step(config), drawn(), pictures()


def of_began(**options):
    config = began.BEGANConfig(STEPS, batch=BATCH, latent=3, width=2, **options)
    maps = Classifier(width=2, hidden=3, rngs=nnx.Rngs(0)).maps
    return began.init(KEY, config), began.make_step(config, maps=maps), drawn(), pictures()


class Pixels(nnx.Module):
    """Probabilities of 28 x 28 pixels."""

    def __init__(self, rngs):
        self.net = MLP((3, 784), rngs=rngs)

    def __call__(self, z):
        return nnx.sigmoid(self.net(z)).reshape(*z.shape[:-1], 28, 28, 1)


class Ratio(nnx.Module):
    """A free output for each image."""

    def __init__(self, rngs):
        self.net = MLP((784, 8, 1), rngs=rngs)

    def __call__(self, x):
        return self.net(x.reshape(x.shape[0], 784))[:, 0]


def of_bgan(form):
    config = bgan.BGANConfig(STEPS, batch=BATCH, latent=3, samples=4, form=form)
    modules = Pixels(nnx.Rngs(0)), Ratio(nnx.Rngs(1))
    step = bgan.make_step(*modules, bgan.bernoulli_images, config)
    return bgan.init(*modules, config), step, drawn(), jnp.round(pictures())


SEQGAN = seqgan.SeqGANConfig(batch=BATCH, length=3, rollouts=2)


def language():
    writer = LanguageModel(5, 4, 4, rngs=nnx.Rngs(0))
    tokens = jax.random.randint(jax.random.key(0), (40, 3), 0, 5)
    return writer, TextCNN(5, 4, ((1, 3), (2, 3)), rngs=nnx.Rngs(1)), tokens


def of_likelihood():
    writer, _, tokens = language()
    state = seqgan.begin_likelihood(writer, SEQGAN)
    return state, seqgan.likelihood_step(writer, SEQGAN), drawn(), tokens


def of_adversarial(make):
    writer, reader, tokens = language()
    state = seqgan.begin_adversarial(nnx.state(writer), reader, SEQGAN)
    return state, make(writer, reader, SEQGAN), drawn(), tokens


def of_classifier():
    config = classifier.ClassifierConfig(STEPS, batch=BATCH, warmup=0)
    model = Classifier(width=2, hidden=4, dropout=0.1, rngs=nnx.Rngs(0))
    data = pictures(), jnp.arange(40) % 10

    def batcher(data, key):
        rows = jax.random.randint(key, (BATCH,), 0, 40)
        return data[0][rows], data[1][rows]

    return classifier.init(model, config), classifier.make_step(model, config), batcher, data


def of_realism():
    config = realism.RealismConfig(STEPS, batch=2 * BATCH, width=2)
    step = realism.make_step(config)
    return realism.init(KEY, config), step, lambda data, key: (drawn()(data, key),) * 2, pictures()


def of_toy():
    config = toy.ToyConfig(STEPS, batch=BATCH)
    points = jax.random.normal(KEY, (40, 2))
    return toy.init(KEY, config), toy.make_step(config), drawn(), points


def of_autoencoder():
    config = autoencoder.AutoencoderConfig(STEPS, batch=BATCH)
    module = MLP((4, 6, 4), rngs=nnx.Rngs(0))
    step = autoencoder.make_step(module, config, 0.1, 1.0)
    return autoencoder.init(module, config), step, drawn(), jax.random.normal(KEY, (40, 4))


WGAN = {"loss": "wgan-gp", "spectral": False, "critic_steps": 2, "beta1": 0.0}
METHODS = {
    "gan": of_gan,
    "wgan-gp": lambda: of_gan(**WGAN),
    "f-gan": lambda: of_gan(loss="reverse-kl"),
    "projected": of_projected,
    "vae": of_vae,
    "beta-vae": lambda: of_vae(beta=4.0, likelihood="gaussian"),
    "began": of_began,
    "began-features": lambda: of_began(features=0.1),
    "bgan": lambda: of_bgan("importance"),
    "bgan-reinforce": lambda: of_bgan("reinforce"),
    "seqgan-likelihood": of_likelihood,
    "seqgan-discriminator": lambda: of_adversarial(seqgan.discriminate_step),
    "seqgan-policy": lambda: of_adversarial(seqgan.policy_step),
    "classifier": of_classifier,
    "realism": of_realism,
    "toy": of_toy,
    "autoencoder": of_autoencoder,
}
QUICK = {"toy", "vae", "bgan"}
EACH = pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in METHODS],
)


@cache
def method(name):
    return METHODS[name]()


def train(name, steps, **options):
    return train_loop(KEY, *method(name), steps=steps, chunk=options.pop("chunk", 2), **options)


def numbers(state):
    """The leaves as NumPy has them; keys as their words."""
    return [
        np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
        for x in jax.tree.leaves(state)
    ]


@EACH
def test_a_stopped_run_goes_on_bit_for_bit(name, tmp_path):
    path, kept = tmp_path / "run", tmp_path / "kept"

    def keep(done, metrics):
        assert all(np.isfinite(value) for value in metrics.values()), metrics
        if done == STEPS:  # what is there then was written after the first chunk
            shutil.copytree(path, kept)

    straight = train(name, STEPS, checkpoint=path, every=1, progress=keep)
    seen = []
    resumed = train(name, STEPS, checkpoint=kept, progress=lambda done, _: seen.append(done))
    assert seen == [STEPS]
    moved = 0
    for a, b, first in zip(*map(numbers, (straight, resumed, method(name)[0])), strict=True):
        np.testing.assert_array_equal(a, b)
        moved += not np.array_equal(a, first)
    assert moved > 1


@EACH
def test_two_devices_train_as_one_does(name):
    one = train(name, 1, chunk=1)
    two = train(name, 1, chunk=1, devices=jax.devices())
    for leaf in jax.tree.leaves(two):
        assert len(leaf.sharding.device_set) == 2
        assert leaf.is_fully_replicated
    for a, b in zip(numbers(one), numbers(two), strict=True):
        # A sum whose terms nearly cancel is rounded as its terms are.
        size = np.max(np.abs(a), initial=1e-2)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * size)


def test_a_batch_that_does_not_divide_is_refused():
    state, step, _, data = method("toy")
    with pytest.raises(InputError, match="a multiple of 2 devices"):
        train_loop(KEY, state, step, drawn(7), data, steps=1, devices=jax.devices())
