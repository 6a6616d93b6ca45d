"""Run folders: whole or not at all, and nothing of anybody else's is ever removed."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from jaxgen import InputError
from jaxgen.report import output_folder


def make_run(path, text="one", **kwargs):
    with output_folder.writing(path, **kwargs) as place:
        (place / "picture.png").write_text(text)
        summary = {"format": output_folder.FORMAT, "files": ["picture.png"]}
        output_folder.write_json(place / "summary.json", summary)


def test_a_run_appears_whole_with_its_parents(tmp_path):
    path = tmp_path / "a" / "b" / "run"
    with output_folder.writing(path) as place:
        (place / "x").write_text("x")
        assert not path.exists()
        assert place.parent == path.parent  # the same file system, so that a rename is enough
    assert sorted(p.name for p in path.iterdir()) == ["x"]
    assert [p.name for p in path.parent.iterdir()] == ["run"]
    assert os.stat(path).st_mode & 0o777 == 0o755


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_run_leaves_nothing(tmp_path, stop):
    def run():
        with output_folder.writing(tmp_path / "new" / "run") as place:
            (place / "half").write_text("x")
            raise stop

    with pytest.raises(stop):
        run()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused_and_untouched(tmp_path):
    path = tmp_path / "run"
    make_run(path)
    with pytest.raises(InputError, match=r"--out: expected .* does not exist.*--force"):
        make_run(path, "two")
    assert (path / "picture.png").read_text() == "one"
    assert os.listdir(tmp_path) == ["run"]


def test_force_replaces_a_run_once_the_new_one_is_complete(tmp_path):
    path = tmp_path / "run"
    make_run(path)
    with pytest.raises(RuntimeError), output_folder.writing(path, force=True):
        raise RuntimeError
    assert (path / "picture.png").read_text() == "one"
    make_run(path, "two", force=True)
    assert (path / "picture.png").read_text() == "two"
    assert os.listdir(tmp_path) == ["run"]


@pytest.mark.parametrize("case", ["foreign", "beside", "file", "link"])
def test_force_removes_nothing_that_is_not_a_run(tmp_path, case):
    path = tmp_path / "run"
    if case == "foreign":
        path.mkdir()
        (path / "thesis.tex").write_text("years")
    elif case == "beside":
        make_run(path)
        (path / "notes.txt").write_text("mine")
    elif case == "file":
        path.write_text("mine")
    else:
        make_run(tmp_path / "real")
        path.symlink_to(tmp_path / "real")
    before = sorted(str(p) for p in tmp_path.rglob("*"))
    with pytest.raises(InputError, match="--out"):
        make_run(path, force=True)
    assert sorted(str(p) for p in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("summary", ["", "[]", "{}", '{"format": "other", "files": ["x"]}'])
def test_a_summary_of_others_does_not_make_a_run(tmp_path, summary):
    (tmp_path / "summary.json").write_text(summary)
    with pytest.raises(InputError, match=r"summary\.json"):
        output_folder.check_free(tmp_path, force=True)


def test_a_folder_that_appears_meanwhile_wins(tmp_path):
    path = tmp_path / "run"

    def run():
        with output_folder.writing(path):
            path.mkdir()
            (path / "theirs").write_text("x")

    with pytest.raises(InputError, match="does not exist yet"):
        run()
    assert os.listdir(tmp_path) == ["run"]
    assert os.listdir(path) == ["theirs"]


def test_a_parent_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="written to"):
        output_folder.check_free(tmp_path / "file" / "run")


def test_free_name_counts_up(tmp_path):
    assert output_folder.free_name(tmp_path, "demo").name == "demo"
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo-2").mkdir()
    assert output_folder.free_name(tmp_path, "demo").name == "demo-3"


@pytest.fixture
def _released():
    yield
    output_folder.release()


@pytest.mark.usefixtures("_released")
def test_a_reserved_name_is_nobody_elses_until_it_is_released(tmp_path):
    first = output_folder.reserve_free(tmp_path / "runs", "demo")
    second = output_folder.reserve_free(tmp_path / "runs", "demo")
    assert (first.name, second.name) == ("demo", "demo-2")
    before = sorted(tmp_path.rglob("*"))
    for options in ({}, {"resume": True}, {"force": True}):
        with pytest.raises(InputError, match=r"no other command writes; got .*demo, in use"):
            output_folder.reserve(first, **options)
    assert sorted(tmp_path.rglob("*")) == before
    output_folder.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_released")
def test_a_run_that_waits_is_kept_unless_it_is_given_up(tmp_path):
    path = tmp_path / "run"
    output_folder.reserve(path)
    waiting = output_folder.partial(path)
    (waiting / "class_1").mkdir()
    output_folder.release()
    assert (waiting / "class_1").is_dir()
    with pytest.raises(InputError, match=r"waits in .*Give --resume"):
        output_folder.reserve(path)
    output_folder.reserve(path, resume=True)
    output_folder.release()
    assert (waiting / "class_1").is_dir()
    output_folder.reserve(path, force=True)
    assert not (waiting / "class_1").exists()
    output_folder.release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_released")
def test_of_many_processes_at_once_each_gets_a_name(tmp_path):
    code = """
import sys, time
from jaxgen.report import output_folder
while time.time() < float(sys.argv[2]):
    pass
print(output_folder.reserve_free(sys.argv[1], "demo").name, flush=True)
sys.stdin.read()
output_folder.release()
"""
    start = str(time.time() + 6)
    command = [sys.executable, "-c", code, str(tmp_path), start]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    running = [subprocess.Popen(command, **pipes) for _ in range(4)]
    names = {process.stdout.readline().strip() for process in running}
    assert names == {"demo", "demo-2", "demo-3", "demo-4"}
    assert [process.communicate()[0] for process in running] == [""] * 4
    assert list(tmp_path.iterdir()) == []


def test_json_is_strict(tmp_path):
    data = {"a": np.float32(0.5), "b": float("nan"), "c": (1, np.arange(2)), "d": tmp_path}
    output_folder.write_json(tmp_path / "x.json", data)
    text = (tmp_path / "x.json").read_text()
    assert "NaN" not in text
    assert json.loads(text) == {"a": 0.5, "b": None, "c": [1, [0, 1]], "d": str(tmp_path)}
    with pytest.raises(TypeError, match="object"):
        output_folder.write_json(tmp_path / "y.json", {"a": object()})


def test_arrays_and_pictures_come_back(tmp_path):
    values = np.arange(6, dtype=np.float32).reshape(2, 3).T  # not contiguous
    output_folder.write_arrays(tmp_path / "x.safetensors", {"a/b": values}, {"note": "text"})
    with safe_open(tmp_path / "x.safetensors", "np") as file:
        np.testing.assert_array_equal(file.get_tensor("a/b"), values)
        assert file.metadata() == {"note": "text"}
    pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
    output_folder.write_picture(tmp_path / "x.png", Image.fromarray(pixels))
    with Image.open(tmp_path / "x.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), pixels)
