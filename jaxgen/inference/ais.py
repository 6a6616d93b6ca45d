"""Annealed importance sampling (Neal 2001), with resampling where it is asked for.

    log w += (beta_t - beta_{t-1}) tilt(z);   resample if the ESS is low;   move at beta_t

`ais` returns the weighted states; `jaxgen.sample` goes on from there with draws at the
last temperature.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from os import PathLike
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxgen.core.deprecation import former_keyword
from jaxgen.core.errors import expected
from jaxgen.core.keys import as_key
from jaxgen.core.precision import at_precision
from jaxgen.core.tracing import is_traced
from jaxgen.core.types import Device, PRNGKey
from jaxgen.inference.finished import leave
from jaxgen.kernels import Kernel
from jaxgen.sampler import loop, traced
from jaxgen.sampler.checkpoint import recording
from jaxgen.sampler.config import Callback, RunConfig
from jaxgen.sampler.notes import UNSETTLED, annealing_notes, precision_note
from jaxgen.sampler.options import Checkpointing, Execution
from jaxgen.sampler.prepare import prepare
from jaxgen.sampler.records import RunLength
from jaxgen.sampler.results import AISResult
from jaxgen.sampler.traced import refuse_under_trace
from jaxgen.target.path import AnnealedPath
from jaxgen.target.posterior import Posterior
from jaxgen.tempering.betas import Adaptive, Betas
from jaxgen.tempering.resampling import effective_sample_size
from jaxgen.tempering.step_size import StepSize

__all__ = ["ais"]


@former_keyword("moves", "num_mcmc_steps")
@at_precision
def ais(
    key: PRNGKey,
    target: Posterior | AnnealedPath,
    kernel: Kernel | None = None,
    betas: Betas = None,
    *,
    num_chains: int = 64,
    step_size: StepSize = None,
    num_mcmc_steps: int = 1,
    resample: str | None = None,
    resample_threshold: float = 0.5,
    precondition: bool | str = False,
    tile: int | None = None,
    memory: int | None = None,
    devices: Sequence[Device] | None = None,
    shard_weights: bool = False,
    folder: str | PathLike[str] | None = None,
    resume: bool = False,
    checkpoint_every: float = 60.0,
    precision: str = "highest",
    progress: Callback | bool | None = None,
) -> AISResult:
    """Draw from the start, anneal to the target, and return weighted states.

    It may be called inside `jax.jit`, `jax.vmap`, `jax.lax.scan` and `jax.export`, as `sample` may.

    Args:
      key: the run's key, or an integer; it is consumed. Chain i uses `fold_in(key, i)` alone.
      target: a `Posterior` (annealed along `likelihood_path`) or an `AnnealedPath`.
      kernel: `HMC(10, jitter=True)` by default.
      betas: `[T + 1]` inverse temperatures from `jaxgen.schedules` (the first is where
        chains are drawn, and counts as 0), or `schedules.Adaptive`, the default.
      num_chains: C. Fewer than 8 learn nothing from each other: betas are then fixed.
      step_size: a number, a rule of `jaxgen.adapt`, or None to follow the acceptance rate.
      num_mcmc_steps: kernel steps at each temperature.
      resample: None for importance weights alone (chains then stay independent where the
        schedule and the step are fixed), or "systematic", "stratified", "multinomial",
        "residual": resample when the ESS falls below `resample_threshold * C`.
      resample_threshold: a fraction of C, see `resample`.
      precondition: how the inverse mass (of kernels that have one) is learned from the
        chains as beta grows: "score" (dense, from their gradients), "dense" or "diagonal"
        (from their positions); True chooses, False leaves it alone.
      tile: chains in one batch. For a given tile, results agree to the last bit on any
        number of devices and processes; by default as many as fill `memory`.
      memory: bytes of activations that a tile may fill: 32 MiB on CPU (where smaller
        batches stay in the cache), 4 GiB on accelerators.
      devices: the devices that share the chains; all there are by default.
      shard_weights: keep large weights in parts over the devices, and gather them while the
        program runs. For generators of which a device should not hold a copy between runs; samples
        stay the same.
      folder: a run folder for checkpoints. SIGTERM or Ctrl-C then writes a checkpoint and ends
        the process (`jaxgen.Preempted`, KeyboardInterrupt).
      resume: whether to resume from the folder's last checkpoint, bit for bit, if it holds one.
      checkpoint_every: seconds between two checkpoints.
      precision: "highest" multiplies matrices in float32 on every device; "fast" as JAX is
        set up, which is bfloat16 on a TPU. A note says where that moves log p by more than 0.1.
      progress: called with a `Progress` between chunks; True writes a line to the terminal.

    Returns:
      An `AISResult`.

    Raises:
      InputError: for arguments that cannot be used, a path on which every chain has
        weight 0, an adaptive schedule that runs out of temperatures, or a folder that holds
        another run.
    """
    key, begun = as_key(key), time.monotonic()
    config = prepare(
        target,
        kernel,
        betas,
        num_chains=num_chains,
        num_mcmc_steps=num_mcmc_steps,
        step_size=step_size,
        resample=resample,
        resample_threshold=resample_threshold,
        precondition=precondition,
        execution=Execution(tile, memory, devices, shard_weights),
        precision=precision,
        progress=progress,
    )
    if not hasattr(config.path.start, "log_prob"):
        raise expected(
            "prior",
            "a prior with a log density for importance weights",
            f"{type(config.path.start).__name__}, which has a score only",
            "Use sample() with MALAApprox, or ascend()",
        )
    run_length = RunLength()
    exactness = config.kernel.exactness
    learns = config.rule.learns or isinstance(config.schedule, Adaptive)
    learns = learns or config.precondition != "none"
    if exactness == "exact" and learns:
        exactness = "adapted"
    if is_traced(key, target, kernel, betas, step_size):
        refuse_under_trace(
            folder=folder, progress=progress, devices=devices, shard_weights=shard_weights
        )
        return _traced(traced.run(key, config, run_length), config, exactness)
    saving = Checkpointing(folder, resume, checkpoint_every)
    with recording(key, config, run_length, saving) as recorder:
        checkpoint = recorder.checkpoint or loop.init(key, config, run_length)
        checkpoint = loop.run_loop(checkpoint, config, run_length, recorder)
    state, evidence = checkpoint.state, checkpoint.evidence
    error = float(evidence.standard_error)
    result = AISResult(
        position=state.chains.position,
        log_weight=jnp.asarray(evidence.log_weight),
        log_z=float(evidence.log_z),
        log_z_standard_error=error,
        ess=float(effective_sample_size(jnp.asarray(evidence.log_weight))),
        beta=float(state.beta),
        history=checkpoint.history,
        acceptance_rate=float(np.mean(state.accepted) / int(state.num_steps)),
        num_gradients=np.asarray(state.num_gradients),
        num_divergent=int(np.sum(state.num_divergent)),
        exactness=exactness,
        notes=annealing_notes(
            (config.kernel.name, config.kernel.exactness),
            int(evidence.num_lineages),
            checkpoint.history,
            error,
            num_chains,
            evidence.island_log_z,
        )
        + precision_note(config.path, precision)
        + recorder.notes,
        state=state,
        tile=config.tile,
        island_log_z=evidence.island_log_z,
        kernel=config.kernel.name,
        precision=config.precision,
    )
    if folder is not None:
        leave(folder, result, target, config, run_length, time.monotonic() - begun)
    return result


def _traced(found: traced.TracedRun, config: RunConfig, exactness: str) -> AISResult:
    """Return the result of a run under a transformation of JAX: arrays, and nothing else."""
    state, evidence = found.state, found.evidence
    # Placeholders of arrays stand where an ordinary run has arrays and numbers.
    fields: dict[str, Any] = {
        "position": state.chains.position,
        "log_weight": evidence.log_weight,
        "log_z": evidence.log_z,
        "log_z_standard_error": evidence.standard_error,
        "ess": effective_sample_size(jnp.asarray(evidence.log_weight)),
        "beta": state.beta,
        "history": found.history,
        "acceptance_rate": jnp.mean(state.accepted / jnp.maximum(state.num_steps, 1)),
        "num_gradients": state.num_gradients,
        "num_divergent": jnp.sum(state.num_divergent),
        "exactness": exactness,
        "notes": UNSETTLED,
        "state": state,
        "tile": config.tile,
        "island_log_z": evidence.island_log_z,
        "kernel": config.kernel.name,
        "precision": config.precision,
        "failure": found.failure,
    }
    return AISResult(**fields)
