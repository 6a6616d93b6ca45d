"""What a run returns, and how it says how far it may be trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer

from jaxgen.core.errors import InputError, expected
from jaxgen.core.printing import Rows, card, card_html, number
from jaxgen.core.pytree import short, with_structure
from jaxgen.core.table import Table
from jaxgen.core.types import Array, ArrayTree
from jaxgen.sampler import summaries
from jaxgen.sampler.state import BLANK, RunState, TemperatureInfo

__all__ = [
    "FAILURES",
    "NO_HISTORY",
    "NO_ISLANDS",
    "UNSETTLED",
    "AISResult",
    "Progress",
    "SampleResult",
    "acceptance_note",
    "annealing_notes",
    "sample_notes",
    "separation_note",
]

# What a run that did not anneal has to show for it.
NO_HISTORY = TemperatureInfo(*(np.zeros(0, np.asarray(x).dtype) for x in BLANK))
NO_ISLANDS = np.zeros(0, np.float32)

# What a run under a transformation of JAX, which cannot raise, reports as `failure`.
FAILURES = {
    1: "condition: expected a finite log likelihood on at least one chain; got none. "
    "Look at posterior.log_likelihood(posterior.prior.sample(key))",
    2: "betas: the temperatures were spent before beta reached its last value. Lower "
    "Adaptive.cess, raise its max_temperatures, or raise the noise level",
    3: "step_size: expected a step at which proposals are accepted; hardly any was. Give a "
    "smaller one, or None to adapt it",
}
# The notes of such a run, until somebody can read its numbers.
UNSETTLED = ("made under jax.jit or jax.vmap: result.settled() reads its numbers and notes",)

# Islands whose log Z have this standard deviation have not found the same thing.
_ISLANDS_APART = 2.0
# Between-chain variance over within-chain variance from which on parts are called separate.
_SEPARATE = 8.0
# Below this mean acceptance rate chains hardly move.
_LEAST_ACCEPTANCE = 0.1


# Names, notes and the tile are structure, so that `jax.jit` may return a result.
_has_structure = with_structure("exactness", "notes", "tile", "kernel", "precision")


class Progress(NamedTuple):
    """What a progress callback is told, between two chunks.

    Attributes:
      phase: "anneal", "warm-up" or "draw".
      done, total: temperatures (anneal; total is None where betas are adaptive) or steps.
      beta, step_size, acceptance_rate, ess: as of the last chunk; NaN where they mean nothing.
      num_gradients: gradients for each chain so far (the largest over chains).
      num_divergent: refused proposals so far, over all chains.
    """

    phase: str
    done: int
    total: int | None
    beta: float
    step_size: float
    acceptance_rate: float
    ess: float
    num_gradients: int
    num_divergent: int


@_has_structure
class AISResult(NamedTuple):
    """Weighted draws from the end of an annealed path.

    Attributes:
      position: `[C, ...]` coordinates (`posterior.image` turns one into its image).
      log_weight: `[C]` unnormalised log importance weights (since the last resampling).
      log_z: estimate of log Z, the log evidence where the start is normalised; NaN where
        the kernel does not leave the path invariant.
      log_z_standard_error: its standard error, to first order.
      ess: effective sample size of `log_weight`.
      beta: the last inverse temperature; the target is `base + beta * tilt`.
      history: one row for each temperature, NumPy arrays `[T]`.
      acceptance_rate: mean over all moves.
      num_gradients: `[C]` network gradients (or forward passes) each chain has used.
      num_divergent: refused proposals, over all chains.
      exactness: "exact": fixed schedule and kernels, so the weights' mean is an unbiased
        estimate of Z. "adapted": betas or steps were chosen on the way, by these chains.
        "clipped", "approximate": the kernel does not leave the path invariant.
      notes: sentences on what to know before trusting the result.
      state: the run's state.
      tile: chains in one batch; results agree to the last bit for the same tile.
      island_log_z: `[I]` what each island of chains found of log Z by itself.
      kernel: the kernel's name.
      precision: of matrix products, as it was asked for.
      failure: 0; under a transformation of JAX, which cannot raise, a number of `FAILURES`.
    """

    position: ArrayTree
    log_weight: Array
    log_z: float
    log_z_standard_error: float
    ess: float
    beta: float
    history: TemperatureInfo
    acceptance_rate: float
    num_gradients: np.ndarray
    num_divergent: int
    exactness: str
    notes: tuple[str, ...]
    state: RunState
    tile: int
    island_log_z: np.ndarray = NO_ISLANDS
    kernel: str = ""
    precision: str = "highest"
    failure: Any = 0

    def settled(self) -> AISResult:
        """Return the result of a run under `jax.jit` as NumPy arrays, with its notes.

        Raises:
          InputError: for what an ordinary run would have raised, and for several runs at
            once, which `unstacked` takes apart.
        """
        if self.notes[:1] != UNSETTLED:
            return self
        found = _readable(self)
        notes = annealing_notes(
            (found.kernel, found.exactness),
            len(np.unique(np.asarray(found.state.ancestor))),
            found.history,
            found.log_z_standard_error,
            len(found.log_weight),
            found.island_log_z,
        )
        return found._replace(notes=notes)

    def unstacked(self) -> list[AISResult]:
        """Return the results of a run under `jax.vmap`, one for each item, settled."""
        return [one.settled() for one in _items(self)]

    def summary(
        self,
        observables: Mapping[str, Callable[[Any], Any]] | None = None,
        *,
        hdi_prob: float = 0.94,
    ) -> Table:
        """Return a table of the weighted states: see `SampleResult.summary`."""
        found = self.settled()
        weights = np.exp(np.asarray(found.log_weight) - np.max(found.log_weight))
        weights = weights / weights.sum()
        return summaries.table_of(None, found.position, weights, observables, hdi_prob)

    def __repr__(self) -> str:
        return card(*_of_ais(self))

    def _repr_html_(self) -> str:
        return card_html(*_of_ais(self))


@_has_structure
class SampleResult(NamedTuple):
    """Draws from the target by Markov chains, after annealing.

    Attributes:
      draws: what `collect` kept, leaves `[C, S, ...]` (chain, draw): positions by default;
        with `reduce`, its accumulator. In a run of several processes, this one's chains.
      position: `[C, ...]` where the chains are now.
      log_weight: `[C]` log weights at the end of annealing, before the last resampling;
        zeros where the chains were not annealed.
      weights: `[C]` normalised weights that draws carry now: equal after resampling.
      log_z, log_z_standard_error: the log evidence and its standard error; NaN where the
        chains were not annealed, or the kernel leaves no density invariant.
      ess: effective sample size of `log_weight`.
      num_ancestors: how many first states have descendants among the chains.
      history: the annealing whose weights count, one row for each temperature, NumPy arrays
        `[T]`.
      acceptance_rate: `[C]` over the draws.
      step_size: the step in use at the end (mean over chains).
      num_gradients: `[C]` network gradients (or forward passes) each chain has used in all.
      num_divergent: `[C]` refused proposals.
      exactness: of the draws' kernel. "exact": it leaves the target invariant and was fixed
        while drawing. "adapted": its step never froze. "clipped", "approximate".
      notes: sentences on what to know before trusting the result.
      state: pass it to `sample(..., state=...)` to go on.
      tile: chains in one batch; results agree to the last bit for the same tile.
      island_log_z: `[I]` what each island of chains, which never met the others while
        annealing, found of log Z by itself.
      pilot_history: the rough annealing before it, with rows as in `history`; empty if none.
      kernel: the kernel's name.
      precision: of matrix products, as it was asked for.
      failure: 0; under a transformation of JAX, which cannot raise, a number of `FAILURES`.
    """

    draws: Any
    position: ArrayTree
    log_weight: np.ndarray
    weights: np.ndarray
    log_z: float
    log_z_standard_error: float
    ess: float
    num_ancestors: int
    history: TemperatureInfo
    acceptance_rate: np.ndarray
    step_size: float
    num_gradients: np.ndarray
    num_divergent: np.ndarray
    exactness: str
    notes: tuple[str, ...]
    state: RunState
    tile: int
    island_log_z: np.ndarray = NO_ISLANDS
    pilot_history: TemperatureInfo = NO_HISTORY
    kernel: str = ""
    precision: str = "highest"
    failure: Any = 0

    def settled(self) -> SampleResult:
        """Return the result of a run under `jax.jit` as NumPy arrays, with its notes.

        Raises:
          InputError: for what an ordinary run would have raised, and for several runs at
            once, which `unstacked` takes apart.
        """
        if self.notes[:1] != UNSETTLED:
            return self
        found = _readable(self)
        return found._replace(notes=(*self.notes[1:], *sample_notes(found)))

    def unstacked(self) -> list[SampleResult]:
        """Return the results of a run under `jax.vmap`, one for each item, settled."""
        return [one.settled() for one in _items(self)]

    def summary(
        self,
        observables: Mapping[str, Callable[[Any], Any]] | None = None,
        *,
        hdi_prob: float = 0.94,
    ) -> Table:
        """Return a table of the draws, as `arviz.summary` has it.

        A row for each latent, and for the images' mean where images were kept; without draws,
        of the chains' last positions. `summary()["r_hat"]` is a column,
        `summary().to_dataframe()` a data frame of pandas.

        Args:
          observables: name -> function of one draw, a row each: of its image where images
            were kept, of its position otherwise.
          hdi_prob: of the narrowest interval.

        Raises:
          InputError: for a result under `jax.jit`, and for observables that are no functions.
        """
        found = self.settled()
        return summaries.table_of(found.draws, found.position, found.weights, observables, hdi_prob)

    def __repr__(self) -> str:
        return card(*_of_sample(self))

    def _repr_html_(self) -> str:
        return card_html(*_of_sample(self), pictures=_pictures(self))


def _of_ais(result: AISResult) -> tuple[str, Rows, tuple[str, ...]]:
    """What an `AISResult` prints: title, rows and notes."""
    found = _printable(result)
    if found is None:
        return _unsettled(result)
    count = len(np.asarray(found.log_weight))
    rows = [
        *_evidence_lines(found, count),
        ("beta", f"{found.beta:.4g} at the end of {len(found.history.beta)} temperatures"),
        ("acceptance", f"{float(found.acceptance_rate):.2f}"),
        ("gradients", f"{float(np.mean(found.num_gradients)):,.0f} a chain"),
    ]
    size = _size(found.position)
    title = f"AISResult: {count} weighted draws, {size} numbers each, {found.exactness}"
    return title, rows, found.notes


def _of_sample(result: SampleResult) -> tuple[str, Rows, tuple[str, ...]]:
    """What a `SampleResult` prints: title, rows and notes."""
    found = _printable(result)
    if found is None:
        return _unsettled(result)
    count = len(found.weights)
    leaves = jax.tree.leaves(found.draws)
    kept = "no draws kept"
    if leaves and all(np.ndim(leaf) >= 2 for leaf in leaves):
        kept = f"{np.shape(leaves[0])[1]} draws a chain"
    stages = f"{len(found.history.beta)} temperature{'s' * (len(found.history.beta) != 1)}"
    if len(found.pilot_history.beta):
        stages += f" after a pilot of {len(found.pilot_history.beta)}"
    rows = [
        *_evidence_lines(found, count),
        ("annealing", f"{stages}, {found.num_ancestors} independent first states"),
        (
            "acceptance",
            f"{float(np.mean(found.acceptance_rate)):.2f} at step size {found.step_size:.3g}",
        ),
        ("gradients", f"{float(np.mean(found.num_gradients)):,.0f} a chain"),
        ("divergent", f"{int(np.sum(found.num_divergent))} proposals, rejected"),
    ]
    mixed = summaries.mixing(found.draws, found.position)
    if mixed:
        rows.insert(2, ("mixing", mixed))
    size = _size(found.position)
    title = f"SampleResult: {count} chains, {kept}, {size} numbers each, {found.exactness}"
    return title, rows, found.notes


def _printable(result: Any) -> Any:
    """The result with numbers in it, or None: of several runs, of placeholders, or failed."""
    if result.notes[:1] != UNSETTLED:
        return result
    try:
        return result.settled()
    except InputError:
        return None


def _pictures(result: SampleResult) -> list[tuple[str, np.ndarray]]:
    """The last draw of each chain, where images were kept and there is one run."""
    found = _printable(result)
    kept = found.draws if found is not None and isinstance(found.draws, Mapping) else {}
    image = kept.get("image")
    if image is None or isinstance(image, Tracer) or np.ndim(image) not in (4, 5):
        return []
    last = np.asarray(image)[:, -1]
    last = last[..., None] if last.ndim == 3 else last
    return [("last draws of the chains", last)] if last.shape[-1] in (1, 3) else []


def _readable(result: Any) -> Any:
    """A traced run's result as NumPy arrays and numbers, its histories cut to their rows."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(result)):
        raise expected("result", "numbers", "placeholders of jax.jit or jax.vmap")
    if np.ndim(result.log_z):
        raise expected("result", "one run", f"{np.shape(result.log_z)} runs", "Use unstacked()")
    if int(result.failure):
        raise InputError(FAILURES[int(result.failure)])
    state = result.state
    found = jax.tree.map(np.asarray, result._replace(state=None))._replace(state=state)
    for name in ("history", "pilot_history"):
        rows = getattr(found, name, None)
        if rows is not None and len(rows.active):
            found = found._replace(**{name: TemperatureInfo(*(x[rows.active] for x in rows))})
    numbers = ("log_z", "log_z_standard_error", "ess", "step_size", "beta")
    numbers = [name for name in numbers if name in found._fields]
    return found._replace(**{name: float(getattr(found, name)) for name in numbers})


