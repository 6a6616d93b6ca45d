"""`jaxgen doctor`: passes here, and fails where something is wrong."""

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import stats

import jaxgen
from jaxgen.cli import doctor, main


@pytest.mark.slow
def test_all_is_well_here(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "ok  self-test: log Z" in out
    assert re.search(r"\d+ files, every SHA-256 as written", out)
    assert out.endswith("all is well\n")
    assert "failed" not in out


def test_the_exact_answer_is_exact():
    posterior, exact, mean = doctor._linear_gaussian()
    # By brute force: Z = E over the prior of the likelihood; the mean, by weighting.
    z = jax.random.normal(jax.random.key(1), (200_000, 4))
    log_likelihood = np.asarray(jax.vmap(posterior.log_likelihood)(z), np.float64)
    weights = np.exp(log_likelihood)
    np.testing.assert_allclose(np.log(weights.mean()), exact, atol=0.03)
    np.testing.assert_allclose(weights @ np.asarray(z) / weights.sum(), mean, atol=0.03)
    matrix = np.eye(4) + 0.4 * np.eye(4, k=1)
    spread = matrix @ matrix.T + 0.25 * np.eye(4)
    seen, offset = [0.9, -0.4, 0.2, -1.1], np.linspace(-0.3, 0.3, 4)
    exactly = stats.multivariate_normal(offset, spread).logpdf(seen)
    np.testing.assert_allclose(exact, exactly, rtol=1e-6)  # of float32 numbers


def test_a_wrong_answer_fails(monkeypatch, capsys):
    sample = jaxgen.sample

    def biased(*args, **kwargs):
        result = sample(*args, **kwargs)
        return result._replace(log_z=result.log_z + 1.0)

    monkeypatch.setattr(jaxgen, "sample", biased)
    assert doctor.self_test().status == "failed"


@pytest.fixture
def quick(monkeypatch):
    """No self-test: the other checks alone."""
    monkeypatch.setattr(doctor, "self_test", lambda: doctor.Check("self-test", "ok", "", {}))


def test_what_is_wrong_is_named_and_exits_with_1(quick, monkeypatch, capsys, tmp_path):
    def broken():
        raise RuntimeError("no\nsuch device")

    monkeypatch.setattr(doctor, "devices", broken)
    assert main(["doctor", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is False
    assert said["checks"]["devices"]["detail"] == "RuntimeError: no such device"
    assert said["checks"]["weights"]["status"] == "ok"
    shipped = Path(jaxgen.__file__).parent / "shipped"
    files = [f for f in shipped.glob("*.safetensors") if not f.stem.endswith("_examples")]
    assert len(said["checks"]["weights"]["data"]["sha256"]) == len(files)
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.endswith("failed: devices\n")


def test_damaged_and_missing_weights_are_found(monkeypatch, tmp_path):
    import importlib.resources

    root = importlib.resources.files("jaxgen") / "shipped"
    (tmp_path / "shipped").mkdir()
    for path in root.glob("toy2d*.safetensors"):
        (tmp_path / "shipped" / path.name).write_bytes(path.read_bytes())
    file = tmp_path / "shipped" / "toy2d_gan_500.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(raw)
    from jaxgen.models import registry

    monkeypatch.setattr(importlib.resources, "files", lambda name: tmp_path)
    monkeypatch.setattr(registry, "files", lambda name: tmp_path)
    found = doctor.weights()
    assert found.status == "failed"
    assert "toy2d_gan_500.safetensors: sha256" in found.detail
    assert "fashion-mnist/dcgan is not installed" in found.detail
    assert "toy2d/gan-500" not in found.data["missing"]
