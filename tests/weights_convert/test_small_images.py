"""Small images of MobileStyleGAN, and P space."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen.core.errors import InputError
from jaxgen.models.catalogue import PARTS
from jaxgen.models.fetched import cached
from weights_convert.wheels.mobilestylegan_small import coarse_kernel, p_space


def depthwise(image, kernel):
    """Zero-padded 3 x 3 correlation of each channel, `[H, W, C]`."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    return sum(
        padded[i : i + height, j : j + width] * kernel[i, j, 0] for i in range(3) for j in range(3)
    )


@pytest.mark.parametrize("factor", [2, 4])
def test_a_coarse_kernel_gives_block_means(factor):
    rng = np.random.default_rng(factor)
    kernel, blocks = rng.normal(size=(3, 3, 1, 5)), rng.normal(size=(6, 6, 5))
    fine = depthwise(blocks.repeat(factor, 0).repeat(factor, 1), kernel)
    wanted = fine.reshape(6, factor, 6, factor, 5).mean((1, 3))
    np.testing.assert_allclose(depthwise(blocks, coarse_kernel(kernel, factor)), wanted, atol=1e-12)


def test_p_space_has_the_mean_and_covariance_of_the_styles():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40_000, 6)) @ rng.normal(size=(6, 6)) + rng.normal(size=6)
    style = np.where(x > 0, x, 0.2 * x)
    mean, factor = p_space(style)
    np.testing.assert_allclose(mean, x.mean(0), atol=1e-10)
    np.testing.assert_allclose(factor.T @ factor, np.cov(x.T), atol=1e-8)
    # The directions come in order of falling variance.
    assert np.all(np.diff((factor**2).sum(1)) <= 1e-9)


@pytest.mark.slow
def test_small_images_are_near_the_means_of_large_ones():
    name = "mobilestylegan-ffhq"
    if not cached(name).is_file():
        pytest.skip(f"needs `jaxgen fetch {name}`")
    try:
        small = {side: jaxgen.load(f"{name}/{side}") for side in (16, 32)}
    except InputError as error:
        pytest.skip(f"an older file: {error}")
    assert {"p-16", "p-32", "p"} <= set(PARTS[name])
    large = jaxgen.load(f"{name}/512")
    figures = jaxgen.models.describe(name).metadata["figures"]
    latents = jax.random.normal(jax.random.key(11), (6, 512))
    images = np.stack([np.asarray(jax.jit(lambda n, z: n(z))(large, z)) for z in latents])
    for side, network in small.items():
        block = 512 // side
        wanted = images.reshape(6, side, block, side, block, 3).mean((2, 4))
        found = np.stack([np.asarray(network(z)) for z in latents])
        rmse = np.sqrt(np.mean((found - wanted) ** 2))
        assert rmse < 1.5 * figures[f"readout_{side}"]["rmse"]
    # Draws in P space have the mean image of draws of z, within a few standard errors.
    view = jaxgen.load(f"{name}/p-16")
    some = jax.random.normal(jax.random.key(12), (48, 512))
    both = [np.asarray(jax.lax.map(n, some)) for n in (view, small[16])]
    spread = np.sqrt(sum(x.var(0) / len(x) for x in both)) + 0.01
    assert np.mean(np.abs(both[0].mean(0) - both[1].mean(0)) / spread) < 2.0
    assert np.all(np.isfinite(jnp.asarray(both[0])))
