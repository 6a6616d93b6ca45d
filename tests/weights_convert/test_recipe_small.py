"""CIFAR ResNets, DCGANs, MLPs, VAE decoders and described Sequentials against torch."""

import gzip
import os
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxgen.core.errors import InputError
from jaxgen.models.ported import build
from jaxgen.models.weights import fill, load_weights
from weights_convert.pytorch import convert, convert_state, verify
from weights_convert.sequential import read_description

torch = pytest.importorskip("torch", reason="compares with torch: pip install torch")
nn = torch.nn
torch.set_num_threads(1)

DEFAULT = Path(__file__).parents[3] / "shared" / "weights"
WEIGHTS = Path(os.environ.get("JAXGEN_TEST_WEIGHTS", DEFAULT))
needs_weights = pytest.mark.skipif(
    not WEIGHTS.is_dir(), reason=f"no weights in {WEIGHTS}; set JAXGEN_TEST_WEIGHTS"
)


def random_state(module, seed=0):
    """Random weights, and statistics far from BatchNorm's defaults."""
    generator = torch.Generator().manual_seed(seed)
    state = module.state_dict()
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("running_var"):
            state[name] = 0.5 + noise.abs()
        elif value.ndim >= 2:
            state[name] = noise * (2.0 / value[0].numel()) ** 0.5
        else:
            state[name] = 0.3 * noise + (1.0 if name.endswith("weight") else 0.0)
    module.load_state_dict(state)
    return module.eval()


