"""The end of a run in its folder: what `jaxgen report` and `load_run` find there.

Images and log densities of the draws are made again where `collect` has not kept them: one
forward pass for each draw.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.atomic import local_folder
from jaxgen.core.errors import InputError
from jaxgen.core.pytree import StaticFunction, short
from jaxgen.core.types import ArrayTree
from jaxgen.sampler.checkpoint.draws import leaf_names
from jaxgen.sampler.config import RunConfig
from jaxgen.sampler.finished import (
    DRAWS,
    FORMAT,
    SUMMARY,
    Arrays,
    arrays_of,
    figures_of,
    kept_positions,
    read_summary,
    surroundings,
    write,
)
from jaxgen.sampler.records import RunLength
from jaxgen.sampler.results import NO_HISTORY, AISResult, SampleResult
from jaxgen.target.evaluation import evaluate
from jaxgen.target.path import AnnealedPath
from jaxgen.target.posterior import Posterior

__all__ = ["amend", "as_sample", "draws_to_show", "label_of", "leave"]

# Numbers of images and positions in `draws.safetensors`, 256 MB of float32: beyond it, every
# k-th draw is there (the others are in the checkpoints' folder), and in the end no images.
_MOST = 1 << 26
# Names that a posterior's arrays have for themselves.
_OWN = {"position", "log_weight", "weights", "mean", "deviation", "low", "high", "truth"}
_OWN |= {"mask", "view", "history"}


def leave(
    folder: Any,
    result: SampleResult | AISResult,
    target: Posterior | AnnealedPath,
    config: RunConfig,
    run_length: RunLength,
    seconds: float,
) -> None:
    """Write a run's summary and draws beside its checkpoints.

    A run of several processes leaves none, for no process has all chains; nor does one whose
    folder cannot be written, which was only read.
    """
    path = local_folder(folder, "folder")
    if jax.process_count() > 1 or not _writable(path):
        return
    command = "jaxgen.ais" if isinstance(result, AISResult) else "jaxgen.sample"
    if (path / SUMMARY).is_file():  # the run has gone on from there
        seconds += _seconds(path / SUMMARY)
    done = as_sample(result)
    if config.reduce is not None:  # an accumulator is no draw
        done = done._replace(draws=None)
    drawn = draws_to_show(done, target)
    entry = figures_of(done, "posterior", label_of(target), seconds, {})
    stored = int(drawn["position"].shape[1])
    data = {
        "format": FORMAT,
        "command": command,
        "arguments": _arguments(config, run_length, target),
        "runs": [{**entry, "draws_in_file": stored}],
        "seconds": entry["seconds"],
        "gradients": entry["gradients"],
        **surroundings(),
        "files": [DRAWS, SUMMARY],
    }
    write(path, data, arrays_of("posterior", done, drawn))


def amend(
    folder: Any,
    command: str,
    label: str,
    arrays: Mapping[str, Any],
    facts: Mapping[str, Any],
    arguments: Mapping[str, Any],
) -> None:
    """Add to the only posterior of a folder what a task knows of it.

    Args:
      folder: in which `leave` has written.
      command: the task's name.
      label: what the posterior is called from now on.
      arrays: name -> array, of the posterior.
      facts: for its entry of the summary; they win over what is there.
      arguments: the task's own.
    """
    path = local_folder(folder, "folder")
    if jax.process_count() > 1 or not _writable(path) or not (path / SUMMARY).is_file():
        return
    data = read_summary(path / SUMMARY)
    entry = data["runs"][0]
    stored = Arrays(path / DRAWS)
    whole = {name: stored.get(name) for name in stored.names}
    whole |= {f"{entry['name']}/{k}": np.asarray(v, np.float32) for k, v in arrays.items()}
    data["runs"] = [{**entry, "label": label, **facts}]
    data["arguments"] = {**arguments, **data["arguments"]}
    write(path, {**data, "command": command}, whole)


def as_sample(result: SampleResult | AISResult) -> SampleResult:
    """Return weighted draws at the end of annealing as a result with one draw a chain."""
    if isinstance(result, SampleResult):
        return result
    log_weight = np.asarray(result.log_weight, np.float64)
    weights = np.exp(log_weight - np.max(log_weight))
    count = len(weights)
    return SampleResult(
        draws=jax.tree.map(lambda x: np.asarray(x)[:, None], result.position),
        position=result.position,
        log_weight=np.asarray(result.log_weight),
        weights=weights / weights.sum(),
        log_z=result.log_z,
        log_z_standard_error=result.log_z_standard_error,
        ess=result.ess,
        num_lineages=len(np.unique(np.asarray(result.state.lineage))),
        history=result.history,
        acceptance_rate=np.full(count, result.acceptance_rate),
        step_size=float("nan"),
        num_gradients=result.num_gradients,
        num_divergent=np.asarray([result.num_divergent]),
        exactness=result.exactness,
        notes=result.notes,
        state=result.state,
        tile=result.tile,
        island_log_z=result.island_log_z,
        pilot_history=NO_HISTORY,
        kernel=result.kernel,
        precision=result.precision,
    )


def draws_to_show(
    result: SampleResult, target: Posterior | AnnealedPath | None = None, most: int = _MOST
) -> dict[str, np.ndarray]:
    """Return what a report shows of the draws: leaves `[C, S, ...]` by name.

    "position" is there always: the draws', or where `collect` kept none the chains' last. "image"
    and "log_density" are those that were kept, or made by the target.

    Args:
      result: of `jaxgen.sample`.
      target: what it is a run on; None leaves out what was not kept.
      most: numbers in all, beyond which draws are left out.
    """
    chains = len(np.asarray(result.weights))
    tree = kept_positions(result.draws, chains)
    more: dict[str, np.ndarray] = {}
    if tree is None or not _alike(tree, result.position):
        tree = jax.tree.map(lambda x: np.asarray(x)[:, None], result.position)
    elif isinstance(result.draws, Mapping) and "position" in result.draws:
        rest = {k: v for k, v in result.draws.items() if k != "position"}
        for name, leaf in zip(leaf_names(rest)[0], jax.tree.leaves(rest), strict=True):
            if name not in _OWN and np.shape(leaf)[:2] == _size(tree):
                more[name] = np.asarray(leaf)
    posterior = target if isinstance(target, Posterior) else None
    if isinstance(target, AnnealedPath):
        posterior = getattr(target.base, "posterior", None)
    stride, with_images = _stride(tree, more, posterior, most)
    tree, more = (jax.tree.map(lambda x: np.asarray(x)[:, ::stride], x) for x in (tree, more))
    size = _size(tree)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)
    if posterior is not None and not {"image", "log_density"} <= more.keys():
        found = evaluate(posterior, flat, images=with_images and "image" not in more)
        if found.images is not None:
            more["image"] = found.images.reshape(*size, *found.images.shape[1:])
        if isinstance(target, Posterior):
            more.setdefault("log_density", found.log_density.reshape(size))
    if isinstance(target, AnnealedPath) and "log_density" not in more:
        more["log_density"] = _densities(target, flat).reshape(size)
    if not with_images:
        more.pop("image", None)
    return {"position": _joined(tree), **more}


def label_of(target: Any) -> str:
    """Return a posterior in a few words: the kind of its condition, and its class."""
    condition = getattr(target, "condition", None)
    if condition is None:
        return type(target).__name__
    label, names = getattr(condition, "label", None), getattr(condition, "names", None)
    if label is None or np.ndim(label):
        return type(condition).__name__
    if isinstance(names, tuple) and 0 <= int(label) < len(names):
        return f"{type(condition).__name__}, class {names[int(label)]}"
    return f"{type(condition).__name__}, label {label}"


def _arguments(config: RunConfig, run_length: RunLength, target: Any) -> dict[str, Any]:
    """Return a run's settings as its call would say them; objects by their text."""
    given = config.given
    data = {
        "num_chains": config.num_chains,
        "num_steps": run_length.draws * run_length.thin + run_length.rest,
        "thin": run_length.thin,
        "warmup": run_length.warmup,
        "kernel": short(given["kernel"]),
        "betas": short(given["schedule"]),
        # None where chains move until they have mixed.
        "num_mcmc_steps": None if config.moves_until_mixed else config.num_mcmc_steps,
        "num_islands": config.islands,
        "pool": config.pool,
        "pilot": config.pilot is not None,
        "step_size": short(given["rule"]),
        "resample": config.resample,
        "precondition": config.precondition,
        "precision": config.precision,
        "tile": config.tile,
    }
    if isinstance(target, Posterior):
        parts = {name: getattr(target, name) for name in ("prior", "generator", "condition")}
        data |= {name: _words(part) for name, part in parts.items()}
    return data


