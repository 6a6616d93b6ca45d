"""Every way to run leaves one kind of folder, and one report takes all of them."""

import inspect
import json
import re
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxgen
from jaxgen import InputError
from jaxgen.cli import _parse, main
from jaxgen.inference.finished import draws_to_show
from jaxgen.report import advice, examine, read, run_of, truth
from jaxgen.report.page import _repeat
from jaxgen.report.reading import Entry, Run

SHORT = {"num_chains": 8, "num_steps": 8, "thin": 1, "warmup": 2, "num_mcmc_steps": 1}
TRUTH = np.linspace(0.2, 0.8, 24, dtype=np.float32).reshape(6, 4, 1)


def spots(z):
    """A plain function as the generator: six rows of four pixels."""
    return jax.nn.sigmoid(z[0] + 0.5 * jnp.arange(24.0).reshape(6, 4, 1) * z[1])


def several(z):
    return jnp.stack([z[0], z[1], z[0] * z[1]])


@pytest.fixture(scope="module")
def posterior():
    seen = jaxgen.ObservedPixels(jnp.asarray(TRUTH), jnp.ones((6, 4)), 0.2)
    return jaxgen.Posterior(jaxgen.Gaussian.standard(2), spots, seen)


@pytest.fixture(scope="module")
def stored(posterior, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "mine"
    return jaxgen.sample(3, posterior, folder=folder, **SHORT), folder


@pytest.mark.slow
def test_a_plain_function_run_from_python_has_a_report(stored, posterior, capsys):
    result, folder = stored
    assert main(["report", str(folder)]) == 0
    assert "try next: num_steps=" in capsys.readouterr().out
    text = folder.with_suffix(".html").read_text()
    assert "Draws from a posterior: mine" in text
    assert "jaxgen.sample(key, posterior, num_chains=8, num_steps=8" in text
    entry = read(folder).entries[0]
    np.testing.assert_array_equal(entry.position, result.draws)
    made = jax.vmap(jax.vmap(posterior.image))(jnp.asarray(result.draws))
    np.testing.assert_allclose(entry.image, made, rtol=1e-5)
    density = jax.vmap(jax.vmap(posterior))(jnp.asarray(result.draws))
    np.testing.assert_allclose(entry.extra["log_density"], density, rtol=1e-4)


def test_a_summary_says_what_when_and_how_long(stored):
    result, folder = stored
    data = json.loads((folder / "summary.json").read_text())
    assert data["command"] == "jaxgen.sample"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", data["date"])
    assert data["arguments"]["generator"] == "function spots"
    assert data["arguments"]["num_chains"] == 8
    assert data["runs"][0]["log_z"] == result.log_z
    assert data["runs"][0]["draws_per_chain"] == data["runs"][0]["draws_in_file"] == 8


def test_a_run_that_goes_on_gets_a_new_end(stored, posterior, tmp_path):
    folder = tmp_path / "run"
    jaxgen.sample(3, posterior, folder=folder, **SHORT)
    longer = jaxgen.sample(3, posterior, folder=folder, resume=True, **SHORT | {"num_steps": 12})
    assert read(folder).entries[0].size == (8, 12)
    np.testing.assert_array_equal(jaxgen.load_run(folder).draws["draws"], longer.draws)


def test_load_run_has_the_figures_once_the_run_has_ended(stored):
    result, folder = stored
    run = jaxgen.load_run(folder)
    np.testing.assert_array_equal(run.draws["draws"], result.draws)
    assert run.summary["runs"][0]["ess"] == result.ess
    np.testing.assert_allclose(run.arrays["posterior/weights"], result.weights, rtol=1e-6)
    assert not any(name.endswith("/image") for name in run.arrays)
    (folder / "summary.json").rename(folder / "kept")
    try:
        assert jaxgen.load_run(folder).summary == {}
        with pytest.raises(InputError, match=r"which has no end yet\. .*resume=True"):
            read(folder)
    finally:
        (folder / "kept").rename(folder / "summary.json")


def test_load_run_reads_what_a_command_has_written(tmp_path, stored):
    _, folder = stored
    copy = tmp_path / "command"  # a folder without checkpoints
    copy.mkdir()
    for name in ("summary.json", "draws.safetensors"):
        (copy / name).write_bytes((folder / name).read_bytes())
    run = jaxgen.load_run(copy, 2, 5)
    assert run.num_draws == 8
    assert {k: v.shape for k, v in run.draws.items()} == {
        "position": (8, 3, 2),
        "image": (8, 3, 6, 4, 1),
        "log_density": (8, 3),
    }
    assert run.settings["num_chains"] == "8"
    assert run.environment["jaxgen"] == jaxgen.__version__
    (copy / "summary.json").unlink()
    with pytest.raises(InputError, match=r"none with a run\.json or a summary\.json"):
        jaxgen.load_run(copy)


def test_what_is_no_image_and_what_is_no_posterior_have_reports_too(stored, tmp_path):
    result, _ = stored
    seen = jaxgen.Operator(jnp.array([0.5, -0.5, -0.2]), 0.3, lambda x: x)
    vector = jaxgen.Posterior(jaxgen.Gaussian.standard(2), several, seen)
    start = jaxgen.Gaussian.standard(2)
    path = jaxgen.geometric_path(start, lambda z: -jnp.sum((z - 1) ** 2))
    for target, spaces in ((vector, {"latent", "log density", "output"}), (path, None)):
        page = jaxgen.report(result, tmp_path / "x.html", posterior=target)
        assert "so there are none to look at" in page.read_text()
        part = examine(run_of(result, tmp_path / "x.html", posterior=target))[0]
        assert set(part.figures.rhat) == (spaces or {"latent", "log density"})
    z = np.asarray(result.draws)
    np.testing.assert_allclose(
        part.entry.extra["log_density"], -np.sum((z - 1) ** 2, axis=-1), rtol=1e-5
    )


def test_draws_that_are_no_positions_leave_the_chains_last_ones(stored):
    result, _ = stored
    for own in ({"norm": np.ones((8, 3))}, np.ones((8, 3, 5)), None):
        found = draws_to_show(result._replace(draws=own))
        np.testing.assert_array_equal(found["position"][:, 0], result.position)
        assert found.keys() == {"position"}


def test_latents_of_several_parts_stand_end_to_end(stored):
    result, _ = stored
    rng = np.random.default_rng(0)
    tree = {"a": rng.normal(size=(8, 3, 2)), "b": rng.normal(size=(8, 3))}
    position = {"a": np.zeros((8, 2)), "b": np.zeros(8)}
    found = draws_to_show(result._replace(draws=tree, position=position))
    np.testing.assert_array_equal(found["position"][..., :2], tree["a"])
    np.testing.assert_array_equal(found["position"][..., 2], tree["b"])


def test_more_draws_than_a_file_should_hold_are_thinned(posterior, stored):
    result, _ = stored
    each = 8 * (2 + 24)
    found = draws_to_show(result, posterior, most=4 * each)
    np.testing.assert_array_equal(found["position"], np.asarray(result.draws)[:, ::2])
    assert found["image"].shape == (8, 4, 6, 4, 1)
    without = draws_to_show(result, posterior, most=each - 1)
    assert "image" not in without
    assert without["position"].shape == (8, 8, 2)


def test_results_in_memory(posterior, tmp_path, stored):
    result, _ = stored
    page = jaxgen.report(result, tmp_path / "a.html", posterior=posterior)
    assert "Film strip of" in page.read_text()
    assert "Film strip of" not in jaxgen.report(result, tmp_path / "b.html").read_text()
    both = jaxgen.report({"one": result, "two": result}, tmp_path / "c.html", posterior=posterior)
    assert both.read_text().count("Film strip of a chain") == 2


@pytest.mark.parametrize(
    ("run", "how", "message"),
    [
        ([1, 2], {"out": "x.html"}, "run: expected a run's folder, or a result"),
        ({}, {"out": "x.html"}, "run: expected results, each with a name"),
        (None, {"out": "x.html"}, "run: expected a run's folder, or a result"),
        ("here", {"posterior": 1}, "posterior: expected None for a folder"),
        (3, {}, r'out: expected the page to write; got none. As in jaxgen.report\(result, "run'),
    ],
)
def test_what_is_no_run_is_refused(tmp_path, monkeypatch, run, how, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        jaxgen.report(run, **how)


def test_a_task_leaves_its_maps_and_the_report_its_errors(tmp_path):
    mask = np.ones((6, 4), np.float32)
    mask[3:] = 0
    prior = jaxgen.Gaussian.standard(2)
    how = {"prior": prior, "noise": 0.2, "truth": TRUTH, "folder": tmp_path / "task", **SHORT}
    found = jaxgen.tasks.inpaint(0, spots, TRUTH, mask, **how)
    run = read(tmp_path / "task")
    entry = run.entries[0]
    np.testing.assert_allclose(entry.extra["mean"], found.mean, rtol=1e-6)
    np.testing.assert_array_equal(entry.extra["mask"], mask)
    assert entry.data["misfit"] == found.misfit
    error = truth.error_map(entry)
    np.testing.assert_allclose(error, np.abs(found.mean - TRUTH)[..., 0], rtol=1e-5)
    hidden = mask == 0
    within = (found.low <= TRUTH) & (found.high >= TRUTH)
    assert truth.inside(entry) == (within[hidden].mean(), 12)
    page = jaxgen.report(tmp_path / "task").read_text()
    assert "A completed image" in page
    assert "error of the mean" in page
    assert f"{100 * within[hidden].mean():.0f}% of 12 values of hidden pixels" in page
    assert "jaxgen.tasks.inpaint(key, generator, ..., noise=0.2, num_chains=8" in page
    with pytest.raises(InputError, match=r"truth: expected shape \[6, 4, 1\]"):
        jaxgen.tasks.inpaint(0, spots, TRUTH, mask, prior=prior, truth=TRUTH[:2], **SHORT)
    # Streamed draws leave the last ones.
    how |= {"keep": False, "folder": tmp_path / "streamed"}
    streamed = jaxgen.tasks.inpaint(0, spots, TRUTH, mask, **how)
    entry = read(tmp_path / "streamed").entries[0]
    assert entry.size == (8, 1)
    np.testing.assert_allclose(entry.extra["deviation"], streamed.deviation, rtol=1e-6)
    np.testing.assert_allclose(entry.image[:, 0], streamed.result.draws.last["image"], rtol=1e-5)


# What to try next


KINDS = ("weights", "families", "islands", "evidence", "few", "mixing", "slow", "size")
KINDS += ("large step", "small step", "reach")


def entry(name="class_3", **data):
    draws = np.zeros((16, 6, 4))
    return Entry(name, "a", {"step_size": 0.1, **data}, draws, None, np.ones(16) / 16, {}, {})


@pytest.mark.parametrize("kind", KINDS)
def test_what_to_try_next_can_be_typed(kind):
    words = {
        "sample": ["sample", "--class", "3"],
        "inpaint": ["inpaint", "example:3", "--mask", "lower-half"],
        "superres": ["superres", "example:3"],
    }
    for command, given in words.items():
        said = advice.try_next(kind, entry(), Run(Path("x"), {"command": command}, ()))
        assert said
        if command != "sample" or kind != "reach":
            assert _parse([*given, *shlex.split(said)]).run
    for command in ("jaxgen.sample", "jaxgen.tasks.inpaint"):
        run = Run(Path("x"), {"command": command, "arguments": {"num_steps": 6}}, ())
        said = advice.try_next(kind, entry(), run)
        if kind == "reach" and command == "jaxgen.sample":
            assert said == ""
            continue
        given = eval(f"dict({said})", {"jaxgen": jaxgen})
        known = {*inspect.signature(jaxgen.sample).parameters, "noise"}
        assert given.keys() <= known
        assert given
    run = Run(Path("x"), {"command": "demo", "arguments": {"chains": 3}}, ())
    for one in (entry(), entry("example_5", mask="box:8,8,12,12")):
        line = shlex.split(advice.try_next(kind, one, run))
        if line and not (kind == "reach" and one.name == "class_3"):
            assert _parse(line[1:]).run
    assert advice.try_next(kind, entry(), None) == ""
    assert advice.try_next(kind, entry(), Run(Path("x"), {"command": "other"}, ())) == ""


def test_a_summary_of_a_stranger_steers_no_command():
    evil = entry("example_5", mask="x; rm -rf /")
    run = Run(Path("x"), {"command": "demo", "arguments": "none"}, ())
    assert shlex.split(advice.try_next("weights", evil, run))[4] == "x; rm -rf /"
    run = Run(
        Path("x"),
        {"command": "sample", "arguments": {"steps": 10**400, "num_mcmc_steps": True}},
        (),
    )
    assert advice.try_next("mixing", evil, run) == "--steps 100 --kernel hmc:20"


def test_a_summary_of_a_former_version_is_read_under_present_names():
    arguments = {"num_chains": 8, "moves": 3}
    run = Run(Path("x"), {"command": "jaxgen.sample", "arguments": arguments}, ())
    assert advice.try_next("weights", entry(), run).endswith("num_mcmc_steps=6")
    assert "sample(key, posterior, num_chains=8, num_mcmc_steps=3)" in _repeat(run)
    run = Run(Path("x"), {"command": "sample", "arguments": {"label": "3", "moves": 3}}, ())
    assert advice.try_next("weights", entry(), run).endswith("--num-mcmc-steps 6")
    assert "jaxgen sample --class=3 --num-mcmc-steps=3" in _repeat(run)


def test_every_topic_is_explained_by_a_page_that_exists(monkeypatch):
    pages = Path(__file__).resolve().parents[2] / "docs" / "pages"
    for topic in advice.TOPICS.values():
        page, _, anchor = topic.page.partition("#")
        heads = re.findall(r"^#+ (.+)$", (pages / page).read_text(), re.M)
        slugs = {re.sub(r"[^\w\s-]", "", h.lower()).strip().replace(" ", "-") for h in heads}
        assert not anchor or anchor in slugs, topic.page
    assert advice.address_of(advice.TOPICS["mixing"], "https://x.org/d") == (
        "https://x.org/d/how-to/diagnostics.html#3-did-the-chains-mix"
    )
    lines = ["Source, https://x.org/s", "Documentation, https://x.org/d/"]
    fake = type("Metadata", (), {"get_all": lambda self, name: lines})()
    monkeypatch.setattr(advice, "metadata", lambda name: fake)
    assert advice.documentation() == "https://x.org/d"
    lines[1] = "Documentation, javascript:alert(1)"
    assert advice.documentation() == ""


def test_each_verdict_of_a_page_has_its_explanation(stored):
    _, folder = stored
    text = jaxgen.report(folder).read_text()
    linked = set(re.findall(r'href="#(about-\w+)"', text))
    assert linked
    assert linked == set(re.findall(r'<dt id="(about-\w+)"', text))
    assert "docs/pages/how-to/diagnostics.md#" in text
