"""`infill`: weighted sequences from left to right, annealed to a likelihood, and then chains."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.cache import keep_compiled
from jaxgen.errors import expected
from jaxgen.infilling.forward import SHARED, Cloud, Rows, forward, log_evidence, resample_cloud
from jaxgen.infilling.moves import TILE, Gibbs, Redraw, sweep
from jaxgen.infilling.results import InfillingHistory, InfillingResult, infilling_notes
from jaxgen.infilling.target import TokenPosterior, tempered
from jaxgen.parallel import over_chains
from jaxgen.pytree import replace
from jaxgen.resampling import effective_sample_size, relative_standard_error, scheme
from jaxgen.schedules import Adaptive, check_betas
from jaxgen.setup import check_integer
from jaxgen.types import Array, PRNGKey

__all__ = ["infill"]

# Up to this vocabulary, trying every token costs less than the moves that it saves.
_SMALL = 64


def infill(
    key: PRNGKey,
    posterior: TokenPosterior,
    kernel: Gibbs | Redraw | None = None,
    *,
    num_chains: int = 64,
    lookahead: int = 0,
    betas: Any = None,
    moves: int = 1,
    num_steps: int = 0,
    thin: int = 1,
    resample: str | None = "systematic",
    resample_threshold: float = 0.5,
    tile: int = TILE,
) -> InfillingResult:
    """Draw sequences given some of their tokens and, if there is one, a likelihood.

    1. Tokens from left to right, weighted by the probability of the observed ones: sequential
       importance sampling with `resample=None`, a particle filter with resampling.
    2. With a likelihood, annealed importance sampling (Neal 2001) from there:
       log w += (beta_t - beta_{t-1}) log L(y), resampling, and `moves` sweeps at beta_t.
    3. With `num_steps`, resampling to equal weights, and so many sweeps at the last beta.

    Args:
      key: the run's key; it is consumed. Chain i uses `fold_in(key, i)` alone.
      posterior: what was observed, and under which model.
      kernel: `Gibbs()` for at most 64 different tokens, else `Redraw()`.
      num_chains: C.
      lookahead: how many tokens are tried for a hidden place before an observed one, each at
        the cost of a model step for every chain; 0 for none, V or more for all of them.
      betas: of the likelihood, `[T + 1]` from `jaxgen.schedules` (the first counts as 0) or
        `schedules.Adaptive`, the default; (0, 1) weights with the whole likelihood at once.
      moves: sweeps at each temperature.
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
    if not isinstance(posterior, TokenPosterior):
        raise expected("posterior", "a TokenPosterior", type(posterior).__name__)
    posterior.check()
    kernel = kernel or (Gibbs() if posterior.vocabulary <= _SMALL else Redraw())
    if not isinstance(kernel, Gibbs | Redraw):
        raise expected("kernel", "Gibbs or Redraw", type(kernel).__name__)
    kernel.check()
    least = {"num_chains": 1, "lookahead": 0, "moves": 1, "num_steps": 0, "thin": 1, "tile": 1}
    given = (num_chains, lookahead, moves, num_steps, thin, tile)
    for (name, bound), value in zip(least.items(), given, strict=True):
        check_integer(name, value, bound)
    if resample is not None:
        scheme(resample)
    if not 0 <= resample_threshold <= 1:
        raise expected("resample_threshold", "a fraction between 0 and 1", resample_threshold)
    if betas is not None and posterior.log_likelihood is None:
        raise expected("betas", "None where there is no log_likelihood", betas)
    schedule = _schedule(betas)
    keep_compiled()

    posterior = replace(
        posterior, tokens=jnp.asarray(posterior.tokens, jnp.int32),
        observed=jnp.asarray(posterior.observed),
    )  # fmt: skip
    chain_keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_chains))
    shared = jax.random.fold_in(key, SHARED)
    threshold = jnp.float32(resample_threshold)
    fixed = {"resample": resample, "tile": tile}
    cloud, rows = _forward(shared, chain_keys, posterior, threshold, lookahead=lookahead, **fixed)
    if not np.isfinite(float(log_evidence(cloud))):
        raise expected("observed", "tokens that the model can write", "log p = -inf in every chain")
    blank = np.full(posterior.length, np.nan, np.float32)
    ess, log_z, resampled = map(np.asarray, rows)
    history = [InfillingHistory(np.zeros_like(blank), ess, log_z, resampled, blank)]

    beta, done = 0.0, 0
    last = 1.0 if isinstance(schedule, Adaptive) else float(schedule[-1])
    while posterior.log_likelihood is not None and beta < last:
        if isinstance(schedule, Adaptive) and done == schedule.max_temperatures:
            wanted = f"a schedule that ends within {done} temperatures"
            raise expected("betas", wanted, f"beta = {beta:.3g}", "Lower Adaptive.cess")
        step = jnp.int32(posterior.length + done * moves)
        cloud, row = _anneal(
            shared, chain_keys, posterior, kernel, cloud, jnp.float32(beta), schedule,
            jnp.int32(done), step, threshold, moves=moves, **fixed,
        )  # fmt: skip
        history.append(InfillingHistory(*(np.asarray(x)[None] for x in row)))
        beta, done = float(row.beta), done + 1
        if not np.isfinite(float(row.log_z)):
            got = "log L = -inf in every chain"
            raise expected("log_likelihood", "one that some sequence satisfies", got)

    log_weight, log_z = cloud.log_weight, float(log_evidence(cloud))
    ess = float(effective_sample_size(log_weight))
    error = float(relative_standard_error(log_weight, cloud.ancestor))
    if num_steps and resample is not None:
        again = jax.random.fold_in(shared, posterior.length + done)
        cloud, _ = _resample(again, cloud, name=resample)
    draws, rates = [], []
    for i in range(num_steps):
        step = jnp.int32(posterior.length + done * moves + i)
        cloud, rate = _move(
            chain_keys, posterior, kernel, cloud, jnp.float32(beta), step, tile=tile
        )
        rates.append(np.asarray(rate))
        if i % thin == thin - 1:
            draws.append(np.asarray(cloud.written.tokens))
    empty = np.zeros((num_chains, 0, posterior.length), np.int32)
    columns = InfillingHistory(*(np.concatenate(rows) for rows in zip(*history, strict=True)))
    hidden = ~np.asarray(posterior.observed)
    size = posterior.vocabulary
    looks = int(np.sum(hidden[:-1] & ~hidden[1:])) * min(lookahead, size)
    sweeps = (done * moves + num_steps) * kernel.steps(size, posterior.length, hidden)
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
        num_ancestors=count,
        history=columns,
        acceptance_rate=np.mean(rates, axis=0) if rates else np.full(num_chains, np.nan),
        num_evaluations=posterior.length + looks + sweeps,
        exactness="adapted" if done and isinstance(schedule, Adaptive) else "exact",
        notes=infilling_notes(columns, count, error, num_chains, resample),
        tile=tile,
    )


