"""Verdicts on a run in plain words, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxgen.diagnostics.convergence import ISLANDS_APART, annealed_well
from jaxgen.report.advice import try_next
from jaxgen.report.figures import Figures, measure
from jaxgen.report.reading import Entry, Run

__all__ = ["LEVELS", "Part", "Verdict", "examine", "figure", "judge", "number"]

# From good to bad.
LEVELS = ("good", "unsure", "bad")
_GOOD_RHAT, _POOR_RHAT, _SEPARATE_RHAT = 1.05, 1.2, 1.8
# Of fewer draws a chain R-hat is large however well they mix: then chains are called separate
# where the variance between them is eight times that within, as in the run's own note.
_FEW_DRAWS, _SEPARATE_OF_FEW = 20, 3.0
# Standard error of log Z up to which such draws are not called bad for their R-hat.
_MOST_ERROR = 1.0
# Draws that a mean and a standard deviation should rest on at the least.
_ENOUGH = 100.0
# A summary's list of islands is read up to here.
_MOST_ISLANDS = 64


# What to try next against a kind of trouble.
Hint = Callable[[str], str]


class Verdict(NamedTuple):
    """One finding.

    Attributes:
      level: one of `LEVELS`.
      words: the finding.
      reason: the numbers behind it, and what to do.
      topic: a key of `jaxgen.report.advice.TOPICS`: what it is about.
      try_next: arguments or flags, as they are typed; empty where there is nothing to try.
    """

    level: str
    words: str
    reason: str
    topic: str
    try_next: str = ""


class Part(NamedTuple):
    """A posterior, what was measured of it, and what that comes to; `id` is its anchor."""

    id: str
    entry: Entry
    figures: Figures
    verdicts: tuple[Verdict, ...]


def examine(run: Run) -> tuple[Part, ...]:
    """Measure and judge every posterior of a run."""
    measured = [measure(entry, run) for entry in run.entries]
    return tuple(
        Part(f"p{index}", entry, figures, judge(entry, figures, run))
        for index, (entry, figures) in enumerate(zip(run.entries, measured, strict=True))
    )


def judge(entry: Entry, figures: Figures, run: Run | None = None) -> tuple[Verdict, ...]:
    """All that is to be said of one posterior, the worst first; never empty.

    Args:
      entry: the posterior.
      figures: what was measured of it.
      run: what it is of; without it no verdict says what to try next.
    """

    def hint(kind: str) -> str:
        return try_next(kind, entry, run)

    found = [
        *_finite(figures),
        *_mixing(entry, figures, hint),
        *_weights(entry, hint),
        *_reach(entry, hint),
        *_acceptance(entry, hint),
        *_label(entry),
        *_typical(entry, figures),
    ]
    return tuple(sorted(found, key=lambda verdict: -LEVELS.index(verdict.level)))


def number(entry: Entry, field: str) -> float:
    """Return a posterior's number in the summary, or NaN."""
    return figure(entry.data.get(field))


