"""Recorders: what keeps the draws of a run as they come."""

from __future__ import annotations

from typing import Protocol

import jax
import numpy as np

from jaxgen.core.types import ArrayTree
from jaxgen.sampler.records import Checkpoint

__all__ = ["InMemory", "Recorder"]


class Recorder(Protocol):
    """Interface of an object that receives every chunk, may keep its draws, and may stop the run.

    Attributes:
      checkpoint: where to resume, or None to begin.
      notes: sentences on the run that the result should carry.
      stopped: whether the run is to end now.
    """

    checkpoint: Checkpoint | None
    notes: tuple[str, ...]
    stopped: bool

    def after(self, checkpoint: Checkpoint, kept: ArrayTree | None) -> None:
        """Receive a chunk: `kept` is what it collected, `[iterations, C, ...]`, or None."""
        ...

    def draws(self) -> ArrayTree | None:
        """Return everything that was collected, leaves `[C, S, ...]`, or None."""
        ...


class InMemory:
    """Recorder that keeps draws in memory, and nothing else."""

    checkpoint: Checkpoint | None = None
    notes: tuple[str, ...] = ()
    stopped: bool = False

    def __init__(self) -> None:
        self._chunks: list[ArrayTree] = []

    def after(self, checkpoint: Checkpoint, kept: ArrayTree | None) -> None:
        """Keep what was collected."""
        if jax.tree.leaves(kept):
            self._chunks.append(kept)

    def draws(self) -> ArrayTree | None:
        """Hand over everything that was collected, leaves `[C, S, ...]`, or None.

        Every chunk is freed once it has been copied: draws are in memory once, and not twice.
        """
        if not self._chunks:
            return None
        first, structure = jax.tree.flatten(self._chunks[0])
        count = sum(len(jax.tree.leaves(chunk)[0]) for chunk in self._chunks)
        whole = [np.empty((leaf.shape[1], count, *leaf.shape[2:]), leaf.dtype) for leaf in first]
        del first
        done = 0
        while self._chunks:
            leaves = jax.tree.leaves(self._chunks.pop(0))
            for leaf, place in zip(leaves, whole, strict=True):
                place[:, done : done + len(leaf)] = np.moveaxis(leaf, 0, 1)
            done += len(leaves[0])
            del leaves
        return jax.tree.unflatten(structure, whole)
