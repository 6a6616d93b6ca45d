"""Option records: what the user chose for execution, and what the compiled program is given.

New values in a `Sampler` compile nothing as long as shapes stay the same. A new `ChunkOptions`
or `Layout` is another program.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from jax.sharding import Mesh

from jaxgen.core.types import Array, ArrayTree, Device, Preconditioning, Resampling
from jaxgen.kernels.base import ChainState, Kernel
from jaxgen.target.path import AnnealedPath
from jaxgen.tempering.betas import Adaptive
from jaxgen.tempering.step_size import StepRule

__all__ = [
    "ONE_BATCH",
    "Checkpointing",
    "ChunkOptions",
    "Collect",
    "Execution",
    "Layout",
    "Sampler",
    "Schedule",
    "collect_nothing",
]

Collect: TypeAlias = Callable[[AnnealedPath, ChainState], ArrayTree]
Schedule: TypeAlias = Array | Adaptive


class Sampler(NamedTuple):
    """The path, kernel, step rule and schedule of a run; all of it is data.

    Attributes:
      path: the annealing path.
      kernel: how a chain moves.
      rule: how the step size is chosen.
      schedule: `[T + 1]` inverse temperatures, of which the first is ignored (chains start at
        0), or `Adaptive`.
    """

    path: AnnealedPath
    kernel: Kernel
    rule: StepRule
    schedule: Schedule


class Execution(NamedTuple):
    """The devices and batches of a run; none of it changes what is sampled.

    Attributes:
      tile: number of chains in one batch; None chooses it by `memory`.
      memory: bytes of activations that a tile may fill; None for the device's default.
      devices: the devices that share the chains; None for all there are.
      shard_weights: whether large weights are kept in parts over the devices.
    """

    tile: int | None = None
    memory: int | None = None
    devices: Sequence[Device] | None = None
    shard_weights: bool = False


class Checkpointing(NamedTuple):
    """The folder of a run, and how often it is saved.

    Attributes:
      folder: the run folder; None saves nothing.
      resume: whether to resume from the last checkpoint in the folder, if it holds one.
      every: seconds between two checkpoints.
    """

    folder: str | os.PathLike[str] | None = None
    resume: bool = False
    every: float = 60.0


class Layout(NamedTuple):
    """The layout of chains over batches and devices, see `jaxgen.sampler.sharding`.

    Attributes:
      tile: number of chains in one batch; None for all of them.
      mesh: one axis of devices; None for the device on which the arguments are.
    """

    tile: int | None = None
    mesh: Mesh | None = None


# All chains in one batch, where the arguments are.
ONE_BATCH = Layout()


class ChunkOptions(NamedTuple):
    """The options that decide the program of a chunk.

    Attributes:
      resample: the name of a resampling scheme, or None.
      precondition: what the inverse mass is learned from at each temperature: the variances of
        the chains ("diagonal"), their covariance ("dense"), their gradients ("score"), or
        nothing ("none").
      collect: `collect(path, chain_state) -> tree`, what a draw of one chain keeps.
      layout: tiles and devices.
      chunk_size: number of iterations in the program.
    """

    resample: Resampling | None
    precondition: Preconditioning
    collect: Collect
    layout: Layout
    chunk_size: int


def collect_nothing(path: AnnealedPath, chain: ChainState) -> tuple[()]:
    """Keep nothing of a draw."""
    return ()
