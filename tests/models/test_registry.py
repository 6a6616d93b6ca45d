"""Every shipped network loads, is what it says, and treats a batch as its samples."""

import os
from importlib.resources import files

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxgen import data
from jaxgen.core.errors import InputError
from jaxgen.models import available, describe, load
from jaxgen.models.fashion_mnist import residual
from jaxgen.models.fashion_mnist.dcgan import Generator
from jaxgen.models.ported import PORTED
from jaxgen.models.registry import ARCHITECTURES, build
from jaxgen.models.weights import flatten, load_weights, save_weights
from jaxgen.target.networks import freeze

SHAPES = {
    "fashion-mnist/gan": ("generator", (64,), (28, 28, 1)),
    "fashion-mnist/classifier": ("classifier", (28, 28, 1), (11,)),
    "fashion-mnist/dcgan": ("generator", (64,), (28, 28, 1)),
    "fashion-mnist/dcgan-discriminator": ("discriminator", (28, 28, 1), ()),
    "fashion-mnist/vae": ("generator", (20,), (28, 28, 1)),
    "fashion-mnist/vae-encoder": ("encoder", (28, 28, 1), (2, 20)),
    "fashion-mnist/vae-gaussian": ("generator", (20,), (28, 28, 1)),
    "fashion-mnist/vae-gaussian-encoder": ("encoder", (28, 28, 1), (2, 20)),
    "fashion-mnist/cnn": ("classifier", (28, 28, 1), (10,)),
    "fashion-mnist/judge": ("classifier", (28, 28, 1), (10,)),
    "fashion-mnist/realism": ("discriminator", (28, 28, 1), ()),
    "fashion-mnist/captioner": ("captioner", (28, 28, 1), (5,)),
    "fashion-mnist/ppgn": ("generator", (128,), (28, 28, 1)),
    "fashion-mnist/ppgn-joint": ("generator", (128,), (28, 28, 1)),
    "fashion-mnist/dae-codes": ("autoencoder", (128,), (128,)),
    "fashion-mnist/dae-images": ("autoencoder", (28, 28, 1), (28, 28, 1)),
    "toy2d/gan": ("generator", (2,), (2,)),
    "toy2d/gan-500": ("generator", (2,), (2,)),
    "toy2d/gan-1500": ("generator", (2,), (2,)),
    "toy2d/gan-2500": ("generator", (2,), (2,)),
    "toy2d/gan-15000": ("generator", (2,), (2,)),
}

_WORDS = ("writer", "infiller", "captioner")


def samples(shape, count=3):
    if shape == (28, 28, 1):
        return jax.random.uniform(jax.random.key(0), (count, *shape))
    return jax.random.normal(jax.random.key(0), (count, *shape))


def test_the_table_is_complete():
    assert set(available()) == set(SHAPES)


@pytest.mark.parametrize("name", list(SHAPES))
def test_shipped_network(name):
    kind, input_shape, output_shape = SHAPES[name]
    info = describe(name)
    assert (info.kind, info.input_shape, info.output_shape) == (kind, input_shape, output_shape)
    names = data.CLASS_NAMES if kind == "classifier" else ()
    assert info.classes == (*names, *([data.NONE_OF_THESE] if output_shape == (11,) else ()))
    assert info.metadata["licence"] == "Apache-2.0"
    assert info.metadata["recipe"]["steps"] > 0
    network = load(name)
    x = samples(input_shape)
    apply = jax.jit(lambda network, x: network(x))
    batch = apply(network, x)
    assert batch.shape == (3, *output_shape)
    np.testing.assert_allclose(apply(network, x[:1]), batch[:1], atol=1e-5)
    np.testing.assert_allclose(apply(network, x[1]), batch[1], atol=1e-5)
    mapped = jax.jit(jax.vmap(lambda network, x: network(x), in_axes=(None, 0)))
    np.testing.assert_allclose(mapped(network, x), batch, atol=1e-5)
    if kind == "generator" and output_shape == (28, 28, 1):
        assert jnp.min(batch) >= 0
        assert jnp.max(batch) <= 1
    if kind == "captioner":
        return  # words have no slope; log p of them has: see the condition's test
    gradient = jax.jit(jax.grad(lambda x, network: jnp.sum(network(x))))(x[0], network)
    assert jnp.linalg.norm(gradient) > 0
    assert jnp.all(jnp.isfinite(gradient))


