"""A run's settings, checked before anything is traced, and made complete."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxgen.core.cache import keep_compiled
from jaxgen.core.errors import expected
from jaxgen.core.platform import compiling_for, platform, platform_of
from jaxgen.core.precision import matmul_precision
from jaxgen.core.tracing import is_traced
from jaxgen.kernels import HMC, ChainState, Kernel
from jaxgen.sampler import program, scouts
from jaxgen.sampler.progress import ProgressLine
from jaxgen.sampler.results import Progress
from jaxgen.sampler.sharding import chosen_devices, local_chains, mesh_for, replicate
from jaxgen.sampler.state import DRAW, FINAL, PILOT, Order, RunState, TemperatureInfo
from jaxgen.sampler.tile import choose_tile
from jaxgen.target.path import AnnealedPath, likelihood_path, path_from
from jaxgen.target.posterior import Posterior
from jaxgen.tempering.betas import Adaptive, check_betas, geometric
from jaxgen.tempering.mass_matrix import MOST_DENSE, as_form
from jaxgen.tempering.resampling import choose_islands, scheme
from jaxgen.tempering.step_size import StepRule, as_rule

__all__ = ["Callback", "Reduce", "Setup", "check_integer", "precision_note", "prepare", "size_of"]

Callback = Callable[[Progress], None]
Reduce = Callable[[Any, Any], Any]

# Slots (temperatures, warm-up steps, draws) of the compiled program: enough that what
# happens in Python between two calls costs nothing, and draws fill no more than this.
_MOST_SLOTS = 100
_BUFFER = 64 << 20

# Fewer chains than this learn nothing from each other: temperatures are fixed beforehand.
LEAST_TO_LEARN = 8
_FEW_CHAINS = (200, 1e-5)
# Fewer chains than this are too few to fit a proposal to.
_LEAST_TO_FIT = 16
# Candidates for each first state: forward passes, at a third of a gradient each.
_POOL = 32
# With precision="fast": so many draws of the start are compared, and so much is borne.
_DRAWS_TO_COMPARE = 64
_MOST_ERROR = 0.1
# The pilot's conditional ESS: its temperatures are few.
_PILOT_CESS = 0.5


@dataclasses.dataclass(frozen=True)
class Setup:
    """A run's settings.

    Attributes:
      path, kernel, rule, schedule: what the compiled program takes as data.
      pilot: the schedule of a first, rough annealing, or None for none.
      num_chains, moves, pilot_moves, threshold: numbers.
      islands: I, how many blocks of chains never exchange any while annealing.
      pool: candidates among which each first state is chosen; 1 takes it as it comes.
      resample, precondition, collect, tile, mesh, length: what it takes as structure.
      kept: shapes of what a draw of all chains keeps, leaves `[C, ...]`.
      reduce: `(accumulator, kept) -> accumulator`, or None to keep the draws.
      progress: told between chunks, or None.
      start: positions `[C, ...]` to start from at the last beta, or None to anneal.
      precision: of matrix products: "highest" or "fast".
      given: path, kernel, rule and schedule as they were before they went to the devices.
    """

    path: AnnealedPath
    kernel: Kernel
    rule: StepRule
    schedule: Any
    pilot: Any
    num_chains: int
    moves: int
    pilot_moves: int
    islands: int
    pool: int
    threshold: float
    resample: str | None
    precondition: str
    collect: Any
    tile: int
    mesh: Any
    kept: Any
    length: int
    reduce: Reduce | None
    progress: Callback | None
    start: Any
    precision: str
    given: dict[str, Any]

    @property
    def last_beta(self) -> float:
        """Where annealing ends."""
        return 1.0 if isinstance(self.schedule, Adaptive) else float(self.schedule[-1])

    @property
    def most_temperatures(self) -> int:
        """How many temperatures there are, or may be."""
        adaptive = isinstance(self.schedule, Adaptive)
        return self.schedule.max_temperatures if adaptive else self.schedule.shape[0] - 1

    def blank(self, key: Any) -> RunState:
        """Return a state whose chains have not been drawn."""
        return program.blank_state(
            replicate(key, self.mesh),
            self.path,
            self.rule,
            num_chains=self.num_chains,
            num_islands=self.islands,
            precondition=self.precondition,
            with_mixture=self.pilot is not None,
        )

    def begin(self, state: RunState, stage: int) -> tuple[RunState, TemperatureInfo]:
        """Draw the first states of a stage; also the row of its first temperature, if any."""
        state, row = program.begin_stage(
            state,
            self.path,
            self.kernel,
            np.asarray(stage, np.int32),
            pool=self.pool,
            resample=self.resample,
            tile=self.tile,
            mesh=self.mesh,
        )
        return state, self._rows(jax.tree.map(lambda x: np.asarray(x)[None], row))

    def place(self, state: RunState) -> RunState:
        """Put the chains of a blank state where the user wants them to start."""
        return program.place_chains(
            state,
            self.path,
            self.kernel,
            self.start,
            np.float32(self.last_beta),
            tile=self.tile,
            mesh=self.mesh,
        )

    def send_scouts(self, state: RunState) -> RunState:
        """Put scouts in the place of the pilot's chains."""
        return scouts.send_scouts(
            state,
            self.path,
            self.kernel,
            precondition=self.precondition,
            tile=self.tile,
            mesh=self.mesh,
        )

    def fit(self, state: RunState) -> RunState:
        """Fit the final stage's start to what pilot and scouts have found."""
        return scouts.fit_proposal(state, self.path)

    def moves_of(self, stage: int) -> int:
        """Kernel steps at each temperature of a stage."""
        return self.pilot_moves if stage == PILOT else self.moves

    def advance(
        self, state: RunState, phase: int, slots: int, steps: int, stage: int = FINAL
    ) -> tuple[RunState, TemperatureInfo, Any]:
        """One chunk; `state` is used up.

        Returns:
          The state; the rows of the temperatures it passed; what was collected, NumPy
          leaves `[slots, C, ...]` (in a run of several processes, this one's chains).
        """
        state, rows, kept = program.advance_in_place(
            state,
            self.path,
            self.kernel,
            self.rule,
            self.pilot if stage == PILOT else self.schedule,
            Order.of(
                phase,
                slots,
                steps,
                self.threshold,
                stage,
                # After a pilot everything that steers chains was learned by others.
                learn_mass=stage == PILOT or self.pilot is None,
            ),
            resample=self.resample,
            precondition=self.precondition,
            collect=self.collect,
            tile=self.tile,
            mesh=self.mesh,
            length=self.length,
        )
        rows = jax.device_get(rows)
        if phase == DRAW:
            kept = jax.tree.map(
                lambda x: _first(local_chains(x, self.num_chains, 1)[1], slots), kept
            )
        return state, self._rows(rows), kept

    @staticmethod
    def _rows(rows: TemperatureInfo) -> TemperatureInfo:
        return TemperatureInfo(*(column[rows.active] for column in rows))


