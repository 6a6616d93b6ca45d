"""MSE, PSNR, SSIM and MS-SSIM against scikit-image and a float64 reference in SciPy."""

import jax
import numpy as np
import pytest
from scipy.signal import convolve2d
from skimage.metrics import mean_squared_error, peak_signal_noise_ratio, structural_similarity

from jaxgen.core.errors import InputError
from jaxgen.metrics import ms_ssim, ms_ssim_scales, mse, psnr, regions, ssim


def pair(seed, shape, noise):
    """A smooth image and a noisy copy, both in [0, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]] / max(shape)
    phase = rng.uniform(0, 6, size=shape[2])
    image = 0.5 + 0.4 * np.sin(9 * x[..., None] + 5 * y[..., None] + phase)
    other = np.clip(image + noise * rng.normal(size=shape), 0, 1)
    return image.astype(np.float32), other.astype(np.float32)


def ms_ssim_reference(image, other, scales, window=11, sigma=1.5):
    """Multi-scale SSIM in float64, channel by channel, with SciPy's convolution."""
    exponents = np.array([0.0448, 0.2856, 0.3001, 0.2363, 0.1333])[:scales]
    exponents /= exponents.sum()
    values = []
    for c in range(image.shape[-1]):
        a, b = image[..., c].astype(float), other[..., c].astype(float)
        value = 1.0
        for scale, exponent in enumerate(exponents):
            size = min(window, *a.shape)
            grid = np.arange(size) - (size - 1) / 2
            line = np.exp(-(grid**2) / (2 * (sigma * size / window) ** 2))
            kernel = np.outer(line, line) / line.sum() ** 2

            def mean(array, kernel=kernel):
                return convolve2d(array, kernel, mode="valid")

            ma, mb = mean(a), mean(b)
            va, vb = mean(a * a) - ma**2, mean(b * b) - mb**2
            cov = mean(a * b) - ma * mb
            cs = (2 * cov + 9e-4) / (va + vb + 9e-4)
            lum = (2 * ma * mb + 1e-4) / (ma**2 + mb**2 + 1e-4)
            term = np.mean(lum * cs) if scale == scales - 1 else np.mean(cs)
            value *= max(term, 0.0) ** exponent
            rows, columns = a.shape[0] // 2 * 2, a.shape[1] // 2 * 2
            a, b = (
                sum(u[i:rows:2, j:columns:2] for i in (0, 1) for j in (0, 1)) / 4 for u in (a, b)
            )
        values.append(value)
    return np.mean(values)


SHAPES = [(28, 28, 1), (32, 40, 3), (64, 64, 3)]
shapes = pytest.mark.parametrize("shape", SHAPES)
noises = pytest.mark.parametrize("noise", [0.01, 0.1, 0.5])


@shapes
@noises
def test_mse_psnr_and_ssim_equal_scikit_image(shape, noise):
    image, other = pair(0, shape, noise)
    np.testing.assert_allclose(mse(image, other), mean_squared_error(image, other), rtol=1e-5)
    np.testing.assert_allclose(
        psnr(image, other), peak_signal_noise_ratio(image, other, data_range=1.0), rtol=1e-5
    )
    wanted = structural_similarity(
        image.astype(float), other.astype(float), data_range=1.0, channel_axis=-1
    )
    np.testing.assert_allclose(ssim(image, other), wanted, atol=1e-5)


def test_ssim_keeps_its_digits_in_flat_bright_images():
    rng = np.random.default_rng(1)
    image = (0.98 + 0.005 * rng.normal(size=(64, 64, 3))).astype(np.float32)
    other = (0.98 + 0.005 * rng.normal(size=(64, 64, 3))).astype(np.float32)
    wanted = structural_similarity(
        image.astype(float), other.astype(float), data_range=1.0, channel_axis=-1
    )
    np.testing.assert_allclose(ssim(image, other), wanted, atol=1e-5)


def test_ssim_of_another_range_and_window():
    image, other = pair(2, (30, 30, 2), 0.2)
    wanted = structural_similarity(
        image.astype(float), other.astype(float), data_range=2.0, win_size=11, channel_axis=-1
    )
    np.testing.assert_allclose(
        ssim(image, other, data_range=2.0, window_size=11), wanted, atol=1e-5
    )


@shapes
def test_similarities_of_equal_images_are_one_and_symmetric(shape):
    image, other = pair(3, shape, 0.2)
    for similarity in (ssim, ms_ssim):
        np.testing.assert_allclose(similarity(image, image), 1.0, atol=1e-6)
        np.testing.assert_allclose(similarity(image, other), similarity(other, image), atol=1e-6)
        assert similarity(image, other) < 0.95


@shapes
@noises
def test_ms_ssim_matches_a_float64_reference(shape, noise):
    image, other = pair(4, shape, noise)
    wanted = ms_ssim_reference(image, other, ms_ssim_scales(*shape[:2]))
    np.testing.assert_allclose(ms_ssim(image, other), wanted, atol=2e-5)


