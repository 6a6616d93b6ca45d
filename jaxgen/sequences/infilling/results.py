"""The result of `infill`, with the notes that say how far it may be trusted."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxgen.core.deprecation import former_field
from jaxgen.core.printing import prints_short
from jaxgen.core.types import Array, Resampling

__all__ = ["InfillingHistory", "InfillingResult", "infilling_notes"]


@prints_short
class InfillingHistory(NamedTuple):
    """One row for each token, left to right, then one for each temperature; NumPy arrays.

    Attributes:
      beta: of the likelihood; 0 while tokens are drawn.
      ess: effective sample size of the weights, before any resampling.
      log_z: the running estimate.
      resampled: whether chains were resampled.
      acceptance_rate: mean over chains and moves; NaN while tokens are drawn.
    """

    beta: Array | np.ndarray
    ess: Array | np.ndarray
    log_z: Array | np.ndarray
    resampled: Array | np.ndarray
    acceptance_rate: Array | np.ndarray


@prints_short
class InfillingResult(NamedTuple):
    """Sequences from the posterior, with the names of `AISResult` and `SampleResult`.

    Attributes:
      draws: `[C, S, T]` (chain, draw, token); S is 0 where `num_steps` was.
      tokens: `[C, T]` where the chains are now.
      log_prior: `[C]`, log p(y) of `tokens` under the model.
      log_likelihood: `[C]`, log L(y) of `tokens`.
      log_weight: `[C]` unnormalised log importance weights at the end of annealing (since the
        last resampling).
      weights: `[C]` normalised weights that `tokens` and `draws` carry now: equal after
        resampling.
      log_z: estimate of log Z = log sum_y p(y) 1[y agrees with o] L(y), which is log p(o)
        without a likelihood.
      log_z_standard_error: its standard error, to first order.
      ess: effective sample size of `log_weight`.
      num_lineages: number of first sequences that have descendants among the chains.
      history: see `InfillingHistory`.
      acceptance_rate: `[C]` over the draws' moves; NaN without.
      num_evaluations: model steps (one token of one sequence) each chain has used.
      exactness: "exact": E exp(log_z) = Z whatever the number of chains, and moves leave the
        posterior invariant. "adapted": the betas were chosen on the way, by these chains.
      notes: sentences on what to know before trusting the result.
      tile: chains in one batch; without resampling a chain depends on its key and this alone.
    """

    draws: np.ndarray
    tokens: Array
    log_prior: Array
    log_likelihood: Array
    log_weight: Array
    weights: np.ndarray
    log_z: float
    log_z_standard_error: float
    ess: float
    num_lineages: int
    history: InfillingHistory
    acceptance_rate: np.ndarray
    num_evaluations: int
    exactness: str
    notes: tuple[str, ...]
    tile: int

    num_ancestors = former_field("num_ancestors", "num_lineages")


def infilling_notes(
    history: InfillingHistory,
    num_lineages: int,
    error: float,
    count: int,
    resample: Resampling | None,
) -> tuple[str, ...]:
    """Return what the reader of a run should know, in sentences."""
    notes = []
    worst = float(history.ess.min())
    if worst < 0.1 * count:
        way = "chains, lookahead or temperatures" + ("" if resample else ", or resampling")
        notes.append(f"weights collapsed: ESS {worst:.1f} of {count}; use more {way}")
    if error > 0.5:
        notes.append(
            f"log Z is uncertain by {error:.2f}: use more chains, more lookahead or a larger "
            "num_mcmc_steps"
        )
    if num_lineages < min(8, count):
        notes.append(
            f"all chains descend from {num_lineages} first sequences: use more chains or a larger "
            "num_mcmc_steps"
        )
    return tuple(notes)
