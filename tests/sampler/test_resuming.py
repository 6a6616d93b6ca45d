"""A run goes on as what it was, to the same bits, or it is refused; nothing in between."""

import contextlib
import errno
import importlib
import json
import os
import shutil
import signal
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen import InputError
from jaxgen.core import atomic
from jaxgen.core.pytree import as_data
from jaxgen.sampler import checkpoint as store
from jaxgen.sampler import loop, prepare, sharding
from jaxgen.sampler.state import Phase
from jaxgen.target.path import AnnealedPath, LogProb
from tests.sampler.test_checkpoint import Stopped, same, stop_after
from tests.toys import LinearGaussian

OPTIONS = {"num_chains": 12, "num_steps": 21, "thin": 2, "warmup": 4, "checkpoint_every": 0}


@pytest.fixture(scope="module")
def posterior():
    return LinearGaussian(3, noise=0.3).posterior


@pytest.fixture(scope="module")
def whole(posterior):
    return jaxgen.sample(jax.random.key(4), posterior, **OPTIONS)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(prepare, "_MOST_ITERATIONS", 3)


def draw(posterior, folder, **changes):
    return jaxgen.sample(jax.random.key(4), posterior, folder=folder, **{**OPTIONS, **changes})


def begun(posterior, folder, monkeypatch, chunks=8, **changes):
    """A run that dies after so many checkpoints."""
    with monkeypatch.context() as patch:
        stop_after(patch, chunks)
        with pytest.raises(Stopped):
            draw(posterior, folder, **changes)
    return folder


# A run may only go on as what it was.

_SCALE = 0.04


class _Device:
    """Something whose values lie outside of Python."""

    __module__ = "numpy"
    scale = 1.0


_HIDDEN = _Device()


# The package has a function of that name.
RECORDING = importlib.import_module("jaxgen.sampler.checkpoint.recording")
ANNEAL = {"num_chains": 8, "betas": jaxgen.schedules.linear(6), "checkpoint_every": 0}


def anneal(tilt, folder, **more):
    start = jaxgen.Gaussian.standard(5)
    target = AnnealedPath(LogProb(start), as_data(tilt), start)
    return jaxgen.ais(jax.random.key(0), target, folder=folder, **ANNEAL, **more)


def bumps(y):
    return lambda x: -0.5 * jnp.sum((x - y) ** 2) / 0.04


def scaled(x):
    return -0.5 * jnp.sum(x**2) / (_SCALE * getattr(_HIDDEN, "scale"))  # noqa: B009


@pytest.mark.slow
def test_a_closure_that_changed_is_refused_by_name(tmp_path):
    anneal(bumps(jnp.zeros(5)), tmp_path)
    with pytest.raises(InputError, match=r"resume: expected the settings.*closure\.y was"):
        anneal(bumps(jnp.full(5, 2.0)), tmp_path, resume=True)


def test_a_global_is_refused_by_name_and_what_none_shows_by_the_densities(tmp_path, monkeypatch):
    done = anneal(scaled, tmp_path)
    assert same(anneal(scaled, tmp_path, resume=True), done)
    with monkeypatch.context() as patch:
        patch.setitem(globals(), "_SCALE", 0.09)
        with pytest.raises(InputError, match=r"global\._SCALE was 0\.04, is 0\.09"):
            anneal(scaled, tmp_path, resume=True)
    monkeypatch.setattr(type(_HIDDEN), "scale", 3.0)  # as a file that the function reads
    jax.clear_caches()
    with pytest.raises(InputError, match="one with other densities where its chains are"):
        anneal(scaled, tmp_path, resume=True)


@pytest.mark.slow
def test_another_environment_is_noted_and_another_python_named(posterior, tmp_path, whole):
    draw(posterior, tmp_path)
    place = tmp_path / "run.json"
    found = store.files.read_settings(place)
    data = {name: found[name] for name in ("settings", "environment")}
    data["environment"] |= {"jax": "0.1.2", "python": "3.9.1"}
    store.files.write_settings(place, data)
    resumed = draw(posterior, tmp_path, resume=True)
    assert f"jax was 0.1.2, is {jax.__version__}" in resumed.notes[-1]
    assert resumed.log_z == whole.log_z
    data["settings"]["collect"] += "0"
    store.files.write_settings(place, data)
    with pytest.raises(InputError, match=r"collect was .* began under Python 3\.9: another minor"):
        draw(posterior, tmp_path, resume=True)


