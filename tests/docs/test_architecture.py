"""The page on the architecture: its drawing is that of today's imports, its files are there."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docs" / "scripts" / "architecture.py"
PAGE = (ROOT / "docs" / "architecture.md").read_text()


@pytest.fixture(scope="module")
def drawing():
    return runpy.run_path(str(SCRIPT))


def test_the_drawing_is_up_to_date():
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_room_has_its_row(drawing):
    rows = {name.removesuffix(".py") for name in re.findall(r"^\| `([a-z_.]+)` \|", PAGE, re.M)}
    assert rows == set(drawing["arrows"]()) - {"jaxgen/__init__.py"}


def test_every_file_and_name_is_there():
    named = re.findall(r"`((?:jaxgen|weights_convert|tests|docs)/[\w/.]+)`", PAGE)
    assert len(named) >= 12
    for name in named:
        assert (ROOT / name).exists(), name
    for name, file in (
        ("def next_beta", "jaxgen/tempering/betas.py"),
        ("def settings_of", "jaxgen/sampler/checkpoint/identity.py"),
        ("class Kernel", "jaxgen/kernels/base.py"),
        ("class Pooling", "jaxgen/models/caffe/spatial.py"),
        ("def choose_tile", "jaxgen/sampler/tile.py"),
        ("choose_tile(", "jaxgen/sampler/prepare.py"),
    ):
        assert name in (ROOT / file).read_text(), f"{name} in {file}"


def test_floors_and_needed_arrows_of_a_small_house(drawing):
    below = {"roof": {"hall", "cellar"}, "hall": {"cellar"}, "cellar": set()}
    assert drawing["floors"](below) == {"roof": 2, "hall": 1, "cellar": 0}
    assert drawing["needed"](below) == {"roof": {"hall"}, "hall": {"cellar"}, "cellar": set()}
    with pytest.raises(SystemExit, match="cellar -> roof"):
        drawing["floors"](below | {"cellar": {"roof"}})
