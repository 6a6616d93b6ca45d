"""The training loop: resumed is straight, bit for bit, and its checkpoints refuse others."""

import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen.core.errors import InputError
from jaxgen.train.checkpoints import load_state, newest, save_state
from jaxgen.train.loop import EarlyStop, train_loop


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

    options = {"chunk": 4, "every": 1, "checkpoint": tmp_path / "c", "fingerprint": "a"}
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


@pytest.mark.slow
def test_a_run_stops_where_a_figure_no_longer_falls(tmp_path):
    """w goes to 4.5: how far it is from 2 falls, then rises."""

    def away(state):
        return jnp.abs(jnp.mean(state["w"]) - 2)

    early = EarlyStop(away, every=2, patience=3)
    seen, ends = [], []
    best = train(
        60,
        chunk=7,
        early=early,
        progress=lambda done, _: seen.append(done),
        visit=lambda done, _: ends.append(done),
    )
    figures = {n: float(away(train(n))) for n in range(2, 30, 2)}
    least = min(figures, key=figures.get)
    same(best, train(least))
    assert ends == [seen[-1]] == [least + 6]

    # Stopped at any moment it comes to the same, and when it is over it stays so.
    class Killed(Exception):
        pass

    def kill(done, metrics):
        if done >= least + 3:
            raise Killed

    options = {"chunk": 7, "every": 1, "checkpoint": tmp_path / "c", "early": early}
    with pytest.raises(Killed):
        train(60, progress=kill, **options)
    same(train(60, **options), best)
    same(train(60, progress=kill, **options), best)
    with pytest.raises(InputError, match=r"early\.patience: expected at least 1; got 0"):
        train(3, early=early._replace(patience=0))


def test_nan_is_no_improvement():
    early = EarlyStop(lambda state: jnp.nan, every=1, patience=4)
    seen = []
    same(train(20, early=early, progress=lambda done, _: seen.append(done)), START)
    assert seen == [1, 2, 3, 4]


def test_checkpoints_of_others_are_refused(tmp_path):
    path = tmp_path / "c"
    for step in (5, 6):
        save_state(path, step, START, "mine")
    assert sorted(x.name for x in path.glob("*.json")) == ["00000005.json", "00000006.json"]
    assert load_state(path, START, "mine")[0] == 6
    for like, fingerprint in (
        (START, "another"),
        ({**START, "w": jnp.zeros(4)}, "mine"),
        ({**START, "more": jnp.zeros(1)}, "mine"),
    ):
        with pytest.raises(InputError, match=r"c/00000006\.safetensors") as caught:
            load_state(path, like, fingerprint)
        assert "\n" not in str(caught.value)
    newest, before = (path / f"0000000{step}.safetensors" for step in (6, 5))
    newest.write_bytes(newest.read_bytes()[:-10])
    with pytest.warns(UserWarning, match=r"The one before it, 00000005\.safetensors, serves"):
        assert load_state(path, START, "mine")[0] == 5
    before.write_bytes(b"")
    with pytest.raises(InputError, match="a training checkpoint"):
        load_state(path, START, "mine")
    with pytest.raises(InputError, match="a folder with a training checkpoint"):
        load_state(tmp_path / "none", START, "mine")


def test_a_save_that_was_killed_is_not_taken_for_one(tmp_path):
    path = tmp_path / "c"
    for step in (4, 5):
        save_state(path, step, START)
    save_state(path, 9, START)
    (path / "00000009.json").unlink()  # killed after the arrays, before the manifest
    assert load_state(path, START)[0] == 5
    for step in (7, 8):
        save_state(path, step, START)
    kept = {"00000007.json", "00000007.safetensors", "00000008.json", "00000008.safetensors"}
    assert kept <= {x.name for x in path.iterdir()}
    assert not list(path.glob("0000000[45]*"))
    (tmp_path / "old" / "000000009").mkdir(parents=True)
    with pytest.raises(InputError, match="one of a former"):
        train(3, checkpoint=tmp_path / "old")


def test_one_flipped_bit_is_never_trained_on(tmp_path):
    whole = train(12, chunk=2, every=1, checkpoint=tmp_path / "whole")
    random = np.random.default_rng(0)
    for _ in range(6):
        path = tmp_path / "c"
        train(8, chunk=2, every=1, checkpoint=path)
        file = sorted(path.glob("*.safetensors"))[-1]
        data = bytearray(file.read_bytes())
        data[random.integers(len(data))] ^= 1 << random.integers(8)
        file.write_bytes(data)
        with pytest.warns(UserWarning, match="serves"):
            same(train(12, chunk=2, every=1, checkpoint=path), whole)
        shutil.rmtree(path)


def test_two_cannot_train_into_one_folder(tmp_path):
    def another(done, metrics):
        with pytest.raises(InputError, match="no other process writes"):
            train(3, checkpoint=tmp_path / "c")

    alone = train(3)
    same(train(3, checkpoint=tmp_path / "c", progress=another), alone)


def test_empty_arrays_come_back(tmp_path):
    state = {"none": jnp.zeros((0, 3)), "x": jnp.ones(2)}
    save_state(tmp_path / "c", 1, state)
    same(load_state(tmp_path / "c", state)[1], state)


def test_keys_in_the_state_survive(tmp_path):
    state = {"key": jax.random.key(7), "x": jnp.ones(2)}
    save_state(tmp_path / "c", 1, state)
    _, back = load_state(tmp_path / "c", state)
    assert jax.random.uniform(back["key"]) == jax.random.uniform(state["key"])


@pytest.mark.parametrize("scan", [True, False])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_writes_a_checkpoint_first(tmp_path, scan, number):
    """In the middle of a chunk, and long before the next checkpoint is due."""
    place = tmp_path / "c"

    def disturbed(data, key):
        if not place.joinpath("sent").exists():
            place.joinpath("sent").touch()
            signal.raise_signal(number)
        return batcher(data, key)  # while it is traced: the first chunk has yet to run

    options = {"chunk": 8, "every": 100, "checkpoint": place, "scan": scan}
    stop = KeyboardInterrupt if number == signal.SIGINT else jaxgen.Preempted
    before = signal.getsignal(number)
    with pytest.raises(stop) as caught:
        train_loop(jax.random.key(1), START, step, disturbed, DATA, steps=20, **options)
    assert caught.value.code == 128 + number
    assert signal.getsignal(number) is before
    assert newest(place) == (8 if scan else 1)
    same(train(20, **options), train(20, chunk=8, scan=scan))


def test_a_second_interrupt_does_not_wait(tmp_path):
    def impatient(data, key):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return batcher(data, key)

    with pytest.raises(KeyboardInterrupt):
        train_loop(
            jax.random.key(1), START, step, impatient, DATA, steps=2, checkpoint=tmp_path / "c"
        )
    assert not (tmp_path / "c").exists()