@pytest.mark.parametrize("name", list(SHAPES))
def test_shipped_metadata_says_what_it_must(name):
    _, metadata = load_weights(_shipped(name))  # verifies the digest
    for field in ("name", "architecture", "preprocessing", "data", "recipe", "figures"):
        assert metadata[field] is not None
    assert {"seed", "steps", "method", "batch"} <= set(metadata["recipe"])


def _shipped(name):
    from jaxgen.models import registry

    return registry._place(name)[0]


def test_two_loads_and_other_weights_do_not_compile_again():
    first, second = load("toy2d/gan-500"), load("toy2d/gan-15000")
    assert first.graphdef == second.graphdef
    traces = []

    @jax.jit
    def apply(network, z):
        traces.append(None)
        return network(z)

    z = jnp.ones(2)
    assert not np.allclose(apply(first, z), apply(second, z))
    assert len(traces) == 1


def test_the_judge_has_a_feature_layer():
    features = load("fashion-mnist/judge").at("features")
    assert features(samples((28, 28, 1))).shape == (3, 128)


@pytest.mark.parametrize(("name", "least"), [("cnn", 0.905), ("judge", 0.895)])
def test_accuracy_on_2000_test_images(name, least):
    # Over all 10 000 the figures are those of the metadata; 2000 have a standard error of 0.006.
    if not data.fashion_mnist_available():
        pytest.skip("Fashion-MNIST is not installed: apt-get install dataset-fashion-mnist")
    test = data.fashion_mnist("test")
    network = load(f"fashion-mnist/{name}")
    logits = jax.jit(lambda net, x: jax.lax.map(net, x, batch_size=250))(
        network, data.to_unit(test.images[:2000])
    )
    accuracy = float(np.mean(np.argmax(logits, axis=1) == test.labels[:2000]))
    assert accuracy >= least
    assert (
        abs(accuracy - describe(f"fashion-mnist/{name}").metadata["figures"]["test_accuracy"])
        < 0.03
    )


def test_toy_generator_covers_the_five_modes():
    from jaxgen.train.toy import coverage

    points = load("toy2d/gan")(jax.random.normal(jax.random.key(3), (20_000, 2)))
    near, shares = coverage(points)
    assert near >= 0.95
    assert jnp.all((shares > 0.1) & (shares < 0.3))


def test_batch_norm_folds_away_exactly():
    module = Generator(8, 4, norm=True, rngs=nnx.Rngs(0))
    assert module.norm0 is not None
    assert module.norm1 is not None
    z = jax.random.normal(jax.random.key(0), (16, 8))
    for _ in range(3):
        module(z)  # moves the running statistics away from 0 and 1
    module.norm0.scale[...] = jnp.linspace(0.5, 2.0, 8)
    module.norm1.bias[...] = jnp.linspace(-1.0, 1.0, 4)
    module.eval()
    np.testing.assert_allclose(module.fold()(z), module(z), atol=1e-6)
    assert module.fold().fold() is not None
    frozen = freeze(module)
    np.testing.assert_allclose(frozen(z[:1]), frozen(z)[:1], atol=1e-6)


def test_batch_norms_of_the_residual_generator_fold_away_exactly():
    module = residual.Generator(6, 4, norm=True, rngs=nnx.Rngs(0))
    z = jax.random.normal(jax.random.key(0), (16, 6))
    for _ in range(3):
        module(z)  # moves the running statistics away from 0 and 1
    for norm in module.norms.values():
        norm.scale[...] = jnp.linspace(0.5, 2.0, norm.scale[...].size)
        norm.bias[...] = jnp.linspace(-1.0, 1.0, norm.bias[...].size)
    module.eval()
    folded = module.fold()
    np.testing.assert_allclose(folded(z), module(z), atol=2e-6)
    assert not folded.norms
    assert folded.fold() is folded
    frozen = freeze(folded)
    np.testing.assert_allclose(frozen(z[0]), folded(z)[0], atol=2e-6)


