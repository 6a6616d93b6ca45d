"""What `ais` and `sample` return, and what a progress callback receives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer

from jaxgen.core.deprecation import former_field
from jaxgen.core.errors import InputError, expected
from jaxgen.core.printing import card, card_html
from jaxgen.core.pytree import with_structure
from jaxgen.core.table import Table
from jaxgen.core.types import Array, ArrayTree
from jaxgen.sampler import cards, summaries
from jaxgen.sampler.notes import FAILURES, UNSETTLED, annealing_notes, sample_notes
from jaxgen.sampler.state import BLANK, SamplerState, TemperatureInfo

__all__ = ["NO_HISTORY", "NO_ISLANDS", "AISResult", "Progress", "SampleResult"]

# The history of a run that did not anneal.
NO_HISTORY = TemperatureInfo(*(np.zeros(0, np.asarray(x).dtype) for x in BLANK))
NO_ISLANDS = np.zeros(0, np.float32)

# Names, notes and the tile are structure, so that `jax.jit` may return a result.
_has_structure = with_structure("exactness", "notes", "tile", "kernel", "precision")


class Progress(NamedTuple):
    """What a progress callback receives between two chunks.

    Attributes:
      phase: "anneal", "warm-up" or "draw".
      done, total: temperatures (anneal; total is None where betas are adaptive) or steps.
      beta, step_size, acceptance_rate, ess: as of the last chunk; NaN where they mean nothing.
      num_gradients: gradients for each chain so far (the largest over chains).
      num_divergent: rejected proposals that were divergent or not finite so far, over all chains.
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
      acceptance_rate: mean over all kernel steps.
      num_gradients: `[C]` network gradients (or forward passes) each chain has used.
      num_divergent: rejected proposals that were divergent or not finite, over all chains.
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
    state: SamplerState
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
            len(np.unique(np.asarray(found.state.lineage))),
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
        return card(*cards.of_ais(self))

    def _repr_html_(self) -> str:
        return card_html(*cards.of_ais(self))


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
      num_lineages: number of first states that have descendants among the chains.
      history: the annealing whose weights count, one row for each temperature, NumPy arrays
        `[T]`.
      acceptance_rate: `[C]` over the draws.
      step_size: the step in use at the end (mean over chains).
      num_gradients: `[C]` network gradients (or forward passes) each chain has used in all.
      num_divergent: `[C]` rejected proposals that were divergent or not finite.
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

    draws: ArrayTree
    position: ArrayTree
    log_weight: np.ndarray
    weights: np.ndarray
    log_z: float
    log_z_standard_error: float
    ess: float
    num_lineages: int
    history: TemperatureInfo
    acceptance_rate: np.ndarray
    step_size: float
    num_gradients: np.ndarray
    num_divergent: np.ndarray
    exactness: str
    notes: tuple[str, ...]
    state: SamplerState
    tile: int
    island_log_z: np.ndarray = NO_ISLANDS
    pilot_history: TemperatureInfo = NO_HISTORY
    kernel: str = ""
    precision: str = "highest"
    failure: Any = 0

    num_ancestors = former_field("num_ancestors", "num_lineages")

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
        return card(*cards.of_sample(self))

    def _repr_html_(self) -> str:
        return card_html(*cards.of_sample(self), pictures=cards.pictures_of(self))


def _readable(result: Any) -> Any:
    """Return a traced run's result as NumPy arrays, its histories cut to their rows."""
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
