"""Are credible intervals right? Coverage and simulation-based calibration.

Latents are drawn from the prior, images made and observed through the model, the posterior
sampled, and the truth compared with the draws. Where the sampler is right, the truth is as
good as one more draw: its rank among them is uniform (Cook, Gelman & Rubin 2006; Talts,
Betancourt, Simpson, Vehtari & Gelman 2018), and a 90% interval holds it 90% of the time.

Ranks are turned into u = (rank + v) / (L + 1), with v uniform and ties broken at random: for
L exchangeable draws u is exactly uniform whatever L is. Intervals by u are those of the
Weibull plotting position rank / (L + 1); NumPy's default quantiles make a 90% interval of 64
draws one of 87%. Ranks do not change under monotone maps, so pixels are ranked as they are;
the random breaking of ties serves those that saturate at 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxgen.core.errors import expected
from jaxgen.core.printing import prints_short
from jaxgen.core.types import Array, PRNGKey
from jaxgen.diagnostics import effective_sizes
from jaxgen.inference.bdmc import DecoderPaths, simulate
from jaxgen.sampler.results import SampleResult
from jaxgen.target.posterior import Posterior

__all__ = [
    "Calibration",
    "Uniformity",
    "calibrate",
    "coverage",
    "ranks",
    "spread_out",
    "uniformity",
]

Quantities = Mapping[str, Callable[[Posterior, Array, Array], Array]]


@prints_short
class Uniformity(NamedTuple):
    """Chi-square tests of K columns of ranks against uniformity.

    Attributes:
      statistic: `[K]`, with bins - 1 degrees of freedom.
      p_value: `[K]`.
      least: the smallest p-value times K (Bonferroni), at most 1: of all columns at once,
        whatever their dependence.
      counts: `[bins, K]` histograms.
    """

    statistic: np.ndarray
    p_value: np.ndarray
    least: float
    counts: np.ndarray


@prints_short
class Calibration(NamedTuple):
    """Ranks of the truth among posterior draws, over R simulated targets.

    Attributes:
      u: for each quantity `[R, K]`, uniform where the sampler is right.
      coverage: for each quantity the share of truths inside the central interval.
      standard_error: of it; targets are independent, the K within one are not.
      uniformity: for each quantity.
      level: the interval's probability.
      results: what `keep` took of each run.
    """

    u: dict[str, np.ndarray]
    coverage: dict[str, float]
    standard_error: dict[str, float]
    uniformity: dict[str, Uniformity]
    level: float
    results: list[Any]


def ranks(rng: np.random.Generator, draws: ArrayLike, truth: ArrayLike) -> np.ndarray:
    """u = (rank + v) / (L + 1) of truths `[...]` among draws `[L, ...]`; see the module."""
    draws, truth = np.asarray(draws), np.asarray(truth)
    if draws.ndim < 1 or draws.shape[1:] != truth.shape:
        raise expected("truth", f"shape {list(draws.shape[1:])} like a draw", list(truth.shape))
    below = np.sum(draws < truth, axis=0)
    ties = np.sum(draws == truth, axis=0)
    place = below + np.floor(rng.random(truth.shape) * (ties + 1))
    return (place + rng.random(truth.shape)) / (len(draws) + 1)


def coverage(u: Any, level: float = 0.9) -> tuple[float, float]:
    """Return the share of `[R, K]` u's inside the central interval, and its standard error.

    The error is that of a mean over R independent targets.
    """
    u = np.asarray(u).reshape(len(u), -1)
    inside = np.mean(np.abs(u - 0.5) < level / 2, axis=1)
    error = inside.std(ddof=1) / np.sqrt(len(u)) if len(u) > 1 else np.nan
    return float(inside.mean()), float(error)


def uniformity(u: Any, bins: int | None = None) -> Uniformity:
    """Test each column of `[R, K]` for uniformity on (0, 1).

    Args:
      u: from `ranks`, rows independent.
      bins: of equal width; by default R / 5, at least 4 and at most 20, so that the
        chi-square distribution holds.
    """
    u = np.asarray(u).reshape(len(u), -1)
    count = len(u)
    bins = int(np.clip(count // 5, 4, 20)) if bins is None else bins
    which = np.clip((u * bins).astype(int), 0, bins - 1)
    counts = np.stack([np.sum(which == b, axis=0) for b in range(bins)])
    statistic = np.sum((counts - count / bins) ** 2, axis=0) / (count / bins)
    # The survival function of chi-square: Q(k / 2, x / 2).
    tail = jax.scipy.special.gammaincc(
        jnp.asarray((bins - 1) / 2, jnp.float32), jnp.asarray(statistic / 2, jnp.float32)
    )
    p_value = np.asarray(tail, np.float64)
    return Uniformity(statistic, p_value, float(min(1.0, p_value.min() * p_value.size)), counts)


def spread_out(draws: ArrayLike, most: int | None = None) -> np.ndarray:
    """Draws `[C, S, ...]` thinned to about as many as are independent: `[L, ...]`.

    L is the smallest bulk ESS over quantities, at most C x S (and `most`). Later draws are
    preferred, then other chains, so that those taken lie far apart.
    """
    x = np.asarray(draws)
    chains, count = x.shape[:2]
    size = effective_sizes(x.reshape(chains, count, -1)).bulk
    known = size[np.isfinite(size)]
    limit = chains * count if most is None else min(most, chains * count)
    wanted = int(np.clip(known.min() if known.size else chains, 1, limit))
    # Steps of equal spacing, last first; in each step all chains before the next step.
    rounds = -(-wanted // chains)
    steps = count - 1 - (np.arange(rounds) * count) // rounds
    order = [(c, s) for s in steps for c in range(chains)]
    index = np.unique(np.linspace(0, len(order) - 1, wanted).round().astype(int))
    chosen = np.array([order[i] for i in index])
    return x[chosen[:, 0], chosen[:, 1]]


def latent(posterior: Posterior, z: Array, image: Array) -> Array:
    """Return the coordinates."""
    return z.reshape(-1)


def pixels(posterior: Posterior, z: Array, image: Array) -> Array:
    """Return the generator's image."""
    return image.reshape(-1)


