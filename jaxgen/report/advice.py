"""What a verdict means, where that is explained, and the very settings to try next.

A page opens from disk, so the explanations are in it; each names the page of the documentation
that has more, and links to it where the installed package says where its documentation is.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, metadata
from typing import Any, NamedTuple

from jaxgen.report.reading import Entry, Run
from jaxgen.sampler.finished import present_arguments

__all__ = ["TOPICS", "Topic", "address_of", "documentation", "try_next"]


class Topic(NamedTuple):
    """The subject of a verdict.

    Attributes:
      title: in a few words.
      text: what it means, in two or three sentences.
      page: of the documentation, from its top; a Markdown file and the anchor of a heading.
    """

    title: str
    text: str
    page: str


_DIAGNOSTICS = "how-to/diagnostics.md"
TOPICS = {
    "finite": Topic(
        "Numbers that are not finite",
        "A draw holds NaN or infinity. The sampler rejects such proposals, so the generator gives "
        "them only when it is asked again, or the file is damaged.",
        f"{_DIAGNOSTICS}#1-is-it-the-right-target",
    ),
    "weights": Topic(
        "Weights of annealing",
        "Chains are moved from the prior to the posterior in steps, and weighted at each. Where a "
        "few chains carry all of the weight, the steps were too large: draws and log Z rest on "
        "those few.",
        f"{_DIAGNOSTICS}#2-did-annealing-work",
    ),
    "families": Topic(
        "Families of chains",
        "Resampling replaces unlikely chains by copies of likely ones. Where all chains descend "
        "from a few first states, whole parts of the posterior may be missing.",
        f"{_DIAGNOSTICS}#2-did-annealing-work",
    ),
    "islands": Topic(
        "Islands of chains",
        "Groups of chains never exchange members while annealing, so each finds log Z by itself. "
        "Where the groups agree, all have found the same posterior; where they do not, some have "
        "missed what others found.",
        f"{_DIAGNOSTICS}#2-did-annealing-work",
    ),
    "evidence": Topic(
        "log Z",
        "The log evidence compares models on the same observation. Its standard error comes from "
        "groups of chains that never met.",
        f"{_DIAGNOSTICS}#2-did-annealing-work",
    ),
    "mixing": Topic(
        "R-hat and effective sample size",
        "R-hat compares what chains say of the same quantity: 1 is agreement. The effective sample "
        "size (ESS) says how many independent draws the draws are worth. Both look within chains, "
        "so they need several draws of each.",
        f"{_DIAGNOSTICS}#3-did-the-chains-mix",
    ),
    "step": Topic(
        "Step size",
        "Proposals that go far are rejected often, and proposals that are accepted always go "
        "nowhere. Between them, at an acceptance of 0.6 to 0.9, chains move best.",
        "how-to/kernels.md",
    ),
    "divergent": Topic(
        "Divergent proposals",
        "A proposal is called divergent where it is NaN or its energy is far off. It is rejected, "
        "so no draw is one, but it marks a place that chains cannot enter.",
        f"{_DIAGNOSTICS}#1-is-it-the-right-target",
    ),
    "exactness": Topic(
        "Labels of exactness",
        "An exact kernel leaves the posterior invariant. The other labels reproduce methods of "
        "papers that do not.",
        "concepts.md#labels-of-exactness",
    ),
    "typical": Topic(
        "Latents and their prior",
        "Draws of a standard normal prior in d dimensions have a length of about sqrt(d). A "
        "generator was trained on such latents, and makes anything of others.",
        "how-to/generator.md#which-prior",
    ),
    "reach": Topic(
        "Out of reach",
        "A posterior exists whether or not its generator can show what was seen. Where even the "
        "draws miss it by more than the noise, they are the least bad images, not good ones.",
        f"{_DIAGNOSTICS}#4-can-the-generator-show-it-at-all",
    ),
}

# The most kernel steps at a temperature of runs that were given no number.
_MOST_STEPS = 8
_COMMANDS = ("sample", "inpaint", "superres")
# (of Python, of the command line) for each setting; None where there is none.
_NAMES = {
    "chains": ("num_chains={}", "--chains {}"),
    "steps": ("num_steps={}", "--steps {}"),
    "thin": ("thin={}", "--thin {}"),
    "num_mcmc_steps": ("num_mcmc_steps={}", "--num-mcmc-steps {}"),
    "cess": ("betas=jaxgen.schedules.Adaptive(cess={})", "--betas adaptive:{}"),
    "leapfrogs": ("kernel=jaxgen.kernels.HMC({}, jitter=True)", "--kernel hmc:{}"),
    "step_size": ("step_size={:.3g}", "--step-size {:.3g}"),
    "noise": ('noise="{}"', "--noise {}"),
}


def try_next(kind: str, entry: Entry, run: Run | None) -> str:
    """Return the arguments or flags to try next, as they are typed; empty for nothing to try.

    Args:
      kind: of trouble: "weights", "families", "islands", "evidence", "few", "mixing", "slow",
        "size", "large step", "small step", "reach".
      entry: the posterior.
      run: what it is of.
    """
    if run is None:
        return ""
    command = run.summary.get("command")
    now = _settings(entry, run)
    wanted = _wanted(kind, now)
    if not wanted:
        return ""
    if command == "demo":
        return _instead_of_demo(entry, run, wanted)
    if command in _COMMANDS:
        return " ".join(_NAMES[name][1].format(value) for name, value in wanted.items())
    if isinstance(command, str) and command.startswith("jaxgen."):
        if kind == "reach" and not command.startswith("jaxgen.tasks."):
            return ""
        return ", ".join(_NAMES[name][0].format(value) for name, value in wanted.items())
    return ""


def documentation() -> str:
    """Return the address of the documentation that the installed package names, or nothing."""
    try:
        listed = metadata("jaxgen").get_all("Project-URL") or []
    except PackageNotFoundError:
        return ""
    for line in listed:
        name, _, address = line.partition(",")
        if name.strip().lower() == "documentation" and address.strip().startswith("https://"):
            return address.strip().rstrip("/")
    return ""


def address_of(topic: Topic, base: str) -> str:
    """Return where a topic is explained on the site at `base`."""
    page, _, anchor = topic.page.partition("#")
    return f"{base}/{page.removesuffix('.md')}.html{'#' if anchor else ''}{anchor}"


def _settings(entry: Entry, run: Run) -> dict[str, float]:
    """Return what the run was: numbers, from its arguments or its draws."""
    given: Any = run.summary.get("arguments")
    given = present_arguments(given) if isinstance(given, Mapping) else {}
    if run.summary.get("command") == "demo":
        given = {}
    chains, draws = entry.size

    def one(names: tuple[str, ...], otherwise: float) -> float:
        for name in names:
            value = given.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 10**7:
                return value
        return otherwise

    thin = one(("thin",), 1)
    step: Any = entry.data.get("step_size")
    good = isinstance(step, float) and math.isfinite(step) and step > 0
    return {
        "chains": chains,
        "draws": draws,
        "thin": thin,
        "steps": one(("num_steps", "steps"), draws * thin),
        "num_mcmc_steps": one(("num_mcmc_steps",), _MOST_STEPS),
        "step_size": step if good else math.nan,
    }


def _wanted(kind: str, now: dict[str, float]) -> dict[str, float | str]:
    """Return the settings that answer a kind of trouble."""
    chains, steps = int(now["chains"]), int(now["steps"])
    twice = 2 * int(now["num_mcmc_steps"])
    if kind == "weights":
        return {"cess": 0.95, "num_mcmc_steps": twice}
    if kind in ("families", "evidence"):
        return {"chains": max(2 * chains, 64), "num_mcmc_steps": twice}
    if kind == "islands":
        return {"chains": max(4 * chains, 128), "num_mcmc_steps": twice}
    if kind == "few":  # draws of each chain, for R-hat
        return {"steps": max(steps, 20), "thin": 1}
    if kind in ("mixing", "slow"):
        longer: dict[str, float | str] = {"steps": max(4 * steps, 100)}
        return longer if kind == "slow" else {**longer, "leapfrogs": 20}
    if kind == "size":
        return {"steps": max(4 * steps, 100)}
    if kind in ("large step", "small step") and now["step_size"] > 0:
        return {"step_size": now["step_size"] * (0.5 if kind == "large step" else 2.0)}
    if kind == "reach":
        return {"noise": "learn"}
    return {}


def _instead_of_demo(entry: Entry, run: Run, wanted: dict[str, Any]) -> str:
    """Return the command that runs one posterior of the demo for longer."""
    flags = " ".join(_NAMES[name][1].format(value) for name, value in wanted.items())
    if re.fullmatch(r"class_\d{1,6}", entry.name):
        return f"jaxgen sample --class {entry.name.removeprefix('class_')} {flags}"
    number = re.fullmatch(r"example_(\d{1,6})", entry.name)
    mask = entry.data.get("mask")
    if number is None or not isinstance(mask, str):
        return ""
    noise = "" if "noise" in wanted else "--noise 0.2 "
    return f"jaxgen inpaint example:{number[1]} --mask {shlex.quote(mask)} {noise}{flags}"
