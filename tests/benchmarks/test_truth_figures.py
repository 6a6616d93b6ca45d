"""The figures of the scripts on intervals and log likelihoods, where the right ones are known."""

import importlib
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxgen import posteriors

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "truth"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "argv", ["script.py"])
    return importlib.import_module


def test_reference_values_of_log_likelihoods_are_right_from_a_poor_first_proposal(script):
    module = script("loglik_default")
    known = posteriors.get("linear-gaussian-20")

    def encoder(image):
        return np.zeros((2, 20), np.float32)

    found = module.reference(known.posterior, encoder, None, jax.random.key(0), 20_000)
    assert found.error < 0.03
    assert found.log_prob == pytest.approx(known.log_z, abs=4 * found.error)
    assert found.ess > 2000


def test_the_summary_of_log_likelihoods_counts_in_stated_errors(script):
    module = script("loglik_default")
    truth = {"log_prob": [-10.0, -20.0], "error": [0.0, 0.0]}
    row = {"log_prob": [-10.2, -20.0], "standard_error": [0.1, 0.1], "gradients": 5.0}
    row |= {"gap": float("nan"), "gap_se": float("nan"), "notes": []}
    line = module.summarised("prior", [row], truth)
    assert line["mean_error"] == pytest.approx(-0.1)
    assert line["rms_ratio"] == pytest.approx(np.sqrt(2))
    assert line["within_1.96"] == 0.5
    assert line["gap"] is None


def test_log_z_of_several_keys_agree_or_do_not(script):
    module = script("coverage")

    def rows(spread):
        log_z = spread * np.random.default_rng(0).normal(size=8)
        return [{"image": 0, "log_z": float(x), "stated": 1.0} for x in log_z]

    assert module.agreement(rows(1.0))["p"] > 0.05
    assert module.agreement(rows(4.0))["p"] < 1e-4
    assert module.agreement(rows(1.0))["degrees"] == 7
    assert module.agreement(rows(1.0)[:1]) == {}


def test_what_is_hidden(script):
    module = script("coverage")
    sizes = {task: int(module.hidden_pixels(task, 28, 28).sum()) for task in module.TASKS}
    assert sizes == {"half": 392, "hole": 100, "4x": 784}
    z, truth, seen, _ = module.drawn(module.NAME, 0, 0.05)
    np.testing.assert_allclose(module.jaxgen.load(module.NAME)(z), truth, atol=1e-5)
    assert np.std(seen - truth) == pytest.approx(0.05, rel=0.1)
