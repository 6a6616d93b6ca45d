"""Xu's table at its smallest: every method runs, and a run that was stopped goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "papers" / "xu_table.py"


@pytest.mark.slow
def test_smoke_and_resume(tmp_path):
    def run():
        done = subprocess.run(
            [
                sys.executable,
                SCRIPT,
                "--smoke",
                "--rows",
                tmp_path / "rows.jsonl",
                "--figure",
                tmp_path / "grid.png",
            ],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "XLA_FLAGS": ""},
        )
        return json.loads(done.stdout.strip().splitlines()[-1]), done.stderr

    first, seen = run()
    methods = [row["method"] for row in first["rows"]]
    assert {"map", "map+clip", "mala", "mala+clip", "hmc", "default", "rejection", "real"} <= set(
        methods
    )
    assert seen.count("\n") >= 9 * 2
    for row in first["rows"]:
        assert 0 <= row["realism_ks"] <= 1
        assert row["frechet"] > 0
    assert (tmp_path / "grid.png").stat().st_size > 1000
    again, seen = run()
    # Everything was on file: nothing is drawn a second time, and all figures are the same.
    assert "map" not in seen
    timed = {"seconds"}
    assert {k: v for k, v in again.items() if k not in timed} == {
        k: v for k, v in first.items() if k not in timed
    }
