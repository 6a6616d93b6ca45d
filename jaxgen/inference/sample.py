"""`sample`: posterior draws with nothing to tune.

Chains start at the prior and are annealed to the posterior twice: a rough pilot finds where the
posterior lies, scouts look for modes that it has lost, and from a mixture fitted to the positions
of both a second, much shorter annealing gives exact weights. Then chains warm up while the step
size adapts, and draw with everything frozen.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.deprecation import former_keyword
from jaxgen.core.errors import check_integer, expected
from jaxgen.core.keys import as_key
from jaxgen.core.precision import at_precision
from jaxgen.core.tracing import is_traced
from jaxgen.core.types import ArrayTree, Device, PRNGKey
from jaxgen.inference.finished import leave
from jaxgen.inference.until import Converged, as_goal, draw_until
from jaxgen.kernels import ChainState, Kernel
from jaxgen.sampler import loop, traced
from jaxgen.sampler.checkpoint import recording
from jaxgen.sampler.config import Callback, Reduce, RunConfig
from jaxgen.sampler.notes import UNSETTLED, precision_note, sample_notes
from jaxgen.sampler.options import Checkpointing, Collect, Execution
from jaxgen.sampler.prepare import prepare
from jaxgen.sampler.records import Checkpoint, RunLength
from jaxgen.sampler.results import SampleResult
from jaxgen.sampler.state import SamplerState, TemperatureInfo, step_index
from jaxgen.sampler.traced import refuse_under_trace
from jaxgen.target.path import AnnealedPath
from jaxgen.target.posterior import Posterior
from jaxgen.tempering.betas import Betas
from jaxgen.tempering.resampling import effective_sample_size, whole_log_weight
from jaxgen.tempering.step_size import StepSize

__all__ = ["images", "positions", "sample"]

_NOT_ANNEALED = (
    "chains started from given positions without annealing: there is no log Z, and nothing "
    "tells whether parts of the posterior were never visited"
)


def positions(path: AnnealedPath, chain: ChainState) -> ArrayTree:
    """Keep a draw's coordinates: the default of `sample(collect=...)`."""
    return chain.position


def images(path: AnnealedPath, chain: ChainState) -> Any:
    """Keep a draw's coordinates and image: `{"position", "image"}`. One forward pass each."""
    posterior = getattr(path.base, "posterior", None)
    if posterior is None:
        raise expected("collect", "a function for this path", "images, which needs a Posterior")
    return {"position": chain.position, "image": posterior.image(chain.position)}


