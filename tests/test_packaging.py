"""What pip makes of the tree: a wheel and an sdist that are whole, and an import that is light."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = sorted(path.name for path in (ROOT / "jaxgen" / "shipped").glob("*.safetensors"))
# Packages that take long to import, and that most sessions never need.
HEAVY = ("arviz", "blackjax", "cv2", "matplotlib", "orbax", "pandas", "torch", "xarray")
# CPU seconds, since a wall clock would measure the other jobs of a busy machine.
IMPORT = """
import json, sys, time
begun = time.process_time()
import jaxgen
seconds = time.process_time() - begun
print(json.dumps({"seconds": seconds, "modules": sorted(sys.modules), "file": jaxgen.__file__}))
"""


def imported(python, folder):
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XLA_FLAGS")}
    done = subprocess.run(
        [python, "-c", IMPORT], capture_output=True, text=True, check=True, cwd=folder, env=clean
    )
    return json.loads(done.stdout)


def test_import_brings_nothing_heavy(tmp_path):
    found = imported(sys.executable, tmp_path)
    assert [name for name in HEAVY if name in found["modules"]] == []


def test_the_lock_file_fits_the_requirements_and_names_no_index():
    lock = ROOT / ".ci" / "lock.py"
    done = subprocess.run([sys.executable, lock, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = (ROOT / "requirements-lock.txt").read_text().splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    assert len(pinned) > 100
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in pinned)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel and an sdist, from a copy of the tree: building leaves files in it."""
    pytest.importorskip("build", reason="pip install build")
    root = tmp_path_factory.mktemp("packaging")
    skip = shutil.ignore_patterns(".*", "build", "dist", "runs", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, root / "tree", ignore=skip)
    command = [sys.executable, "-m", "build", "--outdir", str(root / "dist"), str(root / "tree")]
    done = subprocess.run(command, capture_output=True, text=True)
    if "No matching distribution found for setuptools" in done.stdout + done.stderr:
        pytest.skip("no package registry can be reached")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return next((root / "dist").glob("*.whl")), next((root / "dist").glob("*.tar.gz"))


@pytest.mark.slow
def test_wheel_and_sdist_are_whole(built):
    wheel, sdist = built
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    with tarfile.open(sdist) as file:
        sources = {name.split("/", 1)[-1] for name in file.getnames()}
    wanted = {f"jaxgen/shipped/{name}" for name in WEIGHTS} | {"jaxgen/py.typed"}
    assert len(WEIGHTS) >= 13
    assert wanted <= names
    assert wanted <= sources
    for package in ("jaxgen", "weights_convert"):
        code = {str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py")}
        assert code <= names
        assert code <= sources
    assert not [name for name in names if name.startswith(("tests/", "docs/", "benchmarks/"))]
    assert wheel.stat().st_size < 40e6


@pytest.mark.slow
def test_it_works_in_a_clean_environment(built, tmp_path):
    venv.create(tmp_path / "env", with_pip=True)
    python = str(tmp_path / "env" / "bin" / "python")
    install = [python, "-m", "pip", "install", "-q", str(built[0])]
    done = subprocess.run(install, capture_output=True, text=True)
    if "No matching distribution" in done.stderr:
        pytest.skip("no package registry can be reached")
    assert done.returncode == 0, done.stderr[-2000:]
    runs = [imported(python, tmp_path) for _ in range(4)]  # the first one compiles the sources
    assert str(tmp_path) in runs[0]["file"]
    assert [name for name in HEAVY if name in runs[0]["modules"]] == []
    assert min(run["seconds"] for run in runs) < 2
    command = [str(tmp_path / "env" / "bin" / "jaxgen"), "doctor"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "all is well" in done.stdout