def prepare(
    target: Posterior | AnnealedPath,
    kernel: Kernel | None,
    betas: Any,
    *,
    num_chains: int,
    moves: int | None,
    step_size: Any,
    resample: str | None,
    resample_threshold: float,
    precondition: bool | str,
    tile: int | None,
    memory: int | None,
    devices: Sequence[Any] | None,
    shard_weights: bool,
    precision: str = "highest",
    progress: Callback | bool | None,
    collect: Any = None,
    reduce: Reduce | None = None,
    num_islands: int | None = None,
    pool: int | None = 1,
    pilot: bool | None = False,
    start: Any = None,
) -> Setup:
    """Check what the user gave, before anything is traced, and fill in the defaults."""
    keep_compiled()
    if isinstance(target, Posterior):
        target.check()
        path = likelihood_path(target)
    elif isinstance(target, AnnealedPath):
        path = target
    else:
        raise expected("target", "a Posterior or an AnnealedPath", type(target).__name__)
    if isinstance(progress, bool):
        progress = ProgressLine() if progress else None
    mover: Kernel = HMC(10, jitter=True) if kernel is None else kernel
    if not isinstance(mover, Kernel):
        raise expected("kernel", "a kernel of jaxgen.kernels", type(kernel).__name__)
    mover.check(path)
    check_integer("num_chains", num_chains, 1)
    for name, value in (
        ("moves", moves),
        ("tile", tile),
        ("memory", memory),
        ("num_islands", num_islands),
        ("pool", pool),
    ):
        if value is not None:
            check_integer(name, value, 1)
    if resample is not None:
        scheme(resample)
    if not 0 <= resample_threshold <= 1:
        raise expected("resample_threshold", "a fraction between 0 and 1", resample_threshold)
    if reduce is not None and not callable(reduce):
        raise expected("reduce", "a function of an accumulator and a chunk of draws", reduce)
    if step_size is None and not mover.adapts:
        step_size = mover.first_step_size  # such a kernel has no use for it
    rule = as_rule(step_size, mover.first_step_size)
    rule.check()
    few = num_chains < LEAST_TO_LEARN
    if few and (betas is None or (isinstance(betas, str) and betas == "adaptive")):
        betas = geometric(*_FEW_CHAINS)
    schedule = _schedule(betas)
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
    where = platform() if devices is None else None
    devices = chosen_devices(devices)
    if tile is None:
        density = path if hasattr(path.start, "log_prob") else path.tilt
        with compiling_for(where or platform_of(devices)):
            tile = choose_tile(density, position, num_chains, memory, len(devices))
    # Inside a transformation whoever jits the whole decides where arrays lie.
    traced = is_traced(path, mover, schedule, rule, start)
    mesh = None if traced else mesh_for(devices, num_chains, tile)
    adaptive = isinstance(schedule, Adaptive)
    weighted = hasattr(path.start, "log_prob") and mover.exactness != "approximate"
    wide = adaptive and weighted and resample is not None and not few
    if pool is None:
        pool = _POOL if wide else 1
    elif pool > 1 and not wide:
        raise expected(
            "pool",
            "1 with fixed betas, without resampling, for kernels without an accept step, "
            f"and for fewer than {LEAST_TO_LEARN} chains",
            pool,
        )
    possible = wide and mover.uses_gradient and mover.exactness == "exact"
    possible = possible and dimension <= MOST_DENSE and pool > 1
    if pilot is None:
        pilot = possible and num_chains >= _LEAST_TO_FIT
    elif pilot and not possible:
        raise expected(
            "pilot",
            "False with fixed betas, without resampling or a pool, for kernels without "
            f"gradients, and above {MOST_DENSE} latent dimensions",
            pilot,
        )
    first = schedule
    if pilot:
        first = Adaptive(jnp.minimum(_PILOT_CESS, schedule.cess), schedule.max_temperatures)
    if moves is None:
        moves = 1 if few else 2 if pilot else 3
    islands = choose_islands(num_chains) if num_islands is None else num_islands
    if num_chains % islands:
        raise expected("num_islands", f"a divisor of num_chains, {num_chains}", islands)
    given = {"path": path, "kernel": mover, "rule": rule, "schedule": schedule, "start": start}
    path = replicate(path, mesh, spread=shard_weights)
    rule, schedule, first = replicate((rule, schedule, first), mesh)
    mover = replicate(mover, mesh)
    collect = _nothing if collect is None else collect
    kept = _kept(path, collect, position, num_chains)
    return Setup(
        path=path,
        kernel=mover,
        rule=rule,
        schedule=schedule,
        pilot=first if pilot else None,
        num_chains=num_chains,
        moves=moves,
        pilot_moves=moves,
        islands=islands,
        pool=pool,
        threshold=resample_threshold,
        resample=resample,
        precondition=as_form(precondition, dimension, num_chains, mover.takes_dense, mover.name),
        collect=collect,
        tile=int(tile),
        mesh=mesh,
        kept=kept,
        length=_slots(kept),
        reduce=reduce,
        progress=progress,
        start=None if start is None else replicate(start, mesh),
        precision=precision,
        given=given,
    )


