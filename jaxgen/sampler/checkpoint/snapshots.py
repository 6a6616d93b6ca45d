"""Checkpoints as arrays with names, and back.

A name is the part of the checkpoint and the path in its tree, as in `state/003.chains.tilt`, so
that the error for a checkpoint of another shape can name what differs.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxgen.core.errors import InputError, expected
from jaxgen.core.types import ArrayTree, PRNGKey
from jaxgen.sampler import driver
from jaxgen.sampler.checkpoint import manifests
from jaxgen.sampler.checkpoint.files import read_checked
from jaxgen.sampler.checkpoint.names import stored_field
from jaxgen.sampler.checkpoint.reading import counted
from jaxgen.sampler.config import RunConfig
from jaxgen.sampler.records import AnnealingEvidence, Checkpoint, RunLength, no_evidence
from jaxgen.sampler.results import NO_HISTORY
from jaxgen.sampler.sharding import replicate
from jaxgen.sampler.state import Phase, Stage, TemperatureInfo

__all__ = [
    "checkpoint_arrays",
    "checkpoint_of",
    "newest_whole",
    "reduced_arrays",
    "reduced_of",
    "run_length_of",
]


def checkpoint_arrays(checkpoint: Checkpoint, run_length: RunLength) -> dict[str, np.ndarray]:
    """Return all of a checkpoint that is the same in every process, and the length of its run."""
    place = {"phase": checkpoint.phase, "stage": checkpoint.stage, "done": checkpoint.done}
    return {
        **_named(checkpoint.state, "state"),
        **_named(place, "place"),
        **_named(checkpoint.history._asdict(), "history"),
        **_named(checkpoint.evidence._asdict(), "evidence"),
        **_named(run_length._asdict(), "plan"),
    }


def checkpoint_of(arrays: dict[str, np.ndarray], config: RunConfig, key: PRNGKey) -> Checkpoint:
    """Return the checkpoint of which these are the arrays: the inverse of `checkpoint_arrays`.

    Args:
      arrays: as stored.
      config: the settings of the run.
      key: the run's key.

    Raises:
      InputError: if the arrays are those of another run.
    """
    # Without its devices: shapes lie nowhere, and what is traced cannot be put on any.
    on_no_device = dataclasses.replace(config, mesh=None)
    like = jax.eval_shape(functools.partial(driver.blank_state, config=on_no_device), key)
    state = _filled(arrays, like, "state", jax.random.key_impl(key))
    columns = {name: column for name, column in _named(NO_HISTORY._asdict(), "history").items()}
    length = arrays.get(next(iter(columns)), np.zeros(0)).shape[:1] or (0,)
    rows = {
        name.split(".")[-1]: _array(arrays, name, length, column.dtype)
        for name, column in columns.items()
    }
    evidence = _filled(arrays, no_evidence(config.num_chains, config.islands)._asdict(), "evidence")
    blank = {name: np.asarray(0) for name in ("phase", "stage", "done")}
    place = _filled(arrays, blank, "place")
    return Checkpoint(
        state=replicate(state, config.mesh),
        phase=Phase(int(place["phase"])),
        stage=Stage(int(place["stage"])),
        done=int(place["done"]),
        history=TemperatureInfo(**rows),
        evidence=AnnealingEvidence(**{name: np.asarray(x) for name, x in evidence.items()}),
    )


def run_length_of(arrays: dict[str, np.ndarray]) -> RunLength:
    """Return the length that the run had when it wrote the checkpoint."""
    blank = {name: np.asarray(0) for name in RunLength._fields}
    return RunLength(**{name: int(x) for name, x in _filled(arrays, blank, "plan").items()})


def newest_whole(
    folder: Path, found: list[int]
) -> tuple[int, dict[str, np.ndarray], InputError | None]:
    """Find the newest checkpoint of which every file is as it was written.

    Args:
      folder: of checkpoints.
      found: their numbers, the newest first.

    Returns:
      Its number (0 where there is none) and arrays, and the error of a newer one, or None.
    """
    trouble = None
    for number in found:
        try:
            parts = manifests.read_manifest(folder, number)
            suffixes = [manifests.ending(i, len(parts)) for i in range(len(parts))]
            own = jax.process_index() if len(parts) == jax.process_count() else 0
            arrays: dict[str, np.ndarray] = {}
            for i, (part, ending) in enumerate(zip(parts, suffixes, strict=True)):
                name = f"{number:08d}{ending}.safetensors"
                needed = i == 0 or name in part.files
                content = manifests.arrays_of(folder, part, name) if needed else {}
                reduced = {k: v for k, v in content.items() if k.startswith("reduced/")}
                arrays |= content if i == 0 else {}
                if i == own:
                    arrays = {k: v for k, v in arrays.items() if k not in reduced} | reduced
            for shard in counted(folder, parts):
                read_checked(shard.path, shard.digest)
            return number, arrays, trouble
        except InputError as error:
            trouble = trouble or error
    return 0, {}, trouble


def reduced_arrays(checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """Return the arrays of the accumulator, which belongs to the chains of this process."""
    return _named(checkpoint.reduced, "reduced")


def reduced_of(arrays: dict[str, np.ndarray], config: RunConfig) -> Any:
    """Return the accumulator of `RunConfig.reduce`, or None before the first draw."""
    if config.reduce is None or not arrays:
        return None
    nothing = jax.tree.map(lambda x: np.zeros((1, *x.shape), x.dtype), config.kept)
    shapes = jax.tree.map(np.asarray, config.reduce(None, nothing))
    leaves = [arrays.get(name) for name in _named(shapes, "reduced")]
    if any(leaf is None for leaf in leaves) or len(leaves) != len(arrays):
        raise expected("checkpoint.reduced", f"{len(leaves)} arrays", sorted(arrays))
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def _named(tree: ArrayTree, part: str) -> dict[str, Any]:
    """Return the leaves of a tree as NumPy arrays, by names that say where they stand."""
    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {_name(part, i, path): _raw(leaf) for i, (path, leaf) in enumerate(found)}


def _name(part: str, index: int, path: Any) -> str:
    where = ".".join(stored_field(re.sub(r"\W", "", str(key))) for key in path)
    return f"{part}/{index:03d}.{where}"


def _filled(arrays: dict[str, np.ndarray], like: Any, part: str, impl: Any = None) -> Any:
    """Return a tree like `like` with the saved leaves, whose shapes and types must agree.

    `impl` is the implementation of the random keys in the tree.
    """
    found, structure = jax.tree_util.tree_flatten_with_path(like)
    result = []
    for i, (path, leaf) in enumerate(found):
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        raw = jax.eval_shape(jax.random.key_data, leaf) if is_key else leaf
        got = _array(arrays, _name(part, i, path), raw.shape, raw.dtype)
        if is_key:
            result.append(jax.random.wrap_key_data(jnp.asarray(got), impl=impl))
        else:
            result.append(jnp.asarray(got) if isinstance(leaf, jax.ShapeDtypeStruct) else got)
    return jax.tree.unflatten(structure, result)


def _array(arrays: dict[str, np.ndarray], name: str, shape: Any, dtype: DTypeLike) -> np.ndarray:
    got = arrays.get(name)
    if got is None or got.shape != tuple(shape) or got.dtype != dtype:
        found = None if got is None else f"{got.dtype}{list(got.shape)}"
        hint = "It was written by another version: resume with that one, or start again"
        raise expected(f"checkpoint.{name}", f"{dtype}{list(shape)}", found, hint)
    return got


def _raw(leaf: Any) -> np.ndarray:
    """Return a leaf as a NumPy array; of a random key, its words."""
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)
