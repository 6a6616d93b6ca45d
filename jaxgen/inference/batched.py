"""Annealed importance sampling of many targets in one compiled program.

Targets that differ in data alone (the image that was observed, say) are a family
`item -> AnnealedPath`; the engine's program is mapped over items, so a matrix of weights
meets the chains of all images at once. Schedules and steps are fixed beforehand, which
makes every estimate unbiased; `pilot` finds the steps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.deprecation import former_keyword
from jaxgen.core.printing import prints_short
from jaxgen.core.tracing import namespace
from jaxgen.core.types import Array, ArrayTree, PRNGKey
from jaxgen.kernels import Kernel
from jaxgen.sampler import program
from jaxgen.sampler.options import ONE_BATCH, ChunkOptions, Sampler, collect_nothing
from jaxgen.sampler.state import ChunkSpec, Phase, SamplerState
from jaxgen.target.path import AnnealedPath
from jaxgen.tempering.resampling import effective_sample_size
from jaxgen.tempering.step_size import DualAveraging, PerTemperature, StepRule

__all__ = ["BatchedEvidence", "anneal", "count_items", "pilot"]

# One item -> the path that is annealed for it; a callable pytree.
Family: TypeAlias = Callable[[ArrayTree], AnnealedPath]

# Temperatures in one call of the compiled program: between two calls progress is told.
CHUNK = 10
# Small temperatures before the first one of a pilot run.
_SETTLE = 8

Progress = Callable[[int, int], None]


@prints_short
class BatchedEvidence(NamedTuple):
    """Estimates of N evidences, NumPy arrays.

    Attributes:
      log_z: `[N]`; exp(log_z) is unbiased, so log_z is a lower bound on average.
      standard_error: `[N]`, to first order.
      ess: `[N]` effective sample sizes of the weights.
      log_weight: `[N, C]`.
      position: `[N, C, ...]`, weighted draws.
      acceptance_rate: `[N]`.
      num_gradients: `[N]` for one chain.
      num_divergent: `[N]` rejected proposals that were divergent or not finite, over chains.
    """

    log_z: np.ndarray
    standard_error: np.ndarray
    ess: np.ndarray
    log_weight: np.ndarray
    position: ArrayTree
    acceptance_rate: np.ndarray
    num_gradients: np.ndarray
    num_divergent: np.ndarray


@former_keyword("moves", "num_mcmc_steps")
def anneal(
    key: PRNGKey,
    family: Family,
    items: ArrayTree,
    kernel: Kernel,
    betas: np.ndarray,
    step_sizes: np.ndarray,
    *,
    num_chains: int,
    num_mcmc_steps: int = 1,
    batch: int | None = None,
    progress: Progress | None = None,
) -> BatchedEvidence:
    """AIS with fixed temperatures and steps on `family(item)` for each item.

    Args:
      key: item i uses `fold_in(key, i)`, whatever the batch.
      family: a callable pytree, item -> `AnnealedPath`.
      items: a tree of arrays `[N, ...]`.
      kernel: how chains move.
      betas: `[T + 1]`.
      step_sizes: `[N, T]`, a step for each item and temperature.
      num_chains: C, for each item.
      num_mcmc_steps: kernel steps at each temperature.
      batch: items in one program; None for all of them.
      progress: called with (temperatures done, in all), over all batches.
    """
    count = count_items(items)
    size = count if batch is None else min(batch, count)
    tables = jnp.broadcast_to(jnp.asarray(step_sizes, jnp.float32), (count, len(betas) - 1))
    starts, temperatures = range(0, count, size), len(betas) - 1
    parts = []
    for start in starts:
        index = np.minimum(np.arange(start, start + size), count - 1)
        rules = PerTemperature(tables[index])
        told = None
        if progress is not None:
            before = len(parts) * temperatures
            told = functools.partial(_tell, progress, before, len(starts) * temperatures)
        state, _ = _run(
            key, family, items, index, kernel, rules, betas, num_chains, num_mcmc_steps, told
        )
        keep = slice(0, min(size, count - start))
        parts.append(jax.tree.map(lambda x, k=keep: x[k], _evidence(state)))
    xp = namespace(key, items)
    return jax.tree.map(lambda *x: xp.concatenate(x), *parts)


def pilot(
    key: PRNGKey,
    family: Family,
    items: ArrayTree,
    kernel: Kernel,
    betas: np.ndarray,
    *,
    num_chains: int = 8,
    most: int = 100,
    batch: int | None = None,
) -> tuple[np.ndarray, float]:
    """Return steps for each item and temperature, from a short run that adapts them.

    At most `most` of the temperatures are visited; steps are averaged over neighbours, so
    that the noise of few chains is not frozen, and interpolated.

    Returns:
      `[N, T]` step sizes, and the gradients a chain used.
    """
    temperatures = len(betas) - 1
    chosen = np.unique(np.linspace(1, temperatures, min(most, temperatures)).round().astype(int))
    visited = np.asarray(betas, np.float64)[chosen]
    # On the way to the first temperature the step settles: its first guess knows nothing of
    # the target.
    approach = visited[0] * np.linspace(0.0, 1.0, _SETTLE + 1)[:-1]
    coarse = np.concatenate([approach, visited])
    count = count_items(items)
    size = count if batch is None else min(batch, count)
    tables, gradients = [], 0.0
    xp = namespace(key, items)
    for start in range(0, count, size):
        index = np.minimum(np.arange(start, start + size), count - 1)
        rule = DualAveraging(kernel.first_step_size)
        rule = jax.tree.map(lambda x, n=size: jnp.full(n, x, jnp.float32), rule)
        state, rows = _run(key, family, items, index, kernel, rule, coarse, num_chains, 2)
        steps = xp.log(xp.maximum(rows.step_size[: count - start, _SETTLE - 1 :], 1e-6))
        tables.append(_interpolate(_smooth(steps), chosen, temperatures))
        gradients = xp.mean(xp.asarray(state.num_gradients))
    return xp.exp(xp.concatenate(tables)).astype(np.float32), gradients


def count_items(items: ArrayTree) -> int:
    """N, the length of every leaf."""
    return int(jax.tree.leaves(items)[0].shape[0])


def _run(
    key: PRNGKey,
    family: Family,
    items: ArrayTree,
    index: np.ndarray,
    kernel: Kernel,
    rules: StepRule,
    betas: np.ndarray,
    num_chains: int,
    num_mcmc_steps: int,
    progress: Callable[[int], None] | None = None,
) -> tuple[SamplerState, Any]:
    """Chunks of the mapped program until the last temperature."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.asarray(index))
    chosen = jax.tree.map(lambda x: jnp.asarray(x)[jnp.asarray(index)], items)
    schedule = jnp.asarray(betas, jnp.float32)
    state = _start(keys, family, chosen, kernel, rules, num_chains=num_chains)
    rows, temperatures = [], len(betas) - 1
    xp = namespace(key, items, family)
    # In a larger program nobody listens between two chunks.
    chunk = CHUNK if xp is np else temperatures
    for done in range(0, temperatures, chunk):
        spec = ChunkSpec.of(Phase.ANNEAL, chunk, num_mcmc_steps)
        state, row = _advance(
            state, family, chosen, kernel, rules, schedule, spec, chunk_size=chunk
        )
        rows.append(jax.device_get(row) if xp is np else row)
        if progress is not None:
            progress(min(done + chunk, temperatures))
    columns = [xp.concatenate(c, axis=1)[:, :temperatures] for c in zip(*rows, strict=True)]
    return state, type(rows[0])(*columns)


