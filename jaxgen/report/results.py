"""Results in memory as the run that a report is made of."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxgen.applications.tasks import Reconstruction
from jaxgen.core.errors import expected
from jaxgen.inference.finished import as_sample, draws_to_show, label_of
from jaxgen.report.reading import Entry, Run, entry_of
from jaxgen.report.writing import write
from jaxgen.sampler.finished import FORMAT, arrays_of, figures_of, surroundings
from jaxgen.sampler.results import AISResult, SampleResult

__all__ = ["report", "run_of"]

_WANTED = "a run's folder, or a result of sample, ais or a task (or several, by their names)"


def report(
    run: Any,
    out: str | os.PathLike[str] | None = None,
    *,
    posterior: Any = None,
    truth: ArrayLike | None = None,
    force: bool = False,
) -> Path:
    """Write a report, one HTML page that opens from disk: pictures, diagnostics, verdicts.

        jaxgen.report("runs/demo")
        jaxgen.report(result, "sneakers.html", posterior=posterior)

    Args:
      run: the folder of a run, as `jaxgen.sample(folder=)`, a task or the command line writes
        it; or a result of `sample`, `ais` or a task, also one that came out of `jax.jit`; or
        several results, a list or by their names in a dict.
      out: the page; needed for a result. Beside a folder, FOLDER.html by default.
      posterior: what a result is a run on. With it there are images and log densities, where
        `collect` did not keep them; of several results, a list or a dict like theirs.
      truth: the true image `[H, W, channels]` of a task's result, where it is known: the report
        shows the error map, and how many pixels lie inside their intervals.
      force: replace a file that is no report.

    Returns:
      The page's path.

    Raises:
      InputError: for what is no run, and for a file in the way.
    """
    if isinstance(run, str | os.PathLike):
        for name, value in (("posterior", posterior), ("truth", truth)):
            if value is not None:
                raise expected(name, "None for a folder, which has its own", type(value).__name__)
        return write(Path(run), None if out is None else Path(out), force=force)
    if out is None:
        raise expected(
            "out", "the page to write", "none", 'As in jaxgen.report(result, "run.html")'
        )
    made = run_of(run, Path(out), posterior=posterior, truth=truth)
    return write(made, Path(out), force=force)


def run_of(run: Any, path: Path, *, posterior: Any = None, truth: ArrayLike | None = None) -> Run:
    """Return results in memory as `jaxgen.report.read` returns a folder; see `report`."""
    results, targets = _named(run, posterior)
    if truth is not None and len(results) > 1:
        raise expected("truth", "None for several results", type(truth).__name__)
    entries, commands = [], set()
    for name, result in results.items():
        entry, command = _entry(name, result, targets.get(name), truth, len(results) > 1)
        entries.append(entry)
        commands.add(command)
    summary = {
        "format": FORMAT,
        "command": commands.pop() if len(commands) == 1 else "jaxgen.sample",
        "runs": [entry.data for entry in entries],
        **surroundings(),
    }
    return Run(path.with_suffix(""), summary, tuple(entries))


class _InMemory:
    """Arrays by name, as `jaxgen.sampler.finished.Arrays` has those of a file."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._arrays = arrays
        self.names = frozenset(arrays)

    def get(self, name: str) -> np.ndarray:
        """Return one array."""
        if name not in self.names:
            raise expected(f"result: {name}", "an array", "none")
        return self._arrays[name]


def _named(run: Any, posterior: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return results and their targets by name."""
    several = isinstance(run, Mapping | Sequence) and not _is_result(run)
    if not several:
        return {"posterior": run}, {"posterior": posterior}
    names = [str(k) for k in run] if isinstance(run, Mapping) else [f"{i}" for i in range(len(run))]
    results = dict(zip(names, run.values() if isinstance(run, Mapping) else run, strict=True))
    if not results or len(results) < len(run):
        raise expected("run", "results, each with a name of its own", f"{len(run)} of them")
    if isinstance(posterior, Mapping):
        return results, {str(k): v for k, v in posterior.items()}
    if isinstance(posterior, Sequence):
        if len(posterior) != len(results):
            raise expected("posterior", f"{len(results)}, as many as results", len(posterior))
        return results, dict(zip(names, posterior, strict=True))
    return results, dict.fromkeys(names, posterior)


def _is_result(value: Any) -> bool:
    return isinstance(value, SampleResult | AISResult | Reconstruction)


def _entry(
    name: str, result: Any, target: Any, truth: ArrayLike | None, several: bool
) -> tuple[Entry, str]:
    if not _is_result(result):
        raise expected("run", _WANTED, type(result).__name__)
    maps: dict[str, Any] = {}
    facts: dict[str, Any] = {}
    command = "jaxgen.ais" if isinstance(result, AISResult) else "jaxgen.sample"
    notes = None
    if isinstance(result, Reconstruction):
        command = "jaxgen.tasks.reconstruct"
        maps = {key: getattr(result, key) for key in ("mean", "deviation", "low", "high")}
        facts = {key: getattr(result, key) for key in ("noise", "residual", "misfit")}
        facts |= {"out_of_reach": bool(result.out_of_reach), "interval": result.level}
        maps |= {"truth": truth} if truth is not None else {}
        maps |= _observed(target)
        notes, result = result.notes, result.result
    elif truth is not None:
        raise expected("truth", "None where no task has made the result", type(truth).__name__)
    done = as_sample(result.settled())
    if notes is not None and len(notes) > len(done.notes):
        done = done._replace(notes=notes)
    drawn = draws_to_show(done, target)
    label = label_of(target) if target is not None and not several else name
    data = figures_of(done, name, label, float("nan"), facts)
    arrays = arrays_of(name, done, drawn)
    arrays |= {f"{name}/{k}": np.asarray(v, np.float32) for k, v in maps.items()}
    return entry_of(name, data, _InMemory(arrays), "result"), command


def _observed(target: Any) -> dict[str, Any]:
    """Return what was seen of an image, where the condition has it as pixels and a mask."""
    condition = getattr(target, "condition", None)
    mask, seen = getattr(condition, "mask", None), getattr(condition, "observed", None)
    if mask is None or seen is None or np.ndim(mask) != 2:
        return {}
    return {"mask": mask, "view": seen} if np.shape(seen)[:2] == np.shape(mask) else {}
