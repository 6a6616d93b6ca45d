"""The page: a run's overview and a section for each posterior, as one HTML text."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import shlex
from collections.abc import Sequence
from typing import Any

from jaxgen.report.advice import TOPICS, address_of, documentation
from jaxgen.report.assets import SCRIPT, STYLE
from jaxgen.report.figures import Figures
from jaxgen.report.reading import Run
from jaxgen.report.sections import section
from jaxgen.report.text import escape
from jaxgen.report.verdicts import Part, examine, figure, number
from jaxgen.sampler.finished import present_arguments

__all__ = ["GENERATOR", "page"]

# By this mark a page is known as ours, and may be replaced.
GENERATOR = '<meta name="generator" content="jaxgen report">'
# PNG bytes of all film strips together; base64 makes 4/3 of it. Other pictures and charts
# need about 100 kB for each posterior.
_STRIPS, _EACH = 2_900_000, 110_000
_MOST_SECTIONS = 24


def _hash(text: str) -> str:
    """Name the one style or script that a browser may use, by SHA-256 (CSP level 2)."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


_POLICY = "; ".join(
    (
        "default-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "img-src data:",
        f"style-src {_hash(STYLE)}",
        f"script-src {_hash(SCRIPT)}",
    )
)


def page(run: Run, parts: Sequence[Part] | None = None) -> str:
    """Return a whole HTML document, below 5 MB for runs of any size; `parts` as of `examine`."""
    parts = examine(run) if parts is None else parts
    shown = parts[:_MOST_SECTIONS]
    budget = max((_STRIPS - _EACH * len(shown)) // len(shown), 12_000)
    sections = "".join(section(part, budget) for part in shown)
    if len(shown) < len(parts):
        sections += (
            f'<p class="note">The first {len(shown)} of {len(parts)} posteriors are shown in '
            "full; the table above has them all.</p>"
        )
    title = f"{_about(run)}: {run.path.resolve().name}"
    device, seconds = _text(run.summary.get("device")), figure(run.summary.get("seconds"))
    spent = "" if math.isnan(seconds) else f" in {seconds:,.0f} s"
    date = _text(run.summary.get("date"), 40)
    ended = f", {date}" if date else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{GENERATOR}
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} - jaxgen report</title>
<style>{STYLE}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the verdicts</a>
<header>
<h1>{escape(title)}</h1>
<button type="button" id="theme" hidden>Dark colours</button>
<p>{_count(len(parts), "posterior")} sampled by jaxgen{spent}{escape(_on(device) + ended)}</p>
</header>
<main id="main">
<noscript><p class="note">Film strips and the choice of colours need JavaScript; everything else
is here without it.</p></noscript>
{_overview(parts)}
{sections}
{_explained(parts)}
{_repeat(run)}
{_settings(run)}
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


# What each command draws, for the title; and arguments that are typed without a name, that have
# another one, or that are of one call and not of the run.
_TITLES = {
    "demo": "Images of ten classes, and completed images",
    "sample": "Images drawn from a class",
    "inpaint": "A completed image",
    "superres": "A sharpened image",
}
# What Python draws.
_PYTHON = {
    "jaxgen.sample": "Draws from a posterior",
    "jaxgen.ais": "Weighted draws at the end of annealing",
    "jaxgen.tasks.inpaint": "A completed image",
    "jaxgen.tasks.super_resolve": "A sharpened image",
    "jaxgen.tasks.reconstruct": "An image from a measurement",
}
# Arguments of Python that a summary holds as they are typed.
_TYPED = ("noise", "num_chains", "num_steps", "thin", "warmup", "num_mcmc_steps", "num_islands")
_TYPED += ("pool", "pilot", "resample", "precondition", "precision", "tile")
_BARE = ("image",)
_NAMES = {"label": "class"}
_OF_ONE_CALL = ("out", "force", "resume", "json", "quiet", "checkpoint_every")


def _about(run: Run) -> str:
    command = _text(run.summary.get("command"))
    return {**_TITLES, **_PYTHON}.get(command, command or "run")


def _explained(parts: Sequence[Part]) -> str:
    """Explain the verdicts of this page, with links to the documentation."""
    seen = {verdict.topic for part in parts for verdict in part.verdicts}
    base = documentation()
    items = ""
    for name, topic in TOPICS.items():
        if name not in seen:
            continue
        where = f"<code>docs/pages/{escape(topic.page)}</code>"
        if base:
            where = f'<a href="{escape(address_of(topic, base))}">the documentation</a>'
        items += (
            f'<dt id="about-{name}">{escape(topic.title)}</dt>'
            f"<dd>{escape(topic.text)} More: {where}</dd>"
        )
    return f"""<section aria-labelledby="explained"><h2 id="explained">What the verdicts mean</h2>
<dl>{items}</dl></section>"""


def _python(command: str, arguments: dict[str, Any]) -> str:
    """Return the call that started a run, with the settings that can be typed."""
    shown = {k: v for k, v in arguments.items() if k in _TYPED and v is not None}
    if not shown:
        return ""
    given = ", ".join(f"{name}={value!r}" for name, value in shown.items())
    first = "generator, ..." if command.startswith("jaxgen.tasks.") else "posterior"
    return f"{command}(key, {first}, {given})"


