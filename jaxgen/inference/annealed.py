"""Annealing as a pair of functions, in the shape of BlackJAX's sampling algorithms.

    state = init(key);   state, info = step(state)

One step is one temperature: weights, resampling where it is asked for, MCMC steps. The functions
are for your own loops: under `jax.jit`, `jax.lax.scan` or `jax.lax.while_loop`, together with other
work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.deprecation import former_keyword
from jaxgen.core.keys import as_key
from jaxgen.core.precision import at_precision, matmul_precision
from jaxgen.core.types import Array, PRNGKey
from jaxgen.kernels import Kernel
from jaxgen.sampler import program
from jaxgen.sampler.options import Execution, Layout
from jaxgen.sampler.prepare import prepare
from jaxgen.sampler.state import ChunkSpec, Phase, SamplerState, Stage, TemperatureInfo
from jaxgen.target.path import AnnealedPath
from jaxgen.target.posterior import Posterior
from jaxgen.tempering.betas import Adaptive
from jaxgen.tempering.resampling import Evidence
from jaxgen.tempering.step_size import StepSize

__all__ = ["Annealed", "annealed"]


class Annealed(NamedTuple):
    """Two functions that anneal, and one that reads the state.

    Attributes:
      init: `key -> state`: chains at beta = 0.
      step: `state -> (state, info)`: the next temperature and its MCMC steps. Once beta has reached
        its last value, further steps move the chains there, with the step size as it is, and
        `info.active` is False.
      evidence: `state -> Evidence`: log Z, its standard error, and each island's log Z.
    """

    init: Callable[[PRNGKey], SamplerState]
    step: Callable[[SamplerState], tuple[SamplerState, TemperatureInfo]]
    evidence: Callable[[SamplerState], Evidence]


@former_keyword("moves", "num_mcmc_steps")
@at_precision
def annealed(
    target: Posterior | AnnealedPath,
    kernel: Kernel | None = None,
    schedule: Any = None,
    *,
    num_chains: int = 64,
    num_mcmc_steps: int = 3,
    step_size: StepSize = None,
    resample: str | None = "systematic",
    resample_threshold: float = 0.5,
    precondition: bool | str = True,
    tile: int | None = None,
    precision: str = "highest",
) -> Annealed:
    """Return the functions that anneal to a target, one temperature a step.

    `sample` does more: it starts from a pool, anneals twice, and draws. The chains are in
    `state.chains.position`, their log weights in `state.log_weight`, beta in `state.beta`.

    Args:
      target: a `Posterior` or an `AnnealedPath`.
      kernel: `HMC(10, jitter=True)` by default.
      schedule: inverse temperatures `[T + 1]`, or `schedules.Adaptive()`, the default.
      num_chains: C.
      num_mcmc_steps: kernel steps at each temperature.
      step_size: as in `ais`.
      resample: as in `ais`.
      resample_threshold: as in `ais`.
      precondition: as in `ais`.
      tile: chains in one batch.
      precision: of matrix products: "highest" (float32 on every device) or "fast", as JAX is
        set up.

    Raises:
      InputError: for arguments that cannot be used.
    """
    config = prepare(
        target,
        kernel,
        schedule,
        num_chains=num_chains,
        num_mcmc_steps=num_mcmc_steps,
        step_size=step_size,
        resample=resample,
        resample_threshold=resample_threshold,
        precondition=precondition,
        execution=Execution(tile, devices=jax.devices()[:1]),
        precision=precision,
    )
    layout, sampler = Layout(config.tile), config.sampler(Stage.FINAL)
    options = config.options._replace(layout=layout, chunk_size=1)
    last = 1.0 if isinstance(config.schedule, Adaptive) else config.schedule[-1]

    def init(key: PRNGKey) -> SamplerState:
        """Draw the chains at beta = 0."""
        with matmul_precision(precision):
            return program.initial_state(
                as_key(key),
                config.path,
                config.kernel,
                config.rule,
                num_chains=num_chains,
                num_islands=config.islands,
                precondition=config.precondition,
                layout=layout,
            )

    def step(state: SamplerState) -> tuple[SamplerState, TemperatureInfo]:
        """Anneal by one temperature."""
        phase: Array = jnp.where(state.beta < last, Phase.ANNEAL, Phase.DRAW)
        steps = config.num_mcmc_steps
        spec = ChunkSpec.of(Phase.ANNEAL, 1, steps, config.threshold, Stage.FINAL)
        spec = spec._replace(phase=phase)
        with matmul_precision(precision):
            state, rows, _ = program.advance(state, sampler, spec, options)
        info = jax.tree.map(lambda x: x[0], rows)
        return state, info._replace(beta=state.beta.astype(np.float32))

    return Annealed(init, step, program.log_evidence)
