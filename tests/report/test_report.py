"""The report: its verdicts, what it makes of hostile files, and the page in a real browser."""

import base64
import hashlib
import io
import itertools
import json
import os
import re
from html.parser import HTMLParser

import jax
import numpy as np
import pytest
from PIL import Image

import jaxgen
from jaxgen import InputError, report
from jaxgen.cli import main
from jaxgen.report import figures, output_folder, pixels, svg
from tests import browser

EVIL = "</script><script>alert('x')</script><img src=x onerror=alert(1)>"


def moving_spots(z, size, channels):
    """Images `[..., size, size, channels]` of a spot whose place is in the first two latents."""
    y, x = np.mgrid[:size, :size] / size
    place = 0.5 + 0.12 * z[..., :2, None, None]
    square = (x - place[..., 0, :, :]) ** 2 + (y - place[..., 1, :, :]) ** 2
    return (np.exp(-square / 0.02)[..., None] * np.ones(channels)).astype(np.float32)


def make(
    path,
    *,
    names=("spot",),
    chains=8,
    draws=16,
    size=14,
    channels=1,
    apart=0.0,
    noise=False,
    ess=0.6,
    steps=12,
    more=None,
    wide=np.float32,
    entry=None,
    **summary,
):
    """A run's folder with draws from N(0, I), or from chains that stay `apart`."""
    rng = np.random.default_rng(0)
    arrays, runs = {}, []
    for name in names:
        z = rng.normal(size=(chains, draws, 12)) + apart * rng.normal(size=(chains, 1, 12))
        image = moving_spots(z, size, channels)
        if noise:
            image = rng.random(image.shape, np.float32)
        beta = np.geomspace(1e-3, 1, steps)
        arrays |= {
            f"{name}/position": z,
            f"{name}/image": image,
            f"{name}/weights": np.full(chains, 1 / chains),
            f"{name}/history/beta": beta,
            f"{name}/history/acceptance_rate": 0.6 + 0.3 * beta,
            f"{name}/history/step_size": 0.1 / beta,
            f"{name}/history/ess": np.full(steps, ess * chains),
            f"{name}/history/log_z": -9 * beta,
        }
        figure = {"log_z": -9.0, "log_z_standard_error": 0.1, "ess": ess * chains}
        figure |= {"num_ancestors": chains, "acceptance_rate": 0.8, "num_divergent": 0}
        figure |= {"exactness": "exact", "notes": ["said by the run"], **(entry or {})}
        runs.append({"name": name, "label": f"label of {name}", **figure})
    arrays |= more or {}
    data = {
        "format": output_folder.FORMAT,
        "command": "sample",
        "arguments": {"seed": 3},
        "models": [],
    }
    data |= {"runs": runs, "seconds": 1.5, "versions": {"jax": "1"}, "device": "cpu"}
    data |= {"files": ["draws.safetensors", "summary.json"], **summary}
    with output_folder.writing(path) as place:
        arrays = {
            k: np.asarray(v, wide if k in (more or {}) else np.float32) for k, v in arrays.items()
        }
        output_folder.write_arrays(place / "draws.safetensors", arrays, {})
        output_folder.write_json(place / "summary.json", data)
    return path


def verdicts(path):
    return report.examine(report.read(path))[0].verdicts


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
    import base64

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


