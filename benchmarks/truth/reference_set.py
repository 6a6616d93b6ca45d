"""Which sampler is right on the reference set, and does it know when it is not?

Every posterior of `jaxgen.posteriors`, 20 keys each: `ours` is `jaxgen.sample(key, posterior)`
with nothing else given, and peers (`reference_peers.py`) get as many gradients for each chain
as it took there. A row for each posterior, method and key goes into `--rows`; what is there
already is not run again. `--table` prints the table of the rows that there are, alone.

Of log Z: `bias` is the mean error, `stated` the mean stated standard error, `ratio` bias /
stated, `rms` the root mean square error, `cover` the share of keys whose 95% interval holds the
truth. Of the draws: `worth`, how many independent exact draws would give a posterior mean as
good (1 / the mean square of its error in exact standard deviations); `modes`, half the sum of
|mass found - mass|, and `exact`, what as many exact draws as there are chains have.

A run is wrong where log Z is more than 3 stated errors and 0.05 off, the mean is off by half a
standard deviation (root mean square over latents), or no draw is in a mode of at least 5%; it is
right where log Z is within 2 errors, the mean within 0.35 and no such mode lost. `warned` is the
share of wrong runs that carry a note, `alarms` the share of right ones that do (a count of refused
proposals is no such note); `good` the share of wrong runs that `jaxgen.diagnose` calls good, `bad`
the share of right ones that it calls bad.
Runs that end in an error are `refused`, and take no other part. Over all posteriors: `both` counts
those whose |bias| is at most half of the stated error and whose intervals hold the truth for 90% of
keys at least; `neither_noted` lists the others without a note (`noted`) in 95% of their runs.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `common`

import common
import jax
import numpy as np
from reference_peers import PEERS, Answer

import jaxgen
from jaxgen import posteriors

METHODS = ("ours", *PEERS)
SMOKE = ("linear-gaussian-2", "three-modes-2")
DEFAULT_BUDGET = 700.0  # gradients of a peer where ours has no rows
LARGE_MODE = 0.05
COUNTED = "proposals were divergent"  # a count of refused proposals says nothing of the answer
ENOUGH_NOTES = 0.95  # share of runs with a note that excuses a log Z which is not honest
# How a verdict of `diagnose` begins.
GOOD, BAD = ("mixed", "good", "islands agree"), ("stuck", "bad", "islands disagree")


def ours(reference: Any, key: Any, options: dict[str, Any]) -> Answer:
    """`jaxgen.sample` with its defaults, and what `diagnose` says of it."""
    result = jaxgen.sample(key, reference.posterior, **options)
    draws = np.asarray(result.draws, np.float64)
    chains, count, dimension = draws.shape
    weights = np.repeat(np.asarray(result.weights, np.float64) / count, count)
    verdict = jaxgen.diagnose(result, reference.posterior)
    return Answer(
        log_z=result.log_z,
        error=result.log_z_standard_error,
        gradients=float(np.mean(result.num_gradients)),
        draws=draws.reshape(chains * count, dimension),
        weights=weights,
        notes=tuple(result.notes),
        verdict=verdict.verdict,
    )


def scored(reference: Any, answer: Answer) -> dict[str, Any]:
    """Return the figures of one run."""
    deviation = np.sqrt(reference.variance)
    off = (answer.weights @ answer.draws - reference.mean) / deviation
    row = {
        "dimension": reference.dimension,
        "log_z": answer.log_z,
        "stated": answer.error,
        "error": answer.log_z - reference.log_z,
        "reference_error": reference.log_z_error,
        "gradients": answer.gradients,
        "mean_square": float(np.mean(off**2)),
        "notes": list(answer.notes),
        "verdict": answer.verdict,
    }
    if reference.modes is not None:
        masses = reference.modes.masses
        label = reference.modes(answer.draws)
        found = np.bincount(label, answer.weights, len(masses))
        row["mode_error"] = float(0.5 * np.abs(found - masses).sum())
        lost = (masses >= LARGE_MODE) & (found == 0)
        row["lost"] = float(masses[lost].sum())
        row["masses"] = [round(float(x), 4) for x in found[:16]]
    return row


def judged(row: dict[str, Any]) -> str:
    """Whether a run is right, wrong or neither; see the module's docstring."""
    known = np.isfinite(row["error"]) and np.isfinite(row["stated"])
    stated = float(np.hypot(row["stated"], row["reference_error"])) if known else np.nan
    off, mean = abs(row["error"]), np.sqrt(row["mean_square"])
    lost = row.get("lost", 0.0) > 0
    if lost or mean > 0.5 or (known and off > max(3 * stated, 0.05)):
        return "wrong"
    if mean <= 0.35 and (not known or off <= max(2 * stated, 0.05)):
        return "right"
    return "neither"