def precision_note(setup: Setup) -> tuple[str, ...]:
    """What a lower precision does to the target, or nothing: log p at 64 draws of the start."""
    if setup.precision == "highest":
        return ()
    keys = jax.random.split(jax.random.key(0), _DRAWS_TO_COMPARE)

    def values() -> np.ndarray:
        # A function of its own each time, so that each is traced at the precision around it.
        def one(path: AnnealedPath, keys: Any) -> Any:
            return jax.lax.map(lambda key: path.tilt(path.start.sample(key)), keys)

        return np.asarray(jax.jit(one)(setup.path, keys), np.float64)

    fast = values()
    with matmul_precision("highest"):
        exact = values()
    error = np.abs(fast - exact)[np.isfinite(fast) & np.isfinite(exact)]
    if not error.size or error.max() <= _MOST_ERROR:
        return ()
    return (
        f"precision='fast' moves the log likelihood by up to {error.max():.2g} at draws of the "
        "start: chains draw from another target; use precision='highest'",
    )


def check_integer(name: str, value: Any, least: int) -> None:
    """Raise `InputError` unless value is an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise expected(name, f"an integer of at least {least}", value)


def _schedule(betas: Any) -> Any:
    if betas is None or (isinstance(betas, str) and betas == "adaptive"):
        return Adaptive()
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


def _positions(start: Any, position: Any, num_chains: int) -> Any:
    """The user's first positions as arrays `[C, ...]`, or `InputError`."""
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


def _kept(path: AnnealedPath, collect: Any, position: Any, num_chains: int) -> Any:
    """Shapes of what a draw of all chains keeps. No gradient is traced to find out."""

    def one(z: Any) -> Any:
        nothing = jnp.zeros(())
        return collect(path, ChainState(z, nothing, z, nothing, z))

    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((num_chains, *x.shape), x.dtype),
        jax.eval_shape(one, position),
    )


def _slots(kept: Any) -> int:
    """How many slots the program has: their draws share a buffer of bounded size."""
    return max(1, min(_MOST_SLOTS, _BUFFER // max(size_of(kept), 1)))


def _first(rows: np.ndarray, count: int) -> np.ndarray:
    """The first rows: a copy where there are more, which a view would keep in memory."""
    return rows if count >= len(rows) else rows[:count].copy()


def size_of(shapes: Any) -> int:
    """Bytes of a tree of arrays or of their shapes."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(shapes))


def _nothing(path: AnnealedPath, chain: ChainState) -> tuple[()]:
    return ()
