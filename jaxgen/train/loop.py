"""The one training loop: a pure step, scanned in jitted chunks, resumed exactly.

`step(state, batch, key) -> (state, metrics)` is all that a method has to give. Step t
uses `fold_in(key, t)` and nothing else, for its batch and for its noise, so a run is the
same in any number of chunks, straight through or stopped and resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgen.errors import expected
from jaxgen.types import Array, ArrayTree, PRNGKey
from jaxgen.whole_files import replacing

__all__ = ["Batcher", "Step", "load_state", "save_state", "train_loop"]

Metrics = dict[str, Array]


class Step(Protocol):
    """One update: `(state, batch, key) -> (state, metrics)`; the key is consumed."""

    def __call__(
        self, state: ArrayTree, batch: ArrayTree, key: PRNGKey, /
    ) -> tuple[ArrayTree, Metrics]: ...


class Batcher(Protocol):
    """A batch from the data: `(data, key) -> batch`; the key is consumed."""

    def __call__(self, data: ArrayTree, key: PRNGKey, /) -> ArrayTree: ...


def train_loop(
    key: PRNGKey,
    state: ArrayTree,
    step: Step,
    batcher: Batcher,
    data: ArrayTree,
    *,
    steps: int,
    chunk: int = 100,
    checkpoint: str | Path | None = None,
    fingerprint: str = "",
    scan: bool = True,
    every: int = 10,
    progress: Callable[[int, dict[str, float]], None] | None = None,
    visit: Callable[[int, ArrayTree], None] | None = None,
    stops: tuple[int, ...] = (),
    devices: Sequence[Any] | None = None,
) -> ArrayTree:
    """Run `steps` updates.

    With several devices the run is data parallel: each batch is spread over them along its
    first axis, state and data are on all of them, and the compiler sums over devices where the
    step has a sum or a mean over the batch. Random numbers do not depend on the devices. What
    is summed in another order is rounded differently, so results agree with those of one
    device to float32's precision at first, and drift apart as any two roundings do in training.

    Args:
      key: the run's key; step t uses `fold_in(key, t)`.
      state: the state before step 0, a pytree of arrays.
      step: the update, traced once.
      batcher: what a step's batch is; draws with replacement need no epoch to resume in.
      data: the arrays the batches come from, passed to the compiled chunk as arguments.
      steps: how many updates in all.
      chunk: updates per compiled call.
      checkpoint: a file to resume from if it exists, and to write to as the run goes on.
      fingerprint: what the checkpoint must have been written with (the recipe).
      scan: one compiled loop per chunk; if not, one compiled step, called from Python. XLA's
        CPU convolutions are several times slower inside a compiled loop than outside.
      every: chunks between checkpoints.
      progress: called with the number of updates done and the chunk's mean metrics.
      visit: called with (updates done, state) at each of `stops` and at the end.
      stops: numbers of updates at which a chunk must end.
      devices: to spread batches over, of this process; by default all is on the first one.

    Returns:
      The state after `steps` updates.

    Raises:
      InputError: for a batch whose first axis is not a multiple of the number of devices.
    """
    mesh = None if devices is None else Mesh(np.asarray(devices), ("batch",))
    everywhere = None if mesh is None else NamedSharding(mesh, PartitionSpec())

    def body(state: ArrayTree, data: ArrayTree, t: Array) -> tuple[ArrayTree, Metrics]:
        batch_key, step_key = jax.random.split(jax.random.fold_in(key, t))
        batch = batcher(data, batch_key)
        if mesh is None:
            return step(state, batch, step_key)
        state, metrics = step(state, _spread(batch, mesh), step_key)
        return jax.lax.with_sharding_constraint((state, metrics), everywhere)

    @partial(jax.jit, static_argnames="length")
    def advance(
        state: ArrayTree, data: ArrayTree, start: Array, length: int
    ) -> tuple[ArrayTree, Metrics]:
        state, metrics = jax.lax.scan(
            lambda state, t: body(state, data, t), state, start + jnp.arange(length)
        )
        return state, jax.tree.map(jnp.mean, metrics)

    one = jax.jit(body)

    def advance_stepwise(
        state: ArrayTree, data: ArrayTree, start: Array, length: int
    ) -> tuple[ArrayTree, Metrics]:
        metrics: list[Metrics] = []
        for t in range(length):
            state, values = one(state, data, start + t)
            metrics.append(values)
        return state, jax.tree.map(lambda *v: jnp.mean(jnp.stack(v)), *metrics)

    done = 0
    if checkpoint is not None and Path(checkpoint).exists():
        done, state = load_state(checkpoint, state, fingerprint)
    if everywhere is not None:
        state, data = jax.device_put((state, data), everywhere)
    ends = sorted({*range(chunk, steps, chunk), *(s for s in stops if s < steps), steps})
    for count, end in enumerate(e for e in ends if e > done):
        run = advance if scan else advance_stepwise
        state, metrics = run(state, data, jnp.asarray(done), end - done)
        done = end
        if progress is not None:
            progress(done, {name: float(value) for name, value in metrics.items()})
        # Before the checkpoint: a run stopped in between visits again rather than never.
        if visit is not None and (done in stops or done == steps):
            visit(done, state)
        if checkpoint is not None and ((count + 1) % every == 0 or done == steps):
            save_state(checkpoint, done, state, fingerprint)
    return state


def _spread(batch: ArrayTree, mesh: Mesh) -> ArrayTree:
    """A batch, its first axis divided between the devices."""

    def spread(leaf: Array) -> Array:
        if leaf.ndim == 0 or leaf.shape[0] % mesh.size:
            raise expected("batch", f"a multiple of {mesh.size} devices", leaf.shape[:1])
        return jax.lax.with_sharding_constraint(
            leaf, NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]))
        )

    return jax.tree.map(spread, batch)


def save_state(path: str | Path, step: int, state: ArrayTree, fingerprint: str = "") -> None:
    """Write the leaves of a state, atomically: a temporary file beside it, then a rename."""
    path = Path(path)
    leaves = {f"leaf{i}": _raw(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}
    path.parent.mkdir(parents=True, exist_ok=True)
    leaves |= {"step": np.asarray(step), "fingerprint": np.asarray(fingerprint)}
    with replacing(path) as file:
        np.savez(file, **leaves)  # type: ignore[arg-type]


def load_state(path: str | Path, like: ArrayTree, fingerprint: str = "") -> tuple[int, ArrayTree]:
    """Read what `save_state` wrote into the structure, shapes and types of `like`.

    Raises:
      InputError: if the file was written by another recipe or is damaged.
    """
    hint = "Delete it, or give another --out."
    try:
        # Opened here: `np.load` leaves the file open when it is not a whole zip archive.
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except Exception as error:  # zipfile, zlib, numpy and the OS each have their own
        raise expected(str(path), "a training checkpoint", error, hint) from error
    if str(found.get("fingerprint")) != fingerprint:
        raise expected(str(path), "a checkpoint of this recipe", "one of another", hint)
    leaves, structure = jax.tree.flatten(like)
    new = []
    for i, leaf in enumerate(leaves):
        got = found.get(f"leaf{i}")
        raw = _raw(leaf)
        if got is None or got.shape != raw.shape or got.dtype != raw.dtype:
            raise expected(str(path), f"{raw.dtype}{list(raw.shape)} as leaf {i}", got, hint)
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        new.append(jax.random.wrap_key_data(jnp.asarray(got)) if is_key else jnp.asarray(got))
    return int(found["step"]), jax.tree.unflatten(structure, new)


def _raw(leaf: Array) -> np.ndarray:
    """A leaf as NumPy has it; keys (of dropout layers) as their words."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf)