def density(posterior: Posterior, z: Array, image: Array) -> Array:
    """log p(z) and log p(observed | z): they see what all latents do together."""
    return jnp.stack([posterior.log_prior(z), posterior.condition(image)])


def calibrate(
    key: PRNGKey,
    paths: DecoderPaths,
    sampler: Callable[[PRNGKey, Posterior], SampleResult],
    *,
    targets: int = 32,
    quantities: Quantities | None = None,
    level: float = 0.9,
    thin: bool = True,
    keep: Callable[[SampleResult], Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Simulate targets from the model, sample each posterior and rank the truth.

    Args:
      key: consumed.
      paths: prior, generator and observation model.
      sampler: `(key, posterior) -> SampleResult` with positions as draws, equally weighted:
        `lambda key, posterior: jaxgen.sample(key, posterior, ...)`.
      targets: R.
      quantities: name -> function of (posterior, coordinates, image) that gives a vector;
        "latent", "pixels" and "density" by default.
      level: of the intervals.
      thin: rank each quantity among draws that are nearly independent by its own effective
        sample size (`spread_out`): a log density mixes more slowly than a coordinate. False
        ranks among all draws, of which u is not exactly uniform but less noisy.
      keep: what to keep of each result, besides.
      progress: called with (targets done, R).
    """
    if quantities is None:
        quantities = {"latent": latent, "pixels": pixels, "density": density}
    key_pairs, key_runs, key_ranks = jax.random.split(key, 3)
    latents, images = simulate(key_pairs, paths, targets)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key_ranks)))
    found: dict[str, list[np.ndarray]] = {name: [] for name in quantities}
    evaluate = _evaluator(tuple(quantities.values()))
    results = []
    for i in range(targets):
        posterior = paths.posterior(images[i])
        result = sampler(jax.random.fold_in(key_runs, i), posterior)
        draws = result.draws["position"] if isinstance(result.draws, dict) else result.draws
        draws = np.asarray(draws)
        if draws.dtype == object or draws.ndim < 3:
            raise expected("sampler", "positions [C, S, D] as draws", list(draws.shape))
        every = jnp.asarray(draws.reshape(-1, *draws.shape[2:]))
        values = evaluate(posterior, every)
        truths = evaluate(posterior, latents[i][None])
        for name, value, truth in zip(quantities, values, truths, strict=True):
            sample = np.asarray(value)
            if thin:
                sample = spread_out(sample.reshape(*draws.shape[:2], -1))
            found[name].append(ranks(rng, sample, np.asarray(truth)[0]))
        results.append(None if keep is None else keep(result))
        if progress is not None:
            progress(i + 1, targets)
    u = {name: np.stack(rows) for name, rows in found.items()}
    covered = {name: coverage(rows, level) for name, rows in u.items()}
    return Calibration(
        u=u,
        coverage={name: share for name, (share, _) in covered.items()},
        standard_error={name: error for name, (_, error) in covered.items()},
        uniformity={name: uniformity(rows) for name, rows in u.items()},
        level=level,
        results=results,
    )


def _evaluator(functions: tuple[Callable[[Posterior, Array, Array], Array], ...]) -> Any:
    @jax.jit
    def evaluate(posterior: Posterior, positions: Array) -> Any:
        def one(z: Array) -> Any:
            image = posterior.image(z)
            return [jnp.atleast_1d(f(posterior, z, image)) for f in functions]

        return jax.lax.map(one, positions, batch_size=64)

    return evaluate
