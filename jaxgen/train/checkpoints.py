"""Checkpoints of training: a folder with the last two states, each with the SHA-256 of its file.

A state is written beside the others, its manifest last, and only then the oldest goes: a run
that is killed at any moment finds a whole one. If the newest is damaged, the one before it
serves, and the updates since are done again.
"""

from __future__ import annotations

import contextlib
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.atomic import acquire
from jaxgen.core.errors import InputError, expected
from jaxgen.core.types import Array, ArrayTree
from jaxgen.sampler.checkpoint import manifests
from jaxgen.sampler.checkpoint.files import line, space, write_arrays

__all__ = ["load_state", "newest", "save_state", "training_lock"]

_HINT = "Delete it, or give another --out"
_RECIPE = "fingerprint"


@contextlib.contextmanager
def training_lock(path: str | Path | None) -> Iterator[None]:
    """Hold a checkpoint's folder, so that no two processes train into it.

    Raises:
      InputError: if another process does, or the folder cannot be written.
    """
    if path is None:
        yield
        return
    folder = Path(path).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = acquire(folder / "lock")
    except BlockingIOError as error:
        hint = "Wait for the other run, or give another --out"
        raise expected(
            str(path), "a checkpoint that no other process writes", "one in use", hint
        ) from error
    except OSError as error:
        raise expected(str(path), "a folder that can be written", line(error)) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if {entry.name for entry in folder.iterdir()} <= {"lock"}:
                (folder / "lock").unlink()
                folder.rmdir()
        os.close(handle)


def save_state(path: str | Path, step: int, state: ArrayTree, fingerprint: str = "") -> None:
    """Write a state under its number of updates, then delete those before the last two.

    Args:
      path: the checkpoint's folder.
      step: updates done.
      state: a pytree of arrays.
      fingerprint: of the recipe, which `load_state` asks for.
    """
    folder = Path(path).absolute()
    arrays = {f"{i:05d}": _raw(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    arrays[_RECIPE] = np.frombuffer(fingerprint.encode() + b"\0", np.uint8)
    before = [number for number in manifests.numbers(folder) if number < step]
    with space(folder):
        folder.mkdir(parents=True, exist_ok=True)
        files = {_file(step): write_arrays(folder / _file(step), arrays)}
        manifests.write_manifest(folder, manifests.Manifest(step, files, 1, step))
        manifests.forget(folder, before=before[0] if before else step)


def newest(path: str | Path) -> int | None:
    """Return the number of updates of the last state in a checkpoint's folder, if there is one."""
    folder = Path(path)
    found = manifests.numbers(folder)
    if found:
        return found[0]
    former = folder.is_dir() and any(re.fullmatch(r"\d{9}", x.name) for x in folder.iterdir())
    if former:
        raise expected(str(path), "a checkpoint of this version", "one of a former", _HINT)
    return None


def load_state(path: str | Path, like: ArrayTree, fingerprint: str = "") -> tuple[int, ArrayTree]:
    """Return updates done and the newest whole state, in structure, shapes and types of `like`.

    Raises:
      InputError: if it was written by another recipe, or both states are damaged.
    """
    folder = Path(path)
    if newest(path) is None:
        raise expected(str(path), "a folder with a training checkpoint", "none", _HINT)
    step, found = _newest_whole(folder)
    place = folder / _file(step)
    theirs = bytes(found.pop(_RECIPE, np.zeros(1, np.uint8)))[:-1].decode(errors="replace")
    if theirs != fingerprint:
        raise expected(str(place), "a checkpoint of this recipe", "one of another", _HINT)
    leaves, structure = jax.tree.flatten(like)
    if len(leaves) != len(found):
        raise expected(str(place), f"{len(leaves)} arrays", len(found), _HINT)
    new = []
    for i, leaf in enumerate(leaves):
        raw, got = _raw(leaf), found.get(f"{i:05d}")
        if got is None or got.shape != raw.shape or got.dtype != raw.dtype:
            what = "nothing" if got is None else f"{got.dtype}{list(got.shape)}"
            wanted = f"{raw.dtype}{list(raw.shape)} as leaf {i}"
            raise expected(str(place), wanted, what, _HINT)
        value = jnp.asarray(got)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            value = jax.random.wrap_key_data(value, impl=jax.random.key_impl(leaf))
        new.append(value)
    return step, jax.tree.unflatten(structure, new)


def _newest_whole(folder: Path) -> tuple[int, dict[str, np.ndarray]]:
    trouble: InputError | None = None
    for step in manifests.numbers(folder):
        try:
            (manifest,) = manifests.read_manifest(folder, step)
            arrays = manifests.arrays_of(folder, manifest, _file(step))
        except (InputError, ValueError) as error:
            trouble = trouble or expected(str(folder), "a training checkpoint", line(error), _HINT)
            continue
        if trouble is not None:
            warnings.warn(f"{trouble}. The one before it, {_file(step)}, serves", stacklevel=3)
        return step, arrays
    raise trouble or expected(str(folder), "a training checkpoint", "none", _HINT)


def _file(step: int) -> str:
    return f"{step:08d}.safetensors"


def _raw(leaf: Array) -> np.ndarray:
    """Return a leaf as NumPy has it; keys (of dropout layers) as their words."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)
