"""The result of a task: an image with its uncertainty, and the figures by which to judge it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jaxgen.core.printing import card, card_html, number
from jaxgen.core.pytree import with_structure
from jaxgen.core.table import Table
from jaxgen.core.tracing import is_traced
from jaxgen.sampler.results import SampleResult

__all__ = ["Reconstruction"]


@with_structure("level", "notes")
class Reconstruction(NamedTuple):
    """An image inferred from an observation; maps are `[H, W, channels]`.

    Attributes:
      mean: the posterior mean, the estimate of least expected squared error.
      deviation: standard deviation of each pixel over the draws.
      low, high: each pixel's credible interval.
      level: the interval's probability.
      samples: the last draw of every chain, `[C, H, W, channels]`, in falling order of
        weight, then of posterior density.
      sample_weights: `[C]`, the weights of the samples; equal where chains were resampled.
      noise: the noise level: the one given, or the posterior mean of a learned one.
      residual: root mean square of what was seen minus what the draws show.
      misfit: residual / noise, about 1 where the generator can show what was seen (for
        learned noise: residual / deviation of what was seen).
      out_of_reach: whether `misfit` is so large that the generator cannot show what was seen.
      notes: the run's notes, and one on the misfit where there is one.
      result: the run itself; its draws hold "position" and "image", or are `StreamedDraws`.
    """

    mean: np.ndarray
    deviation: np.ndarray
    low: np.ndarray
    high: np.ndarray
    level: float
    samples: np.ndarray
    sample_weights: np.ndarray
    noise: float
    residual: float
    misfit: float
    out_of_reach: bool
    notes: tuple[str, ...]
    result: SampleResult

    def facts(self) -> dict[str, Any]:
        """Return the figures that a summary of the run has."""
        return {
            "noise": self.noise,
            "residual": self.residual,
            "misfit": self.misfit,
            "out_of_reach": self.out_of_reach,
            "interval": self.level,
        }

    def summary(self, *args: Any, **kwargs: Any) -> Table:
        """Return a table of the draws: see `SampleResult.summary`."""
        return self.result.summary(*args, **kwargs)

    def __repr__(self) -> str:
        return card(*_printed(self))

    def _repr_html_(self) -> str:
        return card_html(*_printed(self), pictures=_pictures(self))


def _printed(found: Reconstruction) -> tuple[str, list[tuple[str, str]], tuple[str, ...]]:
    """Return what a `Reconstruction` prints: title, rows and notes."""
    shape = list(np.shape(found.mean))
    title = f"Reconstruction: {shape} from {np.shape(found.samples)[0]} chains"
    if np.ndim(found.misfit):  # of several runs, by jax.vmap
        runs = list(np.shape(found.misfit))
        title = f"Reconstruction of {runs} runs: {shape} each"
    misfit = f"residual {number(found.residual, '.3f')}, misfit {number(found.misfit)}"
    if not is_traced(found.out_of_reach) and not np.ndim(found.out_of_reach):
        misfit += " (out of reach)" if bool(found.out_of_reach) else " (within reach)"
    rows = [("noise", number(found.noise, ".3g")), ("observation", misfit)]
    if not is_traced(found.deviation):
        spread = float(np.mean(found.deviation))
        wide = float(np.mean(np.asarray(found.high) - np.asarray(found.low)))
        rows.append(("deviation", f"{spread:.3f} on average"))
        rows.append(("interval", f"{100 * found.level:.0f}%, {wide:.3f} wide on average"))
    inner = repr(found.result).splitlines()[1:]
    rows += [
        (name, text.strip())
        for name, _, text in (line.strip().partition("  ") for line in inner)
        if text and not name.startswith("note:")
    ]
    return title, rows, found.notes


def _pictures(found: Reconstruction) -> list[tuple[str, np.ndarray]]:
    """Return the maps and samples of one reconstruction that can be looked at."""
    shape = np.shape(found.mean)
    if is_traced(found.mean) or len(shape) not in (2, 3) or (len(shape) == 3 and shape[-1] > 3):
        return []
    if len(shape) == 3 and shape[-1] == 2:
        return []

    def as_image(values: Any) -> np.ndarray:
        values = np.asarray(values)
        return values[..., None] if len(shape) == 2 else values

    level = f"{100 * found.level:.0f}% interval"
    deviation = as_image(found.deviation)
    maps = {
        "posterior mean": as_image(found.mean)[None],
        "deviation (white 0.5)": np.clip(2 * deviation, 0, 1)[None],
        f"lower end, {level}": as_image(found.low)[None],
        f"upper end, {level}": as_image(found.high)[None],
        "samples": as_image(found.samples),
    }
    return list(maps.items())