@former_keyword("moves", "num_mcmc_steps")
@at_precision
def sample(
    key: PRNGKey,
    target: Posterior | AnnealedPath,
    kernel: Kernel | None = None,
    *,
    num_chains: int = 64,
    num_steps: int = 20,
    thin: int = 2,
    warmup: int = 10,
    betas: Betas = None,
    num_mcmc_steps: int | None = None,
    num_islands: int | None = None,
    pool: int | None = None,
    pilot: bool | None = None,
    step_size: StepSize = None,
    resample: str | None = "systematic",
    resample_threshold: float = 0.5,
    precondition: bool | str = True,
    collect: Collect | None = positions,
    reduce: Reduce | None = None,
    tile: int | None = None,
    memory: int | None = None,
    devices: Sequence[Device] | None = None,
    shard_weights: bool = False,
    start: Any = None,
    state: SamplerState | None = None,
    until: str | Converged | None = None,
    folder: str | PathLike[str] | None = None,
    resume: bool = False,
    checkpoint_every: float = 60.0,
    precision: str = "highest",
    progress: Callback | bool | None = None,
) -> SampleResult:
    """Draw from a posterior: `sample(key, posterior)` chooses everything else.

    It may be called inside `jax.jit`, `jax.vmap` (over keys, labels, masks, observations, weights),
    `jax.lax.scan` and `jax.export`, unless a folder, a progress bar, `reduce` or `state` is
    given. The result then holds arrays only; `result.settled()`, or `result.unstacked()`
    after `vmap`, reads them, computes the notes and raises the errors that could not be raised
    before.

    Args:
      key: the run's key, or an integer; it is consumed. Chain i uses `fold_in(key, i)` alone.
      target: a `Posterior` (annealed along `likelihood_path`) or an `AnnealedPath`.
      kernel: `HMC(10, jitter=True)` by default.
      num_chains: C.
      num_steps: kernel steps at the last beta after warm-up.
      thin: kernel steps per draw: S = num_steps // thin draws are kept for each chain.
      warmup: kernel steps at the last beta in which the step size still adapts.
      betas: as in `ais`; `schedules.Adaptive()`, or "adaptive", by default.
      num_mcmc_steps: kernel steps at each temperature. By default, where there is a pilot, 2 to 8:
        chains move until the correlation of their positions with those before the steps is at
        most 0.5. Otherwise 3, and 1 for fewer than 8 chains.
      num_islands: I, a divisor of C: blocks of chains that are never resampled from each
        other while annealing, so that their estimates of log Z tell its error. By default
        at most 4, of at least 8 chains each.
      pool: draws from the prior among which each chain's first state is chosen, at a forward
        pass each. By default 32 with adaptive betas, 1 (no choice) otherwise.
      pilot: whether to anneal twice: roughly at first, then from a mixture fitted to where
        the chains have arrived, which is nearer to a sharp posterior than the prior is. Between
        the two, scouts start from the prior and from a wider distribution and move at the last
        beta, to find modes that the pilot has lost. The weights of the second annealing are exact
        whatever the pilot and the scouts found. None anneals twice where that is possible: with
        adaptive betas, resampling, a kernel with gradients, at least 16 chains and at most 1,024
        latent dimensions.
      step_size: a number, a rule of `jaxgen.adapt`, or None ("auto") to adapt, then freeze.
      resample: the scheme by which chains are resampled when the ESS falls below
        `resample_threshold * C`, and once at the end of annealing, so that draws have equal
        weights; None keeps importance weights instead.
      resample_threshold: see `resample`.
      precondition: how the inverse mass (of kernels that have one) is learned from the
        chains as beta grows: "score" (dense, from their gradients), "dense" or "diagonal"
        (from their positions); True chooses, False leaves it alone.
      collect: `collect(path, chain_state) -> tree`, what to keep of each draw (`positions`,
        `images`, or your own pure function, defined once: a new function compiles anew);
        None keeps nothing, and memory does not grow with the number of steps.
      reduce: `(accumulator, kept) -> accumulator`: fold draws as they come instead of
        keeping them. `kept` has NumPy leaves `[n, C, ...]`, n draws of every chain; the
        accumulator is None at first, then a tree of arrays.
      tile: chains in one batch, as in `ais`.
      memory: bytes of activations that a tile may fill, as in `ais`.
      devices: the devices that share the chains, as in `ais`.
      shard_weights: whether large weights are kept in parts over the devices, as in `ais`.
      start: where chains start, in the prior's coordinates. A distribution with `sample` and
        `log_prob` (an encoder's q(z | x), say) replaces the prior as the start of annealing,
        and weights stay right. Positions `[C, ...]` (of an optimiser, say) start at the last
        beta at once: nothing is annealed, log Z is NaN, and a note says so.
      state: the state of an earlier result, from whose chains, step size and count of steps the
        run continues instead of annealing; `warmup` is then not repeated. It must be a state of
        this very target: the chains carry its log densities and gradients.
      until: "converged", or a `jaxgen.Converged`: after `num_steps` go on until chains agree
        (R-hat at most 1.05) and there are enough draws (ESS of at least 400) of the log density
        and of every pixel, or until 32 times `num_steps`, with a note.
      folder: a run folder for checkpoints, as in `ais`. Draws are written there as they come, and
        can be read at any time (`jaxgen.load_run`). More than a GiB of them stays there, and
        `draws` is None. `jaxgen report FOLDER` shows a run that has ended.
      resume: whether to resume from the folder's last checkpoint, as in `ais`.
      checkpoint_every: seconds between two checkpoints.
      precision: "highest" multiplies matrices in float32 on every device; "fast" as JAX is
        set up, which is bfloat16 on a TPU. A note says where that moves log p by more than 0.1.
      progress: called with a `Progress` between chunks; True writes a line to the terminal.

    Returns:
      A `SampleResult`.

    Raises:
      InputError: for arguments that cannot be used, and for a step size at which nothing
        is accepted.
    """
    key, begun = as_key(key), time.monotonic()
    config = prepare(
        target,
        kernel,
        betas,
        num_chains=num_chains,
        num_mcmc_steps=num_mcmc_steps,
        num_islands=num_islands,
        pool=pool,
        pilot=pilot,
        step_size=step_size,
        resample=resample,
        resample_threshold=resample_threshold,
        precondition=precondition,
        execution=Execution(tile, memory, devices, shard_weights),
        precision=precision,
        progress=progress,
        collect=collect,
        reduce=reduce,
        start=start,
    )
    if start is not None and state is not None:
        raise expected("start", "None where state says where chains are", "both")
    check_integer("num_steps", num_steps, 0)
    check_integer("warmup", warmup, 0)
    check_integer("thin", thin, 1)
    if 0 < num_steps < thin:
        raise expected(
            "thin", f"at most num_steps, {num_steps}", thin, "No draw would be kept otherwise"
        )
    run_length = RunLength(num_steps // thin, thin, num_steps % thin, warmup)
    if is_traced(key, target, kernel, betas, step_size, start):
        refuse_under_trace(
            folder=folder,
            reduce=reduce,
            state=state,
            until=until,
            progress=progress,
            devices=devices,
            shard_weights=shard_weights,
        )
        return _traced(traced.run(key, config, run_length), config)

    def draw(length: RunLength, state: SamplerState | None, resume: bool) -> SampleResult:
        saving = Checkpointing(folder, resume, checkpoint_every)
        with recording(key, config, length, saving, state) as recorder:
            checkpoint = recorder.checkpoint
            if checkpoint is None and state is not None:
                checkpoint = loop.from_state(state, config)
            elif checkpoint is None:
                checkpoint = loop.init(key, config, length)
            checkpoint = loop.run_loop(checkpoint, config, length, recorder)
            draws = checkpoint.reduced if reduce is not None else recorder.draws()
        result = _result(checkpoint, config, draws)
        notes = (*result.notes, *precision_note(config.path, precision), *recorder.notes)
        result = result._replace(notes=notes)
        if folder is not None:
            leave(folder, result, target, config, length, time.monotonic() - begun)
        return result

    if until is None:
        return draw(run_length, state, resume)
    if reduce is not None:
        raise expected("until", "None where draws are reduced", until, "It looks at all draws")
    goal, place = as_goal(until, num_steps), None if folder is None else Path(folder)
    return draw_until(draw, goal, target, run_length, state=state, folder=place, resume=resume)


def _exactness(config: RunConfig) -> str:
    exactness = config.kernel.exactness
    return "adapted" if exactness == "exact" and not config.rule.freezes else exactness


def _traced(found: traced.TracedRun, config: RunConfig) -> SampleResult:
    """Return the result of a run under a transformation of JAX: arrays, and nothing else."""
    state, evidence = found.state, found.evidence
    final = found.history.stage == found.stage
    history, before = (
        found.history._replace(active=found.history.active & part) for part in (final, ~final)
    )
    # Placeholders of arrays stand where an ordinary run has arrays and numbers.
    fields: dict[str, Any] = {
        "draws": found.draws,
        "position": state.chains.position,
        "log_weight": evidence.log_weight,
        "weights": jax.nn.softmax(whole_log_weight(state.log_weight, state.log_z)),
        "log_z": evidence.log_z,
        "log_z_standard_error": evidence.standard_error,
        "ess": effective_sample_size(jnp.asarray(evidence.log_weight)),
        "num_lineages": evidence.num_lineages,
        "history": history,
        "acceptance_rate": state.accepted / jnp.maximum(state.num_steps, 1),
        "step_size": jnp.mean(config.rule.size(state.adaptation, step_index(state))),
        "num_gradients": state.num_gradients,
        "num_divergent": state.num_divergent,
        "exactness": _exactness(config),
        "notes": UNSETTLED if config.start is None else (*UNSETTLED, _NOT_ANNEALED),
        "state": state,
        "tile": config.tile,
        "island_log_z": evidence.island_log_z,
        "pilot_history": before,
        "kernel": config.kernel.name,
        "precision": config.precision,
        "failure": found.failure,
    }
    return SampleResult(**fields)


def _result(checkpoint: Checkpoint, config: RunConfig, draws: ArrayTree) -> SampleResult:
    """Return the result of a finished run."""
    state, evidence = checkpoint.state, checkpoint.evidence
    error = float(evidence.standard_error)
    final = checkpoint.history.stage == checkpoint.stage
    history, before = (
        TemperatureInfo(*(x[s] for x in checkpoint.history)) for s in (final, ~final)
    )
    rates = np.asarray(state.accepted) / max(int(state.num_steps), 1)
    result = SampleResult(
        draws=draws,
        position=state.chains.position,
        log_weight=evidence.log_weight,
        weights=np.asarray(jax.nn.softmax(whole_log_weight(state.log_weight, state.log_z))),
        log_z=float(evidence.log_z),
        log_z_standard_error=error,
        ess=float(effective_sample_size(jnp.asarray(evidence.log_weight))),
        num_lineages=int(evidence.num_lineages),
        history=history,
        acceptance_rate=rates,
        step_size=loop.step_size(state, config.rule),
        num_gradients=np.asarray(state.num_gradients),
        num_divergent=np.asarray(state.num_divergent),
        exactness=_exactness(config),
        notes=(),
        state=state,
        tile=config.tile,
        island_log_z=evidence.island_log_z,
        pilot_history=before,
        kernel=config.kernel.name,
        precision=config.precision,
    )
    # Of what `reduce` has made of the draws nothing is known.
    notes = sample_notes(result if config.reduce is None else result._replace(draws=None))
    if config.start is not None:
        notes = (_NOT_ANNEALED, *notes)
    return result._replace(notes=notes)
