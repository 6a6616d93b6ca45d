"""How many of many posteriors run in one program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen.core.errors import InputError
from jaxgen.core.platform import compiling_for
from jaxgen.inference import many
from jaxgen.inference.many import _items_at_once
from jaxgen.sampler.tile import bytes_per_chain
from jaxgen.target.path import likelihood_path

WIDTH = 1000


def target():
    """A posterior whose generator keeps a thousand numbers, and a few more, of each chain."""
    weight = jnp.ones((4, WIDTH))
    return jaxgen.Posterior(
        jaxgen.Gaussian.standard(4),
        lambda z: jax.nn.sigmoid(z @ weight),
        jaxgen.ObservedPixels(jnp.zeros(WIDTH), jnp.ones(WIDTH), 0.5),
    )


PATH = likelihood_path(target())


def chain_bytes():
    return bytes_per_chain(PATH, jax.ShapeDtypeStruct((4,), jnp.float32))


def test_a_cpu_runs_each_item_by_itself():
    with compiling_for("cpu"):
        assert _items_at_once(PATH, {}) == 1


@pytest.mark.parametrize(("tiles", "items"), [(1, 1), (3.5, 3), (1000, 16)])
def test_items_of_a_batch_fill_the_memory_and_no_more(tiles, items):
    with compiling_for("gpu"):
        memory = int(tiles * 64 * chain_bytes())
        assert _items_at_once(PATH, {"num_chains": 64, "tile": 64, "memory": memory}) == items


def test_one_item_that_fills_the_memory_runs_alone():
    with compiling_for("gpu"):
        memory = 10 * chain_bytes()
        assert _items_at_once(PATH, {"memory": memory}) == 1


@pytest.mark.parametrize("where", ["cpu", "gpu"])
@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"num_chains": "8"}, "num_chains"),
        ({"num_chains": None}, "num_chains"),
        ({"num_chains": 0}, "num_chains"),
        ({"memory": "4GB"}, "memory"),
        ({"tile": "4"}, "tile"),
    ],
)
def test_what_a_batch_cannot_be_chosen_from_is_refused(where, settings, word):
    with compiling_for(where), pytest.raises(InputError, match=word):
        jaxgen.sample_each(0, lambda _: target(), jnp.zeros(3), **settings)


def test_what_is_no_posterior_is_refused():
    with compiling_for("gpu"), pytest.raises(InputError, match="a Posterior or an AnnealedPath"):
        jaxgen.sample_each(0, lambda _: 42, jnp.zeros(3))


def test_it_says_that_it_is_not_for_a_trace():
    def inside(key):
        return jaxgen.sample_each(key, lambda _: target(), jnp.zeros(3))

    with pytest.raises(InputError, match="outside of jax"):
        jax.jit(inside)(jax.random.key(0))


@pytest.mark.parametrize(("items", "batches"), [(17, [9, 9]), (16, [16]), (33, [11, 11, 11])])
def test_batches_are_of_one_size_and_hold_few_copies(monkeypatch, items, batches):
    seen = []

    def recorded(key, index, make, chosen, kernel, settings):
        seen.append(np.asarray(index))
        return jnp.zeros(len(index))

    monkeypatch.setattr(many, "_batch", recorded)
    monkeypatch.setattr(many, "_settled", lambda found, item: item)
    with compiling_for("gpu"):
        made = jaxgen.sample_each(0, lambda _: target(), jnp.zeros(items), num_chains=8)
    assert [len(index) for index in seen] == batches
    assert made == list(range(items))
