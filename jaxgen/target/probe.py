"""A few prior draws, evaluated once before anything expensive is compiled.

What shapes cannot tell: a generator in [-1, 1] under an observation in [0, 1], a condition
that is NaN everywhere, a classifier that ends in a softmax, a generator that draws random
numbers of its own. Each would cost a long run, or worse, end in a wrong answer without a
word. The cost is one small program and four forward passes; 256 where none of the four has
a finite likelihood, since an event of a few percent is a proper condition.
"""

from __future__ import annotations

import functools
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxgen.core.errors import InputError, expected
from jaxgen.core.tracing import is_traced
from jaxgen.core.types import Array, PRNGKey
from jaxgen.target.conditions.algebra import bare_terms
from jaxgen.target.conditions.checks import seen_pixels
from jaxgen.target.conditions.classes import ClassCondition
from jaxgen.target.conditions.pixels import BernoulliPixels, LowResolution, ObservedPixels

__all__ = ["Evaluation", "at_hand", "probe"]

_MORE_DRAWS = 256
# Fewer pixels than this say nothing about a range.
_FEW_PIXELS = 16


class Evaluation(NamedTuple):
    """Properties of prior draws, `[N]` each.

    Attributes:
      low, high, mean: the least, the greatest and the average pixel of the image.
      log_prior, log_likelihood: of the draw; the first is 0 where the prior has only a score.
      outputs: what the classifier of each class condition gives, `[N, K]`.
    """

    low: Array
    high: Array
    mean: Array
    log_prior: Array
    log_likelihood: Array
    outputs: tuple[Array, ...]


def probe(posterior: Any, key: PRNGKey, num_draws: int = 4) -> Evaluation | None:
    """Evaluate a few prior draws, and refuse what cannot be a posterior.

    Args:
      posterior: a `Posterior` whose shapes fit.
      key: of the draws.
      num_draws: N.

    Returns:
      What was found; None where nothing can be evaluated, as under `jax.jit`.

    Raises:
      InputError: that names the argument which is wrong.
    """
    if not at_hand(posterior):
        return None
    _deterministic(posterior, key)
    found = _evaluate(posterior, jax.random.split(key, num_draws))
    found = jax.tree.map(np.asarray, found)
    _check_images(found, posterior)
    _check_densities(found, posterior, key)
    classes = [term for term in bare_terms(posterior.condition) if isinstance(term, ClassCondition)]
    for term, outputs in zip(classes, found.outputs, strict=True):
        term.check_outputs(outputs)
    return found


def _evaluate(posterior: Any, keys: Array) -> Evaluation:
    return _program(jax.default_backend())(posterior, keys)


@functools.cache
def _program(backend: str) -> Any:
    # A program that runs once: optimising it takes longer than all of it (1.6 s of CPU against
    # 0.75 s for the shipped DCGAN and classifier).
    options = {"xla_backend_optimization_level": 0} if backend == "cpu" else None
    return jax.jit(_evaluated, compiler_options=options)


def _evaluated(posterior: Any, keys: Array) -> Evaluation:
    def one(key: Array) -> Evaluation:
        position = posterior.prior.sample(key)
        image = posterior.image(position)
        terms = bare_terms(posterior.condition)
        known = hasattr(posterior.prior, "log_prob")
        return Evaluation(
            low=jnp.min(image),
            high=jnp.max(image),
            mean=jnp.mean(image),
            log_prior=posterior.log_prior(position) if known else jnp.zeros((), image.dtype),
            log_likelihood=posterior.condition(image),
            outputs=tuple(t.classifier(image) for t in terms if isinstance(t, ClassCondition)),
        )

    return jax.lax.map(one, keys)


def at_hand(posterior: Any) -> bool:
    """Return whether all arrays can be computed with here: no tracer, shape or remote array.

    Under `jax.jit` nothing can: what is computed there becomes part of the program.
    """
    return not is_traced() and all(
        not isinstance(leaf, Tracer | jax.ShapeDtypeStruct)
        and getattr(leaf, "is_fully_addressable", True)
        for leaf in jax.tree.leaves(posterior)
    )


def _deterministic(posterior: Any, key: PRNGKey) -> None:
    """Trace each part twice: what a host generator or a global puts in differs."""
    position = jax.eval_shape(posterior.prior.sample, key)
    image = jax.eval_shape(posterior.image, position)
    for name, function, argument in (
        ("generator", lambda p, z: p.image(z), position),
        ("condition", lambda p, x: p.condition(x), image),
    ):
        first, second = (_trace(function, posterior, argument) for _ in range(2))
        same = first[0] == second[0] and len(first[1]) == len(second[1])
        same = same and all(map(_equal, first[1], second[1]))
        if same and "callback" in first[0] and name == "generator":
            run = jax.jit(lambda p, k: p.image(p.prior.sample(k)))
            same = _equal(run(posterior, key), run(posterior, key))
        if not same:
            raise expected(
                name,
                "the same value whenever it is called",
                "another one",
                "Random numbers and globals that change have no place in a density: make noise "
                "part of the latent",
            )


