"""Notes: sentences on what the reader of a result should know before trusting it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import numpy as np

from jaxgen.core.precision import matmul_precision
from jaxgen.core.types import Array, ArrayTree
from jaxgen.sampler.state import TemperatureInfo
from jaxgen.target.path import AnnealedPath

if TYPE_CHECKING:  # results are printed with their notes: the two know each other
    from jaxgen.sampler.results import SampleResult

__all__ = [
    "FAILURES",
    "UNSETTLED",
    "acceptance_note",
    "annealing_notes",
    "precision_note",
    "sample_notes",
    "separation_note",
]

# What a run under a transformation of JAX, which cannot raise errors, reports as `failure`.
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

# Islands whose estimates of log Z have a larger standard deviation than this disagree.
_ISLANDS_APART = 2.0
# Between-chain variance over within-chain variance above which parts are called separate.
_SEPARATE = 8.0
# Below this mean acceptance rate, chains hardly move.
_LEAST_ACCEPTANCE = 0.1


# With precision="fast": the number of draws of the start that are compared, and the largest error
# of the log likelihood that is not worth a note.
_DRAWS_TO_COMPARE = 64
_MOST_ERROR = 0.1


def sample_notes(result: SampleResult) -> tuple[str, ...]:
    """Return the notes of an annealed run with draws."""
    notes: tuple[str, ...] = ()
    annealed, exact = len(result.history.beta) > 0, result.exactness in ("exact", "adapted")
    if annealed:
        notes = annealing_notes(
            (result.kernel, result.exactness),
            int(result.num_lineages),
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
    divergent = int(np.sum(result.num_divergent))
    if divergent:
        notes = (*notes, f"{divergent} proposals were divergent or not finite, and were rejected")
    return notes


def annealing_notes(
    kernel: tuple[str, str],
    num_lineages: int,
    history: TemperatureInfo,
    error: float,
    count: int,
    island_log_z: np.ndarray,
) -> tuple[str, ...]:
    """Return the notes of an annealing run.

    Args:
      kernel: its name, and how exact it is.
      num_lineages: number of first states that have descendants.
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
            "(a larger Adaptive.cess) or a larger num_mcmc_steps"
        )
    if error > 0.5:
        notes.append(
            f"log Z is uncertain by {error:.2f}: use more chains, more temperatures or a larger "
            "num_mcmc_steps"
        )
    if len(island_log_z) > 1 and np.std(island_log_z, ddof=1) > _ISLANDS_APART:
        values = ", ".join(f"{value:.1f}" for value in island_log_z)
        notes.append(
            f"islands of chains disagree on log Z ({values}): some have missed what others "
            "found, and neither draws nor errors are to be trusted; use more chains or "
            "a larger num_mcmc_steps"
        )
    if num_lineages < min(8, count):
        notes.append(
            f"all chains descend from {num_lineages} first states: use more chains, a larger "
            "num_mcmc_steps or a larger Adaptive.cess"
        )
    return tuple(notes)


def separation_note(draws: ArrayTree, history: TemperatureInfo) -> tuple[str, ...]:
    """Return what it means that chains stay where annealing has put them, or nothing.

    In the coordinate where it is largest, the variance between the chains' means is compared
    with that of a chain's own draws. Where the first is many times the second, the posterior
    has parts between which chains do not pass, and how much of it each part holds rests on
    annealing alone. A pool that reached the posterior by itself needed no annealing.
    """
    kept = draws.get("position") if isinstance(draws, Mapping) else draws
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
    """Return what a very low acceptance rate of the draws means, or nothing."""
    if not rate < _LEAST_ACCEPTANCE:
        return ()
    return (
        f"only {rate:.1%} of proposals were accepted: chains hardly move, and draws repeat each "
        "other; give a smaller step_size, or None to adapt it with a longer warmup",
    )


def precision_note(path: AnnealedPath, precision: str) -> tuple[str, ...]:
    """Return what a lower precision does to the target, or nothing.

    The log likelihood is compared at 64 draws of the start.
    """
    if precision == "highest":
        return ()
    keys = jax.random.split(jax.random.key(0), _DRAWS_TO_COMPARE)

    def values() -> np.ndarray:
        # A function of its own each time, so that each is traced at the precision around it.
        def one(path: AnnealedPath, keys: Array) -> Array:
            return jax.lax.map(lambda key: path.tilt(path.start.sample(key)), keys)

        return np.asarray(jax.jit(one)(path, keys), np.float64)

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
