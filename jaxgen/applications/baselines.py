"""Baselines that posterior samples are compared with, each well tuned and none given the truth.

- `descend`: gradient descent on what was seen, from one latent, from the best of N prior
  draws, or restarted from many; `tune` chooses its rate on images of their own.
- `cogeneration`: the co-generation authors' sampler, and HMC without annealing.
- `tempered`: sequential Monte Carlo with HMC moves and nothing after it.

All return an `Estimate`. Its one image is chosen by the objective, the weight or the
posterior density, for choosing by the distance from the truth would flatter every method
that makes many. Costs are counted per chain: gradients, and forward passes spent on
choosing a start.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxgen.core.deprecation import former_keyword
from jaxgen.core.errors import expected
from jaxgen.core.printing import prints_short
from jaxgen.core.types import ArrayTree, PRNGKey
from jaxgen.inference.ais import ais
from jaxgen.inference.ascent import ascend
from jaxgen.kernels import HMC
from jaxgen.target.path import tempered_prior_path
from jaxgen.target.posterior import Posterior
from jaxgen.tempering.betas import by_name
from jaxgen.tempering.step_size import CoGeneration

__all__ = ["Estimate", "cogeneration", "descend", "tempered", "tune"]


@prints_short
class Estimate(NamedTuple):
    """The result of a baseline.

    Attributes:
      image: `[H, W, channels]`, the one chosen by `score`.
      mean: the weighted mean of `images`.
      images: `[C, H, W, channels]`, one for each chain.
      weights: `[C]`, adding up to 1; equal where the method has none.
      score: `[C]`, what `image` was chosen by: the objective, or the posterior's density.
      position: `[C, ...]`.
      num_gradients: for each chain.
      num_evaluations: forward passes for each chain besides.
    """

    image: np.ndarray
    mean: np.ndarray
    images: np.ndarray
    weights: np.ndarray
    score: np.ndarray
    position: ArrayTree
    num_gradients: int
    num_evaluations: int = 0


def descend(
    key: PRNGKey,
    posterior: Posterior,
    rate: float,
    *,
    method: str = "adam",
    num_steps: int = 500,
    num_chains: int = 1,
    best_of: int = 1,
    prior_weight: float = 0.0,
) -> Estimate:
    """Gradient descent on the negative log likelihood of what was seen.

    argmin_z |x_o - G(z)_o|^2 (Fang & Schwing 2019, Eq. 1). Several chains are restarts, of
    which the best by the objective is the estimate.

    Args:
      key: consumed.
      posterior: its likelihood is the objective.
      rate: the optimiser's; see `tune`.
      method: "adam" or "sgd".
      num_steps: gradient steps.
      num_chains: restarts.
      best_of: start each from the best of so many prior draws (the paper's baseline: 5000).
      prior_weight: 1 descends on the negative log posterior instead.
    """
    result = ascend(
        key,
        posterior,
        _optimizer(method, float(rate)),
        num_chains=num_chains,
        num_steps=num_steps,
        best_of=best_of,
        prior_weight=prior_weight,
    )
    score = np.where(np.isfinite(result.objective), result.objective, -np.inf)
    return _estimate(
        posterior,
        result.position,
        None,
        score,
        result.num_gradients,
        result.num_evaluations,
    )


def tune(
    key: PRNGKey,
    posteriors: Sequence[Posterior],
    *,
    method: str = "adam",
    rates: Sequence[float] = (0.003, 0.01, 0.03, 0.1, 0.3),
    num_steps: int = 500,
    num_chains: int = 4,
    **more: Any,
) -> float:
    """Return the rate with the best mean objective on some posteriors that are not judged later."""
    if not posteriors or not rates:
        raise expected("posteriors, rates", "at least one of each", "none")

    def mean(rate: float) -> float:
        values = [
            descend(
                key,
                posterior,
                rate,
                method=method,
                num_steps=num_steps,
                num_chains=num_chains,
                **more,
            ).score
            for posterior in posteriors
        ]
        return float(np.mean(values))

    return max(rates, key=mean)


def cogeneration(
    key: PRNGKey,
    posterior: Posterior,
    *,
    num_chains: int = 10,
    betas: object = None,
    num_leapfrog: int = 20,
    annealed: bool = True,
) -> Estimate:
    """Return the co-generation authors' sampler: AIS with HMC, the prior tempered away.

    Raw sigmoid(-5, 5) betas, 500 of them as in their code for images, one HMC step at each,
    one step size for all chains. Their likelihood has no noise level:
    `jaxgen.tasks.COGEN_NOISE` is the one it amounts to. They use no weights and publish no
    rule of choosing among chains; `image` is that of the highest likelihood.

    Args:
      key: consumed.
      posterior: what is sampled.
      num_chains: 10 for their faces.
      betas: another list.
      num_leapfrog: leapfrog steps.
      annealed: if not, as many HMC steps at the last beta, from prior draws.
    """
    path = tempered_prior_path(posterior)
    schedule = by_name("cogen-images") if betas is None else np.asarray(betas)
    num_mcmc_steps = 1
    if not annealed:
        num_mcmc_steps, schedule = len(schedule) - 1, np.asarray([0.0, schedule[-1]])
    result = ais(
        key,
        path,
        HMC(num_leapfrog),
        schedule,
        num_chains=num_chains,
        num_mcmc_steps=num_mcmc_steps,
        step_size=CoGeneration(),
        resample=None,
        precondition=False,
    )
    score = np.asarray(_likelihoods(posterior, result.position))
    return _estimate(posterior, result.position, None, score, int(result.num_gradients.max()))


@former_keyword("moves", "num_mcmc_steps")
def tempered(key: PRNGKey, posterior: Posterior, **settings: Any) -> Estimate:
    """Sequential Monte Carlo: `ais` with resampling, and no steps after the last beta."""
    settings = {"resample": "systematic"} | settings
    result = ais(key, posterior, **settings)
    weights = np.asarray(jax.nn.softmax(result.log_weight))
    score = np.asarray(_log_posteriors(posterior, result.position))
    return _estimate(posterior, result.position, weights, score, int(np.max(result.num_gradients)))


@functools.cache
def _optimizer(method: str, rate: float) -> optax.GradientTransformation:
    """One object for each rate, so that the compiled program is found again."""
    made = {"adam": optax.adam, "sgd": optax.sgd}
    if method not in made:
        raise expected("method", "'adam' or 'sgd'", repr(method))
    return made[method](rate)


def _estimate(
    posterior: Posterior,
    position: ArrayTree,
    weights: np.ndarray | None,
    score: np.ndarray,
    num_gradients: int,
    num_evaluations: int = 0,
) -> Estimate:
    images = np.asarray(_pictures(posterior, position))
    if weights is None:
        weights = np.full(len(images), 1 / len(images))
    mean = np.tensordot(weights, images, 1)
    image = images[int(np.argmax(score))]
    return Estimate(image, mean, images, weights, score, position, num_gradients, num_evaluations)


@jax.jit
def _pictures(posterior: Posterior, position: ArrayTree) -> Any:
    return jax.lax.map(posterior.image, position, batch_size=16)


@jax.jit
def _likelihoods(posterior: Posterior, position: ArrayTree) -> Any:
    return jax.lax.map(posterior.log_likelihood, position, batch_size=16)


@jax.jit
def _log_posteriors(posterior: Posterior, position: ArrayTree) -> Any:
    return jax.lax.map(posterior, position, batch_size=16)
