"""The one training loop: a pure step, scanned in jitted chunks, resumed exactly.

`step(state, batch, key) -> (state, metrics)` is all that a method has to give. Step t
uses `fold_in(key, t)` and nothing else, for its batch and for its noise, so a run is the
same in any number of chunks, straight through or stopped and resumed.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxgen.core.errors import expected
from jaxgen.core.types import Array, ArrayTree, Device, PRNGKey
from jaxgen.sampler.checkpoint.folder import Interrupted, Preempted
from jaxgen.sampler.checkpoint.process import signals
from jaxgen.train.checkpoints import load_state, newest, save_state, training_lock

__all__ = ["Batcher", "EarlyStop", "Step", "train_loop"]

Metrics = dict[str, Array]


class Step(Protocol):
    """One update: `(state, batch, key) -> (state, metrics)`; the key is consumed."""

    def __call__(
        self, state: ArrayTree, batch: ArrayTree, key: PRNGKey, /
    ) -> tuple[ArrayTree, Metrics]:
        """Return the state after one update, and figures of it."""
        ...


class Batcher(Protocol):
    """A batch from the data: `(data, key) -> batch`; the key is consumed."""

    def __call__(self, data: ArrayTree, key: PRNGKey, /) -> ArrayTree:
        """Return a batch."""
        ...


class EarlyStop(NamedTuple):
    """Stop when a figure has not fallen for a while; the run's result is then the best state.

    Attributes:
      measure: of a state, as the loss on data that are not trained on: lower is better.
      every: updates from one measurement to the next.
      patience: measurements without a new least figure before the run ends.
    """

    measure: Callable[[ArrayTree], Any]
    every: int
    patience: int = 5


class _Watch(NamedTuple):
    """The state of early stopping: the best state, its figure, and the measurements since."""

    best: ArrayTree
    least: Array
    since: Array


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
    devices: Sequence[Device] | None = None,
    early: EarlyStop | None = None,
) -> ArrayTree:
    """Run `steps` updates, or fewer with `early`.

    With several devices the run is data parallel: each batch is spread over them along its
    first axis, state and data are on all of them, and the compiler sums over devices where the
    step has a sum or a mean over the batch. Random numbers do not depend on the devices. What
    is summed in another order is rounded differently, so results agree with those of one
    device to float32's precision at first, and drift apart as any two roundings do in training.

    With a checkpoint, SIGTERM and Ctrl-C write it before they end the run: after the update
    under way, or with `scan` after the chunk. A second Ctrl-C interrupts at once.

    Args:
      key: the run's key; step t uses `fold_in(key, t)`.
      state: the state before step 0, a pytree of arrays.
      step: the update, traced once.
      batcher: what a step's batch is; draws with replacement need no epoch to resume in.
      data: the arrays the batches come from, passed to the compiled chunk as arguments.
      steps: how many updates in all.
      chunk: updates per compiled call.
      checkpoint: a folder to resume from if there is one, and to write to as the run goes on.
      fingerprint: what the checkpoint must have been written with (the recipe).
      scan: one compiled loop per chunk; if not, one compiled step, called from Python. XLA's
        CPU convolutions are several times slower inside a compiled loop than outside.
      every: chunks between checkpoints.
      progress: called with the number of updates done and the chunk's mean metrics.
      visit: called with (updates done, state) at each of `stops` and at the end.
      stops: numbers of updates at which a chunk must end.
      devices: to spread batches over, of this process; by default all is on the first one.
      early: when to stop before.

    Returns:
      The state after `steps` updates; with `early` the one of the least figure.

    Raises:
      jaxgen.Preempted, KeyboardInterrupt: after SIGTERM, after Ctrl-C.
      InputError: for a batch whose first axis is not a multiple of the number of devices.
    """
    mesh = None if devices is None else Mesh(np.asarray(devices), ("batch",))
    everywhere = None if mesh is None else NamedSharding(mesh, PartitionSpec())

    done, watch, measured = 0, None, set[int]()
    if early is not None:
        for name in ("every", "patience"):
            if getattr(early, name) < 1:
                raise expected(f"early.{name}", "at least 1", getattr(early, name))
        watch = _Watch(state, jnp.asarray(jnp.inf), jnp.asarray(0))
        measured = {*range(early.every, steps, early.every), steps}
    with training_lock(checkpoint), _noted(checkpoint) as pending:
        if checkpoint is not None and newest(checkpoint) is not None:
            done, (state, watch) = load_state(checkpoint, (state, watch), fingerprint)
        if everywhere is not None:
            state, data = jax.device_put((state, data), everywhere)
        advance = _advancing(key, step, batcher, data, mesh, scan=scan, pending=pending)
        ends = {*range(chunk, steps, chunk), *(s for s in stops if s < steps), *measured, steps}
        ended = _waited(watch, early)
        for count, end in enumerate(sorted(e for e in ends if e > done)):
            if ended:
                break
            done, state, metrics = advance(state, done, end)
            if progress is not None:
                progress(done, {name: float(value) for name, value in metrics.items()})
            if early is not None and watch is not None and done in measured:
                watch = _watched(watch, state, early)
            ended = done == steps or _waited(watch, early)
            # Before the checkpoint: a run stopped in between visits again rather than never.
            if visit is not None and (done in stops or ended):
                visit(done, state)
            asked = pending()
            if checkpoint is not None and ((count + 1) % every == 0 or ended or asked):
                save_state(checkpoint, done, (state, watch), fingerprint)
            if checkpoint is not None and asked:
                stop = Interrupted if asked == signal.SIGINT else Preempted
                raise stop(Path(checkpoint).absolute())
        return state if watch is None else watch.best


def _advancing(
    key: PRNGKey,
    step: Step,
    batcher: Batcher,
    data: ArrayTree,
    mesh: Mesh | None,
    *,
    scan: bool,
    pending: Callable[[], int],
) -> Callable[[ArrayTree, int, int], tuple[int, ArrayTree, Metrics]]:
    """Return the function that runs updates start .. end - 1 from a state.

    It returns the number of updates done, the state and the mean metrics. Without `scan` it stops
    earlier where `pending` says that a signal has come.
    """
    everywhere = None if mesh is None else NamedSharding(mesh, PartitionSpec())

    def body(state: ArrayTree, data: ArrayTree, t: Array) -> tuple[ArrayTree, Metrics]:
        batch_key, step_key = jax.random.split(jax.random.fold_in(key, t))
        batch = batcher(data, batch_key)
        if mesh is None:
            return step(state, batch, step_key)
        state, metrics = step(state, _spread(batch, mesh), step_key)
        return jax.lax.with_sharding_constraint((state, metrics), everywhere)

    @partial(jax.jit, static_argnames="length")
    def scanned(
        state: ArrayTree, data: ArrayTree, start: Array, length: int
    ) -> tuple[ArrayTree, Metrics]:
        state, metrics = jax.lax.scan(
            lambda state, t: body(state, data, t), state, start + jnp.arange(length)
        )
        return state, jax.tree.map(jnp.mean, metrics)

    one = jax.jit(body)

    def advance(state: ArrayTree, start: int, end: int) -> tuple[int, ArrayTree, Metrics]:
        if scan:
            return end, *scanned(state, data, jnp.asarray(start), end - start)
        metrics: list[Metrics] = []
        for t in range(start, end):
            state, values = one(state, data, jnp.asarray(t))
            metrics.append(values)
            if pending():
                end = t + 1
                break
        return end, state, jax.tree.map(lambda *v: jnp.mean(jnp.stack(v)), *metrics)

    return advance


def _noted(
    checkpoint: str | Path | None,
) -> contextlib.AbstractContextManager[Callable[[], int]]:
    """Note signals where there is a checkpoint to write; without one they act as ever."""
    return contextlib.nullcontext(lambda: 0) if checkpoint is None else signals()


def _spread(batch: ArrayTree, mesh: Mesh) -> ArrayTree:
    """Return a batch, its first axis divided between the devices."""

    def spread(leaf: Array) -> Array:
        if leaf.ndim == 0 or leaf.shape[0] % mesh.size:
            raise expected("batch", f"a multiple of {mesh.size} devices", leaf.shape[:1])
        return jax.lax.with_sharding_constraint(
            leaf, NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]))
        )

    return jax.tree.map(spread, batch)


def _watched(watch: _Watch, state: ArrayTree, early: EarlyStop) -> _Watch:
    """After one more measurement; NaN is no improvement."""
    figure = jnp.asarray(early.measure(state), watch.least.dtype)
    if figure < watch.least:
        return _Watch(state, figure, jnp.asarray(0))
    return watch._replace(since=watch.since + 1)


def _waited(watch: _Watch | None, early: EarlyStop | None) -> bool:
    """Return whether there has been no improvement for long enough."""
    return watch is not None and early is not None and bool(watch.since >= early.patience)
