"""Log likelihoods of decoders: log p(x) = log of the integral of p(z) p(x | G(z)) over z.

Annealed importance sampling from the prior, or from an encoder's q(z | x), estimates each
image's evidence; the mean over test images is what decoders are compared by (Wu, Burda,
Salakhutdinov & Grosse 2017). Estimates lie below the truth on average, and `check` tells by
how much at most: the gap of bidirectional Monte Carlo on images that the model draws.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.deprecation import former_keyword
from jaxgen.core.errors import expected
from jaxgen.core.keys import as_key
from jaxgen.core.precision import at_precision
from jaxgen.core.printing import card, card_html, number
from jaxgen.core.pytree import with_structure
from jaxgen.core.table import Table
from jaxgen.core.tracing import is_traced, namespace
from jaxgen.core.types import Array, Encoder, Generator, Prior, PRNGKey
from jaxgen.inference import batched as many
from jaxgen.inference.batched import BatchedEvidence
from jaxgen.inference.bdmc import BDMCResult, DecoderPaths, bdmc
from jaxgen.inference.importance import importance_loglik, prior_of
from jaxgen.inference.many import sample_each
from jaxgen.inference.sample import sample
from jaxgen.kernels import HMC, Kernel
from jaxgen.sampler.results import SampleResult
from jaxgen.target.observations import Observation
from jaxgen.tempering.betas import Betas, check_betas, linear, sigmoid

__all__ = ["LogLikelihood", "importance_loglik", "loglik"]


@with_structure("exactness", "notes")
class LogLikelihood(NamedTuple):
    """Log likelihoods of N images, in nats.

    Attributes:
      log_prob: `[N]` estimates of log p(x).
      standard_error: `[N]` of each, to first order, from the scatter of its weights.
      ess: `[N]` effective sample sizes, of C.
      mean: over the images.
      mean_standard_error: over the images, their differences included: for the population.
      estimation_error: that of the mean as an estimate for these very images.
      bits_per_dimension: -mean / (pixels log 2); for a density over pixel values in [0, 1],
        plus 8: bits for a pixel of 256 levels.
      gap: BDMC's, nats between the bounds on images drawn by the model; NaN without `check`.
      gap_standard_error: of the gap.
      num_gradients: of one chain for one image, in all.
      exactness: "exact": fixed temperatures and steps, each exp(log_prob) is unbiased.
        "adapted": temperatures and steps follow the chains; log_prob is consistent.
      notes: what to know before trusting it.
      evidence: weights and positions.
      check: the `BDMCResult`, or None.
    """

    log_prob: np.ndarray
    standard_error: np.ndarray
    ess: np.ndarray
    mean: float
    mean_standard_error: float
    estimation_error: float
    bits_per_dimension: float
    gap: float
    gap_standard_error: float
    num_gradients: float
    exactness: str
    notes: tuple[str, ...]
    evidence: BatchedEvidence
    check: BDMCResult | None

    def summary(self) -> Table:
        """Return a table with a row for each image: log p(x), its standard error, and ESS."""
        count = np.shape(self.log_prob)[0]
        columns = {name: getattr(self, name) for name in ("log_prob", "standard_error", "ess")}
        return Table([f"image {i}" for i in range(count)], columns)

    def __repr__(self) -> str:
        return card(*_printed(self))

    def _repr_html_(self) -> str:
        return card_html(*_printed(self))


def _printed(found: LogLikelihood) -> tuple[str, list[tuple[str, str]], tuple[str, ...]]:
    """Return what a `LogLikelihood` prints: title, rows and notes."""
    count = np.shape(found.log_prob)[-1]
    title = f"LogLikelihood: {count} image{'s' * (count != 1)}, {found.exactness}"
    error = number(found.estimation_error)
    rows = [
        ("log p(x)", f"{number(found.mean)} +- {number(found.mean_standard_error)} on average"),
        ("", f"(of these very images: +- {error})"),
        ("bits", f"{number(found.bits_per_dimension, '.3f')} per dimension"),
        ("gradients", f"{number(found.num_gradients, ',.0f')} per chain"),
    ]
    if found.check is not None:
        gap = f"{number(found.gap)} +- {number(found.gap_standard_error)} nats"
        rows.append(("BDMC gap", f"{gap}, on images that the model draws"))
    if not is_traced(found.ess):
        least, middle = float(np.min(found.ess)), float(np.median(found.ess))
        rows.insert(3, ("weights", f"ESS {least:.1f} at worst, {middle:.1f} in the middle"))
    return title, rows, found.notes


@former_keyword("moves", "num_mcmc_steps")
@at_precision
def loglik(
    key: PRNGKey,
    generator: Generator,
    images: Any,
    observation: Observation,
    *,
    prior: Prior | None = None,
    encoder: Encoder | None = None,
    kernel: Kernel | None = None,
    betas: Betas = None,
    num_chains: int | None = None,
    num_mcmc_steps: int | None = None,
    check: int = 0,
    batch: int | None = 64,
    precision: str = "highest",
    progress: many.Progress | None = None,
) -> LogLikelihood:
    """Estimate log p(x) under a decoder for every image.

    By default every image is annealed by itself, one on each core, in the two stages of
    `jaxgen.sample`: its temperatures follow each image, and its error rests on
    islands that never meet. With a list of betas all images run in one program with
    temperatures and steps fixed beforehand (a short pilot run learns the steps), and each
    exp(log_prob) is unbiased.

    Args:
      key: consumed. Image i uses `fold_in` of it alone, whatever else is estimated with it.
      generator: the decoder, a latent to an image.
      images: `[N, H, W, channels]`.
      observation: `GaussianObservation(noise)` or `BernoulliObservation()`.
      prior: over latents, normalised; a standard normal of the encoder's size by default.
      encoder: image -> `[2, D]`, mean and log variance: the path then starts at q(z | x), in
        a tenth of the temperatures. It must be one of this decoder.
      kernel: HMC(10) by default.
      betas: None, or `[T + 1]` from 0 to 1: linear(200) with an encoder and sigmoid(1000)
        without it are lists to begin with.
      num_chains: C for each image: by default 64, and 16 with a list of betas.
      num_mcmc_steps: kernel steps at each temperature: by default 2, and 1 with a list of betas.
      check: so many pairs (z, x) are drawn from the model. Their log p(x) is bounded from above
        by bidirectional Monte Carlo, and the gap is what the estimate lies below on average;
        0 for none.
      batch: images in one program, with a list of betas.
      precision: of matrix products: "highest" (float32 on every device) or "fast", as JAX is
        set up.
      progress: called with (temperatures done, in all), or with (images done, in all) without
        a list of betas.

    Returns:
      A `LogLikelihood`.

    Raises:
      InputError: for arguments that cannot be used.
    """
    key = as_key(key)
    images = jnp.asarray(images, jnp.float32)
    if images.ndim != 4 or images.shape[0] < 1:
        raise expected("images", "[N, H, W, channels], N of at least 1", list(images.shape))
    observation.check()
    prior = prior_of(prior, encoder, images)
    paths = DecoderPaths(prior, generator, observation, encoder)
    made = paths.posterior(images[0]).image_shape()
    if made != images.shape[1:]:
        raise expected("images", f"[N, {', '.join(map(str, made))}]", list(images.shape))
    key_pilot, key_run, key_check = jax.random.split(key, 3)
    adaptive = betas is None
    if adaptive:
        kernel = HMC(10, jitter=True) if kernel is None else kernel
        settings: dict[str, Any] = {
            "num_chains": num_chains or 64,
            "num_mcmc_steps": num_mcmc_steps,
            "precision": precision,
        }
        found = _anneal_each(key_run, paths, images, kernel, progress=progress, **settings)
        spent = 0.0
    else:
        kernel = HMC(10) if kernel is None else kernel
        kernel.check(paths(images[0]))
        betas = check_betas(betas)
        if betas[0] != 0 or abs(betas[-1] - 1) > 1e-9:
            raise expected("betas", "a schedule from 0 to 1", f"[{betas[0]}, {betas[-1]}]")
        settings = {
            "num_chains": num_chains or 16,
            "num_mcmc_steps": num_mcmc_steps or 1,
            "batch": batch,
        }
        table, spent = many.pilot(key_pilot, paths, images, kernel, betas, batch=batch)
        found = many.anneal(
            key_run, paths, images, kernel, betas, table, progress=progress, **settings
        )
    count_chains: int = settings["num_chains"]
    checked = None
    if check:
        checked = bdmc(
            key_check,
            prior,
            generator,
            observation,
            HMC(10) if adaptive else kernel,
            (sigmoid(1000) if encoder is None else linear(200)) if adaptive else betas,
            encoder=encoder,
            num_pairs=check,
            num_chains=16 if adaptive else count_chains,
            num_mcmc_steps=1 if adaptive else settings["num_mcmc_steps"],
            batch=batch,
            precision=precision,
        )
        if adaptive:
            checked = _gap_of_estimate(key_check, checked, paths, kernel, settings)
    traced = is_traced(found)
    xp = namespace(found)
    number: Any = jnp.asarray if traced else float
    # Sums over images in double precision, where there is one.
    wide = None if traced else np.float64
    count, log_prob = len(found.log_z), xp.asarray(found.log_z, wide)
    mean, errors = number(log_prob.mean()), xp.asarray(found.standard_error, wide)
    spread = number(xp.std(log_prob, ddof=1) / math.sqrt(count)) if count > 1 else float("nan")
    bits = -mean / (math.prod(images.shape[1:]) * math.log(2))
    if traced:
        notes: tuple[str, ...] = (_TRACED,)
    else:
        notes = _notes(found, observation, images, count_chains, checked)
    return LogLikelihood(
        log_prob=log_prob,
        standard_error=errors,
        ess=found.ess,
        mean=mean,
        mean_standard_error=spread,
        estimation_error=number(xp.sqrt(xp.sum(errors**2)) / count),
        bits_per_dimension=bits if getattr(observation, "discrete", False) else bits + 8,
        gap=float("nan") if checked is None else checked.gap,
        gap_standard_error=float("nan") if checked is None else checked.gap_standard_error,
        num_gradients=spent + number(found.num_gradients.mean()),
        exactness="adapted" if adaptive and kernel.exactness == "exact" else kernel.exactness,
        notes=notes,
        evidence=found,
        check=checked,
    )


_TRACED = (
    "made under jax.jit or jax.vmap: look at ess and standard_error; an ess near 1 asks for "
    "more chains or a larger num_mcmc_steps"
)


def _anneal_each(
    key: PRNGKey,
    paths: DecoderPaths,
    images: Array,
    kernel: Kernel,
    *,
    num_chains: int,
    num_mcmc_steps: int | None,
    precision: str,
    progress: many.Progress | None = None,
) -> BatchedEvidence:
    """Anneal to each image's posterior in two stages; image i uses `fold_in(key, i)`."""
    settings: dict[str, Any] = {
        "num_chains": num_chains,
        "num_mcmc_steps": num_mcmc_steps,
        "precision": precision,
        "num_steps": 0,
        "warmup": 0,
        "collect": None,
    }
    if not is_traced(key, paths, images):
        results = sample_each(key, paths, images, kernel, progress=progress, **settings)
        return jax.tree.map(lambda *x: np.stack(x), *map(_evidence_of, results))

    def one(index: Any, image: Array) -> BatchedEvidence:
        return _evidence_of(
            sample(jax.random.fold_in(key, index), paths(image), kernel, **settings)
        )

    return jax.lax.map(lambda item: one(*item), (jnp.arange(images.shape[0]), images))


