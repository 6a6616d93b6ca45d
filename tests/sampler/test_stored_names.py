"""Files of format 3 keep the names that they had when fields and classes were renamed."""

import json

import jax
import numpy as np
from safetensors.numpy import load_file

import jaxgen
from tests.toys import LinearGaussian


def test_a_checkpoint_has_the_names_of_format_3(tmp_path):
    posterior = LinearGaussian(3).posterior
    jaxgen.sample(
        jax.random.key(0), posterior, num_chains=32, num_steps=4, warmup=1, folder=tmp_path / "run"
    )
    stored = load_file(max((tmp_path / "run" / "checkpoints").glob("*.safetensors")))
    places = {name.split("/")[0] + "/" + name.split(".", 1)[1] for name in stored}
    assert {
        "state/ancestor",
        "state/memory.log_step",
        "state/found.memory.log_step",
        "state/found.log_density",
        "evidence/num_ancestors",
        "place/phase",
        "plan/draws",
    } <= places
    assert not any("lineage" in name or "adaptation" in name or "pilot" in name for name in stored)
    order = [name for name in stored if name.startswith("state/")]
    assert len({name.split("/")[1][:3] for name in order}) == len(order)
    np.testing.assert_array_equal(stored["place/001.phase"], 3)


def test_settings_have_the_names_of_format_3(tmp_path):
    posterior = LinearGaussian(3).posterior
    jaxgen.ais(jax.random.key(0), posterior, betas=[0.0, 0.5, 1.0], folder=tmp_path / "run")
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert settings["path.base.held"] == "None"
    assert settings["path.tilt"] == "LogLikelihood"
    assert settings["collect"].startswith("jaxgen.sampler.config._nothing sha256 ")
    assert {"moves", "plan.draws", "plan.thin", "plan.rest", "plan.warmup"} <= settings.keys()
    assert "num_mcmc_steps" not in settings
