"""How results are printed: a title, rows of figures, notes, and pictures in a notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import jax
import numpy as np
from jax.core import Tracer

from jaxgen.core.errors import InputError
from jaxgen.core.printing import Rows, number
from jaxgen.core.pytree import short
from jaxgen.core.types import ArrayTree
from jaxgen.sampler import summaries
from jaxgen.sampler.notes import FAILURES, UNSETTLED

if TYPE_CHECKING:  # results print themselves by these functions: the two know each other
    from jaxgen.sampler.results import AISResult, SampleResult

__all__ = ["Card", "of_ais", "of_sample", "pictures_of"]

# Title, rows and notes.
Card: TypeAlias = tuple[str, Rows, tuple[str, ...]]
_Result = TypeVar("_Result", "AISResult", "SampleResult")


def of_ais(result: AISResult) -> Card:
    """Return what an `AISResult` prints."""
    found = _printable(result)
    if found is None:
        return _unsettled(result)
    count = len(np.asarray(found.log_weight))
    rows = [
        *_evidence_lines(found, count),
        ("beta", f"{found.beta:.4g} at the end of {len(found.history.beta)} temperatures"),
        ("acceptance", f"{float(found.acceptance_rate):.2f}"),
        ("gradients", f"{float(np.mean(found.num_gradients)):,.0f} per chain"),
    ]
    size = _size(found.position)
    title = f"AISResult: {count} weighted draws, {size} numbers each, {found.exactness}"
    return title, rows, found.notes


def of_sample(result: SampleResult) -> Card:
    """Return what a `SampleResult` prints."""
    found = _printable(result)
    if found is None:
        return _unsettled(result)
    count = len(found.weights)
    leaves = jax.tree.leaves(found.draws)
    kept = "no draws kept"
    if leaves and all(np.ndim(leaf) >= 2 for leaf in leaves):
        kept = f"{np.shape(leaves[0])[1]} draws per chain"
    stages = f"{len(found.history.beta)} temperature{'s' * (len(found.history.beta) != 1)}"
    if len(found.pilot_history.beta):
        stages += f" after a pilot of {len(found.pilot_history.beta)}"
    rows = [
        *_evidence_lines(found, count),
        ("annealing", f"{stages}, {found.num_lineages} independent first states"),
        (
            "acceptance",
            f"{float(np.mean(found.acceptance_rate)):.2f} at step size {found.step_size:.3g}",
        ),
        ("gradients", f"{float(np.mean(found.num_gradients)):,.0f} per chain"),
        ("divergent", f"{int(np.sum(found.num_divergent))} proposals, rejected"),
    ]
    mixed = summaries.mixing(found.draws, found.position)
    if mixed:
        rows.insert(2, ("mixing", mixed))
    size = _size(found.position)
    title = f"SampleResult: {count} chains, {kept}, {size} numbers each, {found.exactness}"
    return title, rows, found.notes


def _printable(result: _Result) -> _Result | None:
    """Return the result with numbers in it; None for several runs, placeholders, or a failure."""
    if result.notes[:1] != UNSETTLED:
        return result
    try:
        return result.settled()
    except InputError:
        return None


def pictures_of(result: SampleResult) -> list[tuple[str, np.ndarray]]:
    """Return the last draw of each chain, where images were kept and there is one run."""
    found = _printable(result)
    kept = found.draws if found is not None and isinstance(found.draws, Mapping) else {}
    image = kept.get("image")
    if image is None or isinstance(image, Tracer) or np.ndim(image) not in (4, 5):
        return []
    last = np.asarray(image)[:, -1]
    last = last[..., None] if last.ndim == 3 else last
    return [("last draws of the chains", last)] if last.shape[-1] in (1, 3) else []


def _unsettled(result: AISResult | SampleResult) -> Card:
    """Return what several runs, placeholders and failed runs print."""
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


def _size(position: ArrayTree) -> int:
    """Return how many numbers the position of one chain has."""
    return sum(int(np.prod(np.shape(leaf)[1:])) for leaf in jax.tree.leaves(position))


def _evidence_lines(result: AISResult | SampleResult, count: int) -> list[tuple[str, str]]:
    text = f"{number(result.log_z)} +- {number(result.log_z_standard_error)}"
    if len(result.island_log_z) > 1:
        text += " (islands: " + ", ".join(f"{x:.2f}" for x in result.island_log_z) + ")"
    return [("log Z", text), ("weights", f"ESS {number(result.ess, '.1f')} of {count}")]
