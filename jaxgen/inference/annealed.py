"""Annealing as a pair of functions, in the shape of BlackJAX's sampling algorithms.

    state = init(key);   state, info = step(state)

One step is one temperature: weights, resampling where it is asked for, moves. For loops of
one's own: under `jax.jit`, `jax.lax.scan` or `jax.lax.while_loop`, beside other work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.keys import as_key
from jaxgen.core.precision import at_precision, matmul_precision
from jaxgen.core.types import Array, PRNGKey
from jaxgen.kernels import Kernel
from jaxgen.sampler import program
from jaxgen.sampler.config import prepare
from jaxgen.sampler.state import ANNEAL, DRAW, FINAL, Order, RunState, TemperatureInfo
from jaxgen.target.path import AnnealedPath
from jaxgen.target.posterior import Posterior
from jaxgen.tempering.betas import Adaptive
from jaxgen.tempering.resampling import Evidence

__all__ = ["Annealed", "annealed"]


class Annealed(NamedTuple):
    """Two functions that anneal, and one that reads the state.

    Attributes:
      init: `key -> state`: chains at beta = 0.
      step: `state -> (state, info)`: the next temperature and its moves. Once beta has reached
        its last value, further steps move the chains there, with the step size as it is, and
        `info.active` is False.
      evidence: `state -> Evidence`: log Z, its standard error, and each island's log Z.
    """

    init: Callable[[PRNGKey], RunState]
    step: Callable[[RunState], tuple[RunState, TemperatureInfo]]
    evidence: Callable[[RunState], Evidence]


@at_precision
def annealed(
    target: Posterior | AnnealedPath,
    kernel: Kernel | None = None,
    schedule: Any = None,
    *,
    num_chains: int = 64,
    moves: int = 3,
    step_size: Any = None,
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
      num_chains, moves, step_size, resample, resample_threshold, precondition: as in `ais`.
      tile: chains in one batch.
      precision: of matrix products: "highest" (float32 on every device) or "fast", as JAX is
        set up.

    Raises:
      InputError: for arguments that cannot be used.
    """
    setup = prepare(
        target,
        kernel,
        schedule,
        num_chains=num_chains,
        moves=moves,
        step_size=step_size,
        resample=resample,
        resample_threshold=resample_threshold,
        precondition=precondition,
        tile=tile,
        memory=None,
        devices=jax.devices()[:1],
        shard_weights=False,
        precision=precision,
        progress=None,
    )
    last = 1.0 if isinstance(setup.schedule, Adaptive) else setup.schedule[-1]

    def init(key: PRNGKey) -> RunState:
        """Draw the chains at beta = 0."""
        with matmul_precision(precision):
            return program.initial_state(
                as_key(key),
                setup.path,
                setup.kernel,
                setup.rule,
                num_chains=num_chains,
                num_islands=setup.islands,
                precondition=setup.precondition,
                tile=setup.tile,
            )

    def step(state: RunState) -> tuple[RunState, TemperatureInfo]:
        """Go on by one temperature."""
        phase: Array = jnp.where(state.beta < last, ANNEAL, DRAW)
        order = Order.of(ANNEAL, 1, setup.moves, setup.threshold, FINAL)._replace(phase=phase)
        with matmul_precision(precision):
            state, rows, _ = program.advance(
                state,
                setup.path,
                setup.kernel,
                setup.rule,
                setup.schedule,
                order,
                resample=setup.resample,
                precondition=setup.precondition,
                collect=setup.collect,
                tile=setup.tile,
                length=1,
            )
        info = jax.tree.map(lambda x: x[0], rows)
        return state, info._replace(beta=state.beta.astype(np.float32))

    return Annealed(init, step, program.log_evidence)
