"""The draws beside the true image, where it is known.

    error = sqrt(mean over channels of (mean - truth)^2),   inside = low <= truth <= high

Pixels that the sampler was shown lie near their truth whatever it does, so shares and errors are
over hidden pixels where a mask says which they are.
"""

from __future__ import annotations

import numpy as np

from jaxgen.report.reading import Entry

__all__ = ["error_map", "inside", "sentence"]


def error_map(entry: Entry) -> np.ndarray | None:
    """Return the error of the posterior mean, `[H, W]`, or None where the truth is not known."""
    if not {"truth", "mean"} <= entry.extra.keys():
        return None
    difference = np.nan_to_num(entry.extra["mean"] - entry.extra["truth"])
    return np.sqrt(np.mean(np.square(np.clip(difference, -1e3, 1e3)), axis=-1))


def inside(entry: Entry) -> tuple[float, int] | None:
    """Return the share of pixels whose truth lies in their interval, and of how many.

    None where truth or intervals are not known. Every channel of a pixel counts.
    """
    if not {"truth", "low", "high"} <= entry.extra.keys():
        return None
    true = entry.extra["truth"]
    within = (entry.extra["low"] <= true) & (true <= entry.extra["high"])
    within = within[_counted(entry)]
    return (float(np.mean(within)), within.size) if within.size else None


def sentence(entry: Entry, interval: str) -> str:
    """Return error and share in words; empty where the truth is not known."""
    error, found = error_map(entry), inside(entry)
    if error is None:
        return ""
    hidden = "hidden pixels" if "mask" in entry.extra else "pixels"
    counted = error[_counted(entry)]
    text = ""
    if counted.size:
        root = float(np.sqrt(np.mean(np.square(counted))))
        text = f"Root mean square error of the mean over {hidden}: {root:.3f}. "
    if found is not None:
        share, count = found
        text += (
            f"The truth lies inside the {interval} interval at {100 * share:.0f}% of {count:,} "
            f"values of {hidden}. They depend on each other, so one image says little about "
            "whether intervals hold what they promise; jaxgen.calibrate does."
        )
    return text.strip()


def _counted(entry: Entry) -> np.ndarray:
    """Which pixels count, `[H, W]`."""
    true = entry.extra["truth"]
    mask = entry.extra.get("mask")
    return np.ones(true.shape[:2], bool) if mask is None else mask <= 0
