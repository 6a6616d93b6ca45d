"""Every benchmark runs at its smoke size and prints one JSON line."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPTS = [
    "bgan",
    "calibration",
    "captions",
    "class_conditional",
    "class_weights",
    "classifiers",
    "cogeneration",
    "compiled_for",
    "coverage",
    "damage",
    "devices",
    "emulated_precision",
    "expressions",
    "faces",
    "fetched",
    "first_call",
    "foreign_files",
    "gradient",
    "hundred_gradients",
    "infilling",
    "kill_resume",
    "log_z",
    "loglik",
    "loglik_default",
    "many_posteriors",
    "maskgan",
    "memory",
    "newcomer",
    "overhead",
    "pairs",
    "peers",
    "ppgn",
    "ppgn_examples",
    "reference_answers",
    "reference_set",
    "seqgan",
    "shipped_weights",
    "throughput",
    "toy_cogeneration",
    "trajectory_length",
    "tsne",
    "unreachable",
    "wu_table",
    "xu_codes",
    "xu_table",
]


# Scripts that answer several questions, or whose line has no rows: their arguments.
OTHERS = {
    "conv_forms": ["--smoke"],
    "convert_caffe": ["size", "--smoke"],
    "convert_pytorch": ["fuzz", "--count", "100"],
    "hostile": ["--only", "npz", "--fork"],
    "faces_completed": ["--smoke"],
    "mobilestylegan": ["--smoke"],
}
ELSEWHERE = {"ppgn_imagenet"}  # has a test file of its own
# Are imported by others, or run by them.
MODULES = {
    "foreign_keras",
    "foreign_modules",
    "hostile_caffe",
    "hostile_files",
    "hostile_others",
    "hostile_pytorch",
    "hostile_tfjs",
    "maskgan_judge",
    "reference_peers",
}


def last_line(name, *arguments):
    """What a script's last line says; skips where it needs a file that is not here."""
    done = subprocess.run(
        [sys.executable, next(FOLDER.glob(f"*/{name}.py")), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XLA_FLAGS": ""},
    )
    if done.returncode and "jaxgen fetch" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def test_no_benchmark_is_forgotten():
    found = {path.stem for path in FOLDER.glob("*/*.py")}
    assert found == {*SCRIPTS, *OTHERS, *ELSEWHERE, *MODULES}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_smoke_of_those_without_rows(name):
    figures = last_line(name, *OTHERS[name])
    if name == "hostile":
        assert figures["cases"] > 3
        assert figures["failed"] == 0
    else:
        assert figures["benchmark"].split()[0] == name
        numbers = [x for x in figures.values() if x not in (None, 0, {}, [])]
        assert len(numbers) > 2


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_smoke(name):
    figures = last_line(name, "--smoke")
    assert figures["benchmark"] == name
    assert figures.get("rows") or figures["identical"] == figures["runs"]


@pytest.fixture
def common(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("common")


def test_rows_are_kept_and_found_again(common, tmp_path):
    path = tmp_path / "new" / "rows.jsonl"
    rows = common.Rows(path, "name", "shape")
    rows.add({"name": "a", "shape": (2, 3), "value": np.float32(0.5)})
    rows.add({"name": "b", "shape": [1], "value": np.arange(2)})
    again = common.Rows(path, "name", "shape")
    assert ("a", (2, 3)) in again
    assert ("a", (1,)) not in again
    assert again["b", (1,)]["value"] == [0, 1]
    assert [row["value"] for row in again] == [0.5, [0, 1]]
    again.add({"name": "a", "shape": (2, 3), "value": 1})
    assert len(again) == 2
    assert common.Rows(path, "name", "shape")["a", (2, 3)]["value"] == 1
    alone = common.Rows(None, "seed")
    alone.add({"seed": 3})
    assert 3 in alone
