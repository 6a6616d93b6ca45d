"""A result as the summary and the arrays that a run's folder holds.

Arrays of a posterior called NAME, of C chains with S draws each:

    NAME/position       [C, S, ...]  the prior's coordinates; several latents end to end
    NAME/image          [C, S, ...]  what the generator makes of them, as a rule [H, W, channels]
    NAME/log_density    [C, S]       log p(z) + log p(condition | G(z)) of each draw
    NAME/weights        [C]          normalised weights that the draws carry
    NAME/log_weight     [C]          at the end of annealing, before the last resampling
    NAME/history/...    [T]          beta, step_size, acceptance_rate, ess, log_z of annealing

and of tasks NAME/mean, deviation, low, high `[H, W, channels]`, and NAME/truth, mask, view where
they are known. Everything is float32.
"""

from __future__ import annotations

import datetime
import json
import math
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxgen.core.types import ArrayTree
from jaxgen.core.version import __version__
from jaxgen.sampler.results import SampleResult

__all__ = [
    "DRAWS",
    "FORMAT",
    "HISTORY",
    "MANY",
    "SUMMARY",
    "arrays_of",
    "figures_of",
    "kept_positions",
    "plain",
    "surroundings",
    "write",
    "write_arrays",
    "write_json",
]

FORMAT = "jaxgen-run/1"
# Of a folder whose folders are runs.
MANY = "jaxgen-runs/1"
SUMMARY, DRAWS = "summary.json", "draws.safetensors"
HISTORY = ("beta", "step_size", "acceptance_rate", "ess", "log_z")
_LIBRARIES = ("jax", "jaxlib", "flax", "blackjax", "numpy", "pillow")


def figures_of(
    result: SampleResult, name: str, label: str, seconds: float, facts: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a posterior's entry in the summary.

    Args:
      result: of `jaxgen.sample`.
      name: short and unique in the run: it names arrays.
      label: for tables and pictures.
      seconds: wall time, compiling included.
      facts: what else is known of it.
    """
    gradients = np.asarray(result.num_gradients)
    return {
        "name": name,
        "label": label,
        **facts,
        "log_z": result.log_z,
        "log_z_standard_error": result.log_z_standard_error,
        "ess": result.ess,
        "num_chains": len(gradients),
        "num_ancestors": result.num_lineages,
        "island_log_z": [float(x) for x in result.island_log_z],
        "draws_per_chain": _draws_per_chain(result.draws),
        "num_temperatures": len(result.history.beta),
        "acceptance_rate": float(np.mean(result.acceptance_rate)),
        "step_size": result.step_size,
        "gradients_per_chain": float(gradients.mean()),
        "gradients": int(gradients.sum()),
        "num_divergent": int(np.sum(result.num_divergent)),
        "exactness": result.exactness,
        "tile": result.tile,
        "notes": list(result.notes),
        "seconds": round(seconds, 2),
    }


def arrays_of(
    name: str, result: SampleResult, draws: Mapping[str, Any] | None = None
) -> dict[str, np.ndarray]:
    """Return a posterior's arrays, by their names in the file.

    Args:
      name: the posterior's.
      result: of `jaxgen.sample`.
      draws: leaves `[C, S, ...]` in the place of `result.draws`.
    """
    kept = result.draws if draws is None else draws
    made = {f"{name}/{key}": np.asarray(leaf, np.float32) for key, leaf in kept.items()}
    made[f"{name}/log_weight"] = np.asarray(result.log_weight, np.float32)
    made[f"{name}/weights"] = np.asarray(result.weights, np.float32)
    for column in HISTORY:
        values = np.asarray(getattr(result.history, column), np.float32)
        made[f"{name}/history/{column}"] = values
    return made


def kept_positions(draws: ArrayTree, chains: int) -> Any:
    """Return the positions among what `collect` has kept, a tree of `[C, S, ...]`, or None."""
    kept = draws.get("position") if isinstance(draws, Mapping) and "position" in draws else draws
    leaves = jax.tree.leaves(kept)
    good = all(np.ndim(x) >= 2 and np.shape(x)[0] == chains and np.shape(x)[1] for x in leaves)
    return kept if leaves and good else None


def surroundings(command_line: Sequence[str] | None = None) -> dict[str, Any]:
    """Return where and when a run has ended: versions, device, date, and what was typed."""
    versions = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:  # vendored, or installed under another name
            continue
    now = datetime.datetime.now(datetime.UTC)
    found = {
        "versions": {**versions, "jaxgen": __version__},
        "device": jax.devices()[0].device_kind,
        "date": now.isoformat(timespec="seconds"),
    }
    return found if command_line is None else {**found, "command_line": list(command_line)}


def write(folder: Path, data: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write summary and draws into a folder that exists, each whole or not at all.

    The summary goes first and comes last, so that it never stands beside draws of another run.
    """
    # Reading a folder of checkpoints reads this format too: the rooms know each other.
    from jaxgen.sampler.checkpoint.files import space, write_bytes
    from jaxgen.sampler.checkpoint.files import write_arrays as write_checked

    with space(folder):
        (folder / SUMMARY).unlink(missing_ok=True)
        write_checked(folder / DRAWS, arrays)
        write_bytes(folder / SUMMARY, _json(data).encode())


def write_json(path: Path, data: Any) -> None:
    """Write strict JSON: numbers that are not finite become null."""
    path.write_text(_json(data), encoding="utf-8")


def write_arrays(path: Path, arrays: Mapping[str, Any], notes: Mapping[str, str]) -> None:
    """Write arrays and notes as one safetensors file."""
    from safetensors.numpy import save_file

    save_file({k: np.ascontiguousarray(v) for k, v in arrays.items()}, path, dict(notes) or None)
    path.chmod(0o644)  # safetensors makes it private


def plain(data: Any) -> Any:
    """Nested data as JSON can hold it: NumPy and JAX values become Python's."""
    if isinstance(data, Mapping):
        return {str(key): plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [plain(value) for value in data]
    if isinstance(data, bool | str | int) or data is None:
        return data
    if isinstance(data, Path):
        return str(data)
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if hasattr(data, "tolist"):
        return plain(data.tolist())
    raise TypeError(f"{type(data).__name__} has no place in a summary")


def _json(data: Any) -> str:
    return json.dumps(plain(data), indent=2, allow_nan=False) + "\n"


def _draws_per_chain(draws: ArrayTree) -> int:
    leaves = [leaf for leaf in jax.tree.leaves(draws) if np.ndim(leaf) >= 2]
    return int(np.shape(leaves[0])[1]) if leaves else 0