def _seconds(summary: Path) -> float:
    """Return the seconds of an earlier call; 0 where its summary is damaged and gets replaced."""
    try:
        return float(read_summary(summary)["seconds"])
    except (InputError, KeyError, TypeError, ValueError):
        return 0.0


def _words(part: Any) -> str:
    """Return a part of a posterior in one line; of a function its name, not its address."""
    if isinstance(part, StaticFunction):
        name = getattr(part.function, "__qualname__", type(part.function).__name__)
        return f"function {name}"
    return short(part)


def _writable(path: Path) -> bool:
    return os.access(path, os.W_OK)


def _size(tree: ArrayTree) -> tuple[int, int]:
    first = jax.tree.leaves(tree)[0]
    return np.shape(first)[0], np.shape(first)[1]


def _alike(kept: ArrayTree, position: ArrayTree) -> bool:
    """Return whether what was kept are positions of chains, not other arrays of that size."""
    if jax.tree.structure(kept) != jax.tree.structure(position):
        return False
    pairs = zip(jax.tree.leaves(kept), jax.tree.leaves(position), strict=True)
    return all(np.shape(x)[2:] == np.shape(last)[1:] for x, last in pairs)


def _stride(tree: ArrayTree, more: Any, posterior: Any, most: int) -> tuple[int, bool]:
    """Return k, every k-th draw being shown, and whether images are."""
    chains, draws = _size(tree)
    each = sum(int(np.prod(np.shape(x)[2:])) for x in jax.tree.leaves(tree))
    image = 0
    if "image" in more:
        image = int(np.prod(more["image"].shape[2:]))
    elif posterior is not None:
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[2:], x.dtype), tree)
        image = int(np.prod(jax.eval_shape(posterior.image, one).shape))
    if chains * (each + image) > most:
        image = 0
    stride = -(-draws * chains * (each + image) // most)
    return max(1, stride), image > 0


def _joined(tree: ArrayTree) -> np.ndarray:
    """One array as it is; of several, `[C, S, D]` with the leaves' numbers end to end."""
    leaves = [np.asarray(x) for x in jax.tree.leaves(tree)]
    if len(leaves) == 1 and leaves[0].ndim >= 3:
        return leaves[0]
    return np.concatenate([x.reshape(*x.shape[:2], -1) for x in leaves], axis=-1)


def _densities(path: AnnealedPath, flat: Any) -> np.ndarray:
    return np.asarray(_mapped(path, jax.tree.map(jnp.asarray, flat)), np.float64)


@jax.jit
def _mapped(path: AnnealedPath, flat: Any) -> Any:
    return jax.lax.map(path, flat, batch_size=64)
