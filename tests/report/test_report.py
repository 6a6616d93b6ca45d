"""The report: its verdicts, its figures, and what it draws."""

import base64
import io
import re

import jax
import numpy as np
import pytest
from PIL import Image

import jaxgen
from jaxgen import InputError, report
from jaxgen.report import figures, pixels, svg
from tests.report.folders import EVIL, make, moving_spots, verdicts


@pytest.mark.parametrize(
    ("kept", "words"),
    [("lock", "start it again"), ("example/run.json", "--resume"), ("items.json", "--resume")],
)
def test_a_run_that_waits_has_a_way_out_that_works(tmp_path, kept, words):
    file = tmp_path / "run.partial" / kept
    file.parent.mkdir(parents=True)
    file.write_text("")
    with pytest.raises(InputError, match=words):
        report.read(tmp_path / "run")


# What is said


def test_chains_that_agree_have_converged(tmp_path):
    found = verdicts(make(tmp_path / "run", draws=100))
    assert [v.level for v in found] == ["good"]
    assert found[0].words == "converged"
    assert re.search(r"R-hat 1\.0\d\d at worst", found[0].reason)


@pytest.mark.parametrize(
    ("how", "level", "words"),
    [
        ({"apart": 3.0}, "bad", "not converged: the chains have not met"),
        ({"draws": 3}, "unsure", "cannot tell whether it converged"),
        ({"draws": 100, "ess": 1.2 / 8}, "good", "converged"),
        ({"draws": 100, "ess": 0.5 / 8}, "bad", "weights collapsed: ESS 0.5 of 8"),
        ({"draws": 100, "entry": {"num_ancestors": 2}}, "unsure", "descend from 2 first states"),
        ({"draws": 100, "entry": {"num_divergent": 7}}, "unsure", "7 divergent proposals"),
        ({"draws": 100, "entry": {"exactness": "clipped"}}, "unsure", "the kernel is clipped"),
        ({"draws": 100, "entry": {"acceptance_rate": 0.05}}, "unsure", "step is too large"),
        ({"draws": 100, "entry": {"log_z_standard_error": 2}}, "unsure", "log Z is uncertain"),
        ({"draws": 100, "entry": {"ess": None, "log_z": "high"}}, "good", "converged"),
    ],
)
def test_the_worst_comes_first_with_its_reason(tmp_path, how, level, words):
    first = verdicts(make(tmp_path / "run", **how))[0]
    assert first.level == level
    assert words in first.words
    assert len(first.reason) > 15


@pytest.mark.parametrize(
    ("draws", "apart", "error", "islands", "level", "words"),
    [
        (10, 1.0, 0.3, [-9.0, -9.1, -8.9, -9.0], "good", "groups of chains that never met agree"),
        (10, 4.0, 0.3, [-9.0, -9.1, -8.9, -9.0], "unsure", "separate parts"),
        (30, 1.5, 0.3, [-9.0, -9.1, -8.9, -9.0], "unsure", "separate parts"),
        (10, 1.0, 0.7, [-9.0, -9.1, -8.9, -9.0], "unsure", "too few draws to tell"),
        (30, 1.0, 0.7, [-9.0, -9.1, -8.9, -9.0], "bad", "have not met"),
        (10, 1.0, 0.7, [-9.0, -19.1, -5.0, -12.0], "bad", ""),
        (10, 1.0, 1.7, [-9.0, -9.1, -8.9, -9.0], "bad", "have not met"),
    ],
)
def test_few_draws_after_annealing(tmp_path, draws, apart, error, islands, level, words):
    """R-hat of few draws is large in itself; what groups found of log Z decides, if it is sure."""
    entry = {"log_z_standard_error": error, "island_log_z": islands}
    found = verdicts(make(tmp_path / "run", chains=32, draws=draws, apart=apart, entry=entry))
    mixing = [v for v in found if "R-hat" in v.reason or "islands" in v.words or v.level == level]
    assert mixing[0].level == level
    assert words in " ".join(v.words for v in mixing)


def test_collapsed_weights_say_what_to_do(tmp_path):
    found = verdicts(make(tmp_path / "run", chains=64, draws=20, ess=1.2 / 64))
    assert found[0].words == "weights collapsed: ESS 1.2 of 64; use more temperatures"


def test_numbers_that_are_not_finite_are_counted(tmp_path):
    path = make(tmp_path / "run")
    image = np.array(report.read(path).entries[0].image)
    image[0, 0, :3, 0] = np.nan
    path = make(tmp_path / "bad", more={"spot/image": image})
    part = report.examine(report.read(path))[0]
    assert part.figures.not_finite == 3
    assert part.verdicts[0].level == "bad"
    assert "3 numbers" in part.verdicts[0].words
    assert "NaN" not in report.page(report.read(path)).split("<main")[1].split("NaN or infinite")[1]


