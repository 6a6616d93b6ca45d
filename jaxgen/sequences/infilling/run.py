"""`infill`: weighted sequences from left to right, annealed to a likelihood, and then chains."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.cache import keep_compiled
from jaxgen.core.deprecation import former_keyword
from jaxgen.core.errors import check_integer, expected
from jaxgen.core.pytree import replace
from jaxgen.core.types import Array, PRNGKey, Resampling
from jaxgen.sampler.sharding import over_chains
from jaxgen.sequences.infilling.forward import (
    SHARED,
    ParticleState,
    Rows,
    forward,
    log_evidence,
    resample_cloud,
)
from jaxgen.sequences.infilling.moves import TILE, BlockMH, Gibbs
from jaxgen.sequences.infilling.particles import ParticleGibbs
from jaxgen.sequences.infilling.results import InfillingHistory, InfillingResult, infilling_notes
from jaxgen.sequences.infilling.target import TokenPosterior, check_model, tempered, vocabulary_of
from jaxgen.tempering.betas import Adaptive, Betas, check_betas
from jaxgen.tempering.resampling import effective_sample_size, relative_standard_error, scheme

__all__ = ["infill"]

Kernel = Gibbs | BlockMH | ParticleGibbs

# Up to this vocabulary, trying every token costs less than the moves that it saves.
_SMALL = 64


@former_keyword("moves", "num_mcmc_steps")
def infill(
    key: PRNGKey,
    posterior: TokenPosterior,
    kernel: Kernel | None = None,
    *,
    num_chains: int = 64,
    lookahead: int = 0,
    proposal: object = None,
    betas: Betas = None,
    num_mcmc_steps: int = 1,
    num_steps: int = 0,
    thin: int = 1,
    resample: Resampling | None = "systematic",
    resample_threshold: float = 0.5,
    tile: int = TILE,
) -> InfillingResult:
    """Draw sequences given some of their tokens and, if there is one, a likelihood.

    1. Tokens from left to right, weighted by the probability of the observed ones: sequential
       importance sampling with `resample=None`, a particle filter with resampling.
    2. With a likelihood, annealed importance sampling (Neal 2001) from there:
       log w += (beta_t - beta_{t-1}) log L(y), resampling, and `num_mcmc_steps` sweeps at beta_t.
    3. With `num_steps`, resampling to equal weights, and so many sweeps at the last beta.

    Args:
      key: the run's key; it is consumed. Chain i uses `fold_in(key, i)` alone.
      posterior: what was observed, and under which model.
      kernel: `Gibbs()`, `BlockMH()` or `ParticleGibbs()`; None for the first with at most 64
        different tokens, for the second with more.
      num_chains: C.
      lookahead: how many tokens are tried for a hidden place before an observed one, each at
        the cost of a model step for every chain; 0 for none, V or more for all of them.
      proposal: another `Autoregressive` model over the same tokens that draws the hidden ones,
        such as a `MaskedProposal`; weights make up for the difference. None for the model.
      betas: of the likelihood, `[T + 1]` from `jaxgen.schedules` (the first counts as 0) or
        `schedules.Adaptive`, the default; (0, 1) weights with the whole likelihood at once.
      num_mcmc_steps: sweeps at each temperature.
      num_steps: sweeps at the last beta, after annealing.
      thin: sweeps between two draws: S = num_steps // thin are kept for each chain.
      resample: None for importance weights alone, or "systematic", "stratified",
        "multinomial", "residual": resample when the ESS falls below
        `resample_threshold * C`, and once before the draws.
      resample_threshold: see `resample`.
      tile: chains in one batch.

    Returns:
      An `InfillingResult`.

    Raises:
      InputError: for arguments that cannot be used, and where every chain has weight 0.
    """
    check_integer("num_chains", num_chains, 1)
    check_integer("num_steps", num_steps, 0)
    check_integer("thin", thin, 1)
    _check(posterior, proposal, lookahead, num_mcmc_steps, resample, resample_threshold, tile)
    kernel = kernel or (Gibbs() if posterior.vocabulary <= _SMALL else BlockMH())
    if not isinstance(kernel, Kernel):
        raise expected("kernel", "Gibbs, BlockMH or ParticleGibbs", type(kernel).__name__)
    kernel.check()
    if betas is not None and posterior.log_likelihood is None:
        raise expected("betas", "None where there is no log_likelihood", betas)
    fixed = betas is not None and not isinstance(betas, Adaptive)
    schedule = betas if isinstance(betas, Adaptive) else Adaptive()
    if fixed:
        schedule = check_betas(betas)
    keep_compiled()

    posterior = replace(
        posterior, tokens=jnp.asarray(posterior.tokens, jnp.int32),
        observed=jnp.asarray(posterior.observed),
    )  # fmt: skip
    chain_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_chains))
    shared = jax.random.fold_in(key, SHARED)
    threshold = jnp.float32(resample_threshold)
    cloud, rows = _forward(
        shared,
        chain_keys,
        posterior,
        threshold,
        proposal,
        resample=resample,
        lookahead=lookahead,
        tile=tile,
    )
    if not np.isfinite(float(log_evidence(cloud))):
        raise expected("observed", "tokens that the model can write", "log p = -inf in every chain")
    if np.all(np.asarray(cloud.written.log_likelihood) == -np.inf):
        wanted, hint = "one that some sequence satisfies", "Use more chains, or a softer one"
        raise expected("log_likelihood", wanted, "-inf in every chain", hint)
    run = _Run(chain_keys, shared, posterior, kernel, resample, threshold, num_mcmc_steps, tile)
    blank = np.full(posterior.length, np.nan, np.float32)
    ess, log_z, resampled = map(np.asarray, rows)
    history = [InfillingHistory(np.zeros_like(blank), ess, log_z, resampled, blank)]
    beta = 0.0
    if posterior.log_likelihood is not None:
        cloud, beta, more = _anneal(run, cloud, schedule)
        history += more
    done = len(history) - 1

    log_weight, log_z = cloud.log_weight, float(log_evidence(cloud))
    if not np.isfinite(log_z):
        raise expected("log_likelihood", "finite values in some chain", f"log Z = {log_z}")
    ess = float(effective_sample_size(log_weight))
    error = float(relative_standard_error(log_weight, cloud.ancestor))
    if num_steps and resample is not None:
        again = jax.random.fold_in(shared, posterior.length + done)
        cloud, _ = _resample(again, cloud, name=resample)
    draws, rates = [], []
    for i in range(num_steps):
        cloud, rate = run.move(cloud, beta, posterior.length + done * num_mcmc_steps + i)
        rates.append(np.asarray(rate))
        if i % thin == thin - 1:
            draws.append(np.asarray(cloud.written.tokens))
    empty = np.zeros((num_chains, 0, posterior.length), np.int32)
    columns = InfillingHistory(*(np.concatenate(rows) for rows in zip(*history, strict=True)))
    hidden = ~np.asarray(posterior.observed)
    size = posterior.vocabulary
    looks = int(np.sum(hidden[:-1] & ~hidden[1:])) * min(lookahead, size)
    sweeps = (done * num_mcmc_steps + num_steps) * kernel.steps(size, posterior.length, hidden)
    count = len(np.unique(np.asarray(cloud.ancestor)))
    return InfillingResult(
        draws=np.stack(draws, axis=1) if draws else empty,
        tokens=cloud.written.tokens,
        log_prior=cloud.written.log_probs.sum(axis=1),
        log_likelihood=cloud.written.log_likelihood,
        log_weight=log_weight,
        weights=np.asarray(jax.nn.softmax(cloud.log_weight)),
        log_z=log_z,
        log_z_standard_error=error,
        ess=ess,
        num_lineages=count,
        history=columns,
        acceptance_rate=np.mean(rates, axis=0) if rates else np.full(num_chains, np.nan),
        num_evaluations=posterior.length * (1 if proposal is None else 2) + looks + sweeps,
        exactness="adapted" if done and isinstance(schedule, Adaptive) else "exact",
        notes=infilling_notes(columns, count, error, num_chains, resample),
        tile=tile,
    )


class _Run(NamedTuple):
    """The data that stay the same from sweep to sweep."""

    chain_keys: Array
    shared: Array
    posterior: TokenPosterior
    kernel: Kernel
    resample: Resampling | None
    threshold: Array
    num_mcmc_steps: int
    tile: int

    def move(self, cloud: ParticleState, beta: float, step: int) -> tuple[ParticleState, Array]:
        """One sweep of every chain, and the shares accepted `[C]`."""
        keys, now = self.chain_keys, (jnp.float32(beta), jnp.int32(step))
        return _move(keys, self.posterior, self.kernel, cloud, *now, tile=self.tile)


def _anneal(
    run: _Run, cloud: ParticleState, schedule: Any
) -> tuple[ParticleState, float, list[InfillingHistory]]:
    """Anneal; return the cloud at the last beta, that beta, and a row for each temperature."""
    adaptive, history, beta = isinstance(schedule, Adaptive), [], 0.0
    last = 1.0 if adaptive else float(np.float32(schedule[-1]))
    while beta < last:
        done = len(history)
        if adaptive and done == schedule.max_temperatures:
            wanted = f"a schedule that ends within {done} temperatures"
            raise expected("betas", wanted, f"beta = {beta:.3g}", "Lower Adaptive.cess")
        rule = schedule if adaptive else jnp.float32(schedule[done + 1])
        # Token t < T had fold_in(shared, t), and fold_in(chain_key, t).
        again = jax.random.fold_in(run.shared, run.posterior.length + done)
        now = jnp.float32(beta)
        cloud, now, row = _reweigh(again, cloud, now, rule, run.threshold, resample=run.resample)
        beta, rates = float(now), []
        for i in range(run.num_mcmc_steps):
            step = run.posterior.length + done * run.num_mcmc_steps + i
            cloud, rate = run.move(cloud, beta, step)
            rates.append(np.mean(np.asarray(rate)))
        found = (np.float32(beta), *row, np.float32(np.mean(rates)))
        history.append(InfillingHistory(*(np.asarray(x)[None] for x in found)))
    return cloud, beta, history


_forward = jax.jit(forward, static_argnames=("resample", "lookahead", "tile"))


@functools.partial(jax.jit, static_argnames="name")
def _resample(key: PRNGKey, cloud: ParticleState, *, name: str) -> tuple[ParticleState, Any]:
    return resample_cloud(key, cloud, name)


@functools.partial(jax.jit, static_argnames="tile")
def _move(
    chain_keys: Array,
    posterior: TokenPosterior,
    kernel: Kernel,
    cloud: ParticleState,
    beta: Array,
    step: Array,
    *,
    tile: int,
) -> tuple[ParticleState, Array]:
    """One sweep of every chain with `fold_in(chain_key, step)`, and the shares accepted `[C]`."""
    written, rate = over_chains(
        lambda key, now: kernel.sweep(jax.random.fold_in(key, step), posterior, now, beta),
        (chain_keys, cloud.written),
        tile,
    )
    return cloud._replace(written=written), rate


@functools.partial(jax.jit, static_argnames="resample")
def _reweigh(
    key: PRNGKey,
    cloud: ParticleState,
    beta: Array,
    rule: Any,
    threshold: Array,
    *,
    resample: Resampling | None,
) -> tuple[ParticleState, Array, Rows]:
    """To the next temperature, given or for the `Adaptive` rule to find; resampling."""
    tilt = cloud.written.log_likelihood
    new = rule.next_beta(beta, cloud.log_weight, tilt) if isinstance(rule, Adaptive) else rule
    cloud = cloud._replace(log_weight=cloud.log_weight + tempered(new - beta, tilt))
    row = Rows(effective_sample_size(cloud.log_weight), log_evidence(cloud), jnp.array(False))
    if resample is not None:
        again = (row.ess < threshold * tilt.shape[0]) & (row.ess > 0)
        cloud = jax.lax.cond(
            again, lambda c: resample_cloud(key, c, resample)[0], lambda c: c, cloud
        )
        row = row._replace(resampled=again)
    return cloud, new, row


def _check(
    posterior: object,
    proposal: object,
    lookahead: int,
    num_mcmc_steps: int,
    resample: Resampling | None,
    resample_threshold: float,
    tile: int,
) -> None:
    if not isinstance(posterior, TokenPosterior):
        raise expected("posterior", "a TokenPosterior", type(posterior).__name__)
    posterior.check()
    check_integer("lookahead", lookahead, 0)
    check_integer("num_mcmc_steps", num_mcmc_steps, 1)
    check_integer("tile", tile, 1)
    if resample is not None:
        scheme(resample)
    if not 0 <= resample_threshold <= 1:
        raise expected("resample_threshold", "a fraction between 0 and 1", resample_threshold)
    if proposal is not None:
        check_model("proposal", proposal)
        if (got := vocabulary_of(proposal)) != posterior.vocabulary:
            raise expected("proposal", f"a model of {posterior.vocabulary} tokens", got)