def figure(value: Any) -> float:
    """Return a number from JSON, or NaN for null, absent and foreign values."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


def _finite(figures: Figures) -> list[Verdict]:
    if not figures.not_finite:
        return []
    count = f"{figures.not_finite:,} numbers among latents and pixels are NaN or infinite"
    reason = "such draws should have been rejected; the file may be damaged"
    return [Verdict("bad", count, reason, "finite")]


def _weights(entry: Entry, hint: Hint) -> list[Verdict]:
    found = []
    chains = entry.size[0]
    sizes = entry.history["ess"]
    last = number(entry, "ess")
    if sizes.size and np.isfinite(sizes).any():
        worst = float(np.nanmin(sizes))
        if worst < 0.1 * chains:
            at = float(entry.history["beta"][int(np.nanargmin(sizes))])
            found.append(
                Verdict(
                    "bad",
                    f"weights collapsed: ESS {worst:.1f} of {chains}; use more temperatures",
                    f"at beta {at:.3g} a few chains carried all of the weight, so the draws "
                    "descend from them and log Z rests on them",
                    "weights",
                    hint("weights"),
                )
            )
    if not found and last < 0.1 * chains:
        words = f"weights collapsed: ESS {last:.1f} of {chains}; use more temperatures"
        reason = "a few chains carry all of the weight"
        found.append(Verdict("bad", words, reason, "weights", hint("weights")))
    ancestors = number(entry, "num_ancestors")
    if ancestors < min(8, chains):
        found.append(
            Verdict(
                "unsure",
                f"all chains descend from {ancestors:.0f} first states",
                "resampling kept few families: use more chains, a larger num_mcmc_steps or a "
                "larger Adaptive.cess",
                "families",
                hint("families"),
            )
        )
    islands = _islands(entry)
    if islands.size > 1 and np.std(islands, ddof=1) > ISLANDS_APART:
        values = ", ".join(f"{value:.1f}" for value in islands)
        found.append(
            Verdict(
                "bad",
                "groups of chains that never met disagree",
                f"their log Z are {values}: some have missed what others found, and neither draws "
                "nor intervals are to be trusted. Use more chains or a larger num_mcmc_steps",
                "islands",
                hint("islands"),
            )
        )
    error = number(entry, "log_z_standard_error")
    if error > 0.5:
        reason = (
            f"its standard error is {error:.2f}: use more chains, more temperatures or a larger "
            "num_mcmc_steps"
        )
        words = "log Z is uncertain"
        found.append(Verdict("unsure", words, reason, "evidence", hint("evidence")))
    return found


def _reach(entry: Entry, hint: Hint) -> list[Verdict]:
    if entry.data.get("out_of_reach") is not True:
        return []
    residual, noise = number(entry, "residual"), number(entry, "noise")
    reason = f"the draws miss it by {residual:.3g}, where the noise is {noise:.3g}"
    words = "the observation is out of the generator's reach"
    return [Verdict("bad", words, reason, "reach", hint("reach"))]


def _mixing(entry: Entry, figures: Figures, hint: Hint) -> list[Verdict]:
    chains, draws = entry.size
    well = annealed_well(
        _islands(entry),
        number(entry, "log_z_standard_error"),
        number(entry, "num_ancestors"),
        chains,
    )
    known = {name: value for name, value in figures.rhat.items() if not math.isnan(value)}
    if not known:
        few = f"{draws} draw{'s' * (draws != 1)} per chain are too few for R-hat; keep at least 4"
        if well:
            return [_agreement(entry, few, hint)]
        words = "cannot tell whether it converged"
        return [Verdict("unsure", words, few, "mixing", hint("few"))]
    where = max(known, key=lambda name: known[name])
    worst = known[where]
    size = min((v for v in figures.ess_bulk.values() if not math.isnan(v)), default=math.nan)
    of = f"R-hat {worst:.3f} at worst ({where} space), ESS {size:.0f} of {chains * draws} draws"
    if worst > _GOOD_RHAT and well:
        if worst > (_SEPARATE_OF_FEW if draws < _FEW_DRAWS else _SEPARATE_RHAT):
            return [
                Verdict(
                    "unsure",
                    "chains stay in separate parts of the posterior",
                    f"{of}. Groups of chains that never met agree on what they found, but parts "
                    "that few chains reached may be missing: compare with more chains",
                    "islands",
                    hint("islands"),
                )
            ]
        return [_agreement(entry, of, hint)]
    error, families = number(entry, "log_z_standard_error"), number(entry, "num_ancestors")
    nearly = error <= _MOST_ERROR and annealed_well(_islands(entry), 0.0, families, chains)
    if nearly and draws < _FEW_DRAWS and _POOR_RHAT < worst <= _SEPARATE_OF_FEW:
        # R-hat of so few draws is large whether or not chains go round; the groups' own
        # disagreement on log Z is what there is to go by.
        words = "too few draws to tell whether the chains have met"
        reason = f"{of}, and log Z is uncertain. Draw more, or use more chains"
        return [Verdict("unsure", words, reason, "mixing", hint("mixing"))]
    if worst > _POOR_RHAT:
        short = ""
        if draws < 50:
            short = (
                f"; {draws} draws per chain are few, and R-hat is large until each chain has "
                "visited all parts"
            )
        return [
            Verdict(
                "bad",
                "not converged: the chains have not met",
                f"{of}{short}. Draw more, with longer trajectories or a larger num_mcmc_steps",
                "mixing",
                hint("mixing"),
            )
        ]
    if worst > _GOOD_RHAT:
        words = "nearly converged: it mixes slowly"
        return [Verdict("unsure", words, f"{of}. Draw more", "mixing", hint("slow"))]
    if size < _ENOUGH:
        words = "the chains agree, but the draws are few"
        reason = f"{of}. Draw more for means and intervals"
        return [Verdict("unsure", words, reason, "mixing", hint("size"))]
    return [Verdict("good", "converged", of, "mixing")]


def _agreement(entry: Entry, of: str, hint: Hint) -> Verdict:
    """Draws of few steps are good ones where independent groups have found the same."""
    return Verdict(
        "good",
        "groups of chains that never met agree",
        f"{_islands(entry).size} of them found the same log Z, and the chains start from "
        f"{number(entry, 'num_ancestors'):.0f} independent states. Draws of one chain "
        f"resemble each other ({of}): count chains, not draws, or draw for longer",
        "islands",
        hint("slow"),
    )


def _islands(entry: Entry) -> np.ndarray:
    """Return the estimate of log Z by each island of chains; empty where there is none."""
    values = entry.data.get("island_log_z")
    if not isinstance(values, list):
        return np.zeros(0)
    return np.asarray([figure(value) for value in values[:_MOST_ISLANDS]])


def _acceptance(entry: Entry, hint: Hint) -> list[Verdict]:
    rate = number(entry, "acceptance_rate")
    found = []
    if rate < 0.2:
        reason = f"acceptance {rate:.2f}: most proposals are rejected. Take a smaller step"
        words = "the step is too large"
        found.append(Verdict("unsure", words, reason, "step", hint("large step")))
    if 0.99 < rate <= 1:
        reason = f"acceptance {rate:.3f}: a larger step would go further at the same cost"
        words = "the step is small"
        found.append(Verdict("unsure", words, reason, "step", hint("small step")))
    divergent = number(entry, "num_divergent")
    if divergent > 0:
        reason = "they were rejected and never returned, but show regions that chains cannot enter"
        words = f"{divergent:,.0f} divergent proposals"
        found.append(Verdict("unsure", words, reason, "divergent"))
    return found


def _label(entry: Entry) -> list[Verdict]:
    label = entry.data.get("exactness")
    reasons = {
        "adapted": "the step size never froze, so chains forget their target a little",
        "clipped": "clipped gradients or moves without a correction: means are biased",
        "approximate": "no acceptance step: draws are of another distribution nearby",
    }
    if label not in reasons:
        return []
    return [Verdict("unsure", f"the kernel is {label}", reasons[label], "exactness")]


def _typical(entry: Entry, figures: Figures) -> list[Verdict]:
    middle = float(np.median(figures.radius)) if figures.radius.size else math.nan
    if figures.dimension < 10 or 0.8 < middle < 1.25 or math.isnan(middle):
        return []
    return [
        Verdict(
            "unsure",
            "latents are not where the prior has its mass",
            f"|z| is {middle:.2f} sqrt(d) where draws of the prior have about 1: the generator "
            "may never have been trained there",
            "typical",
        )
    ]