@functools.partial(jax.jit, static_argnames=("num_chains",))
def _start(
    keys: Array,
    family: Family,
    items: ArrayTree,
    kernel: Kernel,
    rules: StepRule,
    *,
    num_chains: int,
) -> SamplerState:
    def one(key: PRNGKey, item: ArrayTree, rule: StepRule) -> SamplerState:
        return program.initial_state(key, family(item), kernel, rule, num_chains=num_chains)

    return jax.vmap(one)(keys, items, rules)


@functools.partial(jax.jit, static_argnames=("chunk_size",))
def _advance(
    states: SamplerState,
    family: Family,
    items: ArrayTree,
    kernel: Kernel,
    rules: StepRule,
    schedule: Array,
    spec: ChunkSpec,
    *,
    chunk_size: int,
) -> tuple[SamplerState, Any]:
    options = ChunkOptions(None, "none", collect_nothing, ONE_BATCH, chunk_size)

    def one(state: SamplerState, item: ArrayTree, rule: StepRule) -> tuple[SamplerState, Any]:
        sampler = Sampler(family(item), kernel, rule, schedule)
        state, rows, _ = program.advance(state, sampler, spec, options)
        return state, rows

    return jax.vmap(one)(states, items, rules)


def _evidence(state: SamplerState) -> BatchedEvidence:
    log_z, error, _ = jax.vmap(program.log_evidence)(state)
    xp = namespace(state)
    steps = xp.maximum(xp.asarray(state.num_steps), 1)[:, None]
    return BatchedEvidence(
        log_z=xp.asarray(log_z),
        standard_error=xp.asarray(error),
        ess=xp.asarray(jax.vmap(effective_sample_size)(state.log_weight)),
        log_weight=xp.asarray(state.log_weight),
        position=jax.tree.map(xp.asarray, state.chains.position),
        acceptance_rate=xp.mean(xp.asarray(state.accepted) / steps, axis=1),
        num_gradients=xp.mean(xp.asarray(state.num_gradients), axis=1),
        num_divergent=xp.sum(xp.asarray(state.num_divergent), axis=1),
    )


def _smooth(table: Any, width: int = 4) -> Any:
    """Return running means over 2 width + 1 columns, over fewer at the ends."""
    xp = namespace(table)
    total = xp.cumsum(xp.pad(table, ((0, 0), (1, 0))), axis=1)
    last = table.shape[1]
    high = np.minimum(np.arange(last) + width + 1, last)
    low = np.maximum(np.arange(last) - width, 0)
    return (total[:, high] - total[:, low]) / (high - low)[None]


def _interpolate(table: Any, chosen: np.ndarray, temperatures: int) -> Any:
    wanted, xp = np.arange(1, temperatures + 1), namespace(table)
    return xp.stack([xp.interp(wanted, chosen, row) for row in table])


def _tell(progress: Progress, before: int, total: int, done: int) -> None:
    progress(before + done, total)
