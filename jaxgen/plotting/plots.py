"""Figures with matplotlib: grids, film strips, the annealing path, credible maps, tables.

Every function returns a matplotlib `Figure` that no window holds on to: show it in a
notebook by naming it, or keep it with `figure.savefig("file.png")`. Matplotlib comes with
`pip install 'jaxgen[report]'` and is imported by the first figure.
"""

from __future__ import annotations

import functools
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxgen.core.errors import expected
from jaxgen.sampler.results import AISResult, SampleResult
from jaxgen.sampler.state import TemperatureInfo

__all__ = ["chain", "comparison", "credible", "grid", "path"]

_MOST_CELLS = 10_000


def grid(
    images: ArrayLike, *, columns: int | None = None, titles: Sequence[str] = (), size: float = 0.8
) -> Any:
    """Images side by side.

    Args:
      images: `[N, H, W, channels]` or `[rows, columns, H, W, channels]`, in [0, 1].
      columns: in a row, for the first shape; nearly square by default.
      titles: one for each row, or for each image.
      size: of one image, in inches.

    Raises:
      InputError: for other shapes, a count of titles that fits neither, or no matplotlib.
    """
    values = _images("images", images, (4, 5))
    if values.ndim == 4:
        if columns is None:
            columns = math.ceil(math.sqrt(len(values)))
        if columns < 1:
            raise expected("columns", "a positive integer", columns)
        cells = [list(values[i : i + columns]) for i in range(0, len(values), columns)]
    else:
        cells = [list(row) for row in values]
    rows, wide = len(cells), max(len(row) for row in cells)
    count = sum(len(row) for row in cells)
    if titles and len(titles) not in (rows, count):
        raise expected("titles", f"{rows} (rows) or {count} (images)", len(titles))
    figure = _figure(size * wide + (1.2 if len(titles) == rows else 0.1), size * rows * 1.1)
    axes = figure.subplots(rows, wide, squeeze=False)
    number = 0
    for r in range(rows):
        for c in range(wide):
            axis = axes[r, c]
            _bare(axis)
            if c >= len(cells[r]):
                axis.set_visible(False)
                continue
            _show(axis, cells[r][c])
            if titles and len(titles) == rows and c == 0:
                axis.set_ylabel(titles[r], rotation=0, ha="right", va="center", fontsize=9)
            elif titles and len(titles) != rows:
                axis.set_title(titles[number], fontsize=8)
            number += 1
    return figure


def chain(result: SampleResult, index: int = 0, *, most: int = 16) -> Any:
    """Return the film strip of one chain: draws in the order in which they were made.

    Args:
      result: with images kept (`collect=jaxgen.images`).
      index: of the chain.
      most: draws shown, evenly spaced.
    """
    images = _kept(result)
    if not -len(images) <= index < len(images):
        raise expected("index", f"a chain below {len(images)}", index)
    count = images.shape[1]
    draws = np.unique(np.linspace(0, count - 1, min(count, max(most, 1))).round().astype(int))
    titles = [f"{d + 1}" for d in draws]
    figure = grid(images[index][draws], columns=len(draws), titles=titles if len(draws) > 1 else ())
    figure.suptitle(f"chain {index % len(images)}", fontsize=10)
    return figure


def path(result: SampleResult | AISResult | TemperatureInfo) -> Any:
    """Draw how a run annealed: beta, acceptance, step size, ESS and log Z, by temperature."""
    history = getattr(result, "history", result)
    if not isinstance(history, TemperatureInfo):
        raise expected("result", "a result of sample or ais", type(result).__name__)
    if not len(np.atleast_1d(history.beta)):
        raise expected("result", "a run that annealed", "none of its temperatures")
    columns = {
        "beta": history.beta,
        "acceptance": history.acceptance_rate,
        "step size": history.step_size,
        "ESS of weights": history.ess,
        "log Z so far": history.log_z,
    }
    figure = _figure(3.0 * len(columns), 2.6)
    axes = figure.subplots(1, len(columns))
    again = np.flatnonzero(np.asarray(history.resampled))
    for axis, (name, values) in zip(axes, columns.items(), strict=True):
        values = np.asarray(values)
        axis.plot(values, color="C0", marker="." if len(values) < 30 else None)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("temperature")
        axis.grid(alpha=0.25)
        if name == "beta" and values.min() > 0 and values.min() < 0.05:
            axis.set_yscale("log")
        if name == "acceptance":
            axis.set_ylim(0, 1.02)
        if name == "ESS of weights":
            axis.set_ylim(bottom=0)
            for at in again if len(again) <= 200 else []:
                axis.axvline(at, color="C1", linewidth=0.6, alpha=0.5)
            if len(again):
                axis.set_title(f"{name} (resampled at lines)", fontsize=10)
    return figure


