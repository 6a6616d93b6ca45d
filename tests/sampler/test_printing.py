"""Results print short, in and out of jit, and as HTML; their table agrees with ArviZ."""

import base64
import importlib
import io
import pkgutil
import re
from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import jaxgen
from jaxgen import InputError
from jaxgen.applications.tasks import summarise
from jaxgen.core.table import Table
from jaxgen.diagnostics.convergence import Symmetries
from jaxgen.inference.batched import BatchedEvidence
from tests.toys import LinearGaussian

SHORT = {"num_chains": 8, "num_steps": 8, "thin": 1, "warmup": 2, "num_mcmc_steps": 1}
ARRAY = re.compile(r"\[\s*-?\d+\.\d*(e[+-]\d+)?[\s,]+-?\d")


class Checked(HTMLParser):
    """That tags match, and the pictures of a piece of HTML."""

    def __init__(self, text):
        super().__init__()
        self.open, self.images = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag == "img":
            self.images.append(dict(attrs))
        else:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def toy():
    return LinearGaussian(3)


@pytest.fixture(scope="module")
def result(toy):
    return jaxgen.sample(0, toy.posterior, collect=jaxgen.images, **SHORT)


@pytest.fixture(scope="module")
def traced(toy):
    def run(key):
        found = jaxgen.sample(key, toy.posterior, collect=jaxgen.images, **SHORT)
        said.append((repr(found), found._repr_html_()))
        return found

    said = []
    return jax.jit(run)(jax.random.key(0)), said


def test_a_result_is_a_dozen_lines(result):
    text = repr(result)
    assert text.count("\n") < 14
    assert "8 chains, 8 draws per chain, 3 numbers each" in text
    assert re.search(r"mixing +R-hat \d\.\d\d at worst, ESS \d+ of 64 draws", text)
    assert not ARRAY.search(re.sub(r"\(islands.*\)", "", text))


def test_a_result_of_jit_prints_as_its_settled_one(traced, result):
    found, said = traced
    assert repr(found) == repr(found.settled())
    assert "SampleResult: 8 chains, 8 draws per chain" in repr(found)
    (inside, html) = said[0]  # while it was compiled
    assert "log Z" in inside
    assert "float32[]" in inside
    Checked(html)
    failed = found._replace(failure=jnp.asarray(1))
    assert "failed      condition: expected a finite log likelihood" in repr(failed)
    with pytest.raises(InputError):
        failed.summary()


def test_several_results_of_vmap_print_their_range(traced):
    found, _ = traced
    both = jax.tree.map(lambda x: jnp.stack([x, x]), found)
    text = repr(both)
    assert "SampleResult of [2] runs, exact" in text
    assert re.search(r"log Z +-?\d+\.\d\d to -?\d+\.\d\d", text)
    assert "unstacked()" in text
    assert repr(both.unstacked()[0]) == repr(found)
    Checked(both._repr_html_())


def test_a_notebook_shows_the_last_draws(result):
    page = Checked(result._repr_html_())
    (image,) = page.images
    picture = Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1])))
    last = np.asarray(result.draws["image"])[:, -1]  # eight images of three rows of one pixel
    pixels = np.asarray(picture, np.float32) / 255
    np.testing.assert_allclose(pixels[:, 0], np.clip(last[0, :, 0, 0], 0, 1), atol=0.003)
    np.testing.assert_allclose(pixels[:, 2], np.clip(last[1, :, 0, 0], 0, 1), atol=0.003)
    assert not Checked(result._replace(draws=None)._repr_html_()).images


def test_what_a_stranger_wrote_into_a_note_stays_text(result):
    evil = "<script>alert(1)</script>\u202e"
    html = result._replace(notes=(evil,))._repr_html_()
    Checked(html)
    assert "<script" not in html
    assert "\\u202e" in html


def test_the_table_is_that_of_arviz(result):
    arviz = pytest.importorskip("arviz", reason="needs arviz")
    longer = np.random.default_rng(0).normal(size=(4, 200, 2)).cumsum(1) * 0.02
    longer += np.random.default_rng(1).normal(size=longer.shape)
    fake = result._replace(draws=longer, position=longer[:, -1], weights=np.full(4, 0.25))
    table = fake.summary()
    data = {"z": longer}
    make = arviz.from_dict
    data = make({"posterior": data}) if int(arviz.__version__.split(".")[0]) else make(data)
    how = {"round_to": "none"}
    if int(arviz.__version__.split(".")[0]):
        how |= {"ci_kind": "hdi", "ci_prob": 0.94}
    other = arviz.summary(data, **how)
    assert list(other.index) == list(table.index) == ["z[0]", "z[1]"]
    columns = ["mean", "sd", "mcse_mean", "mcse_sd", "ess_bulk", "r_hat"]
    columns += [] if int(arviz.__version__.split(".")[0]) else ["ess_tail"]  # other tails in 1.x
    for column in columns:
        wanted = np.asarray(other[column], float)
        loose = column.startswith(("ess", "mcse"))
        np.testing.assert_allclose(table[column], wanted, rtol=0.06 if loose else 2e-3)
    if "hdi_3%" in other:
        np.testing.assert_allclose(table["hdi_3%"], other["hdi_3%"], rtol=1e-6)
        np.testing.assert_allclose(table["hdi_97%"], other["hdi_97%"], rtol=1e-6)


