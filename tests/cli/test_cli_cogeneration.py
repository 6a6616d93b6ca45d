"""`inpaint` and `superres`: learned noise, credible intervals, and the verdict on the misfit."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxgen.cli import main
from jaxgen.diagnostics.moments import quantiles

TINY = ["--chains", "4", "--num-mcmc-steps", "1", "--warmup", "1", "--steps", "2", "--thin", "1"]
TINY += ["--betas", "geometric:3", "--quiet", "--kernel", "hmc:2"]


def test_inpaint_learns_the_noise_and_gives_intervals(tmp_path):
    out = tmp_path / "run"
    command = ["inpaint", "example:12", "--mask", "lower-half", "--noise", "learn", *TINY]
    assert main([*command, "--out", str(out)]) == 0
    arrays = load_file(out / "draws.safetensors")
    images = arrays["image/image"].reshape(-1, 28, 28, 1)
    low, high = quantiles(images, (0.05, 0.95))
    np.testing.assert_allclose(arrays["image/low"], low, atol=1e-5)
    np.testing.assert_allclose(arrays["image/high"], high, atol=1e-5)
    run = json.loads((out / "summary.json").read_text())["runs"][0]
    assert 0.01 <= run["noise"] <= 0.64
    assert run["interval"] == 0.9
    # Three temperatures from the prior find no such image, and the run says so.
    said = any("out of the generator's reach" in note for note in run["notes"])
    assert said == run["out_of_reach"] == (run["misfit"] > 0.7)


@pytest.mark.parametrize("text", ["guess", "0", "-1", "nan"])
def test_a_noise_level_is_a_number_or_a_way_to_learn_it(text, capsys):
    assert main(["superres", "example:3", f"--noise={text}"]) == 2
    assert "expected a positive number, learn or student-t" in capsys.readouterr().err