def _items(result: Any) -> list[Any]:
    count = np.shape(result.log_z)
    if len(count) != 1:
        raise expected("result", "runs of one jax.vmap", f"log_z of shape {count}")
    return [jax.tree.map(lambda x, i=i: x[i], result) for i in range(count[0])]


def _unsettled(result: Any) -> tuple[str, Rows, tuple[str, ...]]:
    """What several runs, placeholders and failed runs print."""
    shape = list(np.shape(result.log_z))
    many = f" of {shape} runs" if shape else ""
    title = f"{type(result).__name__}{many}, {result.exactness}"
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(result)):
        return title, [("log Z", short(result.log_z))], result.notes[:1]
    if not shape:  # the run has failed: its numbers mean nothing
        return title, [("failed", FAILURES[int(result.failure)])], ()
    values = np.asarray(result.log_z)
    failed = int(np.sum(np.asarray(result.failure) > 0))
    rows = [("log Z", f"{np.nanmin(values):.2f} to {np.nanmax(values):.2f}")]
    rows += [("failed", f"{failed} of {values.size} runs")] if failed else []
    note = "made under jax.vmap: result.unstacked() takes the runs apart, with their notes"
    return title, rows, (note,)


def sample_notes(result: SampleResult) -> tuple[str, ...]:
    """What the reader of an annealed run with draws should know, in sentences."""
    notes: tuple[str, ...] = ()
    annealed, exact = len(result.history.beta) > 0, result.exactness in ("exact", "adapted")
    if annealed:
        notes = annealing_notes(
            (result.kernel, result.exactness),
            int(result.num_ancestors),
            result.history,
            float(result.log_z_standard_error),
            len(result.weights),
            result.island_log_z,
        )
    rates = np.asarray(result.acceptance_rate)
    if np.any(np.isfinite(rates)) and int(result.state.num_steps):
        notes = (*notes, *acceptance_note(float(rates.mean())))
    if annealed and exact:
        notes = (*notes, *separation_note(result.draws, result.history))
    refused = int(np.sum(result.num_divergent))
    if refused:
        notes = (*notes, f"{refused} proposals were divergent or not finite, and were refused")
    return notes


