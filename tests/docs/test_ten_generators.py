"""The picture of ten generators: all are known by name, and those that are shipped draw."""

import importlib.util
import inspect
from pathlib import Path

import numpy as np
import pytest

from jaxgen.models.catalogue import FETCHABLE, PARTS, SHIPPED

SCRIPT = Path(__file__).parents[2] / "docs" / "scripts" / "ten_generators.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("ten_generators", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ten_generators_are_known_by_name(script):
    assert len(set(script.NAMES)) == 10
    parts = {f"{base}/{part}" for base, found in PARTS.items() for part in found}
    assert set(script.NAMES) <= {*SHIPPED, *FETCHABLE, *parts}


def test_drawing_takes_few_lines(script):
    assert len(inspect.getsource(script.drawn).splitlines()) <= 20


@pytest.mark.parametrize("name", ["fashion-mnist/vae", "fashion-mnist/ppgn", "toy2d/gan"])
def test_shipped_ones_draw(script, name):
    images = script.drawn(name, 3)
    assert images.shape == ((3, 2) if name == "toy2d/gan" else (3, 28, 28, 1))
    assert np.all(np.isfinite(images))
    assert np.std(images, 0).max() > 0.1  # three draws differ
