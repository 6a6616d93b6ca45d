"""One posterior's section: verdicts, pictures, a slider through chains, charts."""

from __future__ import annotations

import json
import math

import numpy as np

from jaxgen.report import pixels, svg, truth
from jaxgen.report.figures import autocorrelation, ranks
from jaxgen.report.text import escape
from jaxgen.report.verdicts import Part

__all__ = ["section"]

_GRID, _TRACES, _RANKED = 64, 8, 6


def section(part: Part, budget: int) -> str:
    """Return the section of one posterior; its film strips take at most `budget` bytes of PNG."""
    entry = part.entry
    title = entry.label[:200]
    return f"""<section id="{part.id}" aria-labelledby="{part.id}-h">
<h2 id="{part.id}-h">{escape(title)}</h2>
{_verdicts(part)}
{_maps(part)}
{_draws(part, budget)}
{_annealing(part)}
<h3>Chains</h3><div class="charts">{_chains(part)}</div>
</section>"""


def _verdicts(part: Part) -> str:
    items = "".join(
        f'<li class="{v.level}"><strong>{escape(v.words)}</strong> '
        f'<a href="#about-{v.topic}">what it means</a>'
        f'<span class="why">{escape(v.reason)}</span>{_next(v.try_next)}</li>'
        for v in part.verdicts
    )
    notes = part.entry.data.get("notes")
    said = [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []
    # What a verdict says as well is said once.
    said = [note for note in said if not note.startswith(tuple(v.words for v in part.verdicts))]
    more = "".join(f'<p class="note">Note of the run: {escape(n[:500])}</p>' for n in said[:20])
    return f'<ul class="verdicts">{items}</ul>{more}'


def _next(text: str) -> str:
    return f'<span class="why">Try next: <code>{escape(text)}</code></span>' if text else ""


def _draws(part: Part, budget: int) -> str:
    """Pictures and film strips where the generator makes images, and how they mix."""
    image = part.entry.image
    if image is None:
        why = "The generator makes no images [H, W, 1 or 3], so there are none to look at."
        if part.entry.output is None:
            why = "Images were not kept, so there are none to look at."
        return f'<h3>Mixing</h3>{_mixing(part)}<p class="note">{why}</p>'
    return f"""<div class="two"><div>{_samples(part, image)}</div>
<div>{_player(part, image, budget)}<h3>Mixing</h3>{_mixing(part)}</div></div>"""


def _samples(part: Part, image: np.ndarray) -> str:
    entry = part.entry
    chains = entry.size[0]
    which = np.unique(np.linspace(0, chains - 1, min(chains, _GRID)).round().astype(int))
    columns = _columns(len(which))
    source, (width, height) = pixels.grid(image[which, -1], columns)
    alt = f"The last draws of {len(which)} chains of {entry.label[:200]}, {columns} in a row"
    return (
        "<h3>Draws</h3>"
        f'<img class="sheet across-{min(columns, 5)}" src="{source}" '
        f'width="{width}" height="{height}" alt="{escape(alt)}">'
        f'<p class="note">The last draw of {len(which)} of {chains} chains.</p>'
    )


def _columns(count: int) -> int:
    """Columns of a nearly square grid that leaves the fewest cells empty."""
    least = math.ceil(math.sqrt(count))
    return min(range(least, math.ceil(1.7 * least) + 1), key=lambda n: (-count % n, n))


def _player(part: Part, image: np.ndarray, budget: int) -> str:
    entry = part.entry
    total, draws = entry.size
    made = pixels.strips(image, budget)
    data = {
        "label": entry.label[:200],
        "strips": made.uris,
        "chains": [int(c) + 1 for c in made.chains],
        "draws": [int(d) + 1 for d in made.draws],
        "total": draws,
        "width": made.width,
        "height": made.height,
    }
    # In a script element only "</" could end it; "<" never needs to stand as such in JSON.
    text = json.dumps(data).replace("<", "\\u003c")
    options = "".join(f"<option>{chain}</option>" for chain in data["chains"])
    kept = "" if len(made.chains) == total else f" {len(made.chains)} of {total} chains are kept."
    kept += "" if len(made.draws) == draws else f" {len(made.draws)} of {draws} draws are kept."
    last = len(made.draws) - 1
    return f"""<h3>Film strip of a chain</h3>
<div class="player">
<div class="frame" role="img" aria-label="Image at the chosen draw"></div>
<div class="controls" hidden>
<label for="{part.id}-c">Chain</label><select id="{part.id}-c">{options}</select>
<label for="{part.id}-d">Draw (arrow keys move it)</label>
<input type="range" id="{part.id}-d" min="0" max="{last}" step="1" value="0">
<output for="{part.id}-c {part.id}-d"></output>
<div><button type="button" aria-label="Play the film strip">Play</button></div>
</div>
<div class="film" tabindex="0" role="region" aria-label="Whole film strip"><img alt=""></div>
<script type="application/json">{text}</script>
</div><p class="note">Draws of one chain in the order in which they were made.{kept}</p>"""


def _maps(part: Part) -> str:
    from jaxgen.plotting.pictures import heat, masked

    extra = part.entry.extra
    if "mean" not in extra:
        return ""
    cells = []
    if "truth" in extra:
        cells.append(("truth", extra["truth"], "The true image"))
    seen = extra.get("truth", extra.get("view"))
    if "mask" in extra and seen is not None and seen.shape[:2] == extra["mask"].shape:
        seen = masked(seen, extra["mask"])
        cells.append(("observed (hidden in blue)", seen, "What the sampler was shown"))
    elif "view" in extra:
        cells.append(("observed view", extra["view"], "The view the sampler was shown"))
    cells.append(("posterior mean", extra["mean"], "Mean of the draws"))
    for name, text in (("low", "lower end"), ("high", "upper end")):
        if name in extra:
            caption = f"{text} of the {_level(part)} interval"
            cells.append((caption, extra[name], f"Pixelwise {caption}"))
    if "deviation" in extra:
        deviation = np.clip(np.nan_to_num(extra["deviation"]), 0, 1)
        spread = np.sqrt(np.mean(np.square(deviation), axis=-1))
        largest = min(0.5, max(0.1, math.ceil(10 * float(spread.max()) - 1e-6) / 10))
        caption = f"standard deviation (black 0, white {largest:.1f})"
        alt = f"Standard deviation of each pixel, at most {spread.max():.2f}"
        cells.append((caption, heat(spread, largest), alt))
    error = truth.error_map(part.entry)
    if error is not None:
        largest = min(1.0, max(0.1, math.ceil(10 * float(error.max()) - 1e-6) / 10))
        caption = f"error of the mean (black 0, white {largest:.1f})"
        alt = f"How far each pixel of the mean is from the truth, at most {error.max():.2f}"
        cells.append((caption, heat(error, largest), alt))
    figures = "".join(
        f'<figure><img src="{pixels.picture(image)}" alt="{escape(alt)}" '
        f'width="{image.shape[1]}" height="{image.shape[0]}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for caption, image, alt in cells
    )
    said = truth.sentence(part.entry, _level(part))
    note = f'<p class="note">{escape(said)}</p>' if said else ""
    return f'<h3>Credible maps</h3><div class="maps">{figures}</div>{note}'


def _level(part: Part) -> str:
    level = part.entry.data.get("interval")
    if isinstance(level, float) and 0 < level < 1:
        return f"{100 * level:.0f}% credible"
    return "credible"


def _mixing(part: Part) -> str:
    figures = part.figures
    rows = "".join(
        f'<tr><th scope="row">{escape(space)}</th>'
        + "".join(f'<td class="n">{_number(value)}</td>' for value in values)
        + "</tr>"
        for space in figures.rhat
        for values in [(figures.rhat[space], figures.ess_bulk[space], figures.ess_tail[space])]
    )
    chains, draws = part.entry.size
    low, middle, high = np.quantile(figures.radius, [0.05, 0.5, 0.95])
    where = ""
    if figures.density_name == "log prior":
        where = " The condition's log density cannot be had from the folder: the prior's is shown."
    return f"""<div class="wide" tabindex="0" role="region" aria-label="Table of mixing"><table>
<caption>The worst of each space, of {chains} chains of {draws} draws: {chains * draws:,} in all.
R&#8209;hat is rank-normalised and split; near 1 the chains have met.</caption>
<thead><tr><th scope="col">space</th><th scope="col" class="n">R-hat</th>
<th scope="col" class="n">ESS, bulk</th><th scope="col" class="n">ESS, tails</th></tr></thead>
<tbody>{rows}</tbody></table></div>
<p class="note">Latent typicality |z| / sqrt({figures.dimension}): {middle:.3f}, from {low:.3f} to
{high:.3f} in 90% of draws; a standard normal has about 1.{where}</p>"""


def _number(value: float) -> str:
    if math.isnan(value):
        return "unknown"
    return f"{value:.3f}" if value < 10 else f"{value:,.0f}"


def _annealing(part: Part) -> str:
    history, chains = part.entry.history, part.entry.size[0]
    if not history["beta"].size:
        return '<h3>Annealing</h3><p class="note">This run did not anneal.</p>'
    beta, label = history["beta"], "temperature"
    spread = float(beta[beta > 0].min()) if (beta > 0).any() else 1.0
    charts = (
        svg.lines(
            "Inverse temperature beta", [svg.Series("beta", beta)], x_label=label, log=spread < 0.05
        ),
        svg.lines(
            "Acceptance",
            [svg.Series("acceptance", history["acceptance_rate"])],
            x_label=label,
            low=0.0,
            high=1.0,
        ),
        svg.lines("Step size", [svg.Series("step size", history["step_size"])], x_label=label),
        svg.lines(
            "ESS of the weights",
            [svg.Series("ESS", history["ess"])],
            x_label=label,
            y_label=f"of {chains}",
            low=0.0,
            high=float(chains),
            rule=0.1 * chains,
        ),
        svg.lines("log Z so far", [svg.Series("log Z", history["log_z"])], x_label=label),
    )
    return f'<h3>Annealing</h3><div class="charts">{"".join(charts)}</div>'


def _chains(part: Part) -> str:
    figures = part.figures
    count = figures.density.shape[0]
    which = np.unique(np.linspace(0, count - 1, min(count, _TRACES)).round().astype(int))
    quantities = {
        figures.density_name: figures.density,
        "latent coordinate": figures.latent,
    }
    if figures.output is not None:
        quantities[figures.output_name] = figures.output
    few = "" if len(which) == count else f" of {len(which)} chains"
    charts = [
        svg.lines(
            f"Trace{few}: {'worst ' if name != figures.density_name else ''}{name}",
            [svg.Series(str(c + 1), values[c]) for c in which],
            x_label="draw",
            faint=True,
        )
        for name, values in quantities.items()
    ]
    charts.append(
        svg.lines(
            "Autocorrelation",
            [svg.Series(name, autocorrelation(values)) for name, values in quantities.items()],
            x_label="lag in draws",
            low=-0.5,
            high=1.0,
            rule=0.0,
        )
    )
    some = which[:: max(1, math.ceil(len(which) / _RANKED))]
    if figures.density.shape[1] >= 4:
        bins = int(np.clip(figures.density.shape[1] // 2, 2, 20))
        for name, values in quantities.items():
            if name == "latent coordinate":
                continue
            charts.append(
                svg.bars(
                    f"Ranks among all chains' draws: {name}",
                    ranks(values, bins)[some],
                    [f"chain {c + 1}" for c in some],
                    x_label="rank",
                )
            )
    radius = np.sort(figures.radius.ravel())
    charts.append(
        svg.lines(
            "Latent typicality",
            [svg.Series("share of draws below", np.linspace(0, 1, radius.size), radius)],
            x_label="|z| / sqrt(d)",
            y_label="share of draws below",
            low=0.0,
            high=1.0,
        )
    )
    return "".join(charts)