def test_latents_far_out_are_reported(tmp_path):
    path = make(tmp_path / "run", draws=100)
    position = 2 * np.array(report.read(path).entries[0].position)
    found = verdicts(make(tmp_path / "far", draws=100, more={"spot/position": position}))
    assert "not where the prior has its mass" in found[0].words
    assert "2.0" in found[0].reason or "1.9" in found[0].reason


# What is measured


def test_ranks_and_autocorrelation():
    draws = np.arange(40.0).reshape(4, 10)  # each chain in a quarter of its own
    np.testing.assert_array_equal(figures.ranks(draws, 4), 10 * np.eye(4))
    wave = np.tile([1.0, -1.0], (3, 50))
    np.testing.assert_allclose(
        figures.autocorrelation(wave, 3), [1, -99 / 100, 98 / 100, -97 / 100]
    )
    assert figures.autocorrelation(np.ones((2, 9))).tolist() == [1]


def test_the_density_of_a_class_is_evaluated_again(tmp_path):
    info = jaxgen.models.registry.describe("fashion-mnist/cnn")
    model = {"kind": "classifier", "name": "fashion-mnist/cnn", "sha256": info.metadata["sha256"]}
    path = make(tmp_path / "run", names=("class_4",), chains=2, draws=3, size=28, models=[model])
    run = report.read(path)
    found, entry = report.measure(run.entries[0], run), run.entries[0]
    assert found.density_name == "log density"
    logits = jax.vmap(jax.vmap(jaxgen.load("fashion-mnist/cnn")))(entry.image)
    want = jax.nn.log_softmax(logits)[..., 4] - 0.5 * np.sum(entry.position**2, -1)
    np.testing.assert_allclose(found.density, want, rtol=1e-4)
    # Other weights of that name, or none: the prior's density, and the page says so.
    other = make(tmp_path / "o", names=("class_4",), models=[{**model, "sha256": "0"}])
    assert report.examine(report.read(other))[0].figures.density_name == "log prior"


def test_the_density_of_pixels_is_evaluated_again(tmp_path):
    mask, truth = np.zeros((14, 14)), np.full((14, 14, 1), 0.3)
    mask[:5] = 1
    more = {"image/mask": mask, "image/truth": truth}
    how = {"command": "inpaint", "arguments": {"noise": 0.2}, "names": ("image",), "more": more}
    run = report.read(make(tmp_path / "run", **how))
    entry = run.entries[0]
    found = report.measure(entry, run)
    z, x = entry.position[1, 2], entry.image[1, 2]
    want = -0.5 * np.sum(z**2) - 0.5 * np.sum((x[:5] - 0.3) ** 2) / 0.04
    np.testing.assert_allclose(found.density[1, 2], want, rtol=1e-4)


def test_log_densities_that_a_run_kept_are_shown(tmp_path):
    kept = np.random.default_rng(1).normal(size=(8, 16))
    more = {"spot/log_density": kept}
    found = report.measure(report.read(make(tmp_path / "run", more=more)).entries[0])
    assert found.density_name == "log density"
    np.testing.assert_allclose(found.density, kept, rtol=1e-6)
    assert set(found.rhat) == {"latent", "log density", "image"}
    wrong = make(tmp_path / "wrong", more={"spot/log_density": kept[:, :3]})
    with pytest.raises(InputError, match=r"spot/log_density: expected shape \[8, 16\]"):
        report.read(wrong)


# What is drawn


def test_strips_hold_the_draws(tmp_path):
    images = moving_spots(np.random.default_rng(1).normal(size=(3, 5, 2)), 28, 3)
    made = pixels.strips(images, 100_000)
    assert (len(made.uris), made.draws.tolist(), made.width) == (3, [0, 1, 2, 3, 4], 28)

    png = base64.b64decode(made.uris[2].split(",")[1])
    strip = np.asarray(Image.open(io.BytesIO(png)), np.float32) / 255
    np.testing.assert_allclose(strip[:, 56:84], images[2, 2], atol=0.003)
    # In less room fewer chains are kept, evenly spaced, and images are made smaller.
    noise = np.random.default_rng(0).random((64, 8, 64, 64, 3), np.float32)
    for budget in (400_000, 60_000):
        less = pixels.strips(noise, budget)
        assert 1 <= len(less.uris) < 64
        assert sum(len(u) for u in less.uris) * 3 / 4 <= budget


def test_a_chart_says_its_numbers_and_survives_odd_ones():
    text = svg.lines(EVIL, [svg.Series("a", np.array([1.0, np.nan, 3.0]))], x_label="t")
    assert "from 1 to 3, last 3" in text
    assert "<script" not in text
    for values in ([], [np.nan], [2.0, 2.0], [0.0], [1e300, 1.0], [-1e-30, 1e-30]):
        for log in (False, True):
            made = svg.lines("t", [svg.Series("a", np.array(values))], x_label="t", log=log)
            assert "nan" not in made.replace("no finite numbers", "")
            assert "inf" not in made.replace("no finite numbers", "")