_forward = jax.jit(forward, static_argnames=("resample", "lookahead", "tile"))


@functools.partial(jax.jit, static_argnames="name")
def _resample(key: PRNGKey, cloud: Cloud, *, name: str) -> tuple[Cloud, Any]:
    return resample_cloud(key, cloud, name)


@functools.partial(jax.jit, static_argnames="tile")
def _move(
    chain_keys: Array,
    posterior: TokenPosterior,
    kernel: Gibbs | Redraw,
    cloud: Cloud,
    beta: Array,
    step: Array,
    *,
    tile: int,
) -> tuple[Cloud, Array]:
    """One sweep of every chain with `fold_in(chain_key, step)`, and the shares accepted `[C]`."""
    written, rate = over_chains(
        lambda key, now: sweep(kernel, jax.random.fold_in(key, step), posterior, now, beta),
        (chain_keys, cloud.written),
        tile,
    )
    return cloud._replace(written=written), rate


@functools.partial(jax.jit, static_argnames=("resample", "moves", "tile"))
def _anneal(
    key: PRNGKey,
    chain_keys: Array,
    posterior: TokenPosterior,
    kernel: Gibbs | Redraw,
    cloud: Cloud,
    beta: Array,
    schedule: Any,
    done: Array,
    step: Array,
    threshold: Array,
    *,
    resample: str | None,
    moves: int,
    tile: int,
) -> tuple[Cloud, InfillingHistory]:
    """One temperature: weights, resampling, moves."""
    tilt = cloud.written.log_likelihood
    if isinstance(schedule, Adaptive):
        new = schedule.next_beta(beta, cloud.log_weight, tilt)
    else:
        new = schedule[done + 1]
    cloud = cloud._replace(log_weight=cloud.log_weight + tempered(new - beta, tilt))
    row = Rows(effective_sample_size(cloud.log_weight), log_evidence(cloud), jnp.array(False))
    if resample is not None:
        again = (row.ess < threshold * tilt.shape[0]) & (row.ess > 0)
        # After the tokens, which have the first T of these keys.
        resample_key = jax.random.fold_in(key, posterior.length + done)
        cloud = jax.lax.cond(
            again, lambda c: resample_cloud(resample_key, c, resample)[0], lambda c: c, cloud
        )
        row = row._replace(resampled=again)

    def body(i: Array, carry: tuple[Cloud, Array]) -> tuple[Cloud, Array]:
        cloud, rate = carry
        cloud, more = _move(chain_keys, posterior, kernel, cloud, new, step + i, tile=tile)
        return cloud, rate + more.mean()

    cloud, rate = jax.lax.fori_loop(0, moves, body, (cloud, jnp.zeros(())))
    return cloud, InfillingHistory(new, *row, rate / moves)


def _schedule(betas: Any) -> Any:
    if betas is None or isinstance(betas, Adaptive):
        return Adaptive() if betas is None else betas
    return jnp.asarray(check_betas(betas), jnp.float32)