def annealing_notes(
    kernel: tuple[str, str],
    num_ancestors: int,
    history: TemperatureInfo,
    error: float,
    count: int,
    island_log_z: np.ndarray = NO_ISLANDS,
) -> tuple[str, ...]:
    """What the reader of an annealing run should know, in sentences.

    Args:
      kernel: its name, and how exact it is.
      num_ancestors: first states that have descendants.
      history: rows of the annealing whose weights count.
      error: the standard error of log Z.
      count: C.
      island_log_z: `[I]`.
    """
    notes = []
    if kernel[1] not in ("exact", "adapted"):
        notes.append(f"{kernel[0]} does not leave the path invariant: its weights are a heuristic")
    if count < 8:
        notes.append(
            f"{count} chain{'s' * (count > 1)}: too few to learn from each other or to tell the "
            "error of log Z; use num_chains of at least 32"
        )
    last = float(history.beta[-1])
    if last < 1 - 1e-6:
        notes.append(
            f"betas end at {last:.3g}, not at 1: draws and log Z are those of the tempered "
            "target base + beta * tilt, not of the posterior"
        )
    worst = float(history.ess.min())
    if worst < 0.1 * count:
        notes.append(
            f"weights collapsed: ESS {worst:.1f} of {count}; use more temperatures "
            "(a larger Adaptive.cess) or moves"
        )
    if error > 0.5:
        notes.append(f"log Z is uncertain by {error:.2f}: use more chains, temperatures or moves")
    if len(island_log_z) > 1 and np.std(island_log_z, ddof=1) > _ISLANDS_APART:
        values = ", ".join(f"{value:.1f}" for value in island_log_z)
        notes.append(
            f"islands of chains disagree on log Z ({values}): some have missed what others "
            "found, and neither draws nor errors are to be trusted; use more chains or moves"
        )
    if num_ancestors < min(8, count):
        notes.append(
            f"all chains descend from {num_ancestors} first states: use more chains or moves, "
            "or a larger Adaptive.cess"
        )
    return tuple(notes)


