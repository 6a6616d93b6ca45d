"""The hand-designed priors against SciPy and plain loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import ndimage

from jaxgen.core.errors import InputError
from jaxgen.target.conditions import ClassLogSoftmax
from jaxgen.target.conditions.regularizers import (
    BlurPenalty,
    CentreBias,
    Jitter,
    L2Decay,
    TotalVariation,
    gaussian_blur,
)

PENALTIES = [
    TotalVariation(0.7, eps=0.02),
    BlurPenalty(0.7, sigma=1.3),
    CentreBias(0.7, sigma=0.4, mean=0.3),
    L2Decay(0.7, mean=jnp.array([0.1, 0.5, 0.9])),
]
names = pytest.mark.parametrize("penalty", PENALTIES, ids=lambda p: type(p).__name__)


def image_of(seed, shape=(9, 12, 3)):
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def total_variation_loop(image, eps):
    height, width, channels = image.shape
    total = 0.0
    for h in range(height):
        for w in range(width):
            for c in range(channels):
                down = image[h + 1, w, c] - image[h, w, c] if h + 1 < height else 0.0
                right = image[h, w + 1, c] - image[h, w, c] if w + 1 < width else 0.0
                total += np.sqrt(float(down) ** 2 + float(right) ** 2 + eps**2) - eps
    return total


def centre_bias_loop(image, sigma, mean):
    height, width, _ = image.shape
    total = 0.0
    for h in range(height):
        for w in range(width):
            y = (h + 0.5 - height / 2) / (height / 2)
            x = (w + 0.5 - width / 2) / (width / 2)
            weight = 1 - np.exp(-(x * x + y * y) / (2 * sigma**2))
            total += weight * np.sum((image[h, w].astype(float) - mean) ** 2)
    return total


def test_total_variation_matches_a_loop():
    image = image_of(0)
    np.testing.assert_allclose(
        TotalVariation(2.0, eps=0.05)(image), -2.0 * total_variation_loop(image, 0.05), rtol=1e-5
    )


def test_total_variation_of_a_step_is_its_height_times_its_length():
    step = np.zeros((8, 8, 1), np.float32)
    step[:, 4:] = 0.5
    np.testing.assert_allclose(TotalVariation(1.0, eps=1e-5)(step), -0.5 * 8, rtol=1e-4)


def test_total_variation_keeps_the_digits_of_tiny_differences():
    image = np.zeros((2, 1, 1), np.float32)
    image[1] = 1e-5  # far below eps: d^2 / (2 eps)
    np.testing.assert_allclose(TotalVariation(1.0, eps=0.1)(image), -(1e-10) / 0.2, rtol=1e-4)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5, 8.0])
@pytest.mark.parametrize("shape", [(9, 12, 3), (5, 8, 1)])
def test_gaussian_blur_matches_scipy(sigma, shape):
    image = image_of(1, shape)
    wanted = ndimage.gaussian_filter(image.astype(float), (sigma, sigma, 0))
    np.testing.assert_allclose(gaussian_blur(image, sigma), wanted, atol=2e-6)


def test_blur_of_width_zero_is_the_image():
    np.testing.assert_array_equal(gaussian_blur(image_of(2), 0.0), image_of(2))


def test_blur_penalty_is_the_distance_to_the_blurred_image():
    image = image_of(3)
    blurred = ndimage.gaussian_filter(image.astype(float), (1.3, 1.3, 0))
    np.testing.assert_allclose(
        BlurPenalty(0.4, 1.3)(image), -0.4 * np.sum((image - blurred) ** 2), rtol=1e-5
    )


def test_centre_bias_matches_a_loop():
    image = image_of(4)
    np.testing.assert_allclose(
        CentreBias(1.5, sigma=0.3, mean=0.2)(image),
        -1.5 * centre_bias_loop(image, 0.3, 0.2),
        rtol=1e-5,
    )


def test_centre_bias_leaves_the_middle_pixel_free():
    dot = np.full((9, 9, 1), 0.5, np.float32)
    dot[4, 4] = 1.0
    assert CentreBias(1.0)(dot) == 0.0
    assert CentreBias(1.0)(np.roll(dot, 4, axis=0)) < -0.1


def test_l2_decay_is_the_kernel_of_a_normal_density():
    image, mean = image_of(5), np.array([0.1, 0.5, 0.9], np.float32)
    sigma = 0.3
    log_density = jax.scipy.stats.norm.logpdf(image, jnp.broadcast_to(mean, image.shape), sigma)
    at_mean = image.size * jax.scipy.stats.norm.logpdf(0.0, 0.0, sigma)
    np.testing.assert_allclose(
        L2Decay(1 / (2 * sigma**2), mean)(image), log_density.sum() - at_mean, rtol=1e-5
    )


def test_a_unit_gradient_step_of_l2_decay_is_the_decay_of_ppgn():
    image, decay = image_of(6), 0.1
    step = jax.grad(L2Decay(decay / 2, mean=0.0))(jnp.asarray(image))
    np.testing.assert_allclose(image + step, (1 - decay) * image, rtol=1e-5)


@names
def test_penalties_are_negative_and_scale_with_their_weight(penalty):
    image = image_of(7)
    assert penalty(image) < 0
    doubled = jax.tree.map(lambda leaf: leaf, penalty)
    object.__setattr__(doubled, "weight", 1.4)
    np.testing.assert_allclose(doubled(image), 2 * penalty(image), rtol=1e-6)


@names
def test_gradients_match_finite_differences(penalty):
    check_grads(penalty, (image_of(8, (5, 6, 3)),), 1, ["rev"], atol=0.02, rtol=0.02)


@names
def test_gradients_exist_on_a_constant_image(penalty):
    gradient = jax.grad(penalty)(jnp.full((6, 6, 3), 0.5))
    assert np.isfinite(gradient).all()


@names
def test_jit_and_vmap_equal_a_loop_and_a_new_weight_compiles_nothing(penalty):
    traces = []

    @jax.jit
    def batched(penalty, images):
        traces.append(1)
        return jax.vmap(penalty)(images)

    images = np.stack([image_of(seed) for seed in range(4)])
    arrays = jax.tree.map(jnp.float32, penalty)
    np.testing.assert_allclose(
        batched(arrays, images), [penalty(image) for image in images], rtol=1e-5
    )
    halved = jax.tree.map(lambda leaf: leaf * jnp.float32(0.5), arrays)
    assert not np.allclose(batched(halved, images), batched(arrays, images))
    assert len(traces) == 1


@names
def test_transformations_may_put_anything_into_the_fields(penalty):
    image = image_of(9)
    gradient = jax.grad(lambda p: p(image))(jax.tree.map(jnp.float32, penalty))
    np.testing.assert_allclose(gradient.weight, penalty(image) / 0.7, rtol=1e-5)
    assert gradient.weight < 0  # a regulariser with a negative weight: not refused
    jax.tree.map(lambda leaf: None, penalty)
    axes = jax.tree.map(lambda leaf: 0, penalty)
    stacked = jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * 3), penalty)
    many = jax.vmap(lambda p: p(image), in_axes=(axes,))(stacked)
    np.testing.assert_allclose(many, np.full(3, penalty(image)), rtol=1e-5)


@names
def test_penalties_add_to_conditions(penalty):
    def classifier(image):
        return image.sum(axis=(0, 1))

    image = image_of(10)
    label = ClassLogSoftmax(classifier, 1)
    for posterior in (label + 2.0 * penalty, 2.0 * penalty + label):
        posterior.check(image.shape)
        np.testing.assert_allclose(posterior(image), label(image) + 2 * penalty(image), rtol=1e-6)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf"), np.float32(-0.5)])
@pytest.mark.parametrize("kind", [TotalVariation, BlurPenalty, CentreBias, L2Decay])
def test_bad_weights_are_refused_when_built(kind, weight):
    with pytest.raises(InputError, match="weight"):
        kind(weight)


@pytest.mark.parametrize("kind", [TotalVariation, BlurPenalty, CentreBias, L2Decay])
def test_bad_arrays_are_refused_by_check(kind):
    with pytest.raises(InputError, match="weight"):
        kind(jnp.float32(-1.0)).check((8, 8, 3))
    with pytest.raises(InputError, match="weight"):
        kind(-1).check((8, 8, 3))
    with pytest.raises(InputError, match="image"):
        kind(1.0).check((8, 8))
    kind(jnp.float32(1.0)).check((8, 8, 3))


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="eps"):
        TotalVariation(1.0, eps=0.0)
    with pytest.raises(InputError, match="sigma"):
        CentreBias(1.0, sigma=0.0)
    with pytest.raises(InputError, match="sigma"):
        BlurPenalty(1.0, sigma=-1.0)
    with pytest.raises(InputError, match="sigma"):
        BlurPenalty(1.0, sigma=100.0).check((8, 8, 3))
    with pytest.raises(InputError, match="sigma"):
        gaussian_blur(np.zeros((8, 8, 3), np.float32), 9.0)
    with pytest.raises(InputError, match="mean"):
        L2Decay(1.0, mean=jnp.zeros(4)).check((8, 8, 3))
    with pytest.raises(InputError, match="max_shift"):
        Jitter(-1)
    with pytest.raises(InputError, match="max_shift"):
        Jitter(1.5)
    with pytest.raises(InputError, match="image"):
        L2Decay(1.0)(np.zeros((2, 8, 8, 3), np.float32))


def test_jitter_rolls_by_every_offset_and_no_other():
    height, width, reach = 8, 9, 2
    image = np.arange(height * width, dtype=np.float32).reshape(height, width, 1)
    keys = jax.random.split(jax.random.key(0), 400)
    shifted = jax.jit(jax.vmap(Jitter(reach).apply, in_axes=(0, None)))(keys, image)
    rolled = {
        np.roll(image, (dy, dx), axis=(0, 1)).tobytes(): (dy, dx)
        for dy in range(-reach, reach + 1)
        for dx in range(-reach, reach + 1)
    }
    seen = {rolled[np.asarray(one).tobytes()] for one in shifted}
    assert seen == set(rolled.values())
