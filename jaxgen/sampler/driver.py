"""Calls of the compiled program with the settings of a run.

Each function hands over what its program needs of a `RunConfig`; the course of a run, which
calls them one after another, is in `jaxgen.sampler.loop`.
"""

from __future__ import annotations

import jax
import numpy as np

from jaxgen.core.types import ArrayTree, PRNGKey
from jaxgen.sampler import program, scouts
from jaxgen.sampler.config import RunConfig
from jaxgen.sampler.sharding import local_chains, replicate
from jaxgen.sampler.state import ChunkSpec, Phase, SamplerState, Stage, TemperatureInfo

__all__ = [
    "advance",
    "blank_state",
    "finish_annealing",
    "fit_proposal",
    "init_stage",
    "place_chains",
    "send_scouts",
    "stale",
]


def blank_state(key: PRNGKey, config: RunConfig) -> SamplerState:
    """Return a state whose chains have not been drawn."""
    return program.blank_state(
        replicate(key, config.mesh),
        config.path,
        config.rule,
        num_chains=config.num_chains,
        num_islands=config.islands,
        precondition=config.precondition,
        with_mixture=config.pilot is not None,
    )


def init_stage(
    state: SamplerState, config: RunConfig, stage: Stage
) -> tuple[SamplerState, TemperatureInfo]:
    """Draw the first states of a stage; also return the row of its first temperature, if any."""
    state, row = program.init_stage(
        state,
        config.path,
        config.kernel,
        np.asarray(stage, np.int32),
        pool=config.pool,
        resample=config.resample,
        layout=config.layout,
    )
    return state, _active(jax.tree.map(lambda x: np.asarray(x)[None], row))


def place_chains(state: SamplerState, config: RunConfig) -> SamplerState:
    """Put the chains of a blank state at the positions that the user gave, at the last beta."""
    return program.place_chains(
        state,
        config.path,
        config.kernel,
        config.start,
        np.float32(config.last_beta),
        layout=config.layout,
    )


def send_scouts(state: SamplerState, config: RunConfig) -> SamplerState:
    """Replace the pilot's chains by scouts."""
    return scouts.send_scouts(
        state,
        config.path,
        config.kernel,
        precondition=config.precondition,
        layout=config.layout,
    )


def fit_proposal(state: SamplerState, config: RunConfig) -> SamplerState:
    """Fit the start of the final stage to the positions of pilot and scouts."""
    return scouts.fit_proposal(state, config.path)


def finish_annealing(state: SamplerState, config: RunConfig) -> SamplerState:
    """Join the islands at the last beta, see `jaxgen.sampler.transitions`."""
    return program.finish_annealing(
        state,
        config.path,
        config.rule,
        resample=config.resample,
        precondition=config.precondition,
        layout=config.layout,
    )


def stale(state: SamplerState, config: RunConfig) -> bool:
    """Return whether the chains carry log densities of another target than this run's."""
    return bool(program.stale(state, config.path, layout=config.layout))


def advance(
    state: SamplerState,
    config: RunConfig,
    phase: Phase,
    iterations: int,
    steps: int,
    stage: Stage = Stage.FINAL,
    most_steps: int | None = None,
) -> tuple[SamplerState, TemperatureInfo, ArrayTree]:
    """Run one chunk; `state` is used up.

    Args:
      state: where the run stands.
      config: the settings.
      phase: of the chunk.
      iterations: how many, at most.
      steps: kernel steps in each.
      stage: of annealing.
      most_steps: kernel steps in each at most, see `ChunkSpec`.

    Returns:
      The state; the rows of the temperatures it passed; what was collected, NumPy
      leaves `[iterations, C, ...]` (in a run of several processes, this one's chains).
    """
    spec = ChunkSpec.of(
        phase,
        iterations,
        steps,
        config.threshold,
        stage,
        # After a pilot the inverse mass and the step were learned from other chains.
        learn_mass=stage == Stage.PILOT or config.pilot is None,
        most_steps=most_steps,
    )
    state, rows, kept = program.advance_in_place(state, config.sampler(stage), spec, config.options)
    rows = jax.device_get(rows)
    if phase == Phase.DRAW:
        kept = jax.tree.map(
            lambda x: _first(local_chains(x, config.num_chains, 1)[1], iterations), kept
        )
    return state, _active(rows), kept


def _active(rows: TemperatureInfo) -> TemperatureInfo:
    return TemperatureInfo(*(column[rows.active] for column in rows))


def _first(rows: np.ndarray, count: int) -> np.ndarray:
    """Return the first rows: a copy where there are more, for a view would keep all in memory."""
    return rows if count >= len(rows) else rows[:count].copy()
