"""The ImageNet classifiers against torchvision itself, with random weights and statistics."""

import jax
import numpy as np
import pytest

from jaxgen.core.errors import InputError
from jaxgen.models.ported.blocks import adaptive_avg_pool, avg_pool, max_pool
from weights_convert.pytorch import convert_state
from weights_convert.references import need_torchvision
from weights_convert.torch_parity import compare_with_torch

torch = pytest.importorskip("torch", reason="compares with torch: pip install torch")
torch.set_num_threads(1)
try:
    models = need_torchvision().models
except ImportError as error:
    pytest.skip(str(error), allow_module_level=True)


def random_state(module, seed=0):
    """Random weights, and statistics far from BatchNorm's defaults."""
    generator = torch.Generator().manual_seed(seed)
    state = module.state_dict()
    for name, value in state.items():
        noise = torch.randn(value.shape, generator=generator)
        if name.endswith("running_var"):
            state[name] = 0.5 + noise.abs()
        elif value.ndim >= 2:
            state[name] = noise * (2.0 / value[0].numel()) ** 0.5
        elif value.dtype.is_floating_point:
            state[name] = 0.3 * noise + (1.0 if name.endswith("weight") else 0.0)
    module.load_state_dict(state)
    return module.eval()


def arrays_of(module):
    return {k: v.numpy() for k, v in module.state_dict().items() if "num_batches" not in k}


@pytest.mark.parametrize(
    ("name", "recipe", "size"),
    [
        ("alexnet", "alexnet", 80),
        pytest.param("vgg11", "vgg", 48, marks=pytest.mark.slow),
        pytest.param("vgg16", "vgg", 32, marks=pytest.mark.slow),
        pytest.param("vgg13_bn", "vgg", 32, marks=pytest.mark.slow),
        ("resnet18", "resnet", 64),
        pytest.param("resnet50", "resnet", 64, marks=pytest.mark.slow),
        pytest.param("resnext50_32x4d", "resnet", 64, marks=pytest.mark.slow),
        pytest.param("googlenet", "googlenet", 70, marks=pytest.mark.slow),
        ("inception_v3", "inception-v3", 107),
        pytest.param("squeezenet1_0", "squeezenet", 70, marks=pytest.mark.slow),
        ("squeezenet1_1", "squeezenet", 70),
        ("mobilenet_v2", "mobilenet-v2", 64),
    ],
)
def test_every_layer_and_one_sample_like_a_batch(name, recipe, size):
    # Sizes at which poolings do not divide evenly: ceil, padding and adaptive pooling count.
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    theirs = random_state(getattr(models, name)(weights=None, num_classes=13, **extra))
    done = convert_state(arrays_of(theirs), recipe)
    x = np.random.default_rng(0).random((2, size, size, 3), np.float32)
    rows = compare_with_torch(done.module, done.recipe, done.config, done.state, x, done.ignored)
    assert len(rows) == 1 + sum(
        isinstance(m, torch.nn.Conv2d | torch.nn.Linear | torch.nn.BatchNorm2d)
        for path, m in theirs.named_modules()
        if not path.lower().startswith("aux")
    )
    worst = max(rows, key=lambda row: row.error)
    # MobileNet's thousands of small sums are where torch itself is this far from float64; how
    # far depends on the number of threads.
    assert worst.error < (2e-5 if name == "mobilenet_v2" else 1e-5), worst
    run = jax.jit(done.module)
    together, alone = np.asarray(run(x)), np.asarray(run(x[1]))
    np.testing.assert_allclose(alone, together[1], rtol=0, atol=1e-5 * np.abs(together).max())


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("googlenet", "googlenet"),
        pytest.param("inception_v3", "inception-v3", marks=pytest.mark.slow),
    ],
)
def test_transform_input_is_the_half_and_half_normalisation(name, recipe):
    """torchvision standardises by ImageNet's mean and deviation, then undoes it inside."""
    theirs = getattr(models, name)(
        weights=None, num_classes=3, init_weights=False, transform_input=True
    )
    theirs = random_state(theirs)
    done = convert_state(arrays_of(theirs), recipe)
    x = np.random.default_rng(0).random((2, 107, 107, 3), np.float32)
    mean, std = np.array([0.485, 0.456, 0.406], "f4"), np.array([0.229, 0.224, 0.225], "f4")
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(((x - mean) / std).transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(
        np.asarray(jax.jit(done.module)(x)), wanted, rtol=0, atol=2e-5 * np.abs(wanted).max()
    )


def test_alexnet_input_gradient():
    theirs = random_state(models.alexnet(weights=None, num_classes=5))
    done = convert_state(arrays_of(theirs), "alexnet", {"mean": [0, 0, 0], "std": [1, 1, 1]})
    image = np.random.default_rng(0).random((80, 80, 3), np.float32)
    ours = np.asarray(jax.jit(jax.grad(lambda x: done.module(x)[2]))(image))
    x = torch.from_numpy(image.transpose(2, 0, 1)[None].copy()).requires_grad_()
    theirs(x)[0, 2].backward()
    wanted = x.grad.numpy()[0].transpose(1, 2, 0)
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_a_layer_of_another_network_is_named():
    state = arrays_of(random_state(models.resnet18(weights=None, num_classes=4)))
    for recipe in ("alexnet", "vgg", "squeezenet", "mobilenet-v2"):
        with pytest.raises(InputError, match=f"recipe {recipe}: no '"):
            convert_state(state, recipe)
    with pytest.raises(InputError, match=r"mistakes: .*layer1.*left over"):
        convert_state(state, "googlenet")
    state["layer2.0.downsample.1.extra"] = np.zeros(1)
    with pytest.raises(InputError, match=r"1 mistake: layer2\.0\.downsample\.1\.extra: left over"):
        convert_state(state, "resnet")
    with pytest.raises(InputError, match="three numbers"):
        convert_state(state, "resnet", {"mean": [0.5]})


@pytest.mark.parametrize("size", [7, 8, 9, 10])
@pytest.mark.parametrize(
    ("window", "stride", "padding"), [(3, 2, 0), (3, 2, 1), (2, 2, 0), (3, 1, 1)]
)
def test_pooling(size, window, stride, padding):
    x = np.random.default_rng(0).normal(size=(2, size, size + 1, 3)).astype("f4")
    theirs = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    functional = torch.nn.functional
    for ceil in (False, True):
        wanted = functional.max_pool2d(theirs, window, stride, padding, ceil_mode=ceil)
        got = max_pool(x, window, stride, padding, ceil)
        np.testing.assert_array_equal(got, wanted.numpy().transpose(0, 2, 3, 1))
    wanted = functional.avg_pool2d(theirs, window, stride, padding).numpy()
    got = avg_pool(x, window, stride, padding)
    np.testing.assert_allclose(got, wanted.transpose(0, 2, 3, 1), atol=1e-6)
    wanted = functional.adaptive_avg_pool2d(theirs, 6).numpy()
    np.testing.assert_allclose(adaptive_avg_pool(x, 6), wanted.transpose(0, 2, 3, 1), atol=1e-6)
