"""Journeys as checkpoints: arrays with names, and back.

A name is the part of the journey and the place in its tree, as in `state/003.chains.tilt`, so
that a checkpoint of another shape is refused by what differs.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.sampler.config import Setup
from jaxgen.sampler.loop import Evidence, Journey, Plan, no_evidence
from jaxgen.sampler.results import NO_HISTORY
from jaxgen.sampler.sharding import replicate
from jaxgen.sampler.state import TemperatureInfo

__all__ = ["journey_arrays", "journey_of", "plan_of", "reduced_arrays", "reduced_of"]


def journey_arrays(journey: Journey, plan: Plan) -> dict[str, np.ndarray]:
    """All of a journey that is the same in every process, and the plan that it followed."""
    place = {"phase": journey.phase, "stage": journey.stage, "done": journey.done}
    return {
        **_named(journey.state, "state"),
        **_named(place, "place"),
        **_named(journey.history._asdict(), "history"),
        **_named(journey.evidence._asdict(), "evidence"),
        **_named(plan._asdict(), "plan"),
    }


def journey_of(arrays: dict[str, np.ndarray], setup: Setup, key: Any) -> Journey:
    """The inverse of `journey_arrays`, for a run of this setup; `InputError` if it is another's."""
    # Without its devices: shapes lie nowhere, and what is traced cannot be put on any.
    like = jax.eval_shape(dataclasses.replace(setup, mesh=None).blank, key)
    state = _filled(arrays, like, "state", jax.random.key_impl(key))
    columns = {name: column for name, column in _named(NO_HISTORY._asdict(), "history").items()}
    length = arrays.get(next(iter(columns)), np.zeros(0)).shape[:1] or (0,)
    rows = {
        name.split(".")[-1]: _array(arrays, name, length, column.dtype)
        for name, column in columns.items()
    }
    evidence = _filled(arrays, no_evidence(setup.num_chains, setup.islands)._asdict(), "evidence")
    blank = {name: np.asarray(0) for name in ("phase", "stage", "done")}
    place = _filled(arrays, blank, "place")
    return Journey(
        state=replicate(state, setup.mesh),
        phase=int(place["phase"]),
        stage=int(place["stage"]),
        done=int(place["done"]),
        history=TemperatureInfo(**rows),
        evidence=Evidence(**{name: np.asarray(x) for name, x in evidence.items()}),
    )


def plan_of(arrays: dict[str, np.ndarray]) -> Plan:
    """The plan that the run followed when it wrote the checkpoint."""
    blank = {name: np.asarray(0) for name in Plan._fields}
    return Plan(**{name: int(x) for name, x in _filled(arrays, blank, "plan").items()})


def reduced_arrays(journey: Journey) -> dict[str, np.ndarray]:
    """The accumulator, which is of this process's chains."""
    return _named(journey.reduced, "reduced")


def reduced_of(arrays: dict[str, np.ndarray], setup: Setup) -> Any:
    """The accumulator of `Setup.reduce`, or None before the first draw."""
    if setup.reduce is None or not arrays:
        return None
    nothing = jax.tree.map(lambda x: np.zeros((1, *x.shape), x.dtype), setup.kept)
    shapes = jax.tree.map(np.asarray, setup.reduce(None, nothing))
    leaves = [arrays.get(name) for name in _named(shapes, "reduced")]
    if any(leaf is None for leaf in leaves) or len(leaves) != len(arrays):
        raise expected("checkpoint.reduced", f"{len(leaves)} arrays", sorted(arrays))
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def _named(tree: Any, part: str) -> dict[str, Any]:
    """The tree's leaves as NumPy arrays, by names that say where they stand."""
    found = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {_name(part, i, path): _raw(leaf) for i, (path, leaf) in enumerate(found)}


def _name(part: str, index: int, path: Any) -> str:
    where = ".".join(re.sub(r"\W", "", str(key)) for key in path)
    return f"{part}/{index:03d}.{where}"


def _filled(arrays: dict[str, np.ndarray], like: Any, part: str, impl: Any = None) -> Any:
    """A tree like `like` with the saved leaves, whose shapes and types must agree.

    `impl` is the kind of generator that the tree's keys are of.
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


def _array(arrays: dict[str, np.ndarray], name: str, shape: Any, dtype: Any) -> np.ndarray:
    got = arrays.get(name)
    if got is None or got.shape != tuple(shape) or got.dtype != dtype:
        found = None if got is None else f"{got.dtype}{list(got.shape)}"
        hint = "It was written by another version: go on with that one, or start again"
        raise expected(f"checkpoint.{name}", f"{dtype}{list(shape)}", found, hint)
    return got


def _raw(leaf: Any) -> np.ndarray:
    """A leaf as NumPy has it: keys as their words, on devices or shapes of arrays alike."""
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)