def summarised(rows: list[dict[str, Any]], reference: Any) -> dict[str, Any]:
    """One line of the table: a posterior and a method over its keys."""
    count = len(rows)
    rows = [row for row in rows if "refused" not in row]
    if not rows:
        return {"keys": count, "refused": count}
    error = np.array([row["error"] for row in rows], float)
    stated = np.array([row["stated"] for row in rows], float)
    total = np.hypot(stated, [row["reference_error"] for row in rows])
    judgement = np.array([judged(row) for row in rows])
    noted = np.array([any(COUNTED not in note for note in row["notes"]) for row in rows])
    good, bad = (
        np.array([row["verdict"].startswith(start) for row in rows]) for start in (GOOD, BAD)
    )
    wrong, right = judgement == "wrong", judgement == "right"
    line = {
        "keys": count,
        "refused": count - len(rows),
        "gradients": float(np.mean([row["gradients"] for row in rows])),
        "bias": float(error.mean()),
        "stated": float(stated.mean()),
        "ratio": float(abs(error.mean()) / stated.mean()),
        "rms": float(np.sqrt(np.mean(error**2))),
        "cover": float(np.mean(np.abs(error) <= 1.96 * total)) if np.all(total == total) else None,
        "worth": float(1 / np.mean([row["mean_square"] for row in rows])),
        "wrong": int(wrong.sum()),
        "right": int(right.sum()),
        "warned": _share(noted, wrong),
        "alarms": _share(noted, right),
        "noted": float(noted.mean()),
        "good": _share(good, wrong) if any(row["verdict"] for row in rows) else None,
        "bad": _share(bad, right) if any(row["verdict"] for row in rows) else None,
    }
    if reference.modes is not None:
        line["modes"] = float(np.mean([row["mode_error"] for row in rows]))
        line["exact"] = exact_mode_error(reference.modes.masses)
        line["lost"] = float(np.mean([row["lost"] > 0 for row in rows]))
    return line


def exact_mode_error(masses: np.ndarray, draws: int = 64) -> float:
    """Return the mean of half the sum of |share - mass| for independent exact draws."""
    counts = np.random.default_rng(0).multinomial(draws, masses / masses.sum(), size=200)
    return float(0.5 * np.abs(counts / draws - masses).sum(axis=1).mean())


def _share(flags: np.ndarray, among: np.ndarray) -> float | None:
    return float(np.mean(flags[among])) if among.any() else None


class Rows(common.Rows):
    """A row a run, which is known by its posterior, method, options and key."""

    def __init__(self, path: str | None) -> None:
        super().__init__(path, "name", "method", "options", "key")

    def of(self, name: str, method: str, options: str) -> list[dict[str, Any]]:
        """Return the rows of a posterior and a method."""
        wanted = (name, method, options)
        return [r for r in self if (r["name"], r["method"], r["options"]) == wanted]


def run(name: str, method: str, keys: list[int], rows: Rows, args: Any) -> None:
    """Run what is missing of a posterior and a method."""
    options = args.sample_args if method == "ours" else "{}"
    done = {row["key"] for row in rows.of(name, method, options)}
    keys = [key for key in keys if key not in done]
    if not keys:
        return
    reference = posteriors.get(name)
    begun = time.perf_counter()
    head = {"name": name, "method": method, "options": options}

    def keep(key: int, answer: Answer, seconds: float) -> None:
        scores = scored(reference, answer)
        rows.add({**head, "key": key, **scores, "seconds": round(seconds, 2)})

    try:
        if method == "ours":
            for key in keys:
                begun = time.perf_counter()
                try:
                    answer = ours(reference, jax.random.key(key), json.loads(options))
                except jaxgen.InputError as error:
                    rows.add({**head, "key": key, "refused": str(error)})
                    continue
                keep(key, answer, time.perf_counter() - begun)
        else:
            own = [r for r in rows.of(name, "ours", args.sample_args) if "refused" not in r]
            budget = args.gradients or (
                float(np.mean([row["gradients"] for row in own])) if own else DEFAULT_BUDGET
            )
            many = jax.vmap(jax.random.key)(np.array(keys))
            answers = PEERS[method](reference, many, budget)
            seconds = (time.perf_counter() - begun) / len(keys)
            for key, answer in zip(keys, answers, strict=True):
                keep(key, answer, seconds)
    except (ImportError, jaxgen.InputError) as error:
        print(f"{name}, {method}: {type(error).__name__}: {error}", file=sys.stderr)


def program(name: str) -> str:
    """Return what decides which compiled program runs a posterior: its structure and its shapes."""
    leaves, tree = jax.tree.flatten(posteriors.get(name).posterior)
    return f"{[np.shape(leaf) for leaf in leaves]} {tree}"


