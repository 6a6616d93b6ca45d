"""Inverse mass matrices from the ensemble of chains.

The kernels that have a momentum move fastest where the inverse mass is the target's
covariance. Chains that are annealed together carry estimates of it at every beta: the
covariance of their positions, shrunk, since chains are few and latents many; or the inverse
of their gradients' covariance, which is best where it matters, in narrow directions.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap
from jax.flatten_util import ravel_pytree

from jaxgen.core.errors import expected
from jaxgen.core.types import Array, ArrayTree, Preconditioning
from jaxgen.tempering.resampling import effective_sample_size

__all__ = ["FORMS", "MOST_DENSE", "as_form", "ensemble", "prior", "score"]

# What `precondition` may be; True chooses, False stands for "none".
FORMS = ("none", "diagonal", "dense", "score")

# A dense matrix is factorised at every step, at D^3 / 3 operations.
MOST_DENSE = 1024


def as_form(
    precondition: bool | str, dimension: int, num_chains: int, takes_dense: bool, kernel: str
) -> Preconditioning:
    """Return the name of a form, or raise `InputError`.

    Args:
      precondition: what the user gave. True is "score" for kernels that take a dense mass
        where there are chains enough to fill it, C >= D / 2, and "diagonal" elsewhere.
      dimension: D, the latent's size.
      num_chains: C.
      takes_dense: whether the kernel can use a full matrix.
      kernel: its name, for the error.
    """
    if precondition is False:
        return "none"
    if precondition is True:
        enough = dimension <= min(2 * num_chains, MOST_DENSE)
        return "score" if takes_dense and enough else "diagonal"
    if precondition not in FORMS:
        raise expected("precondition", f"True, False or one of {', '.join(FORMS)}", precondition)
    if precondition in ("dense", "score"):
        if dimension > MOST_DENSE:
            raise expected(
                "precondition",
                f"at most {MOST_DENSE} latent dimensions for a dense matrix",
                dimension,
                'Use "diagonal"',
            )
        if not takes_dense:
            raise expected(
                "precondition",
                f'"diagonal" or "none" for {kernel}',
                repr(precondition),
                "HMC and NUTS take a dense inverse mass",
            )
    return precondition


def prior(start: Any, position: ArrayTree, form: str) -> Array:
    """Return the first inverse mass: a Gaussian prior's variances; ones for other priors.

    Returns:
      `[D]`, or `[D, D]` where the form is "dense" or "score".
    """
    scale = getattr(start, "scale", None)
    flat = ravel_pytree(position if scale is None else scale)[0]
    variance = jnp.ones_like(flat) if scale is None else flat * flat
    return jnp.diag(variance) if form in ("dense", "score") else variance


def ensemble(position: ArrayTree, log_weight: Array, form: str) -> Array:
    """Estimate the weighted (co)variance of positions over chains, shrunk.

    "diagonal" shrinks the variances towards their mean, with the weight of 10 chains.
    "dense" shrinks S towards (tr S / D) I by the oracle-approximating weight for a normal
    sample (Chen, Wiesel, Eldar & Hero 2010, Eq. 23), n being the weights' ESS.

    Args:
      position: leaves `[C, ...]`.
      log_weight: `[C]`.
      form: "diagonal" or "dense".

    Returns:
      `[D]` or `[D, D]`.
    """
    flat = jax.vmap(lambda z: ravel_pytree(z)[0])(position)
    weights = jax.nn.softmax(log_weight)[:, None]
    centred = flat - jnp.sum(weights * flat, axis=0)[None]
    n = effective_sample_size(log_weight)
    if form == "diagonal":
        variance = jnp.sum(weights * centred**2, axis=0)
        shrink = 10.0 / (10.0 + n)
        return (1 - shrink) * variance + shrink * variance.mean() + 1e-12
    size = flat.shape[1]
    covariance = (weights * centred).T @ centred
    trace, square = jnp.trace(covariance), jnp.sum(covariance**2)
    above = (1 - 2 / size) * square + trace**2
    below = (n + 1 - 2 / size) * (square - trace**2 / size)
    shrink = jnp.where(below > 0, jnp.minimum(above / jnp.where(below > 0, below, 1.0), 1.0), 1.0)
    identity = jnp.eye(size, dtype=flat.dtype)
    return (1 - shrink) * covariance + (shrink * trace / size + 1e-12) * identity


# How much of the precision found so far is kept at a new temperature, and how much of the
# prior's precision is added to what one temperature's few gradients show.
_MEMORY, _FLOOR = 0.7, 0.25


@sequential_vmap
def score(gradient: ArrayTree, log_weight: Array, inverse_mass: Array, start: Array) -> Array:
    """Return the inverse of the mean squared score, averaged over temperatures: `[D, D]`.

        P <- 0.7 P + 0.3 (sum_c w_c g_c g_c' + P_0 / 4),   g = grad log p_beta

    Under the target E[g g'] = E[-Hessian], and its inverse is the best of all inverse masses
    (Titsias 2023). The directions in which the target is narrow dominate it, where they
    drown in the noise of a covariance; several modes or few ancestors do not disturb it; and
    the chains carry the gradients already.

    Under `vmap` items follow each other: XLA's batched factorisations wait for each other
    without end inside a loop on CPUs of few cores.

    Args:
      gradient: leaves `[C, ...]`, at the new temperature.
      log_weight: `[C]`.
      inverse_mass: P^-1, so far.
      start: P_0^-1, the prior's covariance.
    """
    flat = jax.vmap(lambda g: ravel_pytree(g)[0])(gradient)
    weights = jax.nn.softmax(log_weight)[:, None]
    new = (weights * flat).T @ flat + _FLOOR * jnp.linalg.inv(start)
    precision = _MEMORY * jnp.linalg.inv(inverse_mass) + (1 - _MEMORY) * new
    inverse = jnp.linalg.inv(0.5 * (precision + precision.T))
    inverse = 0.5 * (inverse + inverse.T)
    # Where rounding has made it indefinite, the kernels could not draw a momentum.
    usable = jnp.all(jnp.isfinite(jnp.linalg.cholesky(inverse)))
    return jnp.where(usable, inverse, inverse_mass)
