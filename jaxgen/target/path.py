"""Annealed paths: log p_beta(z) = base(z) + beta * tilt(z), beta from 0 to 1.

Every path here is linear in beta, so one type serves them all, the weight increment of
annealed importance sampling is (beta' - beta) * tilt(z), and a kernel's gradient can be
carried from one temperature to the next without evaluating a network again.
"""

from __future__ import annotations

from typing import Any, cast

import jax.numpy as jnp

from jaxgen.core.errors import expected
from jaxgen.core.pytree import as_data, pytree, static
from jaxgen.core.types import Array, ArrayTree, Condition, Density, Prior, PRNGKey, Score
from jaxgen.target import conditions
from jaxgen.target.conditions import split_tempered
from jaxgen.target.posterior import Posterior, in_type_of

__all__ = [
    "AnnealedPath",
    "Target",
    "geometric_path",
    "likelihood_path",
    "path_from",
    "tempered_prior_path",
]


@pytree
class AnnealedPath:
    """log p_beta(z) = base(z) + beta * tilt(z), with a distribution to start from.

    Attributes:
      base: the log density at beta = 0 (it need not be normalised).
      tilt: what is added as beta grows.
      start: a prior to draw first states from; its `log_prob` is normalised. Where it is
        not `base` itself, the first importance weight is base(z) - start.log_prob(z).
      base_is_cheap: True where `base` runs no network, so that it may be evaluated
        again after each step; False costs one gradient of `base` more for each step.
    """

    base: Density
    tilt: Density
    start: Any
    base_is_cheap: bool = static(default=True)

    def __call__(self, z: ArrayTree, beta: Array | float = 1.0) -> Array:
        """base(z) + beta * tilt(z)."""
        base, tilt = self.base(z), self.tilt(z)
        return base + jnp.asarray(beta, tilt.dtype) * tilt

    def draw(self, key: PRNGKey) -> tuple[ArrayTree, Array]:
        """Draw a first state, and return it with its log importance weight under `base`."""
        z = self.start.sample(key)
        return z, self.base(z) - in_type_of(z, self.start.log_prob(z))


@pytree
class LogPrior:
    """log p(z), with the untempered part of the condition where there is one."""

    posterior: Posterior
    untempered: Condition | None = None

    def __call__(self, z: ArrayTree) -> Array:
        """Return log p(z) + log p(untempered conditions | G(z))."""
        log_prior = self.posterior.log_prior(z)
        if self.untempered is None:
            return log_prior
        return log_prior + in_type_of(z, self.untempered(self.posterior.image(z)))

    def score(self, z: ArrayTree) -> ArrayTree:
        """Return the prior's score, where it has one of its own."""
        return cast(Score, self.posterior.prior).score(z)


@pytree
class LogProb:
    """A distribution's own log density."""

    prior: Prior

    def __call__(self, z: ArrayTree) -> Array:
        """Return log p(z)."""
        return in_type_of(z, self.prior.log_prob(z))


@pytree
class LikelihoodDensity:
    """The tempered part of the condition: log p(condition | G(z))."""

    posterior: Posterior
    condition: Condition

    def __call__(self, z: ArrayTree) -> Array:
        """Return condition(G(z))."""
        return in_type_of(z, self.condition(self.posterior.image(z)))


@pytree
class Difference:
    """left(z) - right(z)."""

    left: Density
    right: Density

    def __call__(self, z: ArrayTree) -> Array:
        """Return left(z) - right(z)."""
        return self.left(z) - self.right(z)


def likelihood_path(posterior: Posterior) -> AnnealedPath:
    """Return the path p(z) p(condition | z)^beta: the prior stays whole, the likelihood grows.

    Untempered conditions belong to the base. This is the default path, and that of
    Wu et al. (2017).
    """
    tempered, untempered = split_tempered(cast(conditions.Condition, posterior.condition))
    return AnnealedPath(
        base=LogPrior(posterior, untempered),
        tilt=LikelihoodDensity(posterior, tempered),
        start=posterior.prior,
        base_is_cheap=untempered is None,
    )


def tempered_prior_path(posterior: Posterior) -> AnnealedPath:
    """p(condition | z)^beta p(z)^(1 - beta): the path of Fang & Schwing (2019, Sec. 2).

    At beta = 1 the prior is gone and the target is the likelihood alone, which need not
    be normalisable: the paper's images drift to large |z| for that reason. Offered to
    reproduce the paper.
    """
    path = likelihood_path(posterior)
    if not path.base_is_cheap:
        raise expected("condition", "tempered terms only on this path", "an untempered one")
    return AnnealedPath(path.base, Difference(path.tilt, path.base), posterior.prior)


def geometric_path(start: Any, target: Density) -> AnnealedPath:
    """p0(z)^(1 - beta) p1(z)^beta, from a prior to any log density.

    Args:
      start: p0, a density prior.
      target: log p1: a callable pytree (a `Posterior`, say) or a plain function.
    """
    base = LogProb(start)
    return AnnealedPath(base, Difference(as_data(target), base), start)


@pytree
class Target:
    """A path's target, at beta = 1: base(z) + tilt(z)."""

    path: AnnealedPath

    def __call__(self, z: ArrayTree) -> Array:
        """base(z) + tilt(z)."""
        return self.path(z, 1.0)


def path_from(start: Any, path: AnnealedPath) -> AnnealedPath:
    """Return the geometric path from another start to the end of a path.

    Args:
      start: a distribution with `sample` and a normalised `log_prob`, in the coordinates of
        the path's own start: an encoder's q(z | x), say. It should be wider than the target.
      path: whose target at beta = 1 is kept.
    """
    return geometric_path(start, Target(path))