# Where a run lies.


@pytest.mark.parametrize(
    "name",
    [
        "seed[1]",
        "lr=[0.1,0.2]",
        "a*b",
        "what?",
        "{x}",
        "50%",
        "a b",
        "-x",
        "new\nline",
        "\u4e2d",
        "#1",
    ],
)
def test_any_name_of_a_folder_works(posterior, whole, tmp_path, monkeypatch, name):
    folder = begun(posterior, tmp_path / name, monkeypatch)
    with monkeypatch.context() as patch:
        patch.delattr(loop, "init")  # it does not start again
        assert same(draw(posterior, folder, resume=True), whole)
    assert sorted(p.name for p in tmp_path.iterdir()) == [name]


@pytest.mark.parametrize("folder", ["gs://bucket/run", "s3://b/r", Path("gs://bucket/run"), "", 3])
def test_addresses_and_what_is_no_path_are_refused_at_the_start(
    posterior, tmp_path, monkeypatch, folder
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="folder: expected a"):
        draw(posterior, folder)
    assert list(tmp_path.iterdir()) == []


def test_home_is_expanded_and_a_change_of_directory_does_no_harm(
    posterior, whole, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    draw(posterior, "~/run")
    assert jaxgen.load_run("~/run").num_draws == 10
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    moved = draw(posterior, "here", progress=lambda _: os.chdir(tmp_path / "elsewhere"))
    np.testing.assert_array_equal(moved.draws, whole.draws)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["elsewhere", "here", "home"]


def test_a_copy_without_its_empty_folders_and_a_folder_that_is_gone(
    posterior, whole, tmp_path, monkeypatch
):
    draw(posterior, tmp_path / "a", num_steps=0)
    assert list((tmp_path / "a" / "draws").iterdir()) == []
    (tmp_path / "a" / "draws").rmdir()
    assert same(draw(posterior, tmp_path / "a", num_steps=21, resume=True), whole)

    def gone(progress):
        shutil.rmtree(tmp_path / "b", ignore_errors=True)

    with pytest.raises(InputError, match="The folder was removed while the run was writing"):
        draw(posterior, tmp_path / "b", progress=gone)


def test_a_finished_run_on_a_read_only_disk_can_be_opened(posterior, whole, tmp_path, monkeypatch):
    draw(posterior, tmp_path / "run")
    begun(posterior, tmp_path / "half", monkeypatch)

    def refuse(path):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(store.process, "acquire", refuse)
    before = sorted(tmp_path.rglob("*"))
    assert same(draw(posterior, tmp_path / "run", resume=True), whole)
    with pytest.raises(InputError, match="It is read only"):
        draw(posterior, tmp_path / "half", resume=True)
    with pytest.raises(InputError, match="Read-only file system"):
        draw(posterior, tmp_path / "new")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("finished", [False, True])
def test_chains_over_two_devices_go_on_as_well(posterior, tmp_path, monkeypatch, finished):
    parts = {"tile": OPTIONS["num_chains"] // 2}
    straight = draw(posterior, None, **parts)
    assert sharding.mesh_for(None, OPTIONS["num_chains"], parts["tile"]).size == 2
    if finished:
        draw(posterior, tmp_path / "run", **parts)
    else:
        begun(posterior, tmp_path / "run", monkeypatch, **parts)
    assert same(draw(posterior, tmp_path / "run", resume=True, **parts), straight)


def test_a_run_that_fails_before_its_first_checkpoint_leaves_nothing(posterior, tmp_path):
    def fail(progress):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        draw(posterior, tmp_path / "run", progress=fail, checkpoint_every=1e6)
    assert list(tmp_path.iterdir()) == []


def test_a_pipe_in_the_place_of_a_file_does_not_hang(posterior, tmp_path):
    draw(posterior, tmp_path)
    (tmp_path / "run.json").unlink()
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(InputError, match="is no file"):
        draw(posterior, tmp_path, resume=True)


# Two at once.


def test_a_second_run_is_refused_and_the_first_loses_nothing(posterior, whole, tmp_path):
    folder, seen = tmp_path / "run", []

    def another(progress):
        if not seen:
            seen.append(sorted(path.name for path in folder.rglob("*")))
            for resume in (False, True):
                with pytest.raises(InputError, match="one that no other process writes"):
                    draw(posterior, folder, resume=resume)
            assert sorted(path.name for path in folder.rglob("*")) == seen[0]

    result = draw(posterior, folder, progress=another, checkpoint_every=1e6)
    assert seen
    np.testing.assert_array_equal(result.draws, whole.draws)


def test_a_lock_is_of_the_file_that_is_there_now(tmp_path):
    path = tmp_path / "lock"
    first = atomic.acquire(path)
    with pytest.raises(BlockingIOError):
        atomic.acquire(path)
    path.unlink()  # a folder that was removed and made again
    second = atomic.acquire(path)
    os.close(first)
    with pytest.raises(BlockingIOError):
        atomic.acquire(path)
    os.close(second)
    os.close(atomic.acquire(path))


# Damage.


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "lock")


def damaged(data, kind, where):
    if kind == "bit":
        changed = bytearray(data)
        changed[where % len(data)] ^= 1 << (where % 8)
        return bytes(changed)
    return {"empty": b"", "half": data[: len(data) // 2], "longer": data + b"\0"}[kind]


@pytest.mark.filterwarnings("ignore:the newest checkpoint was damaged")
@pytest.mark.parametrize("finished", [False, True])
def test_damage_gives_the_same_bits_or_is_refused(
    posterior, whole, tmp_path, monkeypatch, finished
):
    source, save = tmp_path / "source", store.RunFolder.save

    def dying(self, checkpoint):
        save(self, checkpoint)
        if checkpoint.done >= 6 and checkpoint.phase == Phase.DRAW and not finished:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(store.RunFolder, "save", dying)
        with contextlib.nullcontext() if finished else pytest.raises(Stopped):
            draw(posterior, source)
    random, ends = np.random.default_rng(finished), {"same": 0, "refused": 0}
    names = [path.relative_to(source) for path in files_of(source)]
    assert len(names) >= 6
    for name in names:
        for kind in ("bit", "bit", "half", "missing"):
            folder = tmp_path / "copy"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(source, folder)
            if kind == "missing":
                (folder / name).unlink()
            else:
                data = (folder / name).read_bytes()
                place = int(random.integers(8 * len(data)))
                (folder / name).write_bytes(damaged(data, kind, place))
            try:
                stored = jaxgen.load_run(folder)
                if "draws" in stored.draws:
                    expected = whole.draws[:, : stored.num_draws]
                    np.testing.assert_array_equal(stored.draws["draws"], expected)
            except InputError:
                pass
            try:
                resumed = draw(posterior, folder, resume=True)
            except InputError:
                ends["refused"] += 1
            else:
                ends["same"] += 1
                assert same(resumed._replace(notes=whole.notes), whole)
    assert min(ends.values()) > 2


def test_a_damaged_checkpoint_falls_back_to_the_one_before(posterior, whole, tmp_path, monkeypatch):
    begun(posterior, tmp_path, monkeypatch, chunks=9)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("*.safetensors"))
    assert kept == ["00000008.safetensors", "00000009.safetensors"]
    newest = tmp_path / "checkpoints" / kept[-1]
    newest.write_bytes(damaged(newest.read_bytes(), "bit", 4321))
    with pytest.warns(UserWarning, match=r"09\.safetensors: expected a file with SHA-256"):
        resumed = draw(posterior, tmp_path, resume=True)
    assert "resumed from the one before" in resumed.notes[-1]
    assert same(resumed._replace(notes=whole.notes), whole)


def test_draws_that_are_gone_are_named(posterior, tmp_path):
    draw(posterior, tmp_path)
    shard = sorted((tmp_path / "draws").iterdir())[0]
    shard.write_bytes(damaged(shard.read_bytes(), "bit", 7000))
    for read in (jaxgen.load_run, lambda folder: draw(posterior, folder, resume=True)):
        with pytest.raises(InputError, match=rf"{shard.name}: .*it is damaged"):
            read(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(InputError, match="a run of format"):
        draw(posterior, tmp_path, resume=True)


# Ctrl-C without a folder.


@pytest.mark.parametrize("reduce", [None, "highest"])
def test_after_ctrl_c_the_draws_so_far_come_back(posterior, whole, reduce):
    sent, before = [], signal.getsignal(signal.SIGINT)

    def stop(progress):
        if progress.phase == "draw" and not sent:
            sent.append(signal.raise_signal(signal.SIGINT))

    options = {"progress": stop, "reduce": highest if reduce else None}
    result = draw(posterior, None, **options)
    count = int(result.draws[0]) if reduce else result.draws.shape[1]
    assert 0 < count < 10
    assert f"interrupted by Ctrl-C after {count} of 10 draws" in result.notes[-1]
    if reduce:
        np.testing.assert_array_equal(result.draws[1], whole.draws[:, :count].max((0, 1)))
    else:
        np.testing.assert_array_equal(result.draws, whole.draws[:, :count])
    sent.clear()

    def at_once(progress):
        if not sent:
            sent.append(signal.raise_signal(signal.SIGINT))

    with pytest.raises(KeyboardInterrupt):
        draw(posterior, None, progress=at_once)
    assert signal.getsignal(signal.SIGINT) is before


def test_draws_that_will_not_fit_are_told_of_before_the_run(posterior, whole, monkeypatch):
    monkeypatch.setattr(RECORDING, "_free_memory", lambda: 2 * whole.draws.nbytes - 1)
    with pytest.warns(UserWarning, match=r"give a folder, reduce=") as caught:
        result = draw(posterior, None)
    assert len(caught) == 1
    np.testing.assert_array_equal(result.draws, whole.draws)
    draw(posterior, None, reduce=highest)  # keeps none of them
    monkeypatch.setattr(RECORDING, "_free_memory", lambda: 2 * whole.draws.nbytes)
    draw(posterior, None)


# Longer.


@pytest.mark.parametrize(("first", "thin"), [(10, 2), (11, 2), (7, 3), (8, 3), (4, 3), (20, 2)])
def test_a_finished_run_is_extended_to_the_bits_of_a_longer_one(posterior, tmp_path, first, thin):
    options = {"num_chains": 12, "thin": thin, "warmup": 4, "checkpoint_every": 0}
    long = jaxgen.sample(jax.random.key(4), posterior, num_steps=21, **options)
    for steps in (first, 21, 21):  # and opened once more
        result = jaxgen.sample(
            jax.random.key(4), posterior, folder=tmp_path, resume=True, num_steps=steps, **options
        )
    assert same(result, long)
    assert jaxgen.load_run(tmp_path).num_draws == 21 // thin
    with pytest.raises(InputError, match="may become longer, but not shorter"):
        draw(posterior, tmp_path, resume=True, num_steps=first, thin=thin)


def test_an_extension_that_dies_goes_on(posterior, whole, tmp_path, monkeypatch):
    draw(posterior, tmp_path, num_steps=5)
    begun(posterior, tmp_path, monkeypatch, chunks=2, resume=True)
    assert same(draw(posterior, tmp_path, resume=True), whole)


def highest(accumulator, kept):
    count, most = accumulator or (np.zeros((), np.int64), np.full(3, -np.inf, np.float32))
    return count + kept.shape[0], np.maximum(most, kept.max((0, 1)))


def test_what_is_reduced_is_extended_as_well(posterior, tmp_path):
    long = draw(posterior, None, reduce=highest)
    draw(posterior, tmp_path, reduce=highest, num_steps=9)
    assert same(draw(posterior, tmp_path, reduce=highest, resume=True), long)


def test_a_run_from_a_state_can_have_a_folder(posterior, whole, tmp_path, monkeypatch):
    alone = draw(posterior, None, state=whole.state)
    folder = begun(posterior, tmp_path / "a", monkeypatch, chunks=2, state=whole.state)
    other = draw(posterior, None, warmup=5)
    with pytest.raises(InputError, match=r"state was .* numbers sha256"):
        draw(posterior, folder, state=other.state, resume=True)
    assert same(draw(posterior, folder, state=whole.state, resume=True), alone)
    assert same(draw(posterior, folder, resume=True), alone)  # the checkpoint has all of it


def test_types_that_few_files_know_come_back(posterior, tmp_path, monkeypatch):
    def collect(path, chain):
        return {"half": chain.position.astype(jnp.bfloat16), "none": chain.position[:0]}

    long = draw(posterior, None, collect=collect)
    begun(posterior, tmp_path, monkeypatch, collect=collect)
    resumed = draw(posterior, tmp_path, collect=collect, resume=True)
    assert resumed.draws["half"].dtype == jnp.bfloat16
    assert resumed.draws["none"].shape == (12, 10, 0)
    np.testing.assert_array_equal(resumed.draws["half"], long.draws["half"])