def _repeat(run: Run) -> str:
    """Return the command line that repeats this run, or the call where Python made it."""
    command = run.summary.get("command")
    arguments = present_arguments(_mapping(run.summary.get("arguments")))
    if command in _PYTHON:
        call = _python(str(command), arguments)
        if not call:
            return ""
        return f"""<section aria-labelledby="repeat"><h2 id="repeat">How to repeat it</h2>
<p>The same key, posterior, versions and kind of device give the same draws.</p>
<pre>{escape(_text(call, 4000))}</pre></section>"""
    if command not in _TITLES:
        return ""
    words = [str(arguments[name]) for name in _BARE if arguments.get(name) is not None]
    for name, value in list(arguments.items())[:100]:
        if name in (*_BARE, *_OF_ONE_CALL) or value is None or value is False:
            continue
        if not re.fullmatch(r"[a-z][a-z_]{0,40}", name):
            continue
        flag = f"--{_NAMES.get(name, name).replace('_', '-')}"
        words += [flag] if value is True else [f"{flag}={value}"]
    line = shlex.join(["jaxgen", str(command), *words])
    return f"""<section aria-labelledby="repeat"><h2 id="repeat">How to repeat it</h2>
<p>The same versions and the same kind of device give the same draws.</p>
<pre>{escape(_text(line, 4000))}</pre></section>"""


def _on(device: str) -> str:
    return f" on {device}" if device else ""


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _text(value: Any, most: int = 300) -> str:
    text = value if isinstance(value, str) else "" if value is None else str(value)
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _overview(parts: Sequence[Part]) -> str:
    rows = "".join(_row(part, link=k < _MOST_SECTIONS) for k, part in enumerate(parts))
    headings = ("log Z", "ESS", "R-hat", "acceptance", "divergent", "not finite", "|z| / sqrt(d)")
    heads = "".join(f'<th scope="col" class="n">{escape(name)}</th>' for name in headings)
    return f"""<section aria-labelledby="overview">
<h2 id="overview">Verdicts</h2>
<div class="wide" tabindex="0" role="region" aria-label="Table of posteriors"><table>
<caption>One line for each posterior. ESS is of the importance weights at the end of annealing;
R&#8209;hat is the worst over latents, log density and images.</caption>
<thead><tr><th scope="col">posterior</th><th scope="col">verdict</th>{heads}</tr></thead>
<tbody>{rows}</tbody></table></div></section>"""


def _row(part: Part, *, link: bool) -> str:
    entry, figures, verdict = part.entry, part.figures, part.verdicts[0]
    label = escape(_text(entry.label))
    label = f'<a href="#{part.id}">{label}</a>' if link else label
    cells = (
        _evidence(part),
        f"{_short(number(entry, 'ess'))} / {entry.size[0]}",
        _short(_largest(figures)),
        _short(number(entry, "acceptance_rate")),
        _short(number(entry, "num_divergent")),
        f"{figures.not_finite:,}",
        _short(float(figures.radius.mean())),
    )
    numbers = "".join(f'<td class="n">{escape(cell)}</td>' for cell in cells)
    badge = f'<span class="badge {verdict.level}">{escape(verdict.words)}</span>'
    return f'<tr><th scope="row">{label}</th><td>{badge}</td>{numbers}</tr>'


def _evidence(part: Part) -> str:
    value = number(part.entry, "log_z")
    if math.isnan(value):
        return "unknown"
    return f"{value:.2f} \u00b1 {_short(number(part.entry, 'log_z_standard_error'))}"


def _largest(figures: Figures) -> float:
    return max((v for v in figures.rhat.values() if not math.isnan(v)), default=math.nan)


def _short(value: float) -> str:
    return "unknown" if math.isnan(value) else f"{value:.3g}"


def _settings(run: Run) -> str:
    data = run.summary
    tables = [
        ("Arguments", data.get("arguments")),
        ("Environment", {**_mapping(data.get("versions")), "device": data.get("device")}),
    ]
    models: Any = data.get("models")
    for model in models[:20] if isinstance(models, list) else []:
        tables.append((f"Model {_text(_mapping(model).get('name'))}", model))
    body = "".join(_table(title, _mapping(values)) for title, values in tables)
    rest = {k: v for k, v in data.items() if k not in ("arguments", "versions", "models", "runs")}
    whole = _text(json.dumps(rest, indent=1, default=str), 20_000)
    return f"""<section aria-labelledby="settings"><h2 id="settings">Settings and environment</h2>
<div class="two">{body}</div>
<details><summary>The rest of summary.json</summary><pre>{escape(whole)}</pre></details>
</section>"""


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _table(title: str, values: dict[str, Any]) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(_text(name, 60))}</th>'
        f'<td class="long">{escape(_text(value))}</td></tr>'
        for name, value in list(values.items())[:100]
        if value is not None
    )
    if not rows:
        return ""
    return f"<div><h3>{escape(title)}</h3><table><tbody>{rows}</tbody></table></div>"
