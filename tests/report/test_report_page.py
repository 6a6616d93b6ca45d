"""The page of the report: what it holds, what it fetches, and how it is in a real browser."""

import base64
import hashlib
import io
import itertools
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from jaxgen import InputError, report
from jaxgen.cli import main
from jaxgen.report import svg
from tests import browser
from tests.report.folders import EVIL, make


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