def test_a_file_loads_by_its_path(tmp_path):
    module = Generator(6, 4, rngs=nnx.Rngs(0))
    path = tmp_path / "mine.safetensors"
    config = {"latent": 6, "width": 4}
    save_weights(
        path, flatten(module), {"architecture": {"name": "dcgan.Generator", "config": config}}
    )
    z = jnp.ones(6)
    np.testing.assert_allclose(load(path)(z), module(z), atol=1e-6)
    assert describe(path).input_shape == (6,)
    assert describe(path).size == sum(a.size for a in flatten(module).values())


def test_errors_name_the_way_out(tmp_path):
    with pytest.raises(InputError, match="Did you mean 'fashion-mnist/dcgan'"):
        load("fashion-mnist/dcgn")
    with pytest.raises(InputError, match="one of fashion-mnist/gan, fashion-mnist/classifier, "):
        load("imagenet/biggan")
    with pytest.raises(InputError, match="a weight file that exists"):
        load(tmp_path / "none.safetensors")
    path = tmp_path / "x.safetensors"
    for architecture in ({"name": "unet"}, None, {"name": "dcgan.Generator", "config": 3}):
        save_weights(path, {}, {"architecture": architecture})
        with pytest.raises(InputError, match="architecture"):
            load(path)
    for config in ({"depth": 3}, {"latent": "many"}, {"latent": -1}):
        save_weights(path, {}, {"architecture": {"name": "dcgan.Generator", "config": config}})
        with pytest.raises(InputError) as caught:
            load(path)
        assert "\n" not in str(caught.value)
    save_weights(path, {}, {"architecture": {"name": "mlp.ToyGenerator", "config": {}}})
    with pytest.raises(InputError, match=r"missing layers\.0\.kernel"):
        load(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"architecture": ["mlp.ToyGenerator"]}, "architecture: expected one of"),
        ({"architecture": {"name": ["mlp.ToyGenerator"]}}, "architecture: expected one of"),
        ({"architecture": {"name": {"a": 1}}}, "architecture: expected one of"),
        ({"architecture": {"name": "mlp.ToyGenerator", "config": [1]}}, "a configuration"),
        ({"architecture": {"name": "dcgan.Generator", "config": {"latent": 10**30}}}, "config"),
        ({"architecture": {"name": "dcgan.Generator", "config": {"latent": [2]}}}, "config"),
        ({"kind": "\x1b[2Jgenerator"}, "kind: expected a word"),
        ({"kind": "gen\u202erotare"}, "kind: expected a word"),
        ({"kind": ["generator"]}, "kind: expected a word"),
        ({"kind": "g" * 1000}, "kind: expected a word"),
    ],
)
def test_metadata_of_others_are_refused_in_one_line(tmp_path, changes, words):
    path = tmp_path / "others.safetensors"
    arrays, metadata = load_weights(files("jaxgen") / "shipped" / "toy2d_gan_500.safetensors")
    save_weights(path, arrays, {**metadata, **changes})
    with pytest.raises(InputError, match=words) as caught:
        describe(path)
    assert str(caught.value).isprintable()


def test_a_pipe_is_no_weight_file(tmp_path):
    path = tmp_path / "pipe.safetensors"
    os.mkfifo(path)
    with pytest.raises(InputError, match="expected"):
        load_weights(path)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, architecture in ARCHITECTURES.items()
        # Those of words have no default vocabulary: tests/sequences/test_jobs.py has them.
        if name not in (*PORTED, "graph.Graph", "tensor_ops.TensorGraph")
        and architecture.kind not in _WORDS
    ],
)
def test_architectures_with_default_sizes_fill_and_run(name, tmp_path):
    abstract = build(name, {})
    zeros = {
        ".".join(str(part) for part in path): np.zeros(leaf.shape, np.float32)
        for path, leaf in nnx.to_flat_state(nnx.state(abstract))
    }
    path = tmp_path / "x.safetensors"
    save_weights(path, zeros, {"architecture": {"name": name, "config": {}}})
    info = describe(path)
    assert load(path)(samples(info.input_shape)).shape == (3, *info.output_shape)
