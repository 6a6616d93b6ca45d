"""Inverse temperatures, and schedules for step sizes and noise.

A list of inverse temperatures is an array `[T + 1]` that begins at 0, where chains are
drawn, and increases to 1; chains move at each of the T that follow. `Adaptive` chooses
them on the way instead.

Step and noise schedules are callables of the step count: any `optax.Schedule` will do.
Those here are pytrees as well, so that new numbers compile nothing.
"""

from __future__ import annotations

from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxgen.core.errors import expected
from jaxgen.core.pytree import pytree, static
from jaxgen.core.types import Array, Scalar

__all__ = [
    "Adaptive",
    "Betas",
    "PolynomialDecay",
    "by_name",
    "check_betas",
    "geometric",
    "linear",
    "sigmoid",
]


def linear(num_temperatures: int) -> np.ndarray:
    """beta_t = t / T, t = 0 .. T."""
    _check_count(num_temperatures)
    return np.linspace(0.0, 1.0, num_temperatures + 1)


def geometric(num_temperatures: int, first: float = 1e-4) -> np.ndarray:
    """beta_0 = 0, then T values in geometric progression from `first` to 1."""
    _check_count(num_temperatures)
    if not 0 < first < 1:
        raise expected("first", "a number between 0 and 1", first)
    if num_temperatures == 1:
        return np.array([0.0, 1.0])
    return np.concatenate([[0.0], np.geomspace(first, 1.0, num_temperatures)])


def sigmoid(
    num_temperatures: int, low: float = -4.0, high: float = 4.0, *, rescale: bool = True
) -> np.ndarray:
    """Return beta_t = s(low + (high - low) t / T), s the logistic function.

    Args:
      num_temperatures: T.
      low: the logistic's argument at t = 0.
      high: the logistic's argument at t = T.
      rescale: map the values onto [0, 1] exactly, (s - s_0) / (s_T - s_0), as Wu et al.
        (2017) do with (-4, 4). False keeps the raw values, as the co-generation authors'
        code does: the first is not 0 (chains start from the prior all the same) and the
        last is not 1, so the target is the likelihood to the power s(high).
    """
    _check_count(num_temperatures)
    if not low < high:
        raise expected("low, high", "low < high", f"{low}, {high}")
    values = 1.0 / (1.0 + np.exp(-np.linspace(low, high, num_temperatures + 1)))
    if rescale:
        values = (values - values[0]) / (values[-1] - values[0])
    return values


def by_name(name: str) -> np.ndarray:
    """Return the exact lists that the code of the papers uses, by name.

    - `"wu2017"`: 10000 temperatures, sigmoid(-4, 4), rescaled;
    - `"cogen-toy"`: the co-generation authors' toy, 10000 values of sigmoid(-10, 2), raw;
    - `"cogen-toy-paper"`: the same with the paper's 6000 loops;
    - `"cogen-images"`: 500 values of sigmoid(-5, 5), raw.

    The authors' lists have T values, of which the first is never moved at: T - 1 moves.
    """
    lists = {
        "wu2017": lambda: sigmoid(9999),
        "cogen-toy": lambda: sigmoid(9999, -10, 2, rescale=False),
        "cogen-toy-paper": lambda: sigmoid(5999, -10, 2, rescale=False),
        "cogen-images": lambda: sigmoid(499, -5, 5, rescale=False),
    }
    if name not in lists:
        raise expected("schedule", f"one of {', '.join(sorted(lists))}", repr(name))
    return lists[name]()


# Rounding, in nats, that a tilt recovered by division may bring into a log weight.
_ROUNDING = 0.02
# From which log weight on a chain no longer counts.
_LEFT_BEHIND = -20.0


