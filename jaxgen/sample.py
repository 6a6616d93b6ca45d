"""`sample`: posterior draws with nothing to tune.

Chains start at the prior, are annealed to the posterior (as in `jaxgen.ais`), warm up
there while the step size settles, and then draw with everything frozen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import engine, run
from jaxgen.errors import expected
from jaxgen.kernels import ChainState, Kernel
from jaxgen.path import AnnealedPath
from jaxgen.posterior import Posterior
from jaxgen.resampling import effective_sample_size
from jaxgen.results import NO_HISTORY, SampleResult, annealing_notes
from jaxgen.state import RunState
from jaxgen.types import ArrayTree, PRNGKey

__all__ = ["images", "positions", "sample"]

Collect = Callable[[AnnealedPath, ChainState], Any]


def positions(path: AnnealedPath, chain: ChainState) -> ArrayTree:
    """Keep a draw's coordinates: the default of `sample(collect=...)`."""
    return chain.position


def images(path: AnnealedPath, chain: ChainState) -> Any:
    """Keep a draw's coordinates and image: `{"position", "image"}`. One forward pass each."""
    posterior = getattr(path.base, "posterior", None)
    if posterior is None:
        raise expected("collect", "a function for this path", "images, which needs a Posterior")
    return {"position": chain.position, "image": posterior.image(chain.position)}


def sample(
    key: PRNGKey,
    target: Posterior | AnnealedPath,
    kernel: Kernel | None = None,
    *,
    num_chains: int = 64,
    num_steps: int = 20,
    thin: int = 2,
    warmup: int = 10,
    betas: Any = None,
    moves: int = 3,
    step_size: Any = None,
    resample: str | None = "systematic",
    resample_threshold: float = 0.5,
    precondition: bool = True,
    collect: Collect | None = positions,
    tile: int | None = None,
    state: RunState | None = None,
    progress: run.Callback | None = None,
) -> SampleResult:
    """Draw from a posterior: `sample(key, posterior)` chooses everything else.

    Args:
      key: the run's key; it is consumed. Chain i uses `fold_in(key, i)` alone.
      target: a `Posterior` (annealed along `likelihood_path`) or an `AnnealedPath`.
      kernel: `HMC(10, jitter=True)` by default.
      num_chains: C.
      num_steps: kernel steps at the last beta after warm-up.
      thin: steps between two draws: S = num_steps // thin are kept for each chain.
      warmup: steps at the last beta in which the step size still adapts.
      betas: as in `ais`; `schedules.Adaptive()` by default.
      moves: kernel steps at each temperature.
      step_size: a number, a rule of `jaxgen.adapt`, or None to adapt, then freeze.
      resample: the scheme by which chains are resampled when the ESS falls below
        `resample_threshold * C`, and once at the end of annealing, so that draws have equal
        weights; None keeps importance weights instead.
      resample_threshold: see `resample`.
      precondition: set HMC's inverse mass to the ensemble's variances as beta grows.
      collect: `collect(path, chain_state) -> tree`, what to keep of each draw (`positions`,
        `images`, or your own pure function, defined once: a new function compiles anew);
        None keeps nothing, and memory does not grow with the number of steps.
      tile: as in `ais`.
      state: go on from an earlier result's state (its chains, step size and count of
        steps) instead of annealing; `warmup` is then not repeated. It must be of this very
        target: the chains carry its log densities and gradients.
      progress: called with a `Progress` between chunks.

    Returns:
      A `SampleResult`.

    Raises:
      InputError: for arguments that cannot be used, and for a step size at which nothing
        is accepted.
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
        collect=collect,
    )
    run.check_integer("num_steps", num_steps, 0)
    run.check_integer("warmup", warmup, 0)
    run.check_integer("thin", thin, 1)

    # Without an accept step there are no weights: such chains go straight to the target.
    annealed = state is None and setup.kernel.exactness != "approximate"
    history, log_weight = NO_HISTORY, np.zeros(num_chains)
    log_z = error = float("nan")
    notes: tuple[str, ...] = ()
    if state is None:
        state = run.start(key, setup)
        if annealed:
            state, history = run.anneal(state, setup)
            log_weight = np.asarray(state.log_weight)
            if setup.kernel.exactness == "exact":
                log_z, error = (float(x) for x in engine.log_evidence(state))
            notes = annealing_notes(setup.kernel, state, history, error)
        else:
            last = 1.0 if betas is None else float(np.max(setup.schedule))
            state = state._replace(beta=jnp.asarray(last), log_weight=jnp.zeros(num_chains))
        state = run.warm_up(state, setup, warmup)
    else:
        state = run.resume(state, setup)

    state, draws = run.draw(state, setup, num_steps, thin)

    exactness = setup.kernel.exactness
    if exactness == "exact" and not setup.rule.freezes:
        exactness = "adapted"
    refused = int(np.sum(state.num_divergent))
    if refused:
        notes = (*notes, f"{refused} proposals were divergent or not finite, and were refused")
    return SampleResult(
        draws=draws,
        position=state.chains.position,
        log_weight=log_weight,
        weights=np.asarray(jax.nn.softmax(state.log_weight)),
        log_z=log_z,
        log_z_standard_error=error,
        ess=float(effective_sample_size(jnp.asarray(log_weight))),
        num_ancestors=len(np.unique(state.ancestor)),
        history=history,
        acceptance_rate=np.asarray(state.accepted) / max(int(state.num_steps), 1),
        step_size=run.step_size(state, setup.rule),
        num_gradients=np.asarray(state.num_gradients),
        num_divergent=np.asarray(state.num_divergent),
        exactness=exactness,
        notes=notes,
        state=state,
    )
