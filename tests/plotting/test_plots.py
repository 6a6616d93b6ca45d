"""Figures hold what they are given; errors name what does not fit."""

import numpy as np
import pytest

from jaxgen import InputError
from jaxgen.sampler.results import NO_HISTORY, SampleResult
from jaxgen.sampler.state import TemperatureInfo

pytest.importorskip("matplotlib")
from jaxgen import plot


@pytest.fixture
def result():
    rng = np.random.default_rng(0)
    betas = np.geomspace(1e-3, 1, 7)
    history = TemperatureInfo(
        active=np.ones(7, bool),
        beta=betas,
        step_size=betas**-0.3,
        acceptance_rate=np.full(7, 0.8),
        ess=np.full(7, 3.0),
        log_z=-5 * betas,
        resampled=np.arange(7) == 4,
        num_divergent=np.zeros(7, int),
        stage=np.ones(7, int),
    )
    return SampleResult(
        draws={"position": rng.normal(size=(4, 6, 3)), "image": rng.random((4, 6, 8, 8, 1))},
        position=rng.normal(size=(4, 3)),
        log_weight=np.zeros(4),
        weights=np.full(4, 0.25),
        log_z=-5.0,
        log_z_standard_error=0.2,
        ess=3.0,
        num_lineages=4,
        history=history,
        acceptance_rate=np.full(4, 0.8),
        step_size=0.1,
        num_gradients=np.full(4, 200),
        num_divergent=np.zeros(4, int),
        exactness="exact",
        notes=(),
        state=None,
        tile=4,
    )


def drawn(figure):
    """Render it; returns the visible axes."""
    figure.canvas.draw()
    return [axis for axis in figure.axes if axis.get_visible()]


def shown(axis):
    return np.asarray(axis.images[0].get_array())


def test_a_grid_shows_every_image_in_order(result):
    images = result.draws["image"][:, 0]
    axes = drawn(plot.grid(images[:3], columns=2, titles=["a", "b", "c"]))
    assert [axis.get_title() for axis in axes] == ["a", "b", "c"]
    for axis, image in zip(axes, images, strict=False):
        np.testing.assert_allclose(shown(axis), image[..., 0], atol=1e-6)
    rows = drawn(plot.grid(result.draws["image"], titles=list("abcd")))
    assert len(rows) == 24
    assert rows[6].get_ylabel() == "b"
    colour = np.repeat(images, 3, axis=-1)
    assert shown(drawn(plot.grid(colour))[0]).shape == (8, 8, 3)


def test_a_chain_is_a_film_strip(result):
    axes = drawn(plot.chain(result, 2, most=3))
    assert [axis.get_title() for axis in axes] == ["1", "3", "6"] or len(axes) == 3
    np.testing.assert_allclose(shown(axes[0]), result.draws["image"][2, 0, ..., 0], atol=1e-6)
    np.testing.assert_allclose(shown(axes[-1]), result.draws["image"][2, -1, ..., 0], atol=1e-6)


def test_the_path_has_its_columns(result):
    axes = drawn(plot.path(result))
    titles = [axis.get_title() for axis in axes]
    assert titles[0] == "beta"
    assert "resampled" in titles[3]
    assert axes[0].get_yscale() == "log"
    np.testing.assert_allclose(axes[4].lines[0].get_ydata(), result.history.log_z)
    assert len(axes[3].lines) == 2  # ESS, and one resampling
    assert len(drawn(plot.path(result.history))) == 5


def test_credible_maps_follow_from_the_draws(result):
    truth = np.zeros((8, 8, 1))
    axes = drawn(plot.credible(result, truth=truth, level=0.8))
    titles = [axis.get_title() for axis in axes][:5]
    assert titles == ["truth", "mean", "10%", "90%", "std. deviation"]
    flat = result.draws["image"].reshape(24, 8, 8)
    np.testing.assert_allclose(shown(axes[1]), flat.mean(0), atol=1e-6)
    np.testing.assert_allclose(shown(axes[4]), flat.std(0), atol=1e-6)
    # The Weibull position 0.1 * 25 lies between the second and the third of 24 draws.
    ordered = np.sort(flat, axis=0)
    np.testing.assert_allclose(shown(axes[2]), (ordered[1] + ordered[2]) / 2, atol=1e-6)


def test_a_comparison_is_a_table(result):
    other = result._replace(log_z=-7.25, exactness="clipped")
    axes = drawn(plot.comparison({"long": result, "short": other}))
    cells = axes[0].tables[0].get_celld()
    texts = {cell.get_text().get_text() for cell in cells.values()}
    assert {"long", "short", "-5.00 ± 0.20", "-7.25 ± 0.20", "clipped", "3.0 / 4"} <= texts


@pytest.mark.parametrize(
    ("draw", "wanted"),
    [
        (lambda r: plot.grid(np.zeros((3, 8, 8))), "images: expected images"),
        (lambda r: plot.grid(np.zeros((0, 8, 8, 1))), "images: expected images"),
        (lambda r: plot.grid(np.zeros((3, 8, 8, 1)), columns=0), "columns: expected a positive"),
        (lambda r: plot.grid(np.zeros((3, 8, 8, 1)), titles="abcd"), "titles: expected 2"),
        (lambda r: plot.chain(r, 4), "index: expected a chain below 4; got 4"),
        (lambda r: plot.chain(r._replace(draws=r.draws["position"])), "collect=jaxgen.images"),
        (lambda r: plot.path(r._replace(history=NO_HISTORY)), "result: expected a run that"),
        (lambda r: plot.path("run"), "result: expected a result of sample or ais; got str"),
        (lambda r: plot.credible(r, level=1.0), "level: expected"),
        (lambda r: plot.credible(r, truth=np.zeros((8, 8))), "truth: expected images"),
        (lambda r: plot.credible(r._replace(weights=np.eye(4)[0])), "draws of equal weights"),
        (lambda r: plot.comparison({}), "results: expected at least one"),
    ],
)
def test_what_does_not_fit_is_refused(result, draw, wanted):
    with pytest.raises(InputError, match=wanted):
        draw(result)


def test_a_notebook_shows_a_figure():
    assert plot.grid(np.zeros((2, 4, 4, 1)))._repr_png_().startswith(b"\x89PNG")
