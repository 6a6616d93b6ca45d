"""Small charts as inline SVG: lines, and rank histograms.

Colours are CSS classes, so that a chart follows the page into the dark; lines also differ
in their dashes. Every chart has a title and a description for those who do not see it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jaxgen.report.text import escape

__all__ = ["Series", "bars", "lines"]

_WIDTH, _HEIGHT = 380, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 12, 34
_MOST_POINTS = 240
# Numbers beyond are left out, as those are that are not finite: no axis could show them.
_LARGEST = 1e30


class Series(NamedTuple):
    """A line: `y[i]` over `x[i]`, by default over 0, 1, 2, ..."""

    name: str
    y: np.ndarray
    x: np.ndarray | None = None


def lines(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str = "",
    log: bool = False,
    low: float | None = None,
    high: float | None = None,
    rule: float | None = None,
    faint: bool = False,
) -> str:
    """Return a line chart.

    Args:
      title: what it shows; also its name for screen readers.
      series: lines; points that are not finite are left out.
      x_label: label of the x axis.
      y_label: label of the y axis.
      log: whether y has a logarithmic scale (numbers of at most 0 are left out).
      low: lower end of the y axis; None for that of the data.
      high: upper end of the y axis; None for that of the data.
      rule: where to draw a level for comparison.
      faint: draw all lines alike and thin: many chains.
    """
    kept = [_points(line, log) for line in series]
    xs = np.concatenate([x for x, _ in kept]) if kept else np.zeros(0)
    ys = np.concatenate([y for _, y in kept]) if kept else np.zeros(0)
    if not xs.size:
        return _frame(title, "no finite numbers to draw", "", x_label, y_label)
    bottom = float(ys.min()) if low is None else low
    top = float(ys.max()) if high is None else high
    if rule is not None:
        bottom, top = min(bottom, rule), max(top, rule)
    if low is None and high is None and not log:
        pad = 0.05 * (top - bottom)
        bottom, top = bottom - pad, top + pad
    if not top > bottom:  # a level line: give it room
        room = abs(top) * 0.5 or 1.0
        bottom, top = bottom - (0.5 * room if not log else 0.5 * top), top + room
    start, end = float(xs.min()), float(xs.max())
    end = end if end > start else start + max(1.0, 1e-3 * abs(start))
    across = _scale(start, end, _LEFT, _WIDTH - _RIGHT, False)
    up = _scale(bottom, top, _HEIGHT - _BOTTOM, _TOP, log)
    body = _grid(bottom, top, up, log) + _steps(start, end, across)
    if rule is not None:
        body += _across("rule", up(rule))
    for index, (x, y) in enumerate(kept):
        if not x.size:
            continue
        path = " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in zip(x, y, strict=True))
        kind = "line faint" if faint else f"line s{index % 3}"
        body += f'<polyline class="{kind}" points="{path}"/>'
        if len(x) == 1:
            body += f'<circle class="dot" cx="{across(x[0]):.1f}" cy="{up(y[0]):.1f}" r="2.5"/>'
    said = f"from {ys.min():.4g} to {ys.max():.4g}"
    if len(series) == 1:
        said += f", last {kept[0][1][-1]:.4g}"
    names = [] if faint or len(series) < 2 else [line.name for line in series]
    return _frame(title, f"{x_label} across, {said}", body, x_label, y_label, names)


def bars(title: str, counts: np.ndarray, names: Sequence[str], *, x_label: str) -> str:
    """Histograms one above another, `[rows, bins]`, each with its level if uniform."""
    rows, bins = counts.shape
    height = (_HEIGHT - _TOP - _BOTTOM) / rows
    wide = (_WIDTH - _LEFT - _RIGHT) / bins
    top = max(float(counts.max()), 1.0)
    body = ""
    for row in range(rows):
        floor = _TOP + (row + 1) * height
        body += _text(_LEFT - 6, floor - 2, names[row], "end")
        for place, count in enumerate(counts[row]):
            tall = (height - 3) * float(count) / top
            body += (
                f'<rect class="bar" x="{_LEFT + place * wide + 0.5:.1f}" y="{floor - tall:.1f}" '
                f'width="{wide - 1:.1f}" height="{tall:.1f}"/>'
            )
        level = f"{floor - (height - 3) * float(counts[row].mean()) / top:.1f}"
        body += (
            f'<line class="rule" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{level}" y2="{level}"/>'
        )
    y = _HEIGHT - _BOTTOM + 13
    body += _text(_LEFT, y, "lowest", "start") + _text(_WIDTH - _RIGHT, y, "highest", "end")
    expected = counts.sum(axis=1, keepdims=True) / bins
    with np.errstate(divide="ignore", invalid="ignore"):
        far = float(np.nanmax(np.abs(counts - expected) / expected))
    said = f"{rows} chains of {bins} bins; the farthest bin is {far:.0%} off uniform"
    return _frame(title, said, body, x_label, "")


def _points(line: Series, log: bool) -> tuple[np.ndarray, np.ndarray]:
    """Finite points of a line, no more than can be told apart."""
    y = np.asarray(line.y, np.float64)
    x = np.arange(len(y), dtype=np.float64) if line.x is None else np.asarray(line.x, np.float64)
    good = (np.abs(x) < _LARGEST) & (np.abs(y) < _LARGEST) & ((y > 0) | (not log))
    x, y = x[good], y[good]
    if len(x) > _MOST_POINTS:
        keep = np.unique(np.linspace(0, len(x) - 1, _MOST_POINTS).round().astype(int))
        x, y = x[keep], y[keep]
    return x, y


def _scale(low: float, high: float, start: float, end: float, log: bool):
    if log:
        low, high = math.log(low), math.log(high)

    def place(value: float) -> float:
        value = math.log(value) if log else value
        return start + (end - start) * (value - low) / (high - low)

    return place


def _ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers between two ends: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * m for m in (1, 2, 5, 10) if unit * m >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [(first + k) * step for k in range(min(count, 20))]


def _grid(low: float, high: float, up: Callable[[float], float], log: bool) -> str:
    if log:
        first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
        every = max(1, math.ceil((last - first + 1) / 5))
        marks = [10.0**k for k in range(first, last + 1, every)] or [low, high]
    else:
        marks = _ticks(low, high)
    body = ""
    for mark in marks:
        y = up(mark)
        body += (
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        body += _text(_LEFT - 6, y + 4, _number(mark), "end")
    return body


def _steps(start: float, end: float, across: Callable[[float], float]) -> str:
    marks = _ticks(start, end)
    if end - start >= 1 and start == round(start) and end == round(end):  # these are counts
        marks = [mark for mark in marks if mark == round(mark)]
    y = _HEIGHT - _BOTTOM + 13
    return "".join(_text(across(mark), y, _number(mark), "middle") for mark in marks)


def _across(kind: str, y: float) -> str:
    """Return a level line over the whole chart."""
    return f'<line class="{kind}" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'


def _number(value: float) -> str:
    text = f"{value:.4g}"
    return "0" if abs(value) < 1e-12 else text.replace("e-0", "e-").replace("e+0", "e")


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _frame(
    title: str,
    said: str,
    body: str,
    x_label: str,
    y_label: str,
    names: Sequence[str] = (),
) -> str:
    if not body:
        body = _text((_LEFT + _WIDTH) / 2, _HEIGHT / 2, said, "middle")
    else:
        body += _across("axis", _HEIGHT - _BOTTOM)
    body += _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, x_label, "middle")
    if y_label:
        title = f"{title} ({y_label})"
    keys = "".join(
        f'<li><svg class="key" viewBox="0 0 28 8" aria-hidden="true">'
        f'<line class="line s{k % 3}" x1="0" x2="28" y1="4" y2="4"/></svg> {escape(name)}</li>'
        for k, name in enumerate(names)
    )
    legend = f'<ul class="legend">{keys}</ul>' if keys else ""
    name = f"{title}: {said}"
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(name)}">'
        f"{body}</svg>{legend}</figure>"
    )