def test_rows_of_a_table(result, traced):
    table = result.summary({"first": lambda x: x[0, 0, 0], "both": lambda x: x[:2, 0, 0]})
    assert table.index == ("z[0]", "z[1]", "z[2]", "image mean", "first", "both[0]", "both[1]")
    images = np.asarray(result.draws["image"], np.float64)
    assert table.row("image mean")["mean"] == pytest.approx(images.mean(), rel=1e-6)
    assert table.row("both[1]")["sd"] == pytest.approx(images[:, :, 1, 0, 0].std(ddof=1), rel=1e-5)
    np.testing.assert_allclose(traced[0].summary()["mean"], result.summary()["mean"], rtol=1e-4)
    with pytest.raises(InputError, match="observables: a: expected a function"):
        result.summary({"a": 3})
    with pytest.raises(InputError, match="hdi_prob: expected a probability"):
        result.summary(hdi_prob=94)


def test_weights_count_in_means_and_intervals(result):
    z = np.arange(12.0).reshape(2, 6, 1)
    fake = result._replace(draws=z, position=z[:, -1], weights=np.array([1.0, 0.0]))
    row = fake.summary(hdi_prob=0.5).row("z[0]")
    assert row["mean"] == pytest.approx(2.5)
    assert row["sd"] == pytest.approx(np.arange(6).std(ddof=1))
    assert (row["hdi_25%"], row["hdi_75%"]) == (0, 3)


def test_a_long_table_is_cut_in_the_middle():
    table = Table([f"row {i}" for i in range(100)], {"mean": np.arange(100.0)})
    lines = repr(table).splitlines()
    assert len(lines) == 26
    assert "76 more rows" in lines[13]
    assert lines[-1].split() == ["row", "99", "99.000"]
    Checked(table._repr_html_())
    assert table.row("row 3") == {"mean": 3.0}
    with pytest.raises(InputError, match="name: expected one of row 0"):
        table.row("row 3000")
    pandas = pytest.importorskip("pandas", reason="needs pandas")
    assert isinstance(table.to_dataframe(), pandas.DataFrame)


def test_a_reconstruction(result, toy):
    found = summarise(result, toy.posterior, toy.posterior.condition)
    text = repr(found)
    assert text.startswith("Reconstruction: [3, 1, 1] from 8 chains")
    assert text.count("\n") < 18
    assert re.search(r"observation +residual 0\.\d+, misfit \d\.\d\d \(", text)
    page = Checked(found._repr_html_())
    assert [image["alt"] for image in page.images][:2] == [
        "posterior mean",
        "deviation (white 0.5)",
    ]
    assert found.summary().index == result.summary().index
    inside = []
    jax.jit(lambda r: inside.append(repr(r)) or r.mean)(
        jax.tree.map(jnp.asarray, found._replace(result=None, notes=()))
    )
    assert "float32[]" in inside[0]


def test_ais_and_log_likelihoods(toy):
    weighted = jaxgen.ais(0, toy.posterior, num_chains=8, betas=jaxgen.schedules.linear(4))
    assert repr(weighted).startswith("AISResult: 8 weighted draws, 3 numbers each")
    assert weighted.summary().index == ("z[0]", "z[1]", "z[2]")
    assert np.isnan(weighted.summary()["r_hat"]).all()
    Checked(weighted._repr_html_())
    evidence = BatchedEvidence(*(np.zeros((5, 8)) for _ in BatchedEvidence._fields))
    assert not ARRAY.search(repr(evidence))
    values = np.linspace(-90.0, -80.0, 5)
    bounds = jaxgen.BDMCResult(
        values, values + 1, 1.0, 0.1, values, values, evidence, evidence, 100.0, ("a note",)
    )
    found = jaxgen.LogLikelihood(
        values, 0.1 + 0 * values, 5.0 + 0 * values, -85.0, 1.5, 0.05, 0.2, 1.0, 0.1, 100.0,
        "exact", (), evidence, bounds,
    )  # fmt: skip
    assert "log p(x)    -85.00 +- 1.50 on average" in repr(found)
    assert "BDMC gap    1.00 +- 0.10 nats" in repr(found)
    assert found.summary().row("image 4")["log_prob"] == -80
    assert "log Z       between -85.00 and -84.00" in repr(bounds)
    assert bounds.summary().row("pair 0")["upper"] == -89
    for one in (found, bounds):
        assert not ARRAY.search(repr(one))
        Checked(one._repr_html_())


def test_no_field_of_a_result_prints_an_array(result):
    spaces = {"latent": 1.01, "image": 1.02}
    seen = Symmetries(False, False, np.arange(40), ("a note",))
    diagnosis = jaxgen.Diagnosis("mixed", spaces, spaces, spaces, 64, 8, 1.0, seen, ("a note",))
    assert repr(diagnosis).startswith("Diagnosis: ")
    Checked(diagnosis._repr_html_())
    for thing in (result.history, result.state, result.state.chains, diagnosis.symmetries):
        assert not ARRAY.search(repr(thing))
        assert len(repr(thing)) < 1200
    assert "beta=float32[" in repr(result.history)


def arrays_in(hints):
    return any("ndarray" in str(hint) or "Array" in str(hint) for hint in hints)


def test_public_records_of_arrays_print_short():
    """Every NamedTuple that a public function returns, by the types of its fields."""
    rooms = ("inference", "diagnostics", "applications", "sampler.results", "sampler.state")
    seen = set()
    for module in pkgutil.walk_packages(jaxgen.__path__, "jaxgen."):
        if module.name.removeprefix("jaxgen.").startswith(rooms):
            for thing in vars(importlib.import_module(module.name)).values():
                if isinstance(thing, type) and issubclass(thing, tuple):
                    seen.add(thing)
    long = [
        cls.__name__
        for cls in seen
        if hasattr(cls, "_fields")
        and arrays_in(cls.__annotations__.values())
        and cls.__repr__.__module__ == "collections"
        and cls.__name__ not in ("StepIndex", "ChunkSpec")  # that no result holds
    ]
    assert sorted(long) == []
    assert jaxgen.SampleResult in seen
