"""`jaxgen.train.run`: weight files with their recipe, the same again after a stop."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen.sequences.recipes  # noqa: F401 -- text/... joins the table
from jaxgen import data
from jaxgen.cli import main
from jaxgen.core.errors import InputError
from jaxgen.models import describe, load
from jaxgen.models.registry import TRAINABLE, available
from jaxgen.train import RECIPES, figures, generator_jobs, run


def test_every_shipped_model_has_a_recipe():
    for name in available():
        assert any(name.startswith(recipe) for recipe in RECIPES), name


def test_what_is_not_shipped_says_how_to_get_it():
    assert set(TRAINABLE) == set(RECIPES) - {"toy2d/gan"} - set(available())
    with pytest.raises(InputError, match="not shipped; train it with `jaxgen train fashion-mnist"):
        load("fashion-mnist/began")


def test_run_writes_weights_that_load_and_say_how_they_were_made(tmp_path):
    seen = []
    paths = run(
        "toy2d/gan",
        out=tmp_path / "a",
        steps=30,
        seed=5,
        progress=lambda step, metrics: seen.append((step, metrics)),
    )
    assert [path.name for path in paths] == ["toy2d_gan_30.safetensors"]
    info = describe(paths[0])
    assert info.metadata["recipe"] == {
        "method": "jaxgen.train.toy",
        "seed": 5,
        "steps": 30,
        "batch": 256,
        "lr": 1e-3,
        "beta1": 0.5,
        "beta2": 0.999,
        "hidden_discriminator": 64,
    }
    assert 0 <= info.metadata["figures"]["within_0.2_of_a_mode"] <= 1
    assert seen[-1][0] == 30
    again = run("toy2d/gan", out=tmp_path / "b", steps=30, seed=5)
    assert again[0].read_bytes() == paths[0].read_bytes()
    other = run("toy2d/gan", out=tmp_path / "c", steps=30, seed=6)
    assert other[0].read_bytes() != paths[0].read_bytes()
    assert load(other[0]).graphdef == load(paths[0]).graphdef


def test_errors(tmp_path):
    with pytest.raises(InputError, match="one of fashion-mnist/dcgan"):
        run("stylegan", out=tmp_path)
    with pytest.raises(InputError, match="steps"):
        run("toy2d/gan", out=tmp_path, steps=0)
    with pytest.raises(InputError, match="apt-get install dataset-fashion-mnist"):
        run("fashion-mnist/cnn", out=tmp_path, steps=1, data_dir=str(tmp_path))


def test_command_line(tmp_path, capsys):
    assert main(["train", "toy2d/gan", "--out", str(tmp_path), "--steps", "5"]) == 0
    assert "toy2d_gan_5.safetensors" in capsys.readouterr().out
    assert main(["train", "toy2d/gan", "--out", str(tmp_path), "--steps", "5"]) == 2
    assert "Give --force" in capsys.readouterr().err
    assert main(["train", "nothing", "--out", str(tmp_path)]) == 2
    assert "nothing" in capsys.readouterr().err


def test_snapshots_are_for_gans_and_within_the_run(tmp_path):
    with pytest.raises(InputError, match="snapshots"):
        run("toy2d/gan", out=tmp_path, snapshots=(5,))
    with pytest.raises(InputError, match="from 1 to 10500"):
        run("fashion-mnist/dcgan", out=tmp_path, snapshots=(500, 20_000))
    assert main(["train", "fashion-mnist/dcgan", "--snapshots", "a", "--out", str(tmp_path)]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dcgan", "began"])
def test_snapshots_are_written_on_the_way(tmp_path, kind):
    paths = run(f"fashion-mnist/{kind}", out=tmp_path, steps=2, snapshots=(1,))
    assert [path.name for path in paths] == [
        f"fashion_mnist_{kind}_1.safetensors",
        f"fashion_mnist_{kind}.safetensors",
        f"fashion_mnist_{kind}_discriminator.safetensors",
    ]
    assert describe(paths[0]).metadata["snapshot"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in TRAINABLE if "mnist" in name])
def test_generators_that_are_not_shipped_can_be_trained(name, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    few = data.Images(
        rng.integers(0, 256, (60, 28, 28, 1), np.uint8), np.arange(60, dtype=np.int32) % 10
    )
    monkeypatch.setattr(data, "fashion_mnist", lambda split="train", folder=None: few)
    for module in (figures, generator_jobs):
        monkeypatch.setattr(module, "_COUNT", 60)
    infos = {path: describe(path) for path in run(name, out=tmp_path, steps=2)}
    (generator,) = (path for path, info in infos.items() if info.kind == "generator")
    assert generator.name == f"{name.replace('/', '_').replace('-', '_')}.safetensors"
    assert infos[generator].output_shape == (28, 28, 1)
    assert any(key.startswith("frechet") for key in infos[generator].metadata["figures"])
    draws = load(generator)(jnp.zeros((2, *infos[generator].input_shape)))
    assert 0 <= float(draws.min()) <= float(draws.max()) <= 1
