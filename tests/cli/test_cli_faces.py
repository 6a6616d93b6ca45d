"""Budgets, and photographs of faces on the command line."""

from argparse import Namespace

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxgen
from jaxgen.cli import budget, faces, main, runs
from jaxgen.core.errors import InputError
from jaxgen.models.fetched import cached


def options(path, **more):
    given = {"image": str(path), "aligned": False, "landmarks": None, **more}
    return Namespace(**given)


@pytest.fixture
def photo(tmp_path):
    rows, columns = np.mgrid[:100, :120]
    pixels = np.stack([2 * columns, 2 * rows, 0 * rows + 90], -1).astype(np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


def test_a_budget_sets_what_was_not_typed():
    assert budget.preset(None, ["--chains", "7"]) == {}
    assert budget.preset("standard", []) == {}
    quick = budget.preset("quick", ["jaxgen", "inpaint", "--chains=7", "--moves", "3"])
    assert set(quick) == {"kernel", "warmup", "steps"}
    assert budget.preset("quick", [])["chains"] == 16


def test_the_papers_budget_is_ten_thousand_gradients_a_chain():
    settings = runs.Settings(**budget.PRESETS["paper"], budget="paper")
    assert budget.expected_gradients(settings) == 20 * (499 + 1)
    quick = runs.Settings(**budget.PRESETS["quick"], budget="quick")
    assert 300 < budget.expected_gradients(quick) < 450
    assert 645 <= budget.expected_gradients(runs.Settings()) <= 1_500


def test_the_price_is_that_of_a_gradient_measured_here():
    matrix = jnp.ones((30, 30)) / 30
    posterior = jaxgen.Posterior(
        jaxgen.Gaussian.standard(30), lambda z: (matrix @ z)[:, None, None],
        lambda image: -jnp.sum(image**2),
    )  # fmt: skip
    each = budget.time_of_gradient(posterior, batch=4)
    assert 0 < each < 0.5
    line = budget.announced(posterior, runs.Settings(budget="standard"))
    assert line.startswith("budget standard: 64 chains of about 1,240 gradients")
    assert "ms each here: about" in line
    found = [budget.duration(t) for t in (0.2, 40, 130, 9000)]
    assert found == ["1 s", "40 s", "2 min", "2.5 h"]


def test_a_face_whose_place_nobody_told_is_refused(photo):
    with pytest.raises(InputError, match="IMAGE: expected a face in the frame of FFHQ") as error:
        faces.framed(options(photo))
    assert "--landmarks X,Y,X,Y,X,Y" in str(error.value)
    assert "--aligned" in str(error.value)
    with pytest.raises(InputError, match="square picture with --aligned"):
        faces.framed(options(photo, aligned=True))
    with pytest.raises(InputError, match="--landmarks: expected six numbers"):
        faces.framed(options(photo, landmarks="1,2,3"))
    with pytest.raises(InputError, match="--aligned"):
        faces.framed(options(photo, aligned=True, landmarks="40,40,60,40,50,60"))


def test_a_photograph_is_turned_into_the_frame(photo, tmp_path):
    picture, seen = faces.framed(options(photo, landmarks="40,40,60,40,50,62"))
    assert picture.image.shape == (256, 256, 3)
    # The square goes from 10 to 90 in columns and from 2.2 to 82.2 in rows.
    np.testing.assert_allclose(picture.image[128, 128, 0], 2 * 49.5 / 255, atol=0.02)
    assert seen.all()
    square = tmp_path / "square.png"
    rgba = np.full((512, 512, 4), 255, np.uint8)
    rgba[:256, :, 3] = 0
    Image.fromarray(rgba).save(square)
    picture, seen = faces.framed(options(square, aligned=True))
    assert not seen[:128].any()
    assert seen[128:].all()
    np.testing.assert_allclose(picture.image[200], 1.0)


def test_landmarks_are_for_a_generator_of_faces(photo, capsys):
    assert main(["inpaint", str(photo), "--mask", "lower-half", "--aligned"]) == 2
    assert "--generator mobilestylegan-ffhq" in capsys.readouterr().err


def test_settings_of_another_sampler_are_refused(photo, capsys):
    words = ["inpaint", str(photo), "--generator", "mobilestylegan-ffhq", "--chains", "5"]
    assert main([*words, "--mask", "lower-half", "--aligned"]) == 2
    assert "--chains: expected no setting of the sampler" in capsys.readouterr().err


def test_the_budgets_of_faces_are_told_beforehand():
    counts = {
        name: faces._gradients({**faces._SHARED, **settings})
        for name, settings in faces.BUDGETS.items()
    }
    # Fifteen runs of the standard budget took 364 to 478.
    assert 380 < counts["standard"] < 440
    assert counts["quick"] < counts["standard"]
    assert counts["paper"] > 4 * counts["standard"]


@pytest.mark.slow
def test_a_photograph_is_completed(photo, tmp_path, monkeypatch, capsys):
    if not cached("mobilestylegan-ffhq").is_file():
        pytest.skip("needs `jaxgen fetch mobilestylegan-ffhq`")
    monkeypatch.setitem(
        faces.BUDGETS, "quick",
        {"num_chains": 8, "burn_in": 1, "num_steps": 1, "draws": 1, "pool": 2, "leapfrog": 1,
         "cess": 0.01, "warmup": 1, "probes": 16},
    )  # fmt: skip
    words = ["inpaint", str(photo), "--generator", "mobilestylegan-ffhq", "--budget", "quick"]
    words += ["--landmarks", "40,40,60,40,50,62", "--mask", "lower-half"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr()
    assert "budget quick: 8 chains" in printed.err
    with Image.open(tmp_path / "run" / "inpainting.png") as page:
        assert page.size[0] > 5 * 256
