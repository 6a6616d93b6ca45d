"""The perceptual distance against PyTorch's layers, and on the real weights where there are."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.core.errors import InputError
from jaxgen.metrics import alexnet, perceptual_distance

WEIGHTS = Path(
    os.environ.get("JAXGEN_TEST_WEIGHTS", Path(__file__).parents[3] / "shared" / "weights")
)
SHAPES = [(11, 3, 64), (5, 64, 192), (3, 192, 384), (3, 384, 256), (3, 256, 256)]


def random_arrays():
    rng = np.random.default_rng(0)
    arrays = {}
    for k, (side, inputs, outputs) in enumerate(SHAPES):
        size = side * side * inputs
        kernel = rng.normal(size=(side, side, inputs, outputs)) * np.sqrt(2 / size)
        arrays[f"AlexNet_0/Conv_{k}/kernel"] = kernel.astype(np.float32)
        arrays[f"AlexNet_0/Conv_{k}/bias"] = 0.1 * rng.normal(size=outputs).astype(np.float32)
        head = rng.uniform(size=(1, 1, outputs, 1))
        arrays[f"NetLinLayer_{k}/Conv_0/kernel"] = head.astype(np.float32)
    return arrays


def images(seed=1, side=48):
    rng = np.random.default_rng(seed)
    image = rng.uniform(size=(side, side, 3)).astype(np.float32)
    return image, np.clip(image + 0.2 * rng.normal(size=image.shape), 0, 1).astype(np.float32)


def in_torch(torch, arrays, x, y):
    """The distance with PyTorch's convolutions and pooling, in float64."""

    def features(image):
        t = torch.from_numpy(np.transpose(2.0 * image.astype(np.float64) - 1, (2, 0, 1)))[None]
        centre = torch.tensor([-0.030, -0.088, -0.188]).double().reshape(1, 3, 1, 1)
        spread = torch.tensor([0.458, 0.448, 0.450]).double().reshape(1, 3, 1, 1)
        t, found = (t - centre) / spread, []
        for k, (stride, padding) in enumerate([(4, 2), (1, 2), (1, 1), (1, 1), (1, 1)]):
            if k in (1, 2):
                t = torch.nn.functional.max_pool2d(t, 3, 2)
            kernel = torch.from_numpy(arrays[f"AlexNet_0/Conv_{k}/kernel"]).double()
            bias = torch.from_numpy(arrays[f"AlexNet_0/Conv_{k}/bias"]).double()
            t = torch.nn.functional.conv2d(
                t, kernel.permute(3, 2, 0, 1), bias, stride=stride, padding=padding
            ).relu()
            found.append(t / t.norm(dim=1, keepdim=True))
        return found

    total = 0.0
    for k, (a, b) in enumerate(zip(features(x), features(y), strict=True)):
        w = torch.from_numpy(arrays[f"NetLinLayer_{k}/Conv_0/kernel"]).double().reshape(1, -1, 1, 1)
        total += float((w * (a - b) ** 2).sum(dim=1).mean())
    return total


def test_equals_pytorch():
    torch = pytest.importorskip("torch")
    arrays = random_arrays()
    x, y = images()
    features, weights = alexnet(arrays)
    np.testing.assert_allclose(
        perceptual_distance(x, y, features, weights), in_torch(torch, arrays, x, y), rtol=1e-3
    )


@pytest.mark.slow
def test_a_distance_with_finite_gradients():
    features, weights = alexnet(random_arrays())
    x, y = images(side=32)
    distance = jax.jit(perceptual_distance)
    assert float(distance(x, x, features, weights)) < 1e-9
    there, back = distance(x, y, features, weights), distance(y, x, features, weights)
    np.testing.assert_allclose(there, back, rtol=1e-5)
    gradient = jax.grad(perceptual_distance)(jnp.asarray(y), x, features, weights)
    assert np.all(np.isfinite(gradient))
    flat = jnp.full((32, 32, 3), 0.5)
    assert np.all(np.isfinite(jax.grad(perceptual_distance)(flat, flat, features, weights)))


def test_features_of_your_own():
    x, y = images(side=4)
    whole = perceptual_distance(x, y, lambda image: [image])
    a, b = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (x, y))
    np.testing.assert_allclose(whole, np.mean(np.sum((a - b) ** 2, axis=-1)), rtol=1e-5)


def test_errors():
    features, weights = alexnet(random_arrays())
    x, y = images(side=32)
    with pytest.raises(InputError, match="reference"):
        perceptual_distance(x, y[:20], features, weights)
    with pytest.raises(InputError, match="weights"):
        perceptual_distance(x, y, features, weights[:3])
    with pytest.raises(InputError, match="at least 31 px"):
        features(jnp.ones((28, 28, 1)))
    with pytest.raises(InputError, match="arrays"):
        alexnet({})


@pytest.mark.skipif(not WEIGHTS.is_dir(), reason=f"no weights in {WEIGHTS}")
def test_the_published_weights_order_distortions():
    from PIL import Image

    from weights_convert.numpy_pickle import read_numpy_pickle

    features, weights = alexnet(read_numpy_pickle(WEIGHTS / "lpips_alexnet" / "alexnet.ckpt"))
    with Image.open(WEIGHTS / "images" / "celeba_sample_128.png") as picture:
        face = np.asarray(picture.convert("RGB").resize((64, 64)), np.float32) / 255
    noise = np.random.default_rng(0).normal(size=face.shape).astype(np.float32)
    distance = jax.jit(perceptual_distance)
    found = [float(distance(face + s * noise, face, features, weights)) for s in (0.02, 0.1, 0.3)]
    assert 0 < found[0] < found[1] < found[2] < 2
