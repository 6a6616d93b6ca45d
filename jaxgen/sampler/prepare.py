"""Settings as the user gave them, checked before anything is traced, and made complete."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import Mesh

from jaxgen.core.cache import keep_compiled
from jaxgen.core.errors import check_integer, expected
from jaxgen.core.platform import compiling_for, platform, platform_of
from jaxgen.core.tracing import is_traced
from jaxgen.core.types import ArrayTree
from jaxgen.kernels import HMC, ChainState, Kernel
from jaxgen.sampler.config import Callback, Reduce, RunConfig, size_of
from jaxgen.sampler.options import (
    Collect,
    Execution,
    Schedule,
    collect_nothing,
)
from jaxgen.sampler.progress import ProgressLine
from jaxgen.sampler.sharding import chosen_devices, mesh_for, replicate
from jaxgen.sampler.tile import choose_tile
from jaxgen.target.path import AnnealedPath, likelihood_path, path_from
from jaxgen.target.posterior import Posterior
from jaxgen.tempering.betas import Adaptive, Betas, check_betas, geometric
from jaxgen.tempering.mass_matrix import MOST_DENSE, as_form
from jaxgen.tempering.resampling import choose_islands, scheme
from jaxgen.tempering.step_size import StepRule, StepSize, as_rule

__all__ = ["LEAST_TO_LEARN", "density_of", "path_of", "prepare"]

# Iterations (temperatures, warm-up steps, draws) of the compiled program: so many that the time
# that Python takes between two calls does not matter. Draws of one call fill at most the buffer.
_MOST_ITERATIONS = 100
_BUFFER = 64 << 20

# Fewer chains than this learn nothing from each other: temperatures are fixed beforehand.
LEAST_TO_LEARN = 8
_FEW_CHAINS = (200, 1e-5)
# Fewer chains than this are too few to fit a proposal to.
_LEAST_TO_FIT = 16
# Candidates for each first state: forward passes, at a third of a gradient each.
_POOL = 32
# Kernel steps at each temperature where chains move until they have mixed (Buchholz, Chopin &
# Jacob 2021 let correlations with earlier positions decide, too). With one as the least, one of
# six runs on a Gaussian of 128 latents lost 45 nats.
_LEAST_STEPS, _MOST_STEPS = 2, 8
# The pilot's conditional ESS: it visits few temperatures.
_PILOT_CESS = 0.5


def prepare(
    target: Posterior | AnnealedPath,
    kernel: Kernel | None,
    betas: Betas,
    *,
    num_chains: int,
    num_mcmc_steps: int | None,
    step_size: StepSize,
    resample: str | None,
    resample_threshold: float,
    precondition: bool | str,
    execution: Execution,
    precision: str = "highest",
    progress: Callback | bool | None = None,
    collect: Collect | None = None,
    reduce: Reduce | None = None,
    num_islands: int | None = None,
    pool: int | None = 1,
    pilot: bool | None = False,
    start: Any = None,
) -> RunConfig:
    """Check what the user gave, before anything is traced, and fill in the defaults.

    The arguments are those of `jaxgen.sample`; `execution` has its `tile`, `memory`, `devices` and
    `shard_weights`. Where `collect` is None, nothing is kept of a draw.

    Raises:
      InputError: for settings that cannot be used, or not together.
    """
    keep_compiled()
    path = path_of(target)
    if isinstance(progress, bool):
        progress = ProgressLine() if progress else None
    mover = HMC(10, jitter=True) if kernel is None else kernel
    if not isinstance(mover, Kernel):
        raise expected("kernel", "a kernel of jaxgen.kernels", type(kernel).__name__)
    mover.check(path)
    _check_numbers(num_chains, num_mcmc_steps, execution, num_islands, pool, resample_threshold)
    if resample is not None:
        scheme(resample)
    if reduce is not None and not callable(reduce):
        raise expected("reduce", "a function of an accumulator and a chunk of draws", reduce)
    rule = _rule_of(step_size, mover)
    few = num_chains < LEAST_TO_LEARN
    schedule = _schedule(betas, few)
    if few and precondition is True:
        precondition = False

    if hasattr(start, "sample") and hasattr(start, "log_prob"):
        path = path_from(start, path)
        start = None
    position = jax.eval_shape(path.start.sample, jax.random.key(0))
    if start is not None:
        start = _positions(start, position, num_chains)
        pool, pilot = 1, False
    dimension = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(position))
    # Inside a transformation whoever jits the whole decides where arrays lie.
    traced = is_traced(path, mover, schedule, rule, start)
    tile, mesh = _layout(path, position, num_chains, execution, traced)
    learns = resample is not None and not few
    wide = learns and _can_have_a_pool(schedule, path, mover)
    pool = _pool_of(pool, wide)
    pilot = _pilot_of(pilot, wide and pool > 1, mover, dimension, num_chains)
    first = _pilot_schedule(schedule) if pilot else None
    least, most = _mcmc_steps(num_mcmc_steps, few=few, pilot=pilot)
    islands = choose_islands(num_chains) if num_islands is None else num_islands
    if num_chains % islands:
        raise expected("num_islands", f"a divisor of num_chains, {num_chains}", islands)
    given = {"path": path, "kernel": mover, "rule": rule, "schedule": schedule, "start": start}
    path = replicate(path, mesh, spread=execution.shard_weights)
    rule, schedule, first = replicate((rule, schedule, first), mesh)
    mover = replicate(mover, mesh)
    collect = collect_nothing if collect is None else collect
    kept = _kept(path, collect, position, num_chains)
    return RunConfig(
        path=path,
        kernel=mover,
        rule=rule,
        schedule=schedule,
        pilot=first,
        num_chains=num_chains,
        num_mcmc_steps=least,
        most_mcmc_steps=most,
        islands=islands,
        pool=pool,
        threshold=resample_threshold,
        resample=resample,  # type: ignore[arg-type]  # checked above
        precondition=as_form(precondition, dimension, num_chains, mover.takes_dense, mover.name),
        collect=collect,
        tile=tile,
        mesh=mesh,
        kept=kept,
        chunk_size=_chunk_size(kept),
        reduce=reduce,
        progress=progress,
        start=None if start is None else replicate(start, mesh),
        precision=precision,
        given=given,
    )


def _mcmc_steps(given: int | None, *, few: bool, pilot: bool) -> tuple[int, int]:
    """Return the least and the largest number of kernel steps at each temperature."""
    if given is not None:
        return given, given
    if pilot:
        return _LEAST_STEPS, _MOST_STEPS
    return (1, 1) if few else (3, 3)


def path_of(target: Posterior | AnnealedPath) -> AnnealedPath:
    """Return the path that is annealed: the target's own, or the one of its likelihood."""
    if isinstance(target, Posterior):
        target.check()
        return likelihood_path(target)
    if isinstance(target, AnnealedPath):
        return target
    raise expected("target", "a Posterior or an AnnealedPath", type(target).__name__)


