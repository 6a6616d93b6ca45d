"""What the report refuses, where it writes, and what it replaces."""

import json
import os

import numpy as np
import pytest

from jaxgen import InputError, report
from jaxgen.cli import main
from jaxgen.report import output_folder
from tests.report.folders import make


def damage(path, **changes):
    """Change fields of a summary."""
    file = path / "summary.json"
    data = json.loads(file.read_text())
    file.write_text(json.dumps({**data, **changes}))


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        (lambda p: p.joinpath("summary.json").unlink(), "summary.json: expected a readable file"),
        (lambda p: p.joinpath("summary.json").write_text("{"), "summary.json: expected JSON"),
        (lambda p: p.joinpath("summary.json").write_text("[" * 99999), "summary.json: expected"),
        (lambda p: p.joinpath("summary.json").write_bytes(b"\xff\xfe"), "expected UTF-8"),
        (lambda p: damage(p, deep=json.loads("[" * 200 + "]" * 200)), "levels deep"),
        (lambda p: damage(p, format="other"), "format: expected jaxgen-run/1; got 'other'"),
        (lambda p: damage(p, runs=[]), "runs: expected a list of posteriors"),
        (lambda p: damage(p, runs=["a"]), r"runs\[0\]: expected an object"),
        (lambda p: damage(p, runs=[{"name": 3}]), r"runs\[0\].name: expected a name; got 3"),
        (
            lambda p: damage(p, runs=[{"name": "lost"}]),
            "lost/position: expected an array",
        ),
        (lambda p: damage(p, runs=2 * [{"name": "spot"}]), "expected a name of its own"),
        (lambda p: p.joinpath("draws.safetensors").unlink(), "draws.safetensors: expected"),
        (lambda p: p.joinpath("draws.safetensors").write_bytes(b"\x08"), "whole safetensors"),
    ],
)
def test_damaged_folders_end_in_one_line(tmp_path, how, wanted):
    path = make(tmp_path / "run")
    how(path)
    with pytest.raises(InputError, match=wanted):
        report.write(path)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("name", ["summary.json", "draws.safetensors"])
def test_a_pipe_in_the_place_of_a_file_is_refused(tmp_path, name):
    path = make(tmp_path / "run")
    (path / name).unlink()
    os.mkfifo(path / name)
    with pytest.raises(InputError, match=f"{name}: expected a file; got a folder, a pipe"):
        report.read(path)


@pytest.mark.parametrize(
    ("name", "array", "wanted"),
    [
        ("image", np.zeros((8, 15, 28, 28, 1)), r"spot/image: expected shape \[8, 16, H"),
        ("image", np.zeros((8, 16)), r"spot/image: expected shape \[8, 16, H"),
        ("image", np.zeros((8, 16, 0, 28, 1)), r"spot/image: expected shape \[8, 16, H"),
        ("position", np.zeros((8, 16)), r"spot/position: expected shape \[chains, draws"),
        ("weights", np.ones(7), r"spot/weights: expected shape \[8\]; got \[7\]"),
        ("weights", np.full(8, np.nan), "spot/weights: expected weights of at least 0"),
        ("weights", np.zeros(8), "spot/weights: expected weights of at least 0"),
        ("history/ess", np.ones(3), r"spot/history/ess: expected shape \[12\]; got \[3\]"),
        ("mean", np.zeros((9, 14, 1)), r"spot/mean: expected shape \[14, 14, 1\]"),
        ("mask", np.zeros((14, 14, 1)), r"spot/mask: expected shape \[14, 14\]"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, name, array, wanted):
    path = make(tmp_path / "run", more={f"spot/{name}": array})
    with pytest.raises(InputError, match=wanted):
        report.read(path)


def test_a_report_replaces_a_report_and_nothing_else(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "run", draws=4)
    for _ in range(2):
        assert main(["report", "run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "run.html")
    output_folder.check_free(tmp_path / "run", force=True)  # the run can still be replaced
    (tmp_path / "mine.html").write_text("mine")
    for out, wanted in (
        ("mine.html", "an earlier report"),
        ("run", "the name of a file"),
        ("page.txt", "ends in .html"),
        ("lost/page.html", "a folder that can be written to"),
    ):
        assert main(["report", "run", "--out", out]) == 2
        assert wanted in capsys.readouterr().err
    assert (tmp_path / "mine.html").read_text() == "mine"
    assert main(["report", "run", "--out", "mine.html", "--force", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["verdicts"]["spot"][0]["level"] in ("good", "unsure", "bad")
    assert main(["report", "lost"]) == 2
    assert "RUN: expected the folder of a run" in capsys.readouterr().err
    (tmp_path / "half.partial" / "one").mkdir(parents=True)
    (tmp_path / "half.partial" / "one" / "run.json").touch()
    assert main(["report", "half"]) == 2
    assert "--resume" in capsys.readouterr().err