def credible(
    result: SampleResult,
    *,
    truth: ArrayLike | None = None,
    observed: ArrayLike | None = None,
    level: float = 0.9,
) -> Any:
    """Posterior mean, the ends of each pixel's interval, its standard deviation.

    Ends are Weibull quantiles of the pooled draws, which cover `level` on average where the
    draws are exact; draws count by their chains' weights in mean and deviation, and equally
    in the ends, so weights must be equal (as they are after resampling).

    Args:
      result: with images kept (`collect=jaxgen.images`).
      truth: images to show beside them.
      observed: likewise.
      level: of the interval.
    """
    if not 0 < level < 1:
        raise expected("level", "a number between 0 and 1", level)
    images = _kept(result)
    chains, count = images.shape[:2]
    weights = np.asarray(result.weights, np.float64)
    if not np.allclose(weights, 1 / chains, rtol=1e-3):
        raise expected("result", "draws of equal weights", "others", "Use resample='systematic'")
    flat = images.reshape(chains * count, *images.shape[2:]).astype(np.float64)
    tail = 0.5 * (1 - level)
    low, high = np.quantile(flat, [tail, 1 - tail], axis=0, method="weibull")
    deviation = np.sqrt(np.mean(flat.var(axis=0), axis=-1))
    shown = {"truth": truth, "observed": observed, "mean": flat.mean(axis=0)}
    shown |= {f"{100 * tail:.3g}%": low, f"{100 * (1 - tail):.3g}%": high}
    shown = {k: _images(k, v, (3,)) for k, v in shown.items() if v is not None}
    figure = _figure(1.7 * (len(shown) + 1) + 0.5, 2.0)
    axes = figure.subplots(1, len(shown) + 1)
    for axis, (name, image) in zip(axes, shown.items(), strict=False):
        _bare(axis)
        _show(axis, image)
        axis.set_title(name, fontsize=10)
    _bare(axes[-1])
    drawn = axes[-1].imshow(deviation, cmap="inferno", vmin=0.0)
    axes[-1].set_title("std. deviation", fontsize=10)
    figure.colorbar(drawn, ax=axes[-1], fraction=0.046)
    return figure


def comparison(results: Mapping[str, SampleResult | AISResult]) -> Any:
    """Compare runs in a table: log Z, ESS, acceptance, gradients, divergences, exactness."""
    if not results:
        raise expected("results", "at least one", "none")
    headings = ["log Z", "ESS", "acceptance", "gradients / chain", "divergent", "exactness"]
    rows = []
    for result in results.values():
        gradients = np.asarray(result.num_gradients)
        rows.append(
            [
                f"{result.log_z:.2f} \u00b1 {result.log_z_standard_error:.2f}",
                f"{result.ess:.1f} / {len(gradients)}",
                f"{float(np.mean(result.acceptance_rate)):.2f}",
                f"{gradients.mean():,.0f}",
                f"{int(np.sum(result.num_divergent))}",
                result.exactness,
            ]
        )
    figure = _figure(1.35 * (len(headings) + 1), 0.35 * (len(rows) + 1.5))
    axis = figure.subplots()
    axis.set_axis_off()
    table = axis.table(
        rows, rowLabels=list(results), colLabels=headings, loc="center", cellLoc="right"
    )
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    table.scale(1.0, 1.35)
    for (row, _), cell in table.get_celld().items():
        cell.set_linewidth(0.4 if row else 0.0)
        cell.visible_edges = "B"
    return figure


def _figure(width: float, height: float) -> Any:
    """Return a figure of its own, outside pyplot's list, so that nothing has to close it."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
    except ImportError as error:
        hint = "pip install 'jaxgen[report]'"
        raise expected("matplotlib", "an installed package", "none", hint) from error
    figure = _shown()(figsize=(max(width, 1.0), max(height, 0.8)), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


@functools.cache
def _shown() -> Any:
    """Return a `Figure` that a notebook shows: what does it for others comes with pyplot."""
    from matplotlib.figure import Figure

    class Shown(Figure):  # pyright: ignore[reportUntypedBaseClass]
        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png")
            return buffer.getvalue()

    return Shown


def _images(name: str, images: ArrayLike, ranks: tuple[int, ...]) -> np.ndarray:
    values = np.asarray(images, np.float32)
    if values.ndim not in ranks or values.shape[-1] not in (1, 3) or not values.size:
        raise expected(name, "images [..., H, W, 1 or 3]", f"shape {list(values.shape)}")
    if math.prod(values.shape[:-3]) > _MOST_CELLS:
        raise expected(name, f"at most {_MOST_CELLS} images", math.prod(values.shape[:-3]))
    return values


def _kept(result: SampleResult) -> np.ndarray:
    draws = result.draws
    if not (isinstance(draws, dict) and "image" in draws):
        raise expected("result", "one with images kept", "none", "Use collect=jaxgen.images")
    return np.asarray(draws["image"])


def _bare(axis: Any) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    for side in axis.spines.values():
        side.set_visible(False)


def _show(axis: Any, image: np.ndarray) -> None:
    clipped = np.clip(np.nan_to_num(image), 0, 1)
    if clipped.shape[-1] == 1:
        axis.imshow(clipped[..., 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        axis.imshow(clipped, interpolation="nearest")