def _evidence_of(result: SampleResult) -> BatchedEvidence:
    xp = namespace(result.log_z)
    return BatchedEvidence(
        log_z=xp.asarray(result.log_z),
        standard_error=xp.asarray(result.log_z_standard_error),
        ess=xp.asarray(result.ess),
        log_weight=result.log_weight,
        position=jax.tree.map(xp.asarray, result.position),
        acceptance_rate=xp.asarray(_mean_of_known(result.history)),
        num_gradients=xp.asarray(xp.mean(result.num_gradients), float),
        num_divergent=xp.asarray(xp.sum(result.num_divergent)),
    )


def _mean_of_known(history: Any) -> Any:
    """Return the mean acceptance rate without the NaN of a pool's row, where nothing moves."""
    rates = history.acceptance_rate
    if not is_traced(rates):
        known = np.asarray(rates)[np.isfinite(rates)]
        return float(known.mean()) if known.size else float("nan")
    known = history.active & jnp.isfinite(rates)
    return jnp.sum(jnp.where(known, rates, 0.0)) / jnp.sum(known)


def _gap_of_estimate(
    key: PRNGKey, checked: BDMCResult, paths: DecoderPaths, kernel: Kernel, settings: Any
) -> BDMCResult:
    """Put the two-stage estimate in the place of the lower bound."""
    images = jnp.asarray(checked.images)
    found = _anneal_each(jax.random.fold_in(key, 1), paths, images, kernel, **settings)
    gaps = checked.upper - found.log_z
    count = len(gaps)
    xp = namespace(gaps)
    number: Any = float if xp is np else jnp.asarray
    error = number(xp.std(gaps, ddof=1) / math.sqrt(count)) if count > 1 else float("nan")
    return checked._replace(
        lower=found.log_z, gap=number(xp.mean(gaps)), gap_standard_error=error, forward=found
    )


def _notes(
    found: BatchedEvidence,
    observation: Observation,
    images: Array,
    num_chains: int,
    checked: BDMCResult | None,
) -> tuple[str, ...]:
    notes = []
    poor = int(np.sum(found.ess < min(2.0, 0.5 * num_chains)))
    if poor:
        notes.append(
            f"one chain holds most of the weight for {poor} of {len(found.ess)} images: "
            "use more temperatures or a larger num_mcmc_steps"
        )
    lost = int(found.num_divergent.sum())
    if lost:
        notes.append(f"{lost} proposals were divergent or not finite, and were rejected")
    grey = bool(jnp.any((images != 0) & (images != 1)))
    if getattr(observation, "discrete", False) and grey:
        notes.append(
            "grey pixels under a Bernoulli model: a cross entropy, no log probability; "
            "compare it with others of its kind only"
        )
    if checked is not None and checked.gap > 1:
        notes.append(
            f"the bounds on the model's own images are {checked.gap:.1f} nats apart: "
            "use more temperatures or a larger num_mcmc_steps"
        )
    return tuple(notes)
