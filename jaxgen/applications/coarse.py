"""Completing images of an expensive generator: search on a coarse grid, draw at full size.

A gradient of a generator of megapixels costs seconds. What is seen of an image, reduced to a few
cells, is compared with a cheap view of the generator instead (`mobilestylegan-ffhq/p-16`):

    y = A x + n,   A the mean of each cell,   n ~ N(0, noise^2 + error^2)

where `error` stands for what the cheap view misses of the expensive one's cells (the approximation
error of Kaipio & Somersalo 2005, Sec. 5.8). There are three stages, each of them in coordinates
that the Fisher information whitens (`jaxgen.target.whitened`):

1. The chains are annealed, in coordinates that suit the prior. Islands of chains are resampled
   among themselves only, so that not all of them end in the region that one chain found.
2. They move on at temperature one, in coordinates that suit the places where they are. A step of
   the same length is much more of a move there: this stage is what makes the draws as wide as
   they should be.
3. The mean of what the view misses at their places is measured and taken from y, and the chains
   draw from the posterior of that (Calvetti, Dunlop, Somersalo & Stuart 2018, "Iterative updating
   of model error for Bayesian inversion"), in coordinates that are whitened anew.

Every draw is then made by the expensive generator, and its own cells are compared with what was
seen: `residual` is that figure. Where it is larger than 1.3 times what noise and the view's error
explain, the chains have not arrived, and the last stage is done again from where they are, up to
`rounds` times.

Draws are exact for the corrected cheap view; the expensive generator's posterior they only
approximate. log Z is that of the annealing, before the correction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxgen.core.errors import check_integer, expected
from jaxgen.core.keys import as_key
from jaxgen.core.printing import prints_short
from jaxgen.core.pytree import replace
from jaxgen.core.types import Array, Generator, PRNGKey
from jaxgen.inference.sample import images, sample
from jaxgen.kernels import HMC
from jaxgen.sampler.config import Callback
from jaxgen.sampler.results import SampleResult
from jaxgen.target.adapters import as_function
from jaxgen.target.conditions import ObservedPixels
from jaxgen.target.posterior import Posterior
from jaxgen.target.priors import Gaussian
from jaxgen.target.whitened import fisher_information, whitened
from jaxgen.tempering.betas import Adaptive
from jaxgen.tempering.step_size import DualAveraging

__all__ = ["Completion", "cells", "complete"]

_BATCH = 4
# Draws of chains that have arrived miss what was seen by 1.1 to 1.3 times the noise and the view's
# error together, on faces; those of chains that have not, by 1.35 to 2.4 times.
_FITS = 1.3


@prints_short
class Completion(NamedTuple):
    """Draws of an expensive generator, given some cells of an image.

    Attributes:
      images: `[N, H, W, channels]`, draws in falling order of chains: N = C * S.
      mean: their mean.
      deviation: their standard deviation.
      low, high: each pixel's credible interval, between order statistics of the draws: of N
        independent ones, another draw lies inside with probability `level`.
      level: its probability.
      residual: root mean square of seen cells minus the draws' own.
      cheap_residual: the same for the cheap view's cells.
      view_error: root mean square of cells minus the cheap view's, over all cells of the draws,
        after the correction.
      correction: `[side, side, channels]`, the mean of cells minus the cheap view's where the
        chains were before the last stage; it was taken from what was seen.
      latents: `[N, D]`.
      result: the run on the coarse grid; log Z is that of the cheap view.
      notes: the run's notes, and one where the draws do not show what was seen.
    """

    images: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    low: np.ndarray
    high: np.ndarray
    level: float
    residual: float
    cheap_residual: float
    view_error: float
    correction: np.ndarray
    latents: np.ndarray
    result: SampleResult
    notes: tuple[str, ...]


def cells(image: np.ndarray, side: int) -> np.ndarray:
    """Return the means of the cells of a grid, `[side, side, ...]`."""
    height, width = np.shape(image)[:2]
    if height % side or width % side:
        raise expected("image", f"sides that {side} cells share", [height, width])
    parts = np.reshape(image, (side, height // side, side, width // side, *np.shape(image)[2:]))
    return parts.mean((1, 3))


def complete(
    key: PRNGKey | int,
    cheap: Generator,
    expensive: Generator,
    observed: ArrayLike,
    mask: ArrayLike,
    *,
    prior: Gaussian,
    noise: float = 0.03,
    error: float = 0.08,
    num_chains: int = 16,
    num_islands: int | None = None,
    draws: int = 3,
    burn_in: int = 6,
    warmup: int = 3,
    num_steps: int = 9,
    rounds: int = 3,
    leapfrog: int = 12,
    cess: float = 0.5,
    pool: int = 16,
    probes: int = 128,
    reduction: int = 1,
    level: float = 0.9,
    tile: int | None = 2,
    information: Array | None = None,
    progress: Callback | bool | None = None,
) -> Completion:
    """Complete an image: anneal against a cheap view of a generator, draw by the generator itself.

    Args:
      key: consumed.
      cheap: latent -> `[h, w, channels]`, near the means of the cells of the other one's image.
      expensive: latent -> `[H, W, channels]`, H a multiple of h.
      observed: `[h, w, channels]`, the cells that were seen; the others may hold anything finite.
      mask: `[h, w]`, 1 where a cell was seen.
      prior: of the latents, which both generators take.
      noise: standard deviation of the cells' noise.
      error: that of what the cheap view misses.
      num_chains: C.
      num_islands: a divisor of C: blocks of chains that are annealed apart from each other; by
        default blocks of four, or one block where four do not divide C.
      draws: S, how many draws of each chain the expensive generator makes; a divisor of
        `num_steps`.
      burn_in: kernel steps at temperature one before the correction.
      warmup: kernel steps in which the step size settles, before these and before the draws.
      num_steps: kernel steps after that.
      rounds: how often the last stage is done at most, see above.
      leapfrog: gradients for each kernel step, on average.
      cess: of the adaptive temperatures.
      pool: candidates for each first state.
      probes: of the Fisher information, in each stage.
      reduction: the images that are kept are means of so many pixels in each direction.
      level: of the intervals.
      tile: chains in one batch, as in `jaxgen.sample`; two are the fastest for a view of 16 x 16
        cells on a CPU.
      information: of the first stage, see `whitened`; it may be shared by observations of the same
        cells.
      progress: as in `jaxgen.sample`.

    Raises:
      InputError: for arguments that cannot be used.
    """
    if draws < 1 or num_steps % draws:
        raise expected("draws", f"a divisor of num_steps, {num_steps}", draws)
    if not 0 < level < 1:
        raise expected("level", "a probability between 0 and 1", level)
    check_integer("burn_in", burn_in, 1)
    check_integer("rounds", rounds, 1)
    batch = num_chains if tile is None else tile
    if num_islands is None:
        num_islands = num_chains // 4 if num_chains % 4 == 0 else 1
    key = as_key(key)
    y, m = np.asarray(observed, np.float32), np.asarray(mask, np.float32)
    seen = np.where(m[..., None] > 0, y, 0.0).astype(np.float32)
    scale = jnp.float32(np.hypot(noise, error))
    posterior = Posterior(prior, cheap, ObservedPixels(jnp.asarray(seen), jnp.asarray(m), scale))
    posterior.check()
    side = y.shape[0]
    if information is None:
        key_information = jax.random.fold_in(key, 1)
        information = fisher_information(key_information, posterior, probes=probes, batch=batch)
    target = whitened(posterior, information)
    kernel = HMC(leapfrog, jitter=True)
    shared: dict[str, Any] = {
        "num_chains": num_chains,
        "precondition": False,
        "tile": tile,
        "progress": progress,
    }
    annealed = sample(
        jax.random.fold_in(key, 2),
        target,
        kernel,
        warmup=0,
        num_steps=0,
        thin=1,
        betas=Adaptive(cess),
        num_mcmc_steps=1,
        num_islands=num_islands,
        pool=pool,
        pilot=False,
        collect=None,
        **shared,
    )
    target, start = _whitened_where(
        jax.random.fold_in(key, 4), posterior, target, annealed, probes, batch
    )
    moved = sample(
        jax.random.fold_in(key, 5),
        target,
        kernel,
        warmup=warmup,
        num_steps=burn_in,
        thin=burn_in,
        start=start,
        step_size=DualAveraging(annealed.step_size),
        collect=None,
        **shared,
    )
    runs, found, explained = [annealed, moved], None, 0.0
    for i in range(rounds):
        key_round = key if i == 0 else jax.random.fold_in(key, 10 + i)
        # What the cheap view misses on average is no longer an error, but known.
        latents = np.asarray(jax.vmap(target.prior.latent)(runs[-1].position))
        shown = np.asarray(_forward(as_function(cheap, "cheap"), jnp.asarray(latents)))
        missed = (_drawn(expensive, latents, side, side)[1] - shown).mean(0)
        seen = np.where(m[..., None] > 0, y - missed, 0.0).astype(np.float32)
        corrected = ObservedPixels(jnp.asarray(seen), jnp.asarray(m), scale)
        posterior = replace(posterior, condition=corrected)
        key_probes = jax.random.fold_in(key_round, 6)
        target, start = _whitened_where(key_probes, posterior, target, runs[-1], probes, batch)
        result = sample(
            jax.random.fold_in(key_round, 3),
            target,
            kernel,
            warmup=warmup,
            num_steps=num_steps,
            thin=num_steps // draws,
            start=start,
            step_size=DualAveraging(runs[-1].step_size),
            collect=images,
            **shared,
        )
        runs.append(result)
        coordinates = jnp.asarray(result.draws["position"])
        coordinates = coordinates.reshape(-1, coordinates.shape[-1])
        latents = np.asarray(jax.vmap(target.prior.latent)(coordinates))
        made, own = _drawn(expensive, latents, side, reduction)
        shown = np.asarray(result.draws["image"]).reshape(own.shape) + missed
        found = _completed(y, m, level, missed, latents, (made, own, shown), _together(runs))
        explained = float(np.hypot(noise, found.view_error))
        if found.residual <= _FITS * explained:
            break
    assert found is not None  # there is at least one round
    notes = (*found.result.notes, *_misses(found.residual, explained, float(scale)))
    return found._replace(notes=notes)


def _completed(
    y: np.ndarray,
    mask: np.ndarray,
    level: float,
    missed: np.ndarray,
    latents: np.ndarray,
    images: tuple[np.ndarray, np.ndarray, np.ndarray],
    result: SampleResult,
) -> Completion:
    """Return a completion of draws, their own cells and the cheap view's."""
    made, own, shown = images
    where = mask > 0
    low, high = np.quantile(made, ((1 - level) / 2, (1 + level) / 2), axis=0, method="weibull")
    return Completion(
        images=made,
        mean=made.mean(0),
        deviation=made.std(0),
        low=low,
        high=high,
        level=level,
        residual=float(np.sqrt(np.mean((own - y)[:, where] ** 2))),
        cheap_residual=float(np.sqrt(np.mean((shown - y)[:, where] ** 2))),
        view_error=float(np.sqrt(np.mean((own - shown) ** 2))),
        correction=missed,
        latents=latents,
        result=result,
        notes=result.notes,
    )


