"""The parity figures on the cards of fetched networks are those that the benchmark measures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxgen.models.catalogue import FETCHABLE
from jaxgen.models.fetched import cached
from weights_convert.fetched_parity import PARITY

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "conversion" / "fetched.py"


def test_every_fetchable_network_has_a_figure():
    assert set(PARITY) == set(FETCHABLE)
    assert all(0 < error <= 2e-5 for error, _ in PARITY.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", FETCHABLE)
def test_a_figure_is_what_is_measured(name):
    if not cached(name).is_file():
        pytest.skip(f"{name} is not here: jaxgen fetch {name}")
    done = subprocess.run(
        [sys.executable, SCRIPT, "--names", name],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XLA_FLAGS": ""},
    )
    if done.returncode and ("--tarball" in done.stderr or "no such file" in done.stderr):
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr[-2000:]
    (row,) = json.loads(done.stdout.strip().splitlines()[-1])["rows"]
    # Other processors round otherwise, but not by much.
    assert row["error"] <= max(3 * PARITY[name].error, 1e-6)
