"""Run folders: stopped anywhere, a run goes on to the same bits."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen import InputError, kernels, schedules
from jaxgen.core import fingerprint
from jaxgen.sampler import checkpoint as store
from jaxgen.sampler import loop, prepare
from tests.toys import LinearGaussian

ROOT = Path(__file__).parents[2]
OPTIONS = {"num_chains": 12, "num_steps": 21, "thin": 2, "warmup": 4, "checkpoint_every": 0}


@pytest.fixture(scope="module")
def posterior():
    return LinearGaussian(3, noise=0.3).posterior


@pytest.fixture(scope="module")
def whole(posterior):
    return jaxgen.sample(jax.random.key(4), posterior, **OPTIONS)


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(prepare, "_MOST_ITERATIONS", 3)


def draw(posterior, folder, **changes):
    return jaxgen.sample(jax.random.key(4), posterior, folder=folder, **{**OPTIONS, **changes})


def same(a, b):
    """Every array of two results, bit for bit."""
    a, b = (r._replace(state=r.state._replace(key=0, chain_keys=0)) for r in (a, b))
    return all(
        np.array_equal(x, y, equal_nan=np.asarray(x).dtype.kind == "f")
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


class Stopped(Exception):
    pass


def stop_after(monkeypatch, chunks):
    """The process dies after so many checkpoints."""
    save, seen = store.RunFolder.save, []

    def dying(self, checkpoint):
        save(self, checkpoint)
        seen.append(checkpoint.phase)
        if len(seen) == chunks:
            raise Stopped

    monkeypatch.setattr(store.RunFolder, "save", dying)


def test_a_folder_changes_nothing(posterior, whole, tmp_path):
    kept = draw(posterior, tmp_path / "run")
    assert same(kept, whole)
    stored = jaxgen.load_run(tmp_path / "run")
    assert stored.num_draws == 10
    np.testing.assert_array_equal(stored.draws["draws"], whole.draws)
    some = jaxgen.load_run(tmp_path / "run", 3, 8).draws["draws"]
    np.testing.assert_array_equal(some, whole.draws[:, 3:8])
    last = jaxgen.load_run(tmp_path / "run", -2).draws["draws"]
    np.testing.assert_array_equal(last, whole.draws[:, -2:])
    assert stored.settings["num_chains"] == "12"
    assert stored.environment["jax"] == jax.__version__


@pytest.mark.usefixtures("small_chunks")
def test_stopped_after_any_chunk_it_goes_on_to_the_same_bits(
    posterior, whole, tmp_path, monkeypatch
):
    phases = set()
    for chunks in (1, 3, 5, 7, 9, 10):
        folder = tmp_path / str(chunks)
        with monkeypatch.context() as patch:
            stop_after(patch, chunks)
            with pytest.raises(Stopped):
                draw(posterior, folder)
        found = jaxgen.load_run(folder)
        if found.num_draws:  # whatever is there is already right
            got = found.draws["draws"]
            np.testing.assert_array_equal(got, whole.draws[:, : found.num_draws])
        with monkeypatch.context() as patch:
            patch.delattr(loop, "init")  # it does not start again
            resumed = draw(posterior, folder, resume=True)
        assert same(resumed, whole)
        phases.add(found.num_draws)
        # Resuming what is complete reads it.
        assert same(draw(posterior, folder, resume=True), whole)
    assert len(phases) > 2  # stopped before and among the draws


def total(accumulator, kept):
    start = {"sum": np.zeros(3), "count": np.zeros((), np.int64)}
    accumulator = accumulator or start
    return {
        "sum": accumulator["sum"] + kept.sum((0, 1)),
        "count": accumulator["count"] + kept.shape[0] * kept.shape[1],
    }


@pytest.mark.usefixtures("small_chunks")
def test_reduced_draws_are_part_of_the_checkpoint(posterior, whole, tmp_path, monkeypatch):
    alone = jaxgen.sample(jax.random.key(4), posterior, reduce=total, **OPTIONS)
    np.testing.assert_allclose(alone.draws["sum"], whole.draws.sum((0, 1)), rtol=1e-5)
    assert alone.draws["count"] == whole.draws[..., 0].size
    with monkeypatch.context() as patch:
        stop_after(patch, 9)
        with pytest.raises(Stopped):
            draw(posterior, tmp_path / "run", reduce=total)
    resumed = draw(posterior, tmp_path / "run", reduce=total, resume=True)
    np.testing.assert_array_equal(resumed.draws["sum"], alone.draws["sum"])
    assert resumed.draws["count"] == alone.draws["count"]


@pytest.mark.usefixtures("small_chunks")
def test_more_draws_than_memory_should_hold_stay_on_disk(posterior, tmp_path, monkeypatch):
    monkeypatch.setattr(store.folder, "_MOST_READ", 100)
    assert draw(posterior, tmp_path).draws is None
    assert jaxgen.load_run(tmp_path).num_draws == 10


def test_annealing_is_kept_as_well(posterior, tmp_path, monkeypatch):
    options = {"num_chains": 6, "betas": schedules.linear(9), "checkpoint_every": 0}
    whole = jaxgen.ais(jax.random.key(0), posterior, **options)
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(Stopped):
            jaxgen.ais(jax.random.key(0), posterior, folder=tmp_path, **options)
    resumed = jaxgen.ais(jax.random.key(0), posterior, folder=tmp_path, resume=True, **options)
    assert same(resumed, whole)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_chains": 13}, "num_chains was 12, is 13"),
        ({"kernel": kernels.MALA()}, r"kernel was HMC\(num_steps=10, jitter=True\), is MALA"),
        ({"num_mcmc_steps": 4}, "num_mcmc_steps was 3, is 4"),
        ({"tile": 5}, "tile was 12, is 5"),
        ({"collect": None}, "collect was jaxgen.positions"),
    ],
)
def test_another_configuration_is_refused_with_the_difference(
    posterior, tmp_path_factory, changes, words
):
    folder = tmp_path_factory.getbasetemp() / "configured"
    if not folder.exists():
        draw(posterior, folder)
    with pytest.raises(InputError, match=words):
        draw(posterior, folder, resume=True, **changes)


def test_a_run_of_two_steps_says_how_it_is_resumed(posterior, tmp_path):
    """Runs of former versions made two steps where no number was given."""
    options = {"num_chains": 16, "num_steps": 2, "thin": 1, "warmup": 0, "folder": tmp_path}
    whole = jaxgen.sample(jax.random.key(0), posterior, num_mcmc_steps=2, **options)
    with pytest.raises(InputError, match=r"most_mcmc_steps.*give num_mcmc_steps=2"):
        jaxgen.sample(jax.random.key(0), posterior, resume=True, **options)
    resumed = jaxgen.sample(jax.random.key(0), posterior, num_mcmc_steps=2, resume=True, **options)
    assert same(resumed, whole)


def test_other_weights_observations_and_keys_are_refused(posterior, tmp_path):
    draw(posterior, tmp_path)
    other = LinearGaussian(3, noise=0.3, seed=1).posterior
    with pytest.raises(InputError, match=r"condition.observed was float32\[3, 1, 1\]"):
        draw(other, tmp_path, resume=True)
    with pytest.raises(InputError, match=r"key was key \[0, 4\], is key \[0, 5\]"):
        jaxgen.sample(jax.random.key(5), posterior, folder=tmp_path, resume=True, **OPTIONS)


def test_what_a_fingerprint_tells_apart():
    weights = {f"layer{i}": np.full(3, i, np.float32) for i in range(40)}
    a = fingerprint.describe({"w": weights, "f": lambda x: x + 1, "n": 3})
    weights["layer7"][1] = 7.000001
    b = fingerprint.describe({"w": weights, "f": lambda x: x + 2, "n": 3})
    lines = fingerprint.difference(a, b)
    assert len(lines) == 2
    assert lines[1].startswith("w was 120 numbers sha256")
    assert not fingerprint.difference(b, fingerprint.describe({"w": weights, "n": 3}) | b)


def test_every_weight_of_a_network_counts():
    network = jaxgen.load("fashion-mnist/dcgan")
    was = fingerprint.describe(network)
    leaves, structure = jax.tree.flatten(network)
    large = max(range(len(leaves)), key=lambda i: leaves[i].size)
    middle = leaves[large].size // 2
    leaves[large] = leaves[large].ravel().at[middle].add(1e-3).reshape(leaves[large].shape)
    lines = fingerprint.difference(was, fingerprint.describe(jax.tree.unflatten(structure, leaves)))
    assert len(lines) == 1
    assert len(was) < 20


def test_a_taken_folder_and_one_in_use_are_refused(posterior, tmp_path):
    draw(posterior, tmp_path / "run")
    with pytest.raises(InputError, match="resume=True to resume it"):
        draw(posterior, tmp_path / "run")
    with (
        store.process.locked(tmp_path / "run"),
        pytest.raises(InputError, match=r"in use\. Wait for the other run"),
    ):
        draw(posterior, tmp_path / "run", resume=True)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"photos with a\.png"):
        draw(posterior, tmp_path / "photos")
    assert os.listdir(tmp_path / "photos") == ["a.png"]


def test_arguments_that_make_no_sense(posterior, tmp_path):
    with pytest.raises(InputError, match="Give folder as well"):
        draw(posterior, None, resume=True)
    with pytest.raises(InputError, match="a number of seconds"):
        draw(posterior, tmp_path / "a", checkpoint_every=-1)
    with pytest.raises(InputError, match=r"a run folder; got none with a run\.json"):
        jaxgen.load_run(tmp_path)


@pytest.mark.parametrize("broken", ["draws", "checkpoint"])
@pytest.mark.usefixtures("small_chunks")
def test_a_full_disk_leaves_the_last_checkpoint_whole(
    posterior, whole, tmp_path, monkeypatch, broken
):
    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        stop_after(patch, 8)
        with pytest.raises(Stopped):
            draw(posterior, tmp_path)
    before = jaxgen.load_run(tmp_path).num_draws
    with monkeypatch.context() as patch:
        if broken == "draws":
            patch.setattr(store.draws, "write_arrays", full)
        else:
            patch.setattr(store.manifests, "write_json", full)
        with pytest.raises(InputError, match=r"No space left on device\. The last checkpoint"):
            draw(posterior, tmp_path, resume=True)
    assert jaxgen.load_run(tmp_path).num_draws >= before
    assert same(draw(posterior, tmp_path, resume=True), whole)


PROCESS = """
import sys
import time
import jax
import jaxgen
from tests.toys import LinearGaussian
def slowly(progress):
    print(progress.phase, progress.done, flush=True)
    time.sleep(0.1)  # the signal comes before the run is over
