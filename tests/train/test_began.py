"""BEGAN's losses and its balance against the paper's equations; a run that learns and resumes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgen.core.errors import InputError
from jaxgen.models.fashion_mnist.began import Autoencoder, Decoder, Generator
from jaxgen.train import began
from jaxgen.train.loop import train_loop

CONFIG = began.BEGANConfig(
    steps=60, batch=8, latent=4, width=4, lr=1e-3, rate_k=0.05, ema=0.9, residual=0
)


def stripes(count):
    rows = jax.nn.one_hot(2 + 2 * (jnp.arange(count) % 10), 28)
    return 0.8 * jnp.broadcast_to(rows[:, :, None, None], (count, 28, 28, 1))


def test_shapes_and_batches():
    decoder, whole = (kind(4, 3, rngs=nnx.Rngs(0)) for kind in (Decoder, Autoencoder))
    z = jax.random.normal(jax.random.key(0), (2, 4))
    images = nnx.jit(decoder)(z)
    assert images.shape == (2, 28, 28, 1)
    code, back = jax.eval_shape(lambda x: (whole.encode(x), whole(x)), images)
    assert code.shape == (2, 4)
    assert back.shape == images.shape


def test_the_kept_generator_takes_normal_latents_for_uniform_ones():
    generator = Generator(4, 3, rngs=nnx.Rngs(0))
    assert generator.out.bias is not None
    generator.out.bias[...] = jnp.full(1, 0.5)
    u = jax.random.normal(jax.random.key(0), (5, 4))
    z = jnp.asarray([[math.erf(x / math.sqrt(2)) for x in row] for row in u.tolist()])
    inner = jnp.clip(Decoder.__call__(generator, z), 0, 1)
    assert float(jnp.mean((inner > 0) & (inner < 1))) > 0
    np.testing.assert_allclose(generator(u), inner, atol=1e-5)


def test_the_first_tensor_reaches_every_size_by_skips():
    z = jax.random.normal(jax.random.key(0), (2, 4))
    seen = {}
    for skips in (False, True):
        decoder = Decoder(4, 3, skips, rngs=nnx.Rngs(0))
        for i in (2, 4):  # cut what comes from the size below, leaving h0
            kernel = decoder.convs[i].kernel
            kernel[...] = kernel[...].at[:, :, :3].set(0.0)
        images = nnx.jit(decoder)(z)
        seen[skips] = float(jnp.max(jnp.abs(images[0] - images[1])))
    assert seen[False] == 0.0
    assert seen[True] > 0.01


def test_with_a_carry_of_one_only_the_last_layer_is_left():
    decoder = Decoder(4, 3, rngs=nnx.Rngs(0))
    z = jax.random.normal(jax.random.key(0), (2, 4))
    h0 = decoder.project(z).reshape(2, 7, 7, 3)
    wanted = decoder.out(jnp.repeat(jnp.repeat(h0, 4, axis=1), 4, axis=2))
    np.testing.assert_allclose(decoder(z, jnp.ones(())), wanted, atol=1e-6)
    np.testing.assert_allclose(decoder(z, jnp.zeros(())), decoder(z), atol=1e-6)


def test_the_carry_vanishes():
    config = CONFIG._replace(residual=100)
    found = [float(began.carry(jnp.asarray(t), config)) for t in (0, 25, 100, 500)]
    np.testing.assert_allclose(found, [1.0, 0.75, 0.0, 0.0], atol=1e-6)
    assert began.carry(jnp.asarray(0), CONFIG) == 0.0


def test_the_rate_is_halved_where_the_measure_stands_still():
    config = CONFIG._replace(window=2, patience=3, least=0.25)
    rule = began.optimiser(config)
    weight = jnp.zeros(())

    @jax.jit
    def after(values):
        def one(state, value):
            return rule.update(weight, state, value=value)[1], None

        return began.rate_share(jax.lax.scan(one, rule.init(weight), values)[0])

    fall = 0.9 ** jnp.arange(20)
    assert float(after(fall)) == 1.0
    assert float(after(jnp.concatenate([fall, jnp.full(6, 1.0)]))) == 0.5
    assert float(after(jnp.ones(100))) == 0.25


def test_history_is_of_the_whole_run():
    config = CONFIG._replace(steps=120)  # 40 parts of three updates
    state = began.init(jax.random.key(0), CONFIG)._replace(
        step=jnp.asarray(7), sums=jnp.zeros((50, 2)).at[:3].set([[3.0, 0.3], [6.0, 0.6], [1.0, 1]])
    )
    assert began.history(state, config) == {
        "updates": [3, 6, 7],
        "M": [1.0, 2.0, 1.0],
        "k": [0.1, 0.2, 1.0],
    }


@pytest.mark.slow
def test_one_step_is_the_paper_s():
    state = began.init(jax.random.key(0), CONFIG)._replace(k=jnp.float32(0.4))
    real, key = stripes(8), jax.random.key(1)
    new, metrics = jax.jit(began.make_step(CONFIG))(state, real, key)
    generator, discriminator = began.finish(state, CONFIG)

    @jax.jit
    def missed(images):
        return jnp.mean(jnp.abs(images - discriminator(images)))

    z = began.latents(key, 8, 4)
    fake = jax.jit(Decoder.__call__)(generator, z)
    on_real, on_fake = float(missed(real)), float(missed(fake))
    assert float(jnp.min(fake)) < 0.0  # not cut to [0, 1] in training
    assert float(metrics["real"]) == pytest.approx(on_real, rel=1e-5)
    assert float(metrics["fake"]) == pytest.approx(on_fake, rel=1e-5)
    wanted = on_real + abs(0.5 * on_real - on_fake)
    assert float(metrics["M"]) == pytest.approx(wanted, rel=1e-5)
    assert float(new.k) == pytest.approx(0.4 + 0.05 * (0.5 * on_real - on_fake), abs=1e-6)

    # Adam's first step has the gradient's sign: compare it with each loss's own gradient.
    d_graph, d_params = nnx.split(discriminator)
    g_graph, g_params = nnx.split(generator)

    def loss_d(params):
        network = nnx.merge(d_graph, params)
        return jnp.mean(jnp.abs(real - network(real))) - 0.4 * jnp.mean(
            jnp.abs(fake - network(fake))
        )

    def loss_g(params):
        images = Decoder.__call__(nnx.merge(g_graph, params), z)
        return jnp.mean(jnp.abs(images - discriminator(images)))

    for loss, params, after in (
        (loss_d, d_params, new.discriminator),
        (loss_g, g_params, new.generator),
    ):
        gradient = jax.jit(jax.grad(loss))(params)
        moved = jax.tree.map(lambda a, b: a - b, after, params)
        for g, m in zip(jax.tree.leaves(gradient), jax.tree.leaves(moved), strict=True):
            clear = np.abs(g) > 1e-5
            np.testing.assert_array_equal(np.sign(m)[clear], -np.sign(g)[clear])


@pytest.mark.slow
def test_features_add_to_the_loss_what_the_maps_miss():
    state = began.init(jax.random.key(0), CONFIG)
    real, config = stripes(8), CONFIG._replace(features=0.3)

    def maps(x):
        return x[:, ::2] ** 2, jnp.mean(x, axis=(1, 2))

    _, metrics = jax.jit(began.make_step(config, maps=maps))(state, real, jax.random.key(1))
    made = jax.jit(began.finish(state, CONFIG)[1])(real)
    wanted = float(jnp.mean(jnp.abs(real - made)))
    for a, b in zip(maps(real), maps(made), strict=True):
        wanted += 0.3 * float(jnp.mean(jnp.abs(a - b)))
    assert float(metrics["real"]) == pytest.approx(wanted, rel=1e-5)
    with pytest.raises(InputError, match="maps"):
        began.make_step(config)


def test_k_is_kept_between_zero_and_one():
    k = jnp.float32(0.999)
    assert float(began.balance(k, jnp.float32(9.0), jnp.float32(0.0), CONFIG)) == 1.0
    assert float(began.balance(k * 0, jnp.float32(0.0), jnp.float32(9.0), CONFIG)) == 0.0


def trained(steps, path=None):
    seen = []
    state = train_loop(
        jax.random.key(3),
        began.init(jax.random.key(2), CONFIG),
        began.make_step(CONFIG),
        lambda data, key: data[jax.random.randint(key, (8,), 0, 10)],
        stripes(10),
        steps=steps,
        chunk=20,
        checkpoint=path,
        every=1,
        progress=lambda done, metrics: seen.append(metrics),
    )
    return state, seen


@pytest.mark.slow
def test_it_converges_and_goes_on_bit_for_bit(tmp_path):
    straight, seen = trained(60)
    assert seen[-1]["M"] < 0.6 * seen[0]["M"]
    assert 0 <= seen[-1]["k"] <= 1
    trained(20, tmp_path / "run")
    resumed, _ = trained(60, tmp_path / "run")
    kept = began.history(resumed, CONFIG)
    assert kept["updates"][-1] == 60
    assert np.mean(kept["M"]) == pytest.approx(np.mean([m["M"] for m in seen]), rel=1e-3)
    jax.tree.map(np.testing.assert_array_equal, straight, resumed)
