"""Points are put into places, and negligible places are left out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

from jaxgen.target.places import find_places

SIZE = 6
CENTRES = np.array([[4.0] * SIZE, [-4.0] * SIZE, [4.0, -4.0] * (SIZE // 2)])
MASSES = np.array([0.5, 0.3, 0.2])


def log_density(z):
    """Three normal modes, unnormalised: the constant must not matter."""
    terms = jnp.log(jnp.asarray(MASSES)) - 0.5 * jnp.sum(
        (z[None] - jnp.asarray(CENTRES)) ** 2, axis=1
    )
    return jax.nn.logsumexp(terms) + 7.0


def points(counts, seed=0):
    """So many draws of each mode, and which mode each is of."""
    mode = np.repeat(np.arange(len(counts)), counts)
    z = CENTRES[mode] + np.random.default_rng(seed).normal(size=(len(mode), SIZE))
    return jnp.asarray(z, jnp.float32), mode


def places(z, usable=None):
    density, gradient = jax.vmap(jax.value_and_grad(log_density))(z)
    usable = jnp.ones(len(z), bool) if usable is None else usable
    return find_places(z, density, gradient, usable, jnp.ones(SIZE))


def test_each_mode_is_a_place_of_equal_weight_whatever_its_share_of_the_points():
    z, mode = points([5, 40, 19])
    found = places(z)
    np.testing.assert_array_equal(found.same, mode[:, None] == mode[None])
    assert bool(found.are_modes)
    assert not bool(found.are_unclear)
    weight = np.exp(np.asarray(found.log_weight))
    np.testing.assert_allclose(np.bincount(mode, weight), 1 / 3, atol=1e-5)
    assert np.ptp(weight[mode == 1]) < 1e-6


def test_the_pull_leads_to_the_means_of_normal_modes():
    z, mode = points([20, 20, 20])
    pulled = np.asarray(z) + np.asarray(places(z).pull)
    means = np.stack([pulled[mode == k].mean(0) for k in range(3)])
    np.testing.assert_allclose(means, CENTRES, atol=0.15)
    plain = np.stack([np.asarray(z)[mode == k].mean(0) for k in range(3)])
    assert np.abs(means - CENTRES).mean() < 0.5 * np.abs(plain - CENTRES).mean()


def test_one_mode_is_no_modes():
    z, _ = points([64, 0, 0])
    found = places(z)
    assert bool(jnp.all(found.same))
    assert not bool(found.are_modes)
    assert not bool(found.are_unclear)


def test_points_that_are_not_usable_belong_to_no_place():
    z, mode = points([20, 20, 20])
    z = z.at[3].set(jnp.nan)
    found = places(z, jnp.asarray(mode != 2))
    left_out = (mode == 2) | (np.arange(60) == 3)
    assert np.all(np.isneginf(np.asarray(found.log_weight)[left_out]))
    assert np.all(np.isfinite(np.asarray(found.log_weight)[~left_out]))
    assert bool(found.are_modes)


def test_a_place_of_next_to_no_mass_is_left_out():
    z, mode = points([20, 20, 20])
    density, gradient = jax.vmap(jax.value_and_grad(log_density))(z)
    density = jnp.where(jnp.asarray(mode == 1), density - 40.0, density)
    found = find_places(z, density, gradient, jnp.ones(60, bool), jnp.ones(SIZE))
    assert np.all(np.isneginf(np.asarray(found.log_weight)[mode == 1]))
    assert bool(found.are_modes)


def test_many_points_that_lie_alone_tell_of_places_that_none_has_found():
    rng = np.random.default_rng(3)
    crowd = [rng.normal(size=(10, SIZE)) + shift for shift in (-30.0, 30.0)]
    z = jnp.asarray(np.concatenate([*crowd, 100 * rng.normal(size=(6, SIZE))]), jnp.float32)
    density = jnp.zeros(len(z))
    found = find_places(z, density, jnp.ones_like(z), jnp.ones(len(z), bool), jnp.ones(SIZE))
    assert not bool(found.are_modes)
    assert bool(found.are_unclear)


@pytest.mark.parametrize("seed", range(3))
def test_places_are_the_connected_components(seed):
    rng = np.random.default_rng(seed)
    z = jnp.asarray(rng.uniform(-6, 6, size=(80, 2)), jnp.float32)
    zeros = jnp.zeros_like(z)
    found = find_places(z, jnp.zeros(80), zeros, jnp.ones(80, bool), jnp.full(2, 0.05))
    half = 0.5 * np.sum((np.asarray(z)[:, None] - np.asarray(z)[None]) ** 2, axis=2) / 0.05
    nearest = np.sort(half, axis=1)[:, 1]
    linked = half < max(2 * 2 + 4, 1.5 * np.median(nearest))
    label = connected_components(linked)[1]
    np.testing.assert_array_equal(found.same, label[:, None] == label[None])