def _trace(function: Any, posterior: Any, argument: Any) -> tuple[str, list[Any]]:
    """Return a program's text and the arrays that it holds."""
    closed = jax.make_jaxpr(lambda p, x: function(p, x))(posterior, argument)
    return re.sub(r" at 0x[0-9a-f]+|<[^>]*object[^>]*>", "", str(closed.jaxpr)), closed.consts


def _equal(a: Any, b: Any) -> bool:
    if a is b:
        return True
    a, b = np.asarray(a), np.asarray(b)
    floating = np.issubdtype(a.dtype, np.inexact)
    return a.shape == b.shape and np.array_equal(a, b, equal_nan=bool(floating))


def _check_images(found: Evaluation, posterior: Any) -> None:
    finite = np.isfinite(found.low) & np.isfinite(found.high)
    if not finite.any():
        raise expected(
            "generator", "finite pixels", f"NaN or infinity at all of {len(finite)} prior draws"
        )
    if len(finite) > 1 and all(np.ptp(x) == 0 for x in (found.low, found.high, found.mean)):
        raise expected(
            "generator",
            "images that depend on the latent",
            f"the same image at {len(finite)} prior draws",
            "A BatchNorm in training mode makes one image of every single latent",
        )
    low, high = float(np.min(found.low[finite])), float(np.max(found.high[finite]))
    size = int(np.prod(posterior.image_shape()))
    for term in bare_terms(posterior.condition):
        if size >= _FEW_PIXELS and isinstance(
            term, ObservedPixels | LowResolution | BernoulliPixels
        ):
            error = _range_error(term, low, high)
            if error is not None:
                raise error


def _range_error(term: Any, low: float, high: float) -> InputError | None:
    """Return the error if images and observation are on two scales; None if they may be on one."""
    seen = np.asarray(term.observed)
    mask = getattr(term, "mask", None)
    if mask is not None:
        seen = seen[seen_pixels(mask, seen.shape)]
    noise = float(np.max(np.asarray(getattr(term, "noise", 0.0))))
    got = f"[{low:.3g}, {high:.3g}]"
    if isinstance(term, BernoulliPixels):
        if low < -1e-3 or high > 1 + 1e-3:
            hint = "Use jax.nn.sigmoid(x) of logits, (x + 1) / 2 of images in [-1, 1]"
            return expected("generator", "probabilities in [0, 1]", got, hint)
        return None
    below = float(np.mean(seen < -3 * noise - 1e-3))
    wanted = "images in [0, 1] like the observation"
    signed = -1.01 <= low < -0.5 and high <= 1.01
    if signed and below < 0.01:
        return expected("generator", wanted, got, "Use (x + 1) / 2 of its images")
    if low >= 0 and high > 20:
        return expected("generator", wanted, got, "Divide its images by 255")
    positive = low >= -1e-3 and high <= 1.01
    if positive and below > 0.05 and seen.min() >= -1.01 and seen.max() <= 1.01:
        got = f"[{seen.min():.3g}, {seen.max():.3g}]"
        return expected("observed", "pixels in [0, 1] like the generator", got, "Use (y + 1) / 2")
    return None


def _check_densities(found: Evaluation, posterior: Any, key: PRNGKey) -> None:
    if not np.isfinite(found.log_prior).any():
        raise expected(
            "prior", "a finite log_prob at its own draws", f"{found.log_prior[0]} at all of them"
        )
    value = found.log_likelihood
    if not np.isfinite(value).any() and not np.any(np.isposinf(value)):
        more = _evaluate(posterior, jax.random.split(jax.random.fold_in(key, 1), _MORE_DRAWS))
        value = np.asarray(more.log_likelihood)
    if np.any(np.isposinf(value)):
        raise expected(
            "condition",
            "a log likelihood below infinity",
            f"+inf at {int(np.isposinf(value).sum())} of {len(value)} prior draws",
            "A density without bound has no posterior; is there a division by zero?",
        )
    if not np.isfinite(value).any():
        nans, zeros = int(np.isnan(value).sum()), int(np.isneginf(value).sum())
        got = " and ".join(
            f"{what} at {count}" for what, count in (("NaN", nans), ("-inf", zeros)) if count
        )
        raise expected(
            "condition",
            "a finite log likelihood at some prior draws",
            f"{got} of {len(value)}",
        )