class Outline(HTMLParser):
    """What a page consists of: that its tags match, and what has which attributes."""

    VOID = frozenset({"meta", "img", "input", "br", "link"})

    def __init__(self, text):
        super().__init__()
        self.open, self.seen = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def all(self, *tags):
        return [attrs for tag, attrs in self.seen if tag in tags]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A report on three posteriors with hostile names, through the command line."""
    root = tmp_path_factory.mktemp("report")
    z = np.zeros((14, 14, 1))
    extra = {"mean": z + 0.5, "deviation": z + 0.1, "truth": z, "mask": z[..., 0], "low": z}
    more = {f"{EVIL}/{k}": v for k, v in extra.items()}
    entry = {"label": EVIL, "notes": [EVIL], "exactness": EVIL}
    path = make(
        root / "run",
        names=("spot", EVIL, "other"),
        draws=40,
        entry=entry,
        more=more,
        device=EVIL,
        arguments={EVIL: EVIL},
        models=[{"name": EVIL}],
    )
    assert main(["report", str(path)]) == 0
    return root / "run.html"


def test_the_page_is_whole_and_fetches_nothing(written):
    text = written.read_text()
    page = Outline(text)
    for attrs in page.all("img", "script", "link", "iframe"):
        assert attrs.get("src", "data:image/png").startswith("data:image/png")
    assert "http:" not in text
    assert "https:" not in text
    assert "default-src 'none'" in text
    assert "unsafe-inline" not in text
    assert " style=" not in text
    for tag in ("style", "script"):  # what a browser asks of what it may use
        (inner,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(inner.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in text
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert len(page.all("script")) == 4  # one for each film strip, and ours
    assert text.count("Credible maps") == 1
    assert "said by the run" not in text
    assert "converged" in text


def test_the_page_can_be_read_aloud(written):
    page = Outline(written.read_text())
    assert all(attrs.get("alt") is not None for attrs in page.all("img"))
    assert all(a.get("aria-label") for a in page.all("svg") if a.get("role") == "img")
    labelled = {attrs.get("for") for attrs in page.all("label")}
    controls = page.all("select", "input")
    assert len(controls) == 6
    assert {attrs["id"] for attrs in controls} <= labelled
    ids = [attrs["id"] for _, attrs in page.seen if "id" in attrs]
    assert len(ids) == len(set(ids))
    headings = [int(tag[1]) for tag, _ in page.seen if re.fullmatch(r"h[1-6]", tag)]
    assert headings[0] == 1
    assert max(b - a for a, b in itertools.pairwise(headings)) <= 1


LARGE = {"chains": 16, "draws": 4, "size": 96, "channels": 3}


@pytest.mark.parametrize(
    "how", [{"draws": 30, "size": 28}, pytest.param(LARGE, marks=pytest.mark.slow)]
)
def test_pages_stay_below_their_limit(tmp_path, how):
    how = {"chains": 64, **how}  # noise, which no PNG makes smaller
    path = report.write(make(tmp_path / "run", noise=True, **how))
    assert 500_000 < path.stat().st_size < 5_000_000


def test_odd_numbers_do_no_harm(tmp_path):
    huge = np.full((14, 14, 1), 3e38)
    more = {"spot/mean": huge, "spot/deviation": huge * np.inf, "spot/history/beta": np.zeros(12)}
    more |= {"spot/history/ess": np.full(12, np.nan), "spot/history/log_z": np.full(12, 3e38)}
    entry = {"log_z": 10**400, "ess": "many", "notes": "none", "interval": 7, "label": None}
    how = {"more": more, "entry": entry, "seconds": 10**400, "arguments": [1], "models": {"a": 1}}
    text = report.page(report.read(make(tmp_path / "run", chains=4, **how)))
    Outline(text)
    assert '<th scope="row"><a href="#p0">spot</a>' in text
    assert "unknown" in text


@pytest.mark.parametrize("where", ["everywhere", "first", "mixed"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_positions_at_the_end_of_the_numbers_are_drawn_or_left_out(tmp_path, where, dtype):
    largest = np.finfo(dtype).max
    position = np.full((4, 16, 12), largest, dtype)
    if where == "first":
        position[1:] = np.random.default_rng(0).normal(size=(3, 16, 12))
    if where == "mixed":
        position *= np.random.default_rng(0).choice([-1, 0, 1, 1e-12], position.shape).astype(dtype)
    path = make(tmp_path / "run", chains=4, wide=dtype, more={"spot/position": position})
    Outline(report.write(path).read_text())


def test_points_that_share_a_large_abscissa_have_an_axis():
    line = svg.Series("a", np.arange(3.0), np.full(3, 1e29))
    assert "polyline" in svg.lines("far", [line], x_label="x")


def test_characters_that_hide_or_turn_text_are_shown(tmp_path):
    evil = "good\u202edab\u2066\x1b[2J"
    path = make(tmp_path / "run", entry={"label": evil, "notes": [evil]}, arguments={evil: evil})
    text = report.page(report.read(path))
    assert "good\\u202edab\\u2066\\x1b[2J" in text
    assert not set(text) & set("\u202e\u2066\x1b")
    with pytest.raises(InputError) as caught:
        report.read(tmp_path / evil)
    assert "\\u202e" in str(caught.value)
    assert str(caught.value).isprintable()


# What is refused, and where it goes


def damage(path, **changes):
    """Change fields of a summary."""
    file = path / "summary.json"
    data = json.loads(file.read_text())
    file.write_text(json.dumps({**data, **changes}))


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        (lambda p: p.joinpath("summary.json").unlink(), "summary.json: expected a readable file"),
        (lambda p: p.joinpath("summary.json").write_text("{"), "summary.json: expected JSON"),
        (lambda p: p.joinpath("summary.json").write_text("[" * 99999), "summary.json: expected"),
        (lambda p: p.joinpath("summary.json").write_bytes(b"\xff\xfe"), "expected UTF-8"),
        (lambda p: damage(p, deep=json.loads("[" * 200 + "]" * 200)), "levels deep"),
        (lambda p: damage(p, format="other"), "format: expected jaxgen-run/1; got 'other'"),
        (lambda p: damage(p, runs=[]), "runs: expected a list of posteriors"),
        (lambda p: damage(p, runs=["a"]), r"runs\[0\]: expected an object"),
        (lambda p: damage(p, runs=[{"name": 3}]), r"runs\[0\].name: expected a name; got 3"),
        (
            lambda p: damage(p, runs=[{"name": "lost"}]),
            "lost/position: expected an array",
        ),
        (lambda p: damage(p, runs=2 * [{"name": "spot"}]), "expected a name of its own"),
        (lambda p: p.joinpath("draws.safetensors").unlink(), "draws.safetensors: expected"),
        (lambda p: p.joinpath("draws.safetensors").write_bytes(b"\x08"), "whole safetensors"),
    ],
)
def test_damaged_folders_end_in_one_line(tmp_path, how, wanted):
    path = make(tmp_path / "run")
    how(path)
    with pytest.raises(InputError, match=wanted):
        report.write(path)
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("name", ["summary.json", "draws.safetensors"])
def test_a_pipe_in_the_place_of_a_file_is_refused(tmp_path, name):
    path = make(tmp_path / "run")
    (path / name).unlink()
    os.mkfifo(path / name)
    with pytest.raises(InputError, match=f"{name}: expected a file; got a folder, a pipe"):
        report.read(path)


@pytest.mark.parametrize(
    ("name", "array", "wanted"),
    [
        ("image", np.zeros((8, 15, 28, 28, 1)), r"spot/image: expected shape \[8, 16, H"),
        ("image", np.zeros((8, 16)), r"spot/image: expected shape \[8, 16, H"),
        ("image", np.zeros((8, 16, 0, 28, 1)), r"spot/image: expected shape \[8, 16, H"),
        ("position", np.zeros((8, 16)), r"spot/position: expected shape \[chains, draws"),
        ("weights", np.ones(7), r"spot/weights: expected shape \[8\]; got \[7\]"),
        ("weights", np.full(8, np.nan), "spot/weights: expected weights of at least 0"),
        ("weights", np.zeros(8), "spot/weights: expected weights of at least 0"),
        ("history/ess", np.ones(3), r"spot/history/ess: expected shape \[12\]; got \[3\]"),
        ("mean", np.zeros((9, 14, 1)), r"spot/mean: expected shape \[14, 14, 1\]"),
        ("mask", np.zeros((14, 14, 1)), r"spot/mask: expected shape \[14, 14\]"),
    ],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, name, array, wanted):
    path = make(tmp_path / "run", more={f"spot/{name}": array})
    with pytest.raises(InputError, match=wanted):
        report.read(path)


def test_a_report_replaces_a_report_and_nothing_else(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "run", draws=4)
    for _ in range(2):
        assert main(["report", "run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "run.html")
    output_folder.check_free(tmp_path / "run", force=True)  # the run can still be replaced
    (tmp_path / "mine.html").write_text("mine")
    for out, wanted in (
        ("mine.html", "an earlier report"),
        ("run", "the name of a file"),
        ("page.txt", "ends in .html"),
        ("lost/page.html", "a folder that can be written to"),
    ):
        assert main(["report", "run", "--out", out]) == 2
        assert wanted in capsys.readouterr().err
    assert (tmp_path / "mine.html").read_text() == "mine"
    assert main(["report", "run", "--out", "mine.html", "--force", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["verdicts"]["spot"][0]["level"] in ("good", "unsure", "bad")
    assert main(["report", "lost"]) == 2
    assert "RUN: expected the folder of a run" in capsys.readouterr().err
    (tmp_path / "half.partial").mkdir()
    assert main(["report", "half"]) == 2
    assert "--resume" in capsys.readouterr().err


# In a browser


def colours(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.int32)


@pytest.mark.skipif(browser.installed() is None, reason="needs Chromium: apt install chromium")
def test_the_slider_moves_the_picture(written):
    with browser.Browser() as page:
        page.open(written)
        first = colours(page.screenshot("#p0 .frame"))
        assert first.std() > 10  # a picture, not an empty box
        page.value("document.querySelector('#p0-d').focus()")
        page.press("ArrowRight")
        second = colours(page.screenshot("#p0 .frame"))
        assert np.abs(second - first).max() > 50
        assert page.value("document.querySelector('#p0 output').textContent") == (
            "chain 1, draw 2 of 40"
        )
        label = page.value("document.querySelector('#p0 .frame').getAttribute('aria-label')")
        assert label.startswith("Image at chain 1, draw 2 of 40")
        page.press("End")
        assert "draw 40 of 40" in page.value("document.querySelector('#p0 output').textContent")
        page.press("Tab")  # on to the button
        assert page.value("document.activeElement.textContent") == "Play"
        page.value(
            "(() => { const c = document.querySelector('#p0-c'); c.selectedIndex = 5;"
            "c.dispatchEvent(new Event('change')); })()"
        )
        assert "chain 6" in page.value("document.querySelector('#p0 output').textContent")
        assert page.complaints() == []


@pytest.mark.slow
@pytest.mark.skipif(browser.installed() is None, reason="needs Chromium: apt install chromium")
def test_the_page_is_light_or_dark(written):
    with browser.Browser(900, 700) as page:
        page.open(written)
        light = colours(page.screenshot()).mean()
        dark = [{"name": "prefers-color-scheme", "value": "dark"}]
        page.call("Emulation.setEmulatedMedia", features=dark)
        assert colours(page.screenshot()).mean() < light - 100
        page.value("document.getElementById('theme').click()")
        assert abs(colours(page.screenshot()).mean() - light) < 5
        assert page.value("document.getElementById('theme').textContent") == "Dark colours"
        assert page.complaints() == []