@pytree
class Adaptive:
    """Each next beta keeps the conditional effective sample size at a given fraction.

    CESS(beta') / C = (sum_i W_i u_i)^2 / sum_i W_i u_i^2 with u_i = exp((beta' - beta)
    tilt_i) and W the normalised weights (Zhou, Johansen & Aston 2016). It is found by
    bisection; no network runs.

    Attributes:
      cess: the fraction, between 0 and 1. Nearer to 1 means more temperatures.
      max_temperatures: give up after so many (static).
    """

    cess: Scalar = 0.9
    max_temperatures: int = static(default=1000)

    def next_beta(
        self, beta: Array, log_weight: Array, tilt: Array, log_density: Array | None = None
    ) -> Array:
        """Return the largest beta' in (beta, 1] whose CESS is at least the fraction.

        Args:
          beta: the present inverse temperature.
          log_weight: `[C]` log weights of the chains.
          tilt: `[C]` the chains' tilts.
          log_density: `[C]` log p_beta of the chains, where their tilts were recovered as
            (log p_beta - base) / beta. Rounding of log p_beta then enters a log weight
            multiplied by (beta' - beta) / beta, and beta' is kept so small that it stays
            below 0.02.
        """
        weights = jax.nn.softmax(log_weight)
        # A chain at log 0 is lost whatever the step: it must not decide its size.
        alive = jnp.isfinite(tilt)
        weights = jnp.where(alive, weights, 0.0)
        weights = weights / jnp.maximum(weights.sum(), 1e-30)
        top = jnp.max(jnp.where(alive, tilt, -jnp.inf))
        centred = jnp.where(alive, tilt - top, 0.0)

        def cess(log_delta: Array) -> Array:
            u = jnp.exp(jnp.exp(log_delta) * centred)
            mean, square = jnp.sum(weights * u), jnp.sum(weights * u * u)
            return mean**2 / jnp.maximum(square, 1e-30)

        def bisect(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bracket
            middle = 0.5 * (low + high)
            enough = cess(middle) >= self.cess
            return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

        room = jnp.log(1.0 - beta)
        # Below a relative 1e-5 a step would vanish in float32.
        least = jnp.log(jnp.maximum(1e-9, 1e-5 * beta))
        low, _ = jax.lax.fori_loop(0, 40, bisect, (jnp.minimum(least, room), room))
        step = jnp.exp(low)
        following = jnp.where(
            (cess(room) >= self.cess) | (beta + step >= 1.0), 1.0, jnp.minimum(beta + step, 1.0)
        )
        if log_density is None:
            return following
        # A chain that the next step leaves behind may be rounded as it likes.
        counts = alive & (weights > 0) & ((following - beta) * centred > _LEFT_BEHIND)
        size = jnp.max(jnp.where(counts, jnp.abs(log_density), 0.0))
        resolution = jnp.finfo(tilt.dtype).eps * size
        limit = beta * (1.0 + _ROUNDING / jnp.maximum(resolution, 1e-30))
        return jnp.where(beta > 0, jnp.minimum(following, limit), following)


@pytree
class PolynomialDecay:
    """a (b + t)^-gamma, over the step count t.

    Welling & Teh's step sizes, and with sqrt(eta) (1 + t)^-0.275 the standard deviation of
    Neelakantan et al.'s annealed noise.
    """

    a: Scalar
    b: Scalar
    gamma: Scalar

    def __call__(self, t: Array) -> Array:
        """Return the value at step t."""
        return jnp.asarray(self.a * (self.b + t) ** (-self.gamma))


# What a user may give for inverse temperatures: a list, `Adaptive()`, "adaptive" or None.
Betas: TypeAlias = ArrayLike | Adaptive | None


def check_betas(betas: Betas) -> np.ndarray:
    """Return the list as float64; raise `InputError` unless it increases inside [0, 1]."""
    values = np.asarray(betas, np.float64)
    if values.ndim != 1 or values.size < 2:
        raise expected("betas", "at least two inverse temperatures", f"shape {values.shape}")
    if not (np.all(np.isfinite(values)) and np.all(np.diff(values) > 0)):
        raise expected("betas", "strictly increasing numbers", betas)
    if values[0] < 0 or values[-1] > 1 + 1e-9:
        raise expected("betas", "numbers in [0, 1]", f"[{values[0]}, {values[-1]}]")
    return values


def _check_count(num_temperatures: int) -> None:
    if not isinstance(num_temperatures, int) or num_temperatures < 1:
        raise expected("num_temperatures", "a positive integer", num_temperatures)
