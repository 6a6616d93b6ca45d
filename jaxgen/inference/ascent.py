"""Gradient ascent on a posterior: MAP, activation maximisation, and the baselines.

    z* = argmax log p(condition | G(z)) + lambda log p(z)          (Xu et al., Eqs. 1-3)

An optimum is not a draw: in many dimensions the mode lies far from where a posterior's
mass is, which is how "super-stimuli" arise. Offered to compare, and to start from.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxgen.core.errors import InputError, check_integer, expected
from jaxgen.core.keys import as_key
from jaxgen.core.precision import at_precision
from jaxgen.core.printing import prints_short
from jaxgen.core.pytree import with_structure
from jaxgen.core.tracing import is_traced
from jaxgen.core.types import Array, ArrayTree, PRNGKey, Scalar, Score
from jaxgen.sampler.sharding import over_chains
from jaxgen.target.posterior import Posterior

__all__ = ["AscentResult", "ascend"]


@with_structure("num_gradients", "num_evaluations", "exactness")
@prints_short
class AscentResult(NamedTuple):
    """The result of an ascent.

    Attributes:
      position: `[C, ...]` coordinates.
      objective: `[C]` the objective there (with a score prior: the log likelihood alone).
      history: `[num_steps]` the objective before each step, its mean over chains.
      num_gradients: gradients for each chain.
      num_evaluations: forward passes for each chain, spent on choosing its start.
      exactness: "approximate": these are optima, not draws.
    """

    position: ArrayTree
    objective: np.ndarray
    history: np.ndarray
    num_gradients: int
    num_evaluations: int
    exactness: str = "approximate"


@at_precision
def ascend(
    key: PRNGKey,
    posterior: Posterior,
    optimizer: optax.GradientTransformation | None = None,
    *,
    num_chains: int = 64,
    num_steps: int = 200,
    prior_weight: Scalar = 1.0,
    clip: tuple[Any, Any] | None = None,
    best_of: int = 1,
    tile: int | None = None,
    precision: str = "highest",
) -> AscentResult:
    """Maximise log p(condition | G(z)) + prior_weight * log p(z) from prior draws.

    It may stand inside `jax.jit`, `jax.vmap` and their like; NaN then stays unnoticed.

    Args:
      key: consumed; chain i uses `fold_in(key, i)` alone.
      posterior: what to climb. Its prior may be known by its score only.
      optimizer: an optax transformation, `optax.adam(0.05)` by default. Define it once: a
        new one compiles anew.
      num_chains: C.
      num_steps: gradient steps.
      prior_weight: lambda; 1 for MAP, 0 for the likelihood alone (the co-generation paper's
        gradient descent on |x_o - G(z)_o|^2).
      clip: (low, high), numbers or arrays of the position's shape; positions are clipped
        after each step (Xu et al., Alg. 1).
      best_of: start each chain from the best of so many prior draws, by the objective.
      tile: chains moved in one batch; None for all.
      precision: of matrix products: "highest" (float32 on every device) or "fast", as JAX is
        set up.

    Returns:
      An `AscentResult`.

    Raises:
      InputError: for arguments that cannot be used, and where an objective is not finite
        at the end.
    """
    if not isinstance(posterior, Posterior):
        raise expected("posterior", "a Posterior", type(posterior).__name__)
    key = as_key(key)
    posterior.check()
    check_integer("num_chains", num_chains, 1)
    check_integer("num_steps", num_steps, 1)
    check_integer("best_of", best_of, 1)
    traced = is_traced(key, posterior, clip)
    if clip is not None and not traced and not np.all(np.asarray(clip[0]) < np.asarray(clip[1])):
        raise expected("clip", "(low, high) with low < high", clip)
    position, objective, history = _ascend(
        key,
        posterior,
        jnp.asarray(prior_weight, jnp.float32),
        clip,
        optimizer=_default_optimizer() if optimizer is None else optimizer,
        num_chains=num_chains,
        num_steps=num_steps,
        best_of=best_of,
        tile=tile,
    )
    if traced:
        return AscentResult(position, objective, history, num_steps, best_of - 1)
    if not np.any(np.isfinite(objective)):
        raise InputError(
            "optimizer: expected a step at which the objective stays finite; got none on any "
            "chain. Lower the learning rate, or clip"
        )
    return AscentResult(
        position, np.asarray(objective), np.asarray(history), num_steps, best_of - 1
    )


@functools.cache
def _default_optimizer() -> optax.GradientTransformation:
    return optax.adam(0.05)


@functools.partial(
    jax.jit, static_argnames=("optimizer", "num_chains", "num_steps", "best_of", "tile")
)
def _ascend(
    key: PRNGKey,
    posterior: Posterior,
    prior_weight: Array,
    clip: Any,
    *,
    optimizer: optax.GradientTransformation,
    num_chains: int,
    num_steps: int,
    best_of: int,
    tile: int | None,
) -> tuple[ArrayTree, Array, Array]:
    has_density = hasattr(posterior.prior, "log_prob")

    def objective(z: ArrayTree) -> Array:
        log_likelihood = posterior.log_likelihood(z)
        if not has_density:
            return log_likelihood
        return log_likelihood + prior_weight * posterior.log_prior(z)

    def gradient(z: ArrayTree) -> tuple[Array, ArrayTree]:
        value, grad = jax.value_and_grad(objective)(z)
        if not has_density:
            score = cast(Score, posterior.prior).score(z)
            grad = jax.tree.map(lambda g, s: g + prior_weight * s, grad, score)
        return value, grad

    def first(chain_key: PRNGKey) -> ArrayTree:
        best = posterior.prior.sample(jax.random.fold_in(chain_key, 0))
        if best_of == 1:
            return best

        def better(i: int, carry: tuple[ArrayTree, Array]) -> tuple[ArrayTree, Array]:
            best, value = carry
            z = posterior.prior.sample(jax.random.fold_in(chain_key, i))
            new = objective(z)
            take = new > value
            return jax.tree.map(lambda a, b: jnp.where(take, a, b), z, best), jnp.where(
                take, new, value
            )

        return jax.lax.fori_loop(1, best_of, better, (best, objective(best)))[0]

    def climb(chain_key: PRNGKey) -> tuple[ArrayTree, Array, Array]:
        z = first(chain_key)

        def step(carry: tuple[ArrayTree, Any], _: None) -> tuple[tuple[ArrayTree, Any], Array]:
            z, memory = carry
            value, grad = gradient(z)
            # optax descends.
            downhill = jax.tree.map(jnp.negative, grad)
            updates, memory = optimizer.update(downhill, memory, z)
            z = optax.apply_updates(z, updates)
            if clip is not None:
                z = jax.tree.map(lambda x: jnp.clip(x, clip[0], clip[1]), z)
            return (z, memory), value

        (z, _), values = jax.lax.scan(step, (z, optimizer.init(z)), length=num_steps)
        return z, objective(z), values

    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(num_chains))
    position, value, values = over_chains(climb, (keys,), tile)
    return position, value, values.mean(axis=0)
