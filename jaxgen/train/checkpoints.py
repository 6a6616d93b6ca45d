"""Checkpoints of training: a folder in which Orbax keeps the newest state, whole.

A state is written beside the last one, which is deleted when the new one has its name; a run
that is killed meanwhile finds one or the other.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.types import Array, ArrayTree
from jaxgen.sampler.checkpoint.files import line
from jaxgen.sampler.checkpoint.snapshots import checkpointer

__all__ = ["load_state", "newest", "save_state"]

_HINT = "Delete it, or give another --out"


def save_state(path: str | Path, step: int, state: ArrayTree, fingerprint: str = "") -> None:
    """Write a state under its number of updates, then delete those before it.

    Args:
      path: the checkpoint's folder.
      step: updates done.
      state: a pytree of arrays.
      fingerprint: of the recipe, which `load_state` asks for.
    """
    folder = Path(path).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    leaves = {f"{i:05d}": _raw(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    tree = {
        # Orbax has no empty arrays; they are what they are in any state of the structure.
        "leaves": {name: leaf for name, leaf in leaves.items() if leaf.size},
        "fingerprint": np.frombuffer(fingerprint.encode() + b"\0", np.uint8),
    }
    name = f"{step:09d}"
    checkpointer().save(folder / name, tree, force=True)
    for other in folder.iterdir():
        if other.name != name and re.match(r"\d{9}", other.name):
            shutil.rmtree(other, ignore_errors=True)


def newest(path: str | Path) -> Path | None:
    """The last whole state in a checkpoint's folder, if there is one."""
    found = sorted(x for x in Path(path).glob("*") if re.fullmatch(r"\d{9}", x.name))
    return found[-1] if found else None


def load_state(path: str | Path, like: ArrayTree, fingerprint: str = "") -> tuple[int, ArrayTree]:
    """Updates done and the newest state, in the structure, shapes and types of `like`.

    Raises:
      InputError: if it was written by another recipe or is damaged.
    """
    place = newest(path)
    if place is None:
        raise expected(str(path), "a folder with a training checkpoint", "none", _HINT)
    try:
        tree = checkpointer().restore(place.absolute())
        found, theirs = tree.get("leaves", {}), bytes(tree["fingerprint"])[:-1].decode()
    except Exception as error:  # Orbax, tensorstore and JSON each have their own
        raise expected(str(place), "a training checkpoint", line(error), _HINT) from error
    if theirs != fingerprint:
        raise expected(str(place), "a checkpoint of this recipe", "one of another", _HINT)
    leaves, structure = jax.tree.flatten(like)
    new = []
    for i, leaf in enumerate(leaves):
        raw = _raw(leaf)
        got = found.get(f"{i:05d}") if raw.size else raw
        if got is None or got.shape != raw.shape or got.dtype != raw.dtype:
            what = "nothing" if got is None else f"{got.dtype}{list(got.shape)}"
            wanted = f"{raw.dtype}{list(raw.shape)} as leaf {i}"
            raise expected(str(place), wanted, what, _HINT)
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        new.append(jax.random.wrap_key_data(jnp.asarray(got)) if is_key else jnp.asarray(got))
    return int(place.name), jax.tree.unflatten(structure, new)


def _raw(leaf: Array) -> np.ndarray:
    """A leaf as NumPy has it; keys (of dropout layers) as their words."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)