def _misses(residual: float, explained: float, scale: float) -> tuple[str, ...]:
    """Return a note where the draws do not show what was seen."""
    if residual > 1.5 * scale:
        return (
            f"the draws miss what was seen by {residual:.3f}, where {scale:.3f} was expected: "
            "raise the noise level, or look whether the face is aligned",
        )
    if residual > _FITS * explained:
        return (
            f"the draws miss what was seen by {residual:.3f}, where noise and the view's error "
            f"explain {explained:.3f}: the chains have not arrived, and the intervals are too "
            "narrow; use more chains or a larger burn_in",
        )
    return ()


def _whitened_where(
    key: PRNGKey,
    posterior: Posterior,
    before: Any,
    found: SampleResult,
    probes: int,
    batch: int,
) -> tuple[Posterior, Array]:
    """Return a posterior whitened where the chains of a run are, and their coordinates there."""
    latents = jax.vmap(before.prior.latent)(found.position)
    there = fisher_information(key, posterior, latents, probes=probes, batch=batch)
    target: Any = whitened(posterior, there)
    return target, jax.vmap(target.prior.coordinates)(latents)


def _together(runs: Sequence[SampleResult]) -> SampleResult:
    """Return the draws of the last run with what the runs before it found."""
    annealed, drawn = runs[0], runs[-1]
    of_start = "chains started from given positions"
    later = [note for note in drawn.notes if not note.startswith(of_start)]
    return drawn._replace(
        log_z=annealed.log_z,
        log_z_standard_error=annealed.log_z_standard_error,
        island_log_z=annealed.island_log_z,
        num_lineages=annealed.num_lineages,
        history=annealed.history,
        num_gradients=sum(np.asarray(run.num_gradients) for run in runs),
        num_divergent=sum(np.asarray(run.num_divergent) for run in runs),
        notes=tuple(dict.fromkeys([*annealed.notes, *later])),
    )


def _drawn(
    generator: Any, latents: np.ndarray, side: int, reduction: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return images, reduced, and the means of their cells."""
    devices = jax.local_devices()
    copies = [jax.device_put(as_function(generator, "generator"), d) for d in devices]
    batches = [latents[begin : begin + _BATCH] for begin in range(0, len(latents), _BATCH)]
    made, own = [], []
    for begin in range(0, len(batches), len(devices)):
        # All are under way before the first is waited for.
        group = [
            _forward(copy, jax.device_put(batch, device))
            for copy, batch, device in zip(copies, batches[begin:], devices, strict=False)
        ]
        for image in (image for batch in group for image in np.asarray(batch)):
            made.append(cells(image, image.shape[0] // reduction))
            own.append(cells(image, side))
    return np.stack(made).astype(np.float32), np.stack(own)


@jax.jit
def _forward(generator: Any, latents: Array) -> Array:
    return jax.lax.map(generator, latents)
