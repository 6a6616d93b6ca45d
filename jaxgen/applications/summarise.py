"""A run's draws as a `Reconstruction`: mean, deviation, intervals, samples, and the misfit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxgen.applications.noise import bare, is_learned, parts_of
from jaxgen.applications.reconstruction import Reconstruction
from jaxgen.core.errors import expected
from jaxgen.core.tracing import is_traced
from jaxgen.diagnostics.moments import Moments, add, pooled, quantiles, weighted_quantiles
from jaxgen.diagnostics.streaming import StreamedDraws, histogram_quantiles
from jaxgen.sampler.results import SampleResult
from jaxgen.target.conditions import Condition, LearnedNoise, NoiseLevels
from jaxgen.target.evaluation import evaluate
from jaxgen.target.posterior import Posterior

__all__ = ["residuals", "summarise"]

# Above this ratio of residual to noise, the generator cannot show what was seen.
_TOO_FAR = 1.5
# With a learned level: above this ratio of residual to the deviation of what was seen, which leaves
# half of its variance unexplained.
_UNEXPLAINED = 0.7


def summarise(
    result: SampleResult, posterior: Posterior, condition: Condition, *, level: float = 0.9
) -> Reconstruction:
    """Return a run's draws as a `Reconstruction`.

    Args:
      result: from `sample(collect=images)`.
      posterior: what was sampled.
      condition: the part of its condition that saw pixels.
      level: of the credible intervals.
    """
    if is_traced(result.weights):
        return _summarise_traced(result, posterior, condition, level)
    chosen = np.asarray(result.weights, np.float64)
    tail = (1 - level) / 2
    drawn = result.draws
    if isinstance(drawn, StreamedDraws):
        moments, last = drawn.moments, drawn.last
        low, high = histogram_quantiles(drawn.counts, (tail, 1 - tail))
        squares, scales = drawn.misses / moments.weight, drawn.scales / moments.weight
    elif isinstance(drawn, Mapping) and "image" in drawn:
        stack = np.asarray(drawn["image"])
        # A chain at a time: what is computed from draws is several times as large as they are.
        each = [add(None, chain) for chain in stack]
        moments = Moments(*(np.stack(part) for part in zip(*each, strict=True)))
        last = jax.tree.map(lambda x: x[:, -1], drawn)
        flat = stack.reshape(-1, *stack.shape[2:])
        weights = np.repeat(chosen / stack.shape[1], stack.shape[1])
        low, high = quantiles(flat, (tail, 1 - tail), None if np.ptp(chosen) < 1e-9 else weights)
        misses = [residuals(condition, chain)[:2] for chain in stack]
        squares, scales = (
            np.asarray([np.mean(x) for x in part]) for part in zip(*misses, strict=True)
        )
    else:
        raise expected("result", "draws with images", "others", "Give collect=jaxgen.images")
    whole: Moments = pooled(moments, chosen)

    density = evaluate(posterior, last["position"], batch=16).log_density
    order = np.lexsort((-density, -chosen.round(9)))

    unit, spread = _scale_of(condition)
    residual = float(np.sqrt(np.dot(chosen, squares)))
    noise = float(np.dot(chosen, scales) * unit)
    inferred = is_learned(condition)
    misfit = residual / (spread if inferred else noise)
    out_of_reach = misfit > (_UNEXPLAINED if inferred else _TOO_FAR)
    notes = tuple(result.notes)
    if out_of_reach:
        if inferred:
            reason = f"the draws miss it by {residual:.3f}, and it varies by {spread:.3f}"
        else:
            reason = f"the draws miss it by {residual:.3f}, {misfit:.1f} times the noise level"
        way_out = "" if inferred else "; raise the noise level, or learn it"
        notes = (*notes, f"the observation is out of the generator's reach: {reason}{way_out}")
    return Reconstruction(
        mean=whole.mean.astype(np.float32),
        deviation=whole.deviation.astype(np.float32),
        low=low,
        high=high,
        level=level,
        samples=np.asarray(last["image"])[order],
        sample_weights=chosen[order],
        noise=noise,
        residual=residual,
        misfit=misfit,
        out_of_reach=bool(out_of_reach),
        notes=notes,
        result=result,
    )


def _summarise_traced(
    result: SampleResult, posterior: Posterior, condition: Condition, level: float
) -> Reconstruction:
    """Sum up inside a transformation of JAX, by `jax.numpy`, all draws in memory."""
    stack = result.draws["image"]
    chosen = result.weights
    flat = stack.reshape(-1, *stack.shape[2:])
    each = jnp.repeat(chosen / stack.shape[1], stack.shape[1])
    mean: Any = jnp.tensordot(each, flat, 1)
    deviation: Any = jnp.sqrt(jnp.tensordot(each, jnp.square(flat - mean[None]), 1))
    tails = np.asarray([(1 - level) / 2, (1 + level) / 2])
    low, high = weighted_quantiles(flat, tails, each)
    squares, scales = (x.reshape(stack.shape[:2]).mean(1) for x in residuals(condition, flat)[:2])
    last = jax.tree.map(lambda x: x[:, -1], result.draws)
    density = jax.lax.map(posterior, last["position"], batch_size=16)
    rank = jnp.lexsort((-density, -jnp.round(chosen, 9)))
    unit, spread = _scale_of(condition)
    residual: Any = jnp.sqrt(jnp.dot(chosen, squares))
    noise = jnp.dot(chosen, scales) * unit
    inferred = is_learned(condition)
    misfit = residual / (spread if inferred else noise)
    return Reconstruction(
        mean=mean,
        deviation=deviation,
        low=low,
        high=high,
        level=level,
        samples=last["image"][rank],
        sample_weights=chosen[rank],
        noise=noise,
        residual=residual,
        misfit=misfit,
        out_of_reach=misfit > (_UNEXPLAINED if inferred else _TOO_FAR),
        notes=(
            "made under jax.jit or jax.vmap: look at out_of_reach, and at the notes of "
            "result.settled()",
        ),
        result=result,
    )


@jax.jit
def residuals(condition: Condition, stack: ArrayLike) -> Any:
    """Each image's mean squared residual, and noise scale in units of the condition's."""
    base = bare(condition)

    def one(image: Any) -> tuple[Any, Any]:
        residual = base.residual(image)
        kept = base.kept(residual)
        size = jnp.square(jnp.abs(residual)) / parts_of(residual)
        kept = jnp.ones_like(size) if kept is None else (kept > 0).astype(size.dtype)
        square = jnp.sum(kept * size) / jnp.sum(kept)
        scale = jnp.ones(())
        if isinstance(condition, LearnedNoise | NoiseLevels):
            scale = condition.noise_scale(image)
        return square, scale

    return jax.lax.map(one, stack, batch_size=64)


def _scale_of(condition: Condition) -> tuple[Any, Any]:
    """Return the condition's noise (its unit if learned) and the deviation of what was seen."""
    base = bare(condition)
    kept = base.kept(base.observed)
    if is_traced(base):
        share = jnp.broadcast_to(1.0 if kept is None else 1.0 * (kept > 0), base.observed.shape)
        share = share / jnp.sum(share)
        mean = jnp.sum(share * base.observed)
        square = jnp.square(jnp.abs(base.observed - mean)) / parts_of(base.observed)
        spread = jnp.sqrt(jnp.sum(share * square))
        return jnp.sqrt(jnp.mean(jnp.square(base.noise))), spread
    seen = np.asarray(base.observed)
    seen = seen if kept is None else seen[np.broadcast_to(np.asarray(kept) > 0, seen.shape)]
    spread = float(np.std(seen) / np.sqrt(parts_of(seen)))
    return float(np.sqrt(np.mean(np.square(np.asarray(base.noise))))), spread
