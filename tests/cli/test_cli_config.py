"""`--config` and `--save-config`: the file says what would have been typed."""

import json
import tomllib

import pytest

from jaxgen import InputError
from jaxgen.cli import _parse, commands, main


def parsed(*words):
    return {k: v for k, v in vars(_parse(list(words))).items() if k != "run"}


def write(path, text):
    path.write_text(text)
    return str(path)


def test_a_file_says_what_would_have_been_typed(tmp_path):
    file = write(
        tmp_path / "a.toml",
        'class = "coat"\nchains = 128\nstep-size = 0.25\nkernel = "mala"\nquiet = true\n'
        "json = false",
    )
    typed = [
        "sample",
        "--class",
        "coat",
        "--chains",
        "128",
        "--step-size",
        "0.25",
        "--kernel",
        "mala",
        "--quiet",
    ]
    assert parsed("sample", "--config", file) == parsed(*typed)
    assert parsed("sample", f"--config={file}") == parsed(*typed)


def test_underscores_are_as_good_as_dashes(tmp_path):
    file = write(tmp_path / "a.toml", 'class = "1"\nstep_size = 0.5')
    assert parsed("sample", "--config", file)["step_size"] == 0.5


def test_the_former_name_of_an_option_is_accepted(tmp_path):
    assert parsed("sample", "--class", "1", "--moves", "3")["num_mcmc_steps"] == 3
    file = write(tmp_path / "a.toml", 'class = "1"\nmoves = 3')
    assert parsed("sample", "--config", file)["num_mcmc_steps"] == 3
    assert parsed("sample", "--config", file, "--moves", "4")["num_mcmc_steps"] == 4
    assert parsed("sample", "--config", file, "--num-mcmc-steps", "4")["num_mcmc_steps"] == 4
    both = write(tmp_path / "b.toml", 'class = "1"\nmoves = 3\nnum-mcmc-steps = 3')
    with pytest.raises(InputError, match="num-mcmc-steps: expected each setting once; got moves"):
        parsed("sample", "--config", both)


def test_what_is_typed_wins(tmp_path):
    file = write(tmp_path / "a.toml", 'class = "coat"\nchains = 128\nsteps = 40')
    found = parsed("sample", "--config", file, "--chains", "4")
    assert (found["chains"], found["steps"], found["label"]) == (4, 40, "coat")
    # Of options that exclude each other, too.
    found = parsed("sample", "--classes", "all", "--config", file)
    assert (found["label"], found["classes"]) == (None, "all")


def test_arguments_may_stand_in_the_file(tmp_path):
    file = write(
        tmp_path / "a.toml", 'model = "fashion-mnist/vae"\nimages = ["example:0", "example:3-5"]'
    )
    typed = ["loglik", "fashion-mnist/vae", "example:0", "example:3-5"]
    assert parsed("loglik", "--config", file) == parsed(*typed)
    # A model that is typed takes the images from the file.
    other = parsed("loglik", "--chains", "4", "fashion-mnist/vae-gaussian", "--config", file)
    assert other["model"] == "fashion-mnist/vae-gaussian"
    assert other["images"] == ["example:0", "example:3-5"]
    image = write(tmp_path / "b.toml", 'image = "example:1"\nmask = "left-half"')
    assert parsed("inpaint", "--config", image, "example:2")["image"] == "example:2"
    assert parsed("inpaint", "--config", image)["image"] == "example:1"


EXAMPLES = {
    "demo": ["--quick", "--seed", "3"],
    "sample": ["--class", 'a "b" \\ c\n\x7fé', "--step-size", "1e-5"],
    "inpaint": ["example:3", "--mask", "lower-half", "--noise", "learn", "--tile", "8"],
    "superres": ["example:3", "--noise", "0.07"],
    "loglik": ["fashion-mnist/vae", "example:0", "example:1", "--bdmc"],
    "report": ["run", "--out", "page.html"],
    "train": ["toy2d/gan", "--steps", "5"],
    "models": ["--json"],
    "fetch": ["face-expression"],
    "doctor": ["--json"],
    "completion": ["bash"],
}


@pytest.mark.parametrize("name", list(commands()))
def test_what_is_saved_comes_back(tmp_path, name):
    file = str(tmp_path / "saved.toml")
    wanted = parsed(name, *EXAMPLES[name], "--save-config", file)
    data = tomllib.loads((tmp_path / "saved.toml").read_text())
    assert data["command"] == name
    assert parsed(name, "--config", file) == wanted
    assert parsed(name, "--config", file, "--save-config", file) == wanted  # the same again


def test_force_and_resume_are_not_saved(tmp_path):
    file = tmp_path / "saved.toml"
    parsed(*["demo", "--force", "--resume", "--out", "run", "--save-config"], str(file))
    data = tomllib.loads(file.read_text())
    assert "out" in data
    assert not {"force", "resume", "config", "save-config"} & set(data)


@pytest.mark.slow
def test_a_command_runs_from_its_file(tmp_path, capsys):
    file = write(tmp_path / "a.toml", "quiet = true")
    assert main(["models", "--config", file]) == 0
    out = capsys.readouterr().out.split()
    assert "fashion-mnist/dcgan" in out
    assert "progan-celeba128" in out
    assert main(["models", "--config", file, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == "fashion-mnist/dcgan"