def density_of(path: AnnealedPath) -> Any:
    """Return the function whose gradient fills a tile: the path, or its tilt where that is all."""
    return path if hasattr(path.start, "log_prob") else path.tilt


def _check_numbers(
    num_chains: int,
    num_mcmc_steps: int | None,
    execution: Execution,
    num_islands: int | None,
    pool: int | None,
    resample_threshold: float,
) -> None:
    check_integer("num_chains", num_chains, 1)
    for name, value in (
        ("num_mcmc_steps", num_mcmc_steps),
        ("tile", execution.tile),
        ("memory", execution.memory),
        ("num_islands", num_islands),
        ("pool", pool),
    ):
        if value is not None:
            check_integer(name, value, 1)
    if not 0 <= resample_threshold <= 1:
        raise expected("resample_threshold", "a fraction between 0 and 1", resample_threshold)


def _rule_of(step_size: StepSize, kernel: Kernel) -> StepRule:
    if step_size is None and not kernel.adapts:
        step_size = kernel.first_step_size  # such a kernel has no use for it
    rule = as_rule(step_size, kernel.first_step_size)
    rule.check()
    return rule


def _schedule(betas: Betas, few: bool) -> Schedule:
    """Return the schedule; without betas, one that suits the number of chains."""
    if betas is None or (isinstance(betas, str) and betas == "adaptive"):
        if not few:
            return Adaptive()
        betas = geometric(*_FEW_CHAINS)
    if isinstance(betas, str):
        hint = "jaxgen.schedules.by_name(...) makes the papers' lists"
        raise expected("betas", 'inverse temperatures, Adaptive() or "adaptive"', repr(betas), hint)
    if isinstance(betas, Adaptive):
        if not is_traced(betas) and not 0 < float(betas.cess) < 1:
            raise expected("Adaptive.cess", "a fraction between 0 and 1", betas.cess)
        return betas
    if isinstance(betas, Tracer):  # values that nobody can check yet
        return jnp.asarray(betas, jnp.float32)
    values = np.asarray(check_betas(betas), np.float32)
    if np.any(np.diff(values[1:]) <= 0):
        raise expected("betas", "values that differ in float32", "steps that vanish in it")
    return jnp.asarray(values)