def separation_note(draws: Any, history: TemperatureInfo) -> tuple[str, ...]:
    """What it means that chains stay where annealing has put them, or nothing.

    In the coordinate where it is largest, the variance between the chains' means is compared
    with that of a chain's own draws. Where the first is many times the second, the posterior
    has parts between which chains do not pass, and how much of it each part holds rests on
    annealing alone. A pool that reached the posterior by itself needed no annealing.
    """
    kept = draws.get("position") if isinstance(draws, dict) else draws
    leaves = [x for x in jax.tree.leaves(kept) if isinstance(x, np.ndarray) and x.ndim >= 2]
    if len(history.beta) < 2 or not leaves or leaves[0].shape[1] < 4 or leaves[0].shape[0] < 2:
        return ()
    flat = [x.reshape(*x.shape[:2], -1) for x in leaves]
    between = np.concatenate([x.mean(1, dtype=np.float64).var(0, ddof=1) for x in flat])
    within = np.concatenate([x.var(1, ddof=1, dtype=np.float64).mean(0) for x in flat])
    if not np.max(between / np.maximum(within, 1e-30)) > _SEPARATE:
        return ()
    return (
        "chains stay in separate parts of the posterior: how much each part holds rests on "
        "annealing, and parts that few chains reached may be missing; compare with a larger "
        "num_chains",
    )


def acceptance_note(rate: float) -> tuple[str, ...]:
    """What a very low acceptance rate of the draws means, or nothing."""
    if not rate < _LEAST_ACCEPTANCE:
        return ()
    return (
        f"only {rate:.1%} of proposals were accepted: chains hardly move, and draws repeat each "
        "other; give a smaller step_size, or None to adapt it with a longer warmup",
    )


def _size(position: ArrayTree) -> int:
    """Numbers in the position of one chain."""
    return sum(int(np.prod(np.shape(leaf)[1:])) for leaf in jax.tree.leaves(position))


def _evidence_lines(result: AISResult | SampleResult, count: int) -> list[tuple[str, str]]:
    text = f"{number(result.log_z)} +- {number(result.log_z_standard_error)}"
    if len(result.island_log_z) > 1:
        text += " (islands: " + ", ".join(f"{x:.2f}" for x in result.island_log_z) + ")"
    return [("log Z", text), ("weights", f"ESS {number(result.ess, '.1f')} of {count}")]