options = dict(num_chains=12, num_steps=4000, warmup=4, checkpoint_every=float(sys.argv[2]))
result = jaxgen.sample(jax.random.key(4), LinearGaussian(3, noise=0.3).posterior,
                       folder=sys.argv[1], resume=True, progress=slowly, **options)
print("finished")
"""


def process(folder, every):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROCESS, str(folder), str(every)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_a_signal_loses_nothing(posterior, tmp_path, number):
    whole = jaxgen.sample(jax.random.key(4), posterior, **{**OPTIONS, "num_steps": 4000, "thin": 2})
    # SIGTERM finds no checkpoint in time: it must write one itself.
    with process(tmp_path, 0 if number == signal.SIGKILL else 1e6) as running:
        for line in running.stdout:
            if line.startswith("draw"):
                break
        if number == signal.SIGKILL:
            time.sleep(0.2)
        running.send_signal(number)
        rest = running.stdout.read()
    if "finished" in rest:
        pytest.skip("the run was over before the signal came")
    assert running.returncode == (143 if number == signal.SIGTERM else -9)
    stored = jaxgen.load_run(tmp_path)
    assert 0 < stored.num_draws < 2000
    np.testing.assert_array_equal(stored.draws["draws"], whole.draws[:, : stored.num_draws])
    resumed = draw(posterior, tmp_path, resume=True, num_steps=4000)
    assert same(resumed, whole)


def test_collected_trees_keep_their_structure(posterior, tmp_path):
    def collect(path, chain):
        return {"z": chain.position, "pair": (chain.tilt, jnp.int32(3))}

    result = draw(posterior, tmp_path, collect=collect)
    assert result.draws["z"].shape == (12, 10, 3)
    assert result.draws["pair"][1].dtype == np.int32
    assert set(jaxgen.load_run(tmp_path).draws) == {"z", "pair.0", "pair.1"}
