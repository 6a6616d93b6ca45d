"""Journeys as checkpoints: nested dicts of NumPy arrays, kept by Orbax."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxgen.core.errors import InputError, expected
from jaxgen.sampler.checkpoint.files import line
from jaxgen.sampler.config import Setup
from jaxgen.sampler.loop import Evidence, Journey, no_evidence
from jaxgen.sampler.results import NO_HISTORY
from jaxgen.sampler.sharding import replicate
from jaxgen.sampler.state import TemperatureInfo

__all__ = ["load_journey", "save_journey"]


def save_journey(path: Path, journey: Journey) -> None:
    """Write a checkpoint; it has its name once it is whole."""
    checkpointer().save(path.absolute(), _as_tree(journey))


def load_journey(path: Path, setup: Setup, key: Any) -> Journey:
    """Read a checkpoint of a run of this setup, or raise `InputError`."""
    try:
        return _as_journey(checkpointer().restore(path.absolute()), setup, key)
    except InputError:
        raise
    except Exception as error:  # Orbax, tensorstore and JSON each have their own
        hint = "Start again in another folder"
        raise expected(str(path), "a checkpoint", line(error), hint) from error


@functools.cache
def checkpointer() -> Any:
    """Orbax's, imported when it is first needed."""
    import orbax.checkpoint

    return orbax.checkpoint.PyTreeCheckpointer()


def _as_tree(journey: Journey) -> dict[str, Any]:
    """A journey as nested dicts of NumPy arrays; empty ones are left out."""
    state = {f"{i:03d}": _raw(leaf) for i, leaf in enumerate(jax.tree.leaves(journey.state))}
    reduced = {f"{i:03d}": _raw(x) for i, x in enumerate(jax.tree.leaves(journey.reduced))}
    tree = {
        "state": state,
        "place": {
            "phase": np.asarray(journey.phase),
            "stage": np.asarray(journey.stage),
            "done": np.asarray(journey.done),
        },
        "history": journey.history._asdict(),
        "evidence": journey.evidence._asdict(),
        "reduced": reduced,
    }
    whole = {
        part: {name: np.asarray(x) for name, x in leaves.items() if np.asarray(x).size}
        for part, leaves in tree.items()
    }
    return {part: leaves for part, leaves in whole.items() if leaves}


def _as_journey(tree: dict[str, Any], setup: Setup, key: Any) -> Journey:
    """The inverse of `_as_tree`, for a run of this setup."""
    like = jax.eval_shape(setup.blank, key)
    state = _filled(tree.get("state", {}), like, "state", jax.random.key_impl(key))
    saved = tree.get("history", {})
    history = TemperatureInfo(
        *(saved.get(name, empty) for name, empty in NO_HISTORY._asdict().items())
    )
    blank = no_evidence(setup.num_chains, setup.islands)
    evidence = Evidence(*_filled(tree.get("evidence", {}), blank._asdict(), "evidence").values())
    reduced = None
    if setup.reduce is not None and "reduced" in tree:
        nothing = jax.tree.map(lambda x: np.zeros((1, *x.shape), x.dtype), setup.kept)
        shapes = setup.reduce(None, nothing)
        leaves = [tree["reduced"][f"{i:03d}"] for i in range(len(jax.tree.leaves(shapes)))]
        reduced = jax.tree.unflatten(jax.tree.structure(shapes), leaves)
    place = tree["place"]
    return Journey(
        replicate(state, setup.mesh),
        int(place["phase"]),
        int(place["stage"]),
        int(place["done"]),
        history,
        evidence,
        reduced,
    )


def _filled(saved: dict[str, np.ndarray], like: Any, part: str, impl: Any = None) -> Any:
    """A tree like `like` with the saved leaves, whose shapes and types must agree.

    `impl` is the kind of generator that the tree's keys are of.
    """
    leaves, structure = jax.tree.flatten(like)
    names = list(like) if isinstance(like, dict) else [f"{i:03d}" for i in range(len(leaves))]
    if isinstance(like, dict):
        leaves = list(like.values())
    result = []
    for name, leaf in zip(names, leaves, strict=True):
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        raw = jax.eval_shape(jax.random.key_data, leaf) if is_key else leaf
        got = saved.get(name)
        if got is None and 0 in raw.shape:
            got = np.zeros(raw.shape, raw.dtype)
        if got is None or got.shape != raw.shape or got.dtype != raw.dtype:
            found = None if got is None else f"{got.dtype}{list(got.shape)}"
            raise expected(f"checkpoint.{part}.{name}", f"{raw.dtype}{list(raw.shape)}", found)
        if is_key:
            result.append(jax.random.wrap_key_data(jax.numpy.asarray(got), impl=impl))
        elif isinstance(leaf, jax.ShapeDtypeStruct):
            result.append(jax.numpy.asarray(got))
        else:
            result.append(got)
    if isinstance(like, dict):
        return dict(zip(names, result, strict=True))
    return jax.tree.unflatten(structure, result)


def _raw(leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)