def _positions(start: ArrayTree, position: ArrayTree, num_chains: int) -> ArrayTree:
    """Return the user's first positions as arrays `[C, ...]`, or raise `InputError`."""
    wanted = jax.tree.map(lambda x: (num_chains, *x.shape), position)
    try:
        same = jax.tree.map(np.shape, start) == wanted
    except (TypeError, ValueError):
        same = False
    if not same:
        got = jax.tree.map(np.shape, start)
        raise expected(
            "start",
            f"a distribution with sample and log_prob, or positions of shape {wanted}",
            got,
        )
    start = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), start, position)
    if is_traced(start):
        return start
    if not all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(start)):
        raise expected("start", "finite positions", "NaN or infinite numbers among them")
    return start


def _layout(
    path: AnnealedPath,
    position: ArrayTree,
    num_chains: int,
    execution: Execution,
    traced: bool,
) -> tuple[int, Mesh | None]:
    """Choose the tile, and the devices that share the tiles."""
    where = platform() if execution.devices is None else None
    devices = chosen_devices(execution.devices)
    tile = execution.tile
    if tile is None:
        with compiling_for(where or platform_of(devices)):
            density = density_of(path)
            tile = choose_tile(density, position, num_chains, execution.memory, len(devices))
    return int(tile), None if traced else mesh_for(devices, num_chains, tile)


def _can_have_a_pool(schedule: Schedule, path: AnnealedPath, kernel: Kernel) -> bool:
    """Return whether first states can be weighted, and the first temperature chosen."""
    weighted = hasattr(path.start, "log_prob") and kernel.exactness != "approximate"
    return isinstance(schedule, Adaptive) and weighted


def _pilot_schedule(schedule: Schedule) -> Adaptive | None:
    """Return the schedule of the pilot, which visits fewer temperatures."""
    if not isinstance(schedule, Adaptive):
        return None
    return Adaptive(jnp.minimum(_PILOT_CESS, schedule.cess), schedule.max_temperatures)


def _pool_of(pool: int | None, possible: bool) -> int:
    """Return the number of candidates for each first state, or raise `InputError`."""
    if pool is None:
        return _POOL if possible else 1
    if pool > 1 and not possible:
        raise expected(
            "pool",
            "1 with fixed betas, without resampling, for kernels without an accept step, "
            f"and for fewer than {LEAST_TO_LEARN} chains",
            pool,
        )
    return pool


def _pilot_of(
    pilot: bool | None, possible: bool, kernel: Kernel, dimension: int, num_chains: int
) -> bool:
    """Return whether there is a pilot, or raise `InputError` where there cannot be one."""
    possible = possible and kernel.uses_gradient and kernel.exactness == "exact"
    possible = possible and dimension <= MOST_DENSE
    if pilot is None:
        return possible and num_chains >= _LEAST_TO_FIT
    if pilot and not possible:
        raise expected(
            "pilot",
            "False with fixed betas, without resampling or a pool, for kernels without "
            f"gradients, and above {MOST_DENSE} latent dimensions",
            pilot,
        )
    return pilot


def _kept(path: AnnealedPath, collect: Collect, position: ArrayTree, num_chains: int) -> ArrayTree:
    """Return the shapes of what a draw of all chains keeps, without tracing a gradient."""

    def one(z: ArrayTree) -> ArrayTree:
        nothing = jnp.zeros(())
        return collect(path, ChainState(z, nothing, z, nothing, z))

    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((num_chains, *x.shape), x.dtype),
        jax.eval_shape(one, position),
    )


def _chunk_size(kept: ArrayTree) -> int:
    """Return the iterations of the program: their draws share a buffer of bounded size."""
    return max(1, min(_MOST_ITERATIONS, _BUFFER // max(size_of(kept), 1)))
