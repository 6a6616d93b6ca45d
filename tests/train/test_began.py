"""BEGAN's losses and its balance against the paper's equations; a run that learns and resumes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgen.models.began import Autoencoder, Decoder
from jaxgen.train import began
from jaxgen.train.loop import train_loop

CONFIG = began.BEGANConfig(steps=60, batch=8, latent=4, width=4, lr=1e-3, rate_k=0.05, ema=0.9)


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


@pytest.mark.slow
def test_one_step_is_the_paper_s():
    state = began.init(jax.random.key(0), CONFIG)._replace(k=jnp.float32(0.4))
    real, key = stripes(8), jax.random.key(1)
    new, metrics = jax.jit(began.make_step(CONFIG))(state, real, key)
    generator, discriminator = began.finish(state, CONFIG)
    d_key, g_key = jax.random.split(key)

    @jax.jit
    def missed(images):
        return jnp.mean(jnp.abs(images - discriminator(images)))

    draw = jax.jit(lambda key: generator(began.latents(key, 8, 4)))
    on_real, on_fake = float(missed(real)), float(missed(draw(g_key)))
    assert float(metrics["real"]) == pytest.approx(on_real, rel=1e-5)
    assert float(metrics["fake"]) == pytest.approx(on_fake, rel=1e-5)
    wanted = on_real + abs(0.5 * on_real - on_fake)
    assert float(metrics["M"]) == pytest.approx(wanted, rel=1e-5)
    assert float(new.k) == pytest.approx(0.4 + 0.05 * (0.5 * on_real - on_fake), abs=1e-6)

    # Adam's first step has the gradient's sign: compare it with the loss's own gradient.
    fake = draw(d_key)
    graph, params = nnx.split(discriminator)

    def loss(params):
        network = nnx.merge(graph, params)
        return jnp.mean(jnp.abs(real - network(real))) - 0.4 * jnp.mean(
            jnp.abs(fake - network(fake))
        )

    gradient = jax.jit(jax.grad(loss))(params)
    moved = jax.tree.map(lambda a, b: a - b, new.discriminator, state.discriminator)
    for g, m in zip(jax.tree.leaves(gradient), jax.tree.leaves(moved), strict=True):
        clear = np.abs(g) > 1e-5
        np.testing.assert_array_equal(np.sign(m)[clear], -np.sign(g)[clear])


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
    trained(20, tmp_path / "run.npz")
    resumed, _ = trained(60, tmp_path / "run.npz")
    jax.tree.map(np.testing.assert_array_equal, straight, resumed)
