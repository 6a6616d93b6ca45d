"""Every benchmark runs at its smoke size and prints one JSON line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPTS = [
    "bgan",
    "calibration",
    "captions",
    "class_conditional",
    "cogeneration",
    "damage",
    "devices",
    "expressions",
    "faces",
    "infilling",
    "kill_resume",
    "log_z",
    "loglik",
    "many_posteriors",
    "maskgan",
    "memory",
    "overhead",
    "pairs",
    "ppgn",
    "ppgn_examples",
    "reference_answers",
    "reference_set",
    "seqgan",
    "toy_cogeneration",
    "tsne",
    "xu_table",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_smoke(name):
    out = subprocess.run(
        [sys.executable, next(FOLDER.glob(f"*/{name}.py")), "--smoke"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "XLA_FLAGS": ""},
    ).stdout
    figures = json.loads(out.strip().splitlines()[-1])
    assert figures["benchmark"] == name
    assert figures.get("rows") or figures["identical"] == figures["runs"]