def run_all(names: list[str], methods: list[str], rows: Rows, args: Any) -> None:
    """Run everything, posteriors that share programs after each other."""
    keys = list(range(args.seed, args.seed + args.keys))
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(program(name), []).append(name)
    for group in alike.values():
        for method in methods:
            for name in group:
                run(name, method, keys, rows, args)
        jax.clear_caches()


COLUMNS = (
    "keys",
    "refused",
    "gradients",
    "bias",
    "stated",
    "ratio",
    "rms",
    "cover",
    "worth",
    "modes",
)
COLUMNS += ("exact", "lost", "wrong", "right", "noted", "warned", "alarms", "good", "bad")


def table(names: list[str], methods: list[str], rows: Rows, options: str) -> list[dict[str, Any]]:
    """Print the table, and return its lines."""
    lines = []
    print(f"{'posterior':24}{'method':21}" + "".join(f"{c:>10}" for c in COLUMNS))
    for name in names:
        for method in methods:
            found = rows.of(name, method, options if method == "ours" else "{}")
            if not found:
                continue
            line = summarised(found, posteriors.get(name))
            lines.append({"name": name, "method": method, **line})
            cells = (_cell(line.get(column)) for column in COLUMNS)
            print(f"{name:24}{method:21}" + "".join(f"{cell:>10}" for cell in cells))
    return lines


def overall(lines: list[dict[str, Any]], method: str) -> dict[str, Any]:
    """Return what is to be shown of all posteriors together, for one method."""
    every = [line for line in lines if line["method"] == method]
    mine = [line for line in every if line["refused"] < line["keys"]]
    wrong, right = (np.array([line[which] for line in mine]) for which in ("wrong", "right"))

    def pooled(name: str, count: np.ndarray) -> float | None:
        known = np.array([line[name] is not None for line in mine], bool)
        share, number = np.array([line[name] or 0.0 for line in mine])[known], count[known]
        return float(share @ number / number.sum()) if number.sum() else None

    return {
        "posteriors": len(every),
        "refused": sum(line["refused"] for line in every),
        "bias_at_most_half_of_stated": sum(line["ratio"] <= 0.5 for line in mine),
        "coverage_at_least_90": sum((line["cover"] or 0) >= 0.9 for line in mine),
        "coverage_all_keys": sum(line["cover"] == 1 for line in mine),
        "both": sum(_honest(line) for line in mine),
        "neither_noted": [
            line["name"]
            for line in mine
            if line["cover"] is not None and not _honest(line) and line["noted"] < ENOUGH_NOTES
        ],
        "coverage_of_all_runs": pooled(
            "cover", np.array([line["keys"] - line["refused"] for line in mine])
        ),
        "runs": int(sum(line["keys"] for line in every)),
        "wrong": int(wrong.sum()),
        "right": int(right.sum()),
        "wrong_with_a_note": pooled("warned", wrong),
        "right_with_a_note": pooled("alarms", right),
        "wrong_called_good": pooled("good", wrong),
        "right_called_bad": pooled("bad", right),
    }


def _honest(line: dict[str, Any]) -> bool:
    """Whether log Z of a posterior is as good as it says: bias and coverage both."""
    return line["ratio"] <= 0.5 and (line["cover"] or 0) >= 0.9


def _cell(value: float | int | None) -> str:
    if value is None or value != value:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def main() -> None:
    """Run what is missing, print the table and one JSON line."""
    options = common.parser(__doc__)
    options.add_argument("--names", help="posteriors, with commas; all by default")
    options.add_argument("--keys", type=int, default=20, help="runs of each (20)")
    options.add_argument("--methods", default="ours", help=f"of {','.join(METHODS)}")
    options.add_argument("--rows", help="the file of rows, read and appended to")
    options.add_argument("--sample-args", default="{}", help="JSON: arguments for jaxgen.sample")
    options.add_argument("--gradients", type=float, help="a peer's budget (what ours took)")
    options.add_argument("--table", action="store_true", help="run nothing")
    args = options.parse_args()
    names = args.names.split(",") if args.names else list(posteriors.names())
    methods = args.methods.split(",")
    for method in methods:
        if method not in METHODS:
            options.error(f"--methods: expected some of {', '.join(METHODS)}; got {method}")
    if args.smoke:
        names, methods, args.keys = list(SMOKE), methods, 2
    args.sample_args = json.dumps(json.loads(args.sample_args), sort_keys=True)
    rows = Rows(args.rows)
    if not args.table:
        run_all(names, methods, rows, args)
    lines = table(names, methods, rows, args.sample_args)
    common.report(
        "reference_set",
        keys=args.keys,
        sample_args=args.sample_args,
        overall={method: overall(lines, method) for method in methods},
        rows=lines,
    )


if __name__ == "__main__":
    main()
