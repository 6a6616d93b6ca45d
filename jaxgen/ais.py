"""Annealed importance sampling (Neal 2001), with resampling where it is asked for.

    log w += (beta_t - beta_{t-1}) tilt(z);   resample if the ESS is low;   move at beta_t

`ais` returns the weighted states; `jaxgen.sample` goes on from there with draws at the
last temperature.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxgen import engine, run
from jaxgen.errors import expected
from jaxgen.kernels import Kernel
from jaxgen.path import AnnealedPath
from jaxgen.posterior import Posterior
from jaxgen.resampling import effective_sample_size
from jaxgen.results import AISResult, annealing_notes
from jaxgen.schedules import Adaptive
from jaxgen.types import PRNGKey

__all__ = ["ais"]


def ais(
    key: PRNGKey,
    target: Posterior | AnnealedPath,
    kernel: Kernel | None = None,
    betas: Any = None,
    *,
    num_chains: int = 64,
    step_size: Any = None,
    moves: int = 1,
    resample: str | None = None,
    resample_threshold: float = 0.5,
    precondition: bool = False,
    tile: int | None = None,
    progress: run.Callback | None = None,
) -> AISResult:
    """Draw from the start, anneal to the target, and return weighted states.

    Args:
      key: the run's key; it is consumed. Chain i uses `fold_in(key, i)` alone.
      target: a `Posterior` (annealed along `likelihood_path`) or an `AnnealedPath`.
      kernel: `HMC(10, jitter=True)` by default.
      betas: `[T + 1]` inverse temperatures from `jaxgen.schedules` (the first is where
        chains are drawn, and counts as 0), or `schedules.Adaptive`, the default.
      num_chains: C.
      step_size: a number, a rule of `jaxgen.adapt`, or None to follow the acceptance rate.
      moves: kernel steps at each temperature.
      resample: None for importance weights alone (chains then stay independent where the
        schedule and the step are fixed), or "systematic", "stratified", "multinomial",
        "residual": resample when the ESS falls below `resample_threshold * C`.
      precondition: set HMC's inverse mass to the ensemble's variances as beta grows.
      tile: chains moved in one batch; None for all. Results agree to the last bit only
        between runs of the same tile.
      progress: called with a `Progress` between chunks.

    Returns:
      An `AISResult`.

    Raises:
      InputError: for arguments that cannot be used, a path on which every chain has
        weight 0, or an adaptive schedule that runs out of temperatures.
    """
    setup = run.prepare(
        target,
        kernel,
        betas,
        num_chains=num_chains,
        moves=moves,
        step_size=step_size,
        resample=resample,
        resample_threshold=resample_threshold,
        precondition=precondition,
        tile=tile,
        progress=progress,
    )
    if not hasattr(setup.path.start, "log_prob"):
        raise expected(
            "prior",
            "a prior with a log density for importance weights",
            f"{type(setup.path.start).__name__}, which has a score only",
            "Use sample() with MALAApprox, or ascend()",
        )
    state, history = run.anneal(run.start(key, setup), setup)
    exactness = setup.kernel.exactness
    log_z = error = float("nan")
    if exactness == "exact":
        log_z, error = (float(x) for x in engine.log_evidence(state))
    learns = setup.rule.learns or isinstance(setup.schedule, Adaptive) or precondition
    if exactness == "exact" and learns:
        exactness = "adapted"
    return AISResult(
        position=state.chains.position,
        log_weight=state.log_weight,
        log_z=log_z,
        log_z_standard_error=error,
        ess=float(effective_sample_size(state.log_weight)),
        beta=float(state.beta),
        history=history,
        acceptance_rate=float(np.mean(state.accepted) / int(state.num_steps)),
        num_gradients=np.asarray(state.num_gradients),
        num_divergent=int(np.sum(state.num_divergent)),
        exactness=exactness,
        notes=annealing_notes(setup.kernel, state, history, error),
        state=state,
    )