def test_ms_ssim_of_one_scale_is_scikit_image_with_gaussian_windows():
    image, other = pair(5, (40, 36, 3), 0.1)
    wanted = structural_similarity(
        image.astype(float),
        other.astype(float),
        data_range=1.0,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    np.testing.assert_allclose(ms_ssim(image, other, num_scales=1), wanted, atol=1e-5)


def test_ms_ssim_of_the_published_five_scales():
    image, other = pair(6, (180, 180, 1), 0.1)
    assert ms_ssim_scales(180, 180) == 5
    np.testing.assert_allclose(ms_ssim(image, other), ms_ssim_reference(image, other, 5), atol=2e-5)


def test_number_of_scales_follows_the_shorter_side():
    sides = [7, 14, 28, 32, 64, 111, 112, 1024]
    assert [ms_ssim_scales(side, 2000) for side in sides] == [1, 2, 3, 3, 4, 4, 5, 5]


def test_negative_structure_counts_as_zero():
    image, _ = pair(7, (32, 32, 1), 0.1)
    assert ms_ssim(image, 1 - image) == 0.0


def test_masked_errors_split_the_total():
    image, other = pair(8, (16, 16, 3), 0.3)
    observed = np.random.default_rng(8).uniform(size=(16, 16)) < 0.7
    on, off = mse(image, other, observed), mse(image, other, 1 - observed[..., None])
    np.testing.assert_allclose(on, np.mean((image - other)[observed] ** 2), rtol=1e-5)
    np.testing.assert_allclose(off, np.mean((image - other)[~observed] ** 2), rtol=1e-5)
    share = observed.mean()
    np.testing.assert_allclose(share * on + (1 - share) * off, mse(image, other), rtol=1e-5)
    np.testing.assert_allclose(psnr(image, other, observed), -10 * np.log10(on), rtol=1e-5)
    full = np.broadcast_to(observed[..., None], image.shape)
    np.testing.assert_allclose(mse(image, other, full), on, rtol=1e-6)
    assert np.isnan(mse(image, other, np.zeros((16, 16))))


def test_jit_and_vmap_equal_a_loop():
    pairs = [pair(seed, (28, 28, 1), 0.2) for seed in range(4)]
    images, others = (np.stack(side) for side in zip(*pairs, strict=True))
    for metric in (mse, psnr, ssim, ms_ssim):
        batched = jax.jit(jax.vmap(metric))(images, others)
        np.testing.assert_allclose(batched, [metric(a, b) for a, b in pairs], rtol=1e-5)


def test_bad_images_are_refused():
    image = np.zeros((28, 28, 1), np.float32)
    with pytest.raises(InputError, match="reference"):
        mse(image, image[:-1])
    with pytest.raises(InputError, match="Divide 8-bit images by 255"):
        ssim(image.astype(np.uint8), image)
    with pytest.raises(InputError, match="vmap"):
        ssim(image[None], image[None])
    with pytest.raises(InputError, match="mask"):
        mse(image, image, np.ones((28, 27)))
    with pytest.raises(InputError, match="window_size"):
        ssim(image, image, window_size=8)
    with pytest.raises(InputError, match="window_size"):
        ssim(image[:5], image[:5])
    with pytest.raises(InputError, match="num_scales"):
        ms_ssim(image, image, num_scales=6)


def test_ssim_of_a_region_is_the_mean_of_scikit_images_map_there():
    image, other = pair(7, (28, 32, 3), 0.2)
    mask = np.zeros((28, 32))
    mask[10:22, 5:17] = 1
    _, full = structural_similarity(
        image.astype(float), other.astype(float), data_range=1.0, channel_axis=-1, full=True
    )
    np.testing.assert_allclose(ssim(image, other, mask), full[10:22, 5:17].mean(), atol=1e-5)
    np.testing.assert_allclose(ssim(image, other, np.ones((28, 32))), ssim(image, other), atol=1e-6)


def test_regions_part_the_error_between_them():
    image, other = pair(8, (20, 24, 1), 0.3)
    mask = np.ones((20, 24))
    mask[:8] = 0
    other[8:] = image[8:]  # observed pixels are met exactly
    found = regions(image, other, mask)
    np.testing.assert_allclose(found.hidden.mse, mean_squared_error(image[:8], other[:8]), 1e-5)
    assert found.observed.mse == 0
    assert np.isinf(found.observed.psnr)
    np.testing.assert_allclose(found.whole.mse, found.hidden.mse * 8 / 20, rtol=1e-5)
    assert found.hidden.ssim < found.whole.ssim < found.observed.ssim
    with pytest.raises(InputError, match="mask"):
        regions(image, other, np.ones((3, 3)))
