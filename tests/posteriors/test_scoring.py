"""The benchmark on the reference set: what it calls wrong, and that it goes on where it stopped."""

import importlib
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxgen
from jaxgen import posteriors

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks" / "truth"


@pytest.fixture
def scoring(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "argv", ["reference_set.py"])
    return importlib.import_module("reference_set")


def answer(scoring, reference, count=2000, shift=0.0, error=0.1, draws=None, **more):
    draws = reference.draws(jax.random.key(0), count) if draws is None else draws
    weights = np.full(len(draws), 1 / len(draws))
    return scoring.Answer(reference.log_z + shift, error, 100.0, draws, weights, **more)


def test_exact_draws_are_right_and_worth_their_number(scoring):
    reference = posteriors.get("linear-gaussian-64")
    row = scoring.scored(reference, answer(scoring, reference))
    assert scoring.judged(row) == "right"
    # E of the mean square is 1 / 2000 over 64 latents.
    assert 1 / row["mean_square"] == pytest.approx(2000, rel=0.6)


@pytest.mark.parametrize(
    ("shift", "error", "verdict"),
    [(0.31, 0.1, "wrong"), (0.25, 0.1, "neither"), (0.15, 0.1, "right"), (0.04, 0.001, "right")],
)
def test_log_z_is_judged_by_its_own_error(scoring, shift, error, verdict):
    reference = posteriors.get("linear-gaussian-2")
    row = scoring.scored(reference, answer(scoring, reference, shift=shift, error=error))
    assert scoring.judged(row) == verdict


def test_a_lost_mode_is_wrong_whatever_log_z_says(scoring):
    reference = posteriors.get("three-modes-2")
    z = reference.draws(jax.random.key(0), 4000)
    row = scoring.scored(reference, answer(scoring, reference, draws=z[reference.modes(z) != 2]))
    assert row["lost"] == pytest.approx(reference.modes.masses[2])
    assert row["mode_error"] == pytest.approx(reference.modes.masses[2], abs=0.02)
    assert scoring.judged(row) == "wrong"


def test_a_mean_far_off_is_wrong_where_no_log_z_is_given(scoring):
    reference = posteriors.get("linear-gaussian-8")
    z = reference.draws(jax.random.key(0), 500) + np.sqrt(reference.variance)
    nan = float("nan")
    row = scoring.scored(reference, answer(scoring, reference, shift=nan, error=nan, draws=z))
    assert scoring.judged(row) == "wrong"
    assert scoring.summarised([row], reference)["cover"] is None


def test_the_summary_counts_notes_and_verdicts(scoring):
    reference = posteriors.get("linear-gaussian-2")
    rows = [
        scoring.scored(reference, answer(scoring, reference, shift=shift, **more))
        for shift, more in [
            (1.0, {"notes": ("log Z is uncertain",), "verdict": "stuck: R-hat 2"}),
            (1.0, {"verdict": "mixed: R-hat at most 1.01"}),
            (0.1, {"verdict": "stuck: R-hat 2", "notes": ("3 proposals were divergent",)}),
            (-0.1, {"verdict": "mixed: R-hat at most 1.01"}),
        ]
    ]
    line = scoring.summarised(rows, reference)
    assert (line["wrong"], line["right"]) == (2, 2)
    assert (line["warned"], line["alarms"]) == (0.5, 0.0)
    assert (line["good"], line["bad"]) == (0.5, 0.5)
    assert line["bias"] == pytest.approx(0.5)
    assert line["cover"] == 0.5
    pooled = scoring.overall([{"name": "x", "method": "ours", **line}], "ours")
    assert pooled["wrong_with_a_note"] == 0.5
    assert pooled["coverage_of_all_runs"] == 0.5
    assert pooled["bias_at_most_half_of_stated"] == 0


def test_exact_draws_miss_small_modes_too(scoring):
    assert scoring.exact_mode_error(np.array([0.5, 0.5])) == pytest.approx(0.05, abs=0.01)


def test_rows_are_kept_and_not_run_again(scoring, tmp_path, monkeypatch, capsys):
    calls = []

    def fake(reference, key, options):
        calls.append(options)
        if len(calls) == 2:
            raise jaxgen.InputError("step_size: expected another")
        return answer(scoring, reference)

    monkeypatch.setattr(scoring, "ours", fake)
    path = tmp_path / "rows.jsonl"
    command = ["x", "--names", "linear-gaussian-2", "--rows", str(path), "--keys"]
    for count in ("2", "3", "3"):
        monkeypatch.setattr(sys, "argv", [*command, count])
        scoring.main()
    assert len(calls) == 3
    said = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert said["rows"][0]["refused"] == said["overall"]["ours"]["refused"] == 1
    assert said["rows"][0]["right"] == 2
    monkeypatch.setattr(sys, "argv", [*command, "1", "--sample-args", '{"resample": null}'])
    scoring.main()
    assert calls[-1] == {"resample": None}
    assert len(path.read_text().splitlines()) == 4
    said = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert said["benchmark"] == "reference_set"
    assert said["rows"][0]["keys"] == 1


def test_posteriors_that_are_neither_honest_nor_noted_are_named(scoring):
    reference = posteriors.get("linear-gaussian-2")

    def line(name, shift, **more):
        rows = [
            scoring.scored(reference, answer(scoring, reference, shift=shift, **more))
            for _ in range(4)
        ]
        return {"name": name, "method": "ours", **scoring.summarised(rows, reference)}

    lines = [line("good", 0.01), line("noted", 1.0, notes=("uncertain",)), line("silent", 1.0)]
    every = scoring.overall(lines, "ours")
    assert every["both"] == 1
    assert every["coverage_all_keys"] == 1
    assert every["neither_noted"] == ["silent"]
