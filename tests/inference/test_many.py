"""How many of many posteriors run in one program."""

import jax
import jax.numpy as jnp
import pytest

import jaxgen
from jaxgen.core.platform import compiling_for
from jaxgen.inference.many import _items_at_once
from jaxgen.sampler.tile import bytes_per_chain
from jaxgen.target.path import likelihood_path

WIDTH = 1000


def target():
    """A posterior whose generator keeps a thousand numbers, and a few more, of each chain."""
    weight = jnp.ones((4, WIDTH))
    return jaxgen.Posterior(
        jaxgen.Gaussian.standard(4),
        lambda z: jnp.tanh(z @ weight),
        jaxgen.ObservedPixels(jnp.zeros(WIDTH), jnp.ones(WIDTH), 0.5),
    )


def chain_bytes():
    path = likelihood_path(target())
    return bytes_per_chain(path, jax.ShapeDtypeStruct((4,), jnp.float32))


def test_a_cpu_runs_each_item_by_itself():
    with compiling_for("cpu"):
        assert _items_at_once(target(), {}) == 1


@pytest.mark.parametrize(("tiles", "items"), [(1, 1), (3.5, 3), (1000, 16)])
def test_items_of_a_batch_fill_the_memory_and_no_more(tiles, items):
    with compiling_for("gpu"):
        memory = int(tiles * 64 * chain_bytes())
        assert _items_at_once(target(), {"num_chains": 64, "tile": 64, "memory": memory}) == items


def test_one_item_that_fills_the_memory_runs_alone():
    with compiling_for("gpu"):
        memory = 10 * chain_bytes()
        assert _items_at_once(target(), {"memory": memory}) == 1
