"""The training loop: resumed is straight, bit for bit, and its checkpoints refuse others."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.errors import InputError
from jaxgen.train.loop import load_state, save_state, train_loop


def step(state, batch, key):
    noise = jax.random.normal(key, state["w"].shape)
    w = 0.9 * state["w"] + 0.1 * jnp.mean(batch) + 0.01 * noise
    return {"w": w, "count": state["count"] + 1}, {"size": jnp.sum(w**2)}


def batcher(data, key):
    return data[jax.random.randint(key, (4,), 0, data.shape[0])]


START = {"w": jnp.zeros(3), "count": jnp.zeros((), jnp.int32)}
DATA = jnp.arange(10.0)


def train(steps, **options):
    return train_loop(jax.random.key(1), START, step, batcher, DATA, steps=steps, **options)


def same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(x, y)


def test_chunks_and_stops_do_not_matter():
    straight = train(20, chunk=20)
    assert int(straight["count"]) == 20
    same(straight, train(20, chunk=7))
    same(straight, train(20, chunk=6, stops=(1, 9)))


def test_the_stepwise_loop_is_the_same_run():
    scanned, stepwise = train(12, chunk=4), train(12, chunk=4, scan=False)
    np.testing.assert_allclose(scanned["w"], stepwise["w"], rtol=1e-6)


def test_resumed_is_straight(tmp_path):
    class Killed(Exception):
        pass

    def kill(done, metrics):
        if done == 12:
            raise Killed

    options = {"chunk": 4, "every": 1, "checkpoint": tmp_path / "c.npz", "fingerprint": "a"}
    with pytest.raises(Killed):
        train(20, progress=kill, **options)
    seen = []
    resumed = train(20, progress=lambda done, metrics: seen.append(done), **options)
    assert seen == [12, 16, 20]  # step 8 was the last one saved
    same(resumed, train(20, chunk=4))
    # What is finished stays finished.
    same(train(20, progress=kill, **options), resumed)


def test_progress_visits_and_metrics():
    seen, visits = [], []
    train(
        10,
        chunk=4,
        progress=lambda done, metrics: seen.append((done, sorted(metrics))),
        visit=lambda done, state: visits.append((done, int(state["count"]))),
        stops=(3,),
    )
    assert [done for done, _ in seen] == [3, 4, 8, 10]
    assert seen[0][1] == ["size"]
    assert visits == [(3, 3), (10, 10)]


def test_checkpoints_of_others_are_refused(tmp_path):
    path = tmp_path / "c.npz"
    save_state(path, 5, START, "mine")
    assert os.listdir(tmp_path) == ["c.npz"]
    assert load_state(path, START, "mine")[0] == 5
    for like, fingerprint in (
        (START, "another"),
        ({**START, "w": jnp.zeros(4)}, "mine"),
        ({**START, "more": jnp.zeros(1)}, "mine"),
    ):
        with pytest.raises(InputError, match=r"c\.npz") as caught:
            load_state(path, like, fingerprint)
        assert "\n" not in str(caught.value)
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(InputError, match="a training checkpoint"):
        load_state(path, START, "mine")


def test_pickles_are_never_loaded(tmp_path):
    path = tmp_path / "c.npz"
    with path.open("wb") as file:
        np.savez(file, step=5, fingerprint="mine", leaf0=np.asarray([{}], object))
    with pytest.raises(InputError, match="a training checkpoint"):
        load_state(path, START, "mine")


def test_keys_in_the_state_survive(tmp_path):
    state = {"key": jax.random.key(7), "x": jnp.ones(2)}
    save_state(tmp_path / "c.npz", 1, state)
    _, back = load_state(tmp_path / "c.npz", state)
    assert jax.random.uniform(back["key"]) == jax.random.uniform(state["key"])
