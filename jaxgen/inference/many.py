"""Many posteriors that differ in data alone, sampled by one compiled program.

    for each batch of items:   vmap(sample)(fold_in(key, i), make(item_i)),   i in the batch

Labels, masks, observations, noise levels and weights are data, so a thousand classes or images
are one program. Every item has temperatures, steps and inverse masses of its own.

A batch suits an accelerator, which is idle otherwise; its items wait for the slowest. A CPU is
busy with the chains of one item, and gains nothing from a batch: there every item runs by
itself, one on each core, and its bits are those of `sample`.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.deprecation import former_keyword
from jaxgen.core.errors import InputError, check_integer, expected
from jaxgen.core.keys import as_key
from jaxgen.core.platform import platform
from jaxgen.core.pytree import as_data
from jaxgen.core.tracing import is_traced
from jaxgen.core.types import ArrayTree, PRNGKey
from jaxgen.inference.sample import sample
from jaxgen.sampler.prepare import density_of, path_of
from jaxgen.sampler.results import SampleResult
from jaxgen.sampler.tile import items_that_fit
from jaxgen.target.path import AnnealedPath

__all__ = ["sample_each"]

# Items in one program on an accelerator: enough to fill it, few enough that not many wait for
# the slowest.
_BATCH = 16


@former_keyword("moves", "num_mcmc_steps")
def sample_each(
    key: PRNGKey,
    make: Any,
    items: ArrayTree,
    kernel: Any = None,
    *,
    batch: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    which: Sequence[int] | None = None,
    each: Callable[[int, SampleResult | InputError], None] | None = None,
    **settings: Any,
) -> list[SampleResult]:
    """Draw from `make(item)` for each item.

    Args:
      key: the run's key, or an integer; item i uses `fold_in(key, i)`, whatever the batch.
      make: `item -> Posterior` (or `AnnealedPath`), a function or a callable pytree; it is
        traced. A function is recognised by itself, so define it once; what it closes over
        becomes a constant of the program, so networks of many weights belong into a callable
        pytree.
      items: a tree of arrays `[N, ...]`: labels, observations, masks, noise levels.
      kernel: as in `sample`.
      batch: items in one program, at most: by default 1 on a CPU, and elsewhere as many as
        fill `memory` (4 GiB of activations unless it is given) with their tiles of chains, 16 at
        most. Kept draws come on top of that: give a smaller batch where they are large.
      progress: called with (items done, how many there are to do) after each batch.
      which: the numbers of the items to sample, all by default: what is left after some have
        been done. An item has the same key, and so the same draws, whichever others there are.
      each: called with an item's number and its result as soon as that is there, in the order
        of `which`, to write it down; then nothing is kept, and the list that is returned is
        empty. An item that failed is handed over as its `InputError`, and the others go on.
      settings: of `sample`, for all items; numbers, lists of numbers, names, functions.

    Returns:
      N results, each as `sample` returns it, with notes of its own.

    Raises:
      InputError: inside a transformation of JAX, for items of different lengths, and for what
        `sample` refuses; it names the item that failed, unless `each` is there to be told.
    """
    if is_traced(key, items):
        hint = "there, map `sample` itself: jax.vmap(lambda item: jaxgen.sample(key, make(item)))"
        raise expected("sample_each", "a call outside of jax.jit and jax.vmap", "a trace", hint)
    key = as_key(key)
    lengths = {leaf.shape[0] if jnp.ndim(leaf) else 0 for leaf in jax.tree.leaves(items)}
    if len(lengths) != 1 or 0 in lengths:
        raise expected("items", "arrays [N, ...] of one length N", f"lengths {sorted(lengths)}")
    count = lengths.pop()
    if batch is not None:
        check_integer("batch", batch, 1)
    todo = _chosen(which, count)
    if not len(todo):
        return []
    make = as_data(make)
    first = jax.tree.map(lambda x: x[int(todo[0])], items)
    path = path_of(make(first))
    _check_sizes(settings)
    most = batch or _items_at_once(path, settings)
    # Shared out evenly: what the last batch lacks is filled up, and costs as much as items do.
    size = -(-len(todo) // -(-len(todo) // most))
    frozen = tuple(sorted((name, _hashable(value)) for name, value in settings.items()))

    def run(start: int) -> list[SampleResult | InputError]:
        # The last batch is filled up with copies, so that nothing is compiled twice.
        index = todo[np.minimum(np.arange(start, start + size), len(todo) - 1)]
        chosen = jax.tree.map(lambda x: jnp.asarray(x)[index], items)
        found = _on_host(_batch(key, index, make, chosen, kernel, frozen))
        here = range(min(size, len(todo) - start))
        return [_settled(jax.tree.map(lambda x, i=i: x[i], found), int(index[i])) for i in here]

    results: list[SampleResult] = []
    done = 0

    def take(start: int, outcomes: list[SampleResult | InputError]) -> None:
        nonlocal done
        for item, outcome in zip(todo[start:], outcomes, strict=False):
            if each is not None:
                each(int(item), outcome)
            elif isinstance(outcome, InputError):
                raise outcome
            else:
                results.append(outcome)
        done += len(outcomes)
        _tell(progress, done, len(todo))

    starts = range(0, len(todo), size)
    # The first batch compiles, so that the others find the program there.
    take(0, run(0))
    workers = _cores() if size == 1 and platform() == "cpu" else 1
    settings_here = _settings_of_thread()
    with ThreadPoolExecutor(workers) as pool:
        waiting = [(start, pool.submit(settings_here, run, start)) for start in starts[1:]]
        try:
            for start, future in waiting:
                take(start, future.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return results


def _check_sizes(settings: dict[str, Any]) -> None:
    """Refuse what a batch cannot be chosen from, on any platform."""
    if "num_chains" in settings:
        check_integer("num_chains", settings["num_chains"], 1)
    for name in ("tile", "memory"):
        if settings.get(name) is not None:
            check_integer(name, settings[name], 1)


def _items_at_once(path: AnnealedPath, settings: dict[str, Any]) -> int:
    """Return how many items make a batch: one on a CPU, elsewhere what the memory holds."""
    if platform() == "cpu":
        return 1
    position = jax.eval_shape(path.start.sample, jax.random.key(0))
    default = inspect.signature(sample).parameters["num_chains"].default
    chains = settings.get("num_chains", default)
    tile, memory = settings.get("tile"), settings.get("memory")
    return min(_BATCH, items_that_fit(density_of(path), position, chains, tile, memory))


def _tell(progress: Callable[[int, int], None] | None, done: int, count: int) -> None:
    if progress is not None:
        progress(done, count)


def _settings_of_thread() -> Callable[..., Any]:
    """Return a caller that gives another thread the settings of JAX that hold in this one.

    `with jax.enable_x64(True):` and its like hold in the thread that they are written in.
    """
    config: Any = jax.config
    settings = [
        (jax.enable_x64, config.jax_enable_x64),
        (jax.default_matmul_precision, config.jax_default_matmul_precision),
        (jax.default_device, config.jax_default_device),
        (jax.numpy_dtype_promotion, config.jax_numpy_dtype_promotion),
        (jax.numpy_rank_promotion, config.jax_numpy_rank_promotion),
    ]

    def call(function: Callable[..., Any], *args: Any) -> Any:
        with contextlib.ExitStack() as stack:
            for setting, value in settings:
                stack.enter_context(setting(value))
            return function(*args)

    return call


def _settled(result: SampleResult, item: int) -> SampleResult | InputError:
    try:
        return result.settled()
    except InputError as error:
        return InputError(f"item {item}: {error}")


def _chosen(which: Sequence[int] | None, count: int) -> np.ndarray:
    """Return the numbers of the items to sample, `[n]`."""
    if which is None:
        return np.arange(count)
    chosen = np.asarray(which, np.int64).reshape(-1)
    if len(set(chosen.tolist())) < len(chosen) or np.any((chosen < 0) | (chosen >= count)):
        raise expected("which", f"different numbers from 0 to {count - 1}", list(which))
    return chosen


def _cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _hashable(value: Any) -> Any:
    """Return lists of numbers, such as betas, as tuples."""
    if isinstance(value, list | np.ndarray | jax.Array) and np.ndim(value):
        return tuple(np.asarray(value).tolist())
    return value


def _on_host(result: SampleResult) -> SampleResult:
    """Return the result as NumPy arrays; random keys, which NumPy does not know, stay keys."""

    def fetched(leaf: Any) -> Any:
        key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return leaf if key else np.asarray(leaf)

    return jax.tree.map(fetched, result)


@functools.partial(jax.jit, static_argnames="settings")
def _batch(
    key: PRNGKey,
    index: Any,
    make: Any,
    items: ArrayTree,
    kernel: Any,
    settings: tuple[tuple[str, Any], ...],
) -> SampleResult:
    def one(index: Any, item: ArrayTree) -> SampleResult:
        return sample(jax.random.fold_in(key, index), make(item), kernel, **dict(settings))

    if index.shape[0] > 1:
        return jax.vmap(one)(index, items)
    result = one(index[0], jax.tree.map(lambda x: x[0], items))
    return jax.tree.map(lambda x: jnp.asarray(x)[None], result)
