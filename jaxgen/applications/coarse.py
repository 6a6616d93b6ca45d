"""Completing images of an expensive generator: search on a coarse grid, draw at full size.

A gradient of a generator of megapixels costs seconds. What is seen of an image, reduced to a few
cells, is compared with a cheap view of the generator instead (`mobilestylegan-ffhq/p-16`):

    y = A x + n,   A the mean of each cell,   n ~ N(0, noise^2 + error^2)

where `error` stands for what the cheap view misses of the expensive one's cells (the approximation
error of Kaipio & Somersalo 2005, Sec. 5.8). The posterior is annealed in coordinates that its
Fisher information whitens (`jaxgen.target.whitened`). Where the chains have arrived, the mean of
what the view misses is measured and taken from y, and the chains draw from the posterior of that
(Calvetti, Dunlop, Somersalo & Stuart 2018, "Iterative updating of model error for Bayesian
inversion"). Every draw is then made by the expensive generator, and its own cells are compared
with what was seen: `residual` is that figure.

Draws are exact for the corrected cheap view; the expensive generator's posterior they only
approximate. log Z is that of the annealing, before the correction.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxgen.core.errors import expected
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


@prints_short
class Completion(NamedTuple):
    """Draws of an expensive generator, given some cells of an image.

    Attributes:
      images: `[N, H, W, channels]`, draws in falling order of chains: N = C * S.
      mean: their mean.
      deviation: their standard deviation.
      low, high: each pixel's credible interval.
      level: its probability.
      residual: root mean square of seen cells minus the draws' own.
      cheap_residual: the same for the cheap view's cells.
      view_error: root mean square of cells minus the cheap view's, over all cells of the draws,
        after the correction.
      correction: `[side, side, channels]`, the mean of cells minus the cheap view's where the first
        chains arrived; it was taken from what was seen.
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
    draws: int = 3,
    warmup: int = 6,
    num_steps: int = 12,
    leapfrog: int = 8,
    cess: float = 0.5,
    pool: int = 64,
    probes: int = 256,
    reduction: int = 1,
    level: float = 0.9,
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
      draws: S, how many draws of each chain the expensive generator makes; a divisor of
        `num_steps`.
      warmup: kernel steps in which the step size settles, before the correction and after it.
      num_steps: kernel steps after it.
      leapfrog: gradients for each kernel step, on average.
      cess: of the adaptive temperatures.
      pool: candidates for each first state.
      probes: of the Fisher information, where none is given.
      reduction: the images that are kept are means of so many pixels in each direction.
      level: of the intervals.
      information: see `whitened`; it may be shared by observations of the same cells.
      progress: as in `jaxgen.sample`.

    Raises:
      InputError: for arguments that cannot be used.
    """
    if draws < 1 or num_steps % draws:
        raise expected("draws", f"a divisor of num_steps, {num_steps}", draws)
    if not 0 < level < 1:
        raise expected("level", "a probability between 0 and 1", level)
    key = as_key(key)
    y, m = np.asarray(observed, np.float32), np.asarray(mask, np.float32)
    seen = np.where(m[..., None] > 0, y, 0.0).astype(np.float32)
    scale = jnp.float32(np.hypot(noise, error))
    posterior = Posterior(prior, cheap, ObservedPixels(jnp.asarray(seen), jnp.asarray(m), scale))
    posterior.check()
    if information is None:
        information = fisher_information(jax.random.fold_in(key, 1), posterior, probes=probes)
    target = whitened(posterior, information)
    kernel = HMC(leapfrog, jitter=True)
    annealed = sample(
        jax.random.fold_in(key, 2),
        target,
        kernel,
        num_chains=num_chains,
        num_steps=0,
        thin=1,
        warmup=warmup,
        betas=Adaptive(cess),
        num_mcmc_steps=1,
        pool=pool,
        pilot=False,
        precondition=False,
        collect=None,
        progress=progress,
    )
    side = y.shape[0]
    latents = np.asarray(jax.vmap(target.prior.latent)(annealed.position))
    own = _drawn(expensive, latents, side, side)[1]
    shown = np.asarray(_forward(as_function(cheap, "cheap"), jnp.asarray(latents)))
    missed = (own - shown).mean(0)
    # What the cheap view misses on average is no longer an error, but known.
    seen = np.where(m[..., None] > 0, y - missed, 0.0).astype(np.float32)
    moved = ObservedPixels(jnp.asarray(seen), jnp.asarray(m), scale)
    result = sample(
        jax.random.fold_in(key, 3),
        replace(target, condition=moved),
        kernel,
        num_chains=num_chains,
        num_steps=num_steps,
        thin=num_steps // draws,
        warmup=warmup,
        start=annealed.position,
        step_size=DualAveraging(annealed.step_size),
        precondition=False,
        collect=images,
        progress=progress,
    )
    result = _together(annealed, result)
    coordinates = jnp.asarray(result.draws["position"])
    coordinates = coordinates.reshape(-1, coordinates.shape[-1])
    latents = np.asarray(jax.vmap(target.prior.latent)(coordinates))
    made, own = _drawn(expensive, latents, side, reduction)
    shown = np.asarray(result.draws["image"]).reshape(own.shape) + missed
    where = m > 0
    residual = float(np.sqrt(np.mean((own - y)[:, where] ** 2)))
    cheap_residual = float(np.sqrt(np.mean((shown - y)[:, where] ** 2)))
    tails = ((1 - level) / 2, (1 + level) / 2)
    low, high = np.quantile(made, tails, axis=0)
    notes = tuple(result.notes)
    if residual > 1.5 * float(scale):
        notes = (
            *notes,
            f"the draws miss what was seen by {residual:.3f}, where {float(scale):.3f} was "
            "expected: raise the noise level, or look whether the face is aligned",
        )
    return Completion(
        images=made,
        mean=made.mean(0),
        deviation=made.std(0),
        low=low,
        high=high,
        level=level,
        residual=residual,
        cheap_residual=cheap_residual,
        view_error=float(np.sqrt(np.mean((own - shown) ** 2))),
        correction=missed,
        latents=latents,
        result=result,
        notes=notes,
    )


def _together(annealed: SampleResult, drawn: SampleResult) -> SampleResult:
    """Return the draws of a second run with what the annealing before it found."""
    of_start = "chains started from given positions"
    notes = [*annealed.notes, *(note for note in drawn.notes if not note.startswith(of_start))]
    return drawn._replace(
        log_z=annealed.log_z,
        log_z_standard_error=annealed.log_z_standard_error,
        island_log_z=annealed.island_log_z,
        num_lineages=annealed.num_lineages,
        history=annealed.history,
        num_gradients=np.asarray(annealed.num_gradients) + np.asarray(drawn.num_gradients),
        num_divergent=np.asarray(annealed.num_divergent) + np.asarray(drawn.num_divergent),
        notes=tuple(dict.fromkeys(notes)),
    )


def _drawn(
    generator: Any, latents: np.ndarray, side: int, reduction: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return images, reduced, and the means of their cells."""
    generator = as_function(generator, "generator")
    made, own = [], []
    for begin in range(0, len(latents), _BATCH):
        batch = np.asarray(_forward(generator, jnp.asarray(latents[begin : begin + _BATCH])))
        for image in batch:
            made.append(cells(image, image.shape[0] // reduction))
            own.append(cells(image, side))
    return np.stack(made).astype(np.float32), np.stack(own)


@jax.jit
def _forward(generator: Any, latents: Array) -> Array:
    return jax.lax.map(generator, latents)