def arrays_of(module):
    return {
        name: value.numpy()
        for name, value in module.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def worst(done, batch=3):
    return max(row.error for row in verify(done, batch=batch))


def assert_one_sample_like_a_batch(done, batch):
    run = jax.jit(done.module)
    together, alone = np.asarray(run(batch)), np.asarray(run(batch[1]))
    np.testing.assert_allclose(alone, together[1], rtol=0, atol=1e-5 * np.abs(together).max())


@pytest.mark.parametrize("depth", [8, 14])
def test_cifar_resnet_with_random_statistics(depth):
    from weights_convert.references import cifar_resnet

    state = arrays_of(random_state(cifar_resnet(depth, 7)))
    done = convert_state(state, "cifar-resnet")
    assert done.config["depth"] == depth
    assert worst(done) < 1e-5
    batch = np.random.default_rng(1).random((3, 32, 32, 3), np.float32)
    assert_one_sample_like_a_batch(done, batch)


def test_cifar_resnet_input_gradient():
    from weights_convert.references import cifar_resnet

    theirs = random_state(cifar_resnet(8, 10))
    done = convert_state(arrays_of(theirs), "cifar-resnet")
    image = np.random.default_rng(0).random((32, 32, 3), np.float32)
    ours = np.asarray(jax.jit(jax.grad(lambda x: done.module(x)[3]))(image))
    mean, std = (torch.tensor(done.config[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    x = torch.from_numpy(image.transpose(2, 0, 1)[None].copy()).requires_grad_()
    theirs((x - mean) / std)[0, 3].backward()
    gradient = x.grad.numpy()[0].transpose(1, 2, 0)
    np.testing.assert_allclose(ours, gradient, rtol=0, atol=1e-5 * np.abs(gradient).max())


def dcgan(norm, slope, eps=1e-5, widths=(6, 5, 4, 3), kernels=(4, 3, 4), first=(4, 1, 0)):
    layers = [nn.ConvTranspose2d(8, widths[0], *first, bias=not norm)]
    for before, after, k in zip(widths, [*widths[1:], 1], [*kernels, 4], strict=True):
        if norm:
            layers.append(nn.BatchNorm2d(before, eps=eps))
        layers.append(nn.LeakyReLU(slope) if slope else nn.ReLU())
        layers.append(nn.ConvTranspose2d(before, after, k, 2, 1, bias=not norm))
    return nn.Sequential(*layers, nn.Tanh())


@pytest.mark.parametrize(
    ("norm", "slope", "eps"), [(True, 0.0, 1e-5), (True, 0.2, 1e-3), (False, 0.2, 1e-5)]
)
def test_dcgan_generators(norm, slope, eps):
    theirs = random_state(dcgan(norm, slope, eps))
    done = convert_state(arrays_of(theirs), "dcgan", {"slope": slope, "eps": eps})
    assert worst(done) < 1e-5
    z = np.random.default_rng(2).normal(size=(3, 8)).astype("f4")
    assert_one_sample_like_a_batch(done, z)
    with torch.no_grad():
        images = theirs(torch.from_numpy(z)[..., None, None]).numpy()
    np.testing.assert_allclose(
        np.asarray(jax.jit(done.module)(z)), 0.5 + 0.5 * images.transpose(0, 2, 3, 1), atol=1e-5
    )


def test_dcgan_that_begins_with_a_matrix():
    theirs = random_state(
        nn.Sequential(
            nn.Linear(5, 6 * 7 * 7), nn.Unflatten(1, (6, 7, 7)), nn.BatchNorm2d(6), nn.ReLU(),
            nn.ConvTranspose2d(6, 2, 4, 2, 1), nn.Sigmoid(),
        )
    )  # fmt: skip
    done = convert_state(arrays_of(theirs), "dcgan", {"output": "sigmoid"})
    z = np.random.default_rng(2).normal(size=(3, 5)).astype("f4")
    with torch.no_grad():
        images = theirs(torch.from_numpy(z)).numpy()
    np.testing.assert_allclose(
        np.asarray(jax.jit(done.module)(z)), images.transpose(0, 2, 3, 1), atol=1e-5
    )
    assert worst(done) < 1e-5


def test_mlp_with_norms():
    theirs = random_state(
        nn.Sequential(nn.Linear(6, 9), nn.BatchNorm1d(9), nn.LeakyReLU(0.2), nn.Linear(9, 12))
    )
    options = {"activation": "leaky_relu", "slope": 0.2, "output": "tanh", "image": [3, 2, 2]}
    done = convert_state(arrays_of(theirs), "mlp", options)
    z = np.random.default_rng(0).normal(size=(4, 6)).astype("f4")
    with torch.no_grad():
        images = torch.tanh(theirs(torch.from_numpy(z))).reshape(4, 3, 2, 2).numpy()
    np.testing.assert_allclose(
        np.asarray(jax.jit(done.module)(z)), 0.5 + 0.5 * images.transpose(0, 2, 3, 1), atol=1e-6
    )
    assert worst(done) < 1e-5


DESCRIPTION = """
input = [2, 9, 9]
prefix = "net."
[[layer]]
type = "from_unit"
[[layer]]
type = "Conv2d"
padding = 1
[[layer]]
type = "ELU"
[[layer]]
type = "MaxPool2d"
kernel_size = 3
stride = 2
ceil_mode = true
[[layer]]
type = "BatchNorm2d"
num_features = 4
eps = 0.01
[[layer]]
type = "Conv2d"
stride = 1
groups = 2
padding = 1
[[layer]]
type = "AdaptiveAvgPool2d"
output_size = 3
[[layer]]
type = "Flatten"
[[layer]]
type = "Dropout"
[[layer]]
type = "Linear"
[[layer]]
type = "GELU"
[[layer]]
type = "Linear"
[[layer]]
type = "LogSoftmax"
dim = 1
"""


def described():
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ELU(), nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.BatchNorm2d(4, eps=0.01), nn.Conv2d(4, 6, 3, groups=2, padding=1),
        nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Dropout(), nn.Linear(54, 8, bias=False),
        nn.GELU(), nn.Linear(8, 3), nn.LogSoftmax(1),
    )  # fmt: skip
    return random_state(nn.ModuleDict({"net": net}))


def test_a_described_sequential(tmp_path):
    theirs = described()
    (tmp_path / "net.toml").write_text(DESCRIPTION)
    options = {"description": str(tmp_path / "net.toml")}
    done = convert_state(arrays_of(theirs), "sequential", options)
    assert worst(done) < 1e-5
    x = np.random.default_rng(0).random((4, 9, 9, 2), np.float32)
    with torch.no_grad():
        y = theirs["net"](torch.from_numpy(2 * x.transpose(0, 3, 1, 2) - 1)).numpy()
    np.testing.assert_allclose(np.asarray(done.module(x)), y, atol=1e-5)
    assert_one_sample_like_a_batch(done, x)


def test_yaml_says_the_same(tmp_path):
    pytest.importorskip("yaml")
    import tomllib

    import yaml

    (tmp_path / "net.yaml").write_text(yaml.safe_dump(tomllib.loads(DESCRIPTION)))
    assert read_description(tmp_path / "net.yaml") == tomllib.loads(DESCRIPTION)
    (tmp_path / "bomb.yaml").write_text("a: &a [x, x]\nb: [*a, *a]\n")
    with pytest.raises(InputError, match="aliases"):
        read_description(tmp_path / "bomb.yaml")
    (tmp_path / "code.yaml").write_text("!!python/object/apply:os.system ['true']")
    with pytest.raises(InputError):
        read_description(tmp_path / "code.yaml")


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("ELU", "Glue", "layer 2: unknown type 'Glue'"),
        ("eps = 0.01", "epsilon = 0.01", "no setting 'epsilon'"),
        ("input = [2, 9, 9]", "input = [2, 9]", "input: expected"),
        ("kernel_size = 3", "kernel_size = 30", "nothing is left"),
        ('type = "Flatten"', 'type = "Identity"', "flatten it first"),
        ("input =", "inputt =", "description: expected"),
        ("[2, 9, 9]", "[2, 9, 9", "net.toml"),
    ],
)  # fmt: skip
def test_wrong_descriptions(tmp_path, old, new, wanted):
    assert old in DESCRIPTION
    (tmp_path / "net.toml").write_text(DESCRIPTION.replace(old, new))
    options = {"description": str(tmp_path / "net.toml")}
    with pytest.raises(InputError, match=re.escape(wanted)):
        convert_state(arrays_of(described()), "sequential", options)


def test_a_wrong_state_dict_is_reported_whole():
    from weights_convert.references import cifar_resnet

    state = arrays_of(random_state(cifar_resnet(20, 10)))
    del state["layer1.0.bn1.weight"]
    state["extra.weight"] = np.zeros((2, 3), "f4")
    state["conv1.weight"] = state["conv1.weight"][:, :2]
    state["bn1.bias"] = np.full(16, np.nan, "f4")
    with pytest.raises(InputError) as caught:
        convert_state(state, "cifar-resnet")
    text = str(caught.value)
    for part in (
        "4 mistakes",
        "layer1.0.bn1.scale: not filled",
        "extra.weight: left over",
        "conv1.kernel: the network has shape (3, 3, 3, 16)",
        "bn1.bias: holds NaN",
    ):
        assert part in text
    with pytest.raises(InputError, match=r"no 'linear\.weight'"):
        convert_state({"a": np.zeros(3)}, "cifar-resnet")
    with pytest.raises(InputError, match="recipe: expected one of"):
        convert_state(state, "lenet")
    with pytest.raises(InputError, match="options: expected"):
        convert_state(state, "cifar-resnet", {"slope": 3})


@pytest.mark.parametrize("recipe", ["dcgan", "dcgan-discriminator", "mlp", "vae-decoder"])
def test_recipes_given_another_network_say_so(recipe):
    state = {"a.weight": np.zeros((2, 3, 4), "f4"), "b": np.zeros(3, "f4")}
    with pytest.raises(InputError, match="recipe"):
        convert_state(state, recipe)


# The real files --------------------------------------------------------------------------


@needs_weights
@pytest.mark.parametrize(
    ("file", "recipe", "options"),
    [
        ("torch_resnet20_cifar10/resnet20-12fca82f.th", "cifar-resnet", {}),
        ("torch_mnist_dcgan/generator.pth", "dcgan", {"slope": 0.2}),
        ("torch_mnist_dcgan/discriminator.pth", "dcgan-discriminator", {}),
        ("torch_mnist_vae/vae_epoch_25.pth", "vae-decoder", {}),
    ],
)
def test_real_weights_layer_by_layer_and_through_a_file(tmp_path, file, recipe, options):
    done = convert(WEIGHTS / file, recipe, tmp_path / "x.safetensors", options=options)
    assert worst(done) < 1e-5
    arrays, metadata = load_weights(tmp_path / "x.safetensors")
    assert metadata["source"]["file"] == Path(file).name
    entry = metadata["architecture"]
    again = fill(build(entry["name"], entry["config"]), arrays)
    x = np.random.default_rng(0).random((2, *done_input(done)), np.float32)
    np.testing.assert_array_equal(
        np.asarray(jax.jit(again)(x)), np.asarray(jax.jit(done.module)(x))
    )
    assert_one_sample_like_a_batch(done, x)


def done_input(done):
    from jaxgen.models.ported import PORTED

    return PORTED[done.recipe.architecture].input_shape(done.config)


@pytest.mark.slow
@needs_weights
def test_resnet20_predicts_as_torch_does():
    done = convert(WEIGHTS / "torch_resnet20_cifar10/resnet20-12fca82f.th", "cifar-resnet")
    with np.load(WEIGHTS / "images/cifar10_test_first2000.npz") as file:
        images, labels = file["x"][:256].astype("f4") / 255, file["y"][:256]
    theirs = done.recipe.reference(done.config)
    tensors = {k: torch.from_numpy(np.array(v)) for k, v in done.state.items()}
    theirs.load_state_dict(tensors, strict=False)
    mean, std = (np.asarray(done.config[k], "f4") for k in ("mean", "std"))
    with torch.no_grad():
        x = torch.from_numpy(((images - mean) / std).transpose(0, 3, 1, 2).copy())
        wanted = theirs(x).numpy().argmax(1)
    got = np.asarray(jax.jit(done.module)(images)).argmax(1)
    np.testing.assert_array_equal(got, wanted)
    assert (got == labels).mean() > 0.88


@needs_weights
def test_the_generator_draws_digits():
    """The converted GAN's images lie where MNIST's do, by a simple statistic of both."""
    done = convert(WEIGHTS / "torch_mnist_dcgan/generator.pth", "dcgan", options={"slope": 0.2})
    with gzip.open(WEIGHTS / "images/mnist_t10k-images-idx3-ubyte.gz") as file:
        real = np.frombuffer(file.read()[16:], np.uint8).reshape(-1, 784)[:1000] / 255.0
    z = np.random.default_rng(0).normal(size=(200, 100)).astype("f4")
    drawn = np.asarray(jax.jit(done.module)(z)).reshape(200, 784)
    nearest = ((drawn[:, None] - real[None]) ** 2).sum(-1).min(1).mean()
    among = ((real[:200, None] - real[None, 200:]) ** 2).sum(-1).min(1).mean()
    assert nearest < 1.5 * among
