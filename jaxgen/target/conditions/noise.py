"""The noise of an observation: a given level, or an inferred one.

A wrong noise level misleads more than a poor sampler does: too small, and the posterior
chases what the generator cannot make; too large, and it ignores what was seen. Both
classes below wrap a condition with Gaussian noise and integrate its level out in closed
form, so that the sampler sees nothing but another log likelihood.

What a generator cannot make it misses in patches, not pixel by pixel: neighbouring residuals
are no independent evidence. `redundancy` k says how many count as one; the log likelihood is
then that of n/k residuals (a power likelihood: Miller & Dunson 2019, Sec. 2), and log Z that
of no normalised density of the observation unless k = 1.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.pytree import pytree
from jaxgen.core.types import Array, Scalar
from jaxgen.target.conditions.algebra import Condition
from jaxgen.target.conditions.precision import like

__all__ = ["GaussianNoise", "LearnedNoise", "Misfit", "NoiseLevels"]


class Misfit(NamedTuple):
    """The misfit between an image and an observation.

    Attributes:
      chi_square: sum over observed entries of (residual / noise)^2.
      count: n, the number of observed entries.
      log_scale: sum of log noise over them.
    """

    chi_square: Array
    count: Array  # pyright: ignore[reportIncompatibleMethodOverride]  # hides `tuple.count`
    log_scale: Array


class GaussianNoise(Condition):
    """Base of conditions that see something of an image through Gaussian noise.

    log N(residual; 0, noise^2) = -chi^2 / 2 - sum log noise - n/2 log(2 pi)

    Of a complex residual the real and the imaginary part each have this noise: chi^2 is the
    sum of |residual / noise|^2, and n counts both parts.

    A subclass has `observed` and `noise`, a scalar or of the residual's shape, and gives
    `residual`.
    """

    observed: Any
    noise: Any

    def residual(self, image: Array) -> Array:
        """Return what was observed minus what this image would show."""
        raise NotImplementedError

    def kept(self, residual: Array) -> Array | None:
        """1 where an entry was observed, of the residual's shape; None for all."""
        return None

    def misfit(self, image: Array) -> Misfit:
        """chi^2, n and the sum of log noise."""
        residual = self.residual(image)
        noise = like(self.noise, residual)
        kept = self.kept(residual)
        if kept is None:
            kept = jnp.ones(residual.shape, noise.dtype)
        parts = [residual]
        if jnp.iscomplexobj(residual):
            parts = [residual.real, residual.imag]  # |r| itself has no gradient at 0
        square = sum((part / noise) ** 2 for part in parts)
        log_noise = jnp.broadcast_to(jnp.log(noise), residual.shape)
        return Misfit(
            jnp.sum(jnp.where(kept > 0, square, 0.0)),
            len(parts) * jnp.sum(kept > 0).astype(noise.dtype),
            len(parts) * jnp.sum(jnp.where(kept > 0, log_noise, 0.0)),
        )

    def __call__(self, image: Array) -> Array:
        """Return the normalised Gaussian log likelihood of what was observed."""
        chi_square, count, log_scale = self.misfit(image)
        return -0.5 * chi_square - log_scale - 0.5 * count * math.log(2 * math.pi)


@pytree
class LearnedNoise(Condition):
    """A noise level of unknown scale s, integrated out: s^2 ~ inverse gamma(a, b).

    The noise is s times the condition's own, and

        log p(y | x) = log Gamma(n/2 + a) - log Gamma(a) + a log b
                       - (n/2 + a) log(b + chi^2/2) - sum log noise - n/2 log(2 pi),

    a multivariate Student t with 2a degrees of freedom (Gelman et al., Bayesian Data
    Analysis, 3rd ed., Sec. 3.2). With a, b > 0 the prior on s^2 is proper and so is log Z.
    a = b = 0 is Jeffreys' prior: log Gamma(a) and a log b are then left out, log Z means
    nothing across models, and the density has no bound where an image fits exactly.

    Attributes:
      condition: `ObservedPixels`, `LowResolution`, `Operator` or another `GaussianNoise`.
      shape: a, half the number of observations that the prior is worth.
      scale: b; the condition's own noise is the prior's guess where b = a.
      redundancy: k, see above.
    """

    condition: GaussianNoise
    shape: Scalar = 1.0
    scale: Scalar = 1.0
    redundancy: Scalar = 1.0

    def __call__(self, image: Array) -> Array:
        """Return the log density of what was observed, over all noise levels."""
        chi_square, count, log_scale = self._misfit(image)
        a, b = like(self.shape, chi_square), like(self.scale, chi_square)
        half = 0.5 * count
        proper = (a > 0) & (b > 0)
        safe_a, safe_b = jnp.where(proper, a, 1.0), jnp.where(proper, b, 1.0)
        prior = jnp.where(proper, safe_a * jnp.log(safe_b) - jax.scipy.special.gammaln(safe_a), 0.0)
        tail = (half + a) * jnp.log(b + 0.5 * chi_square)
        constant = jax.scipy.special.gammaln(half + a) - half * math.log(2 * math.pi)
        return prior + constant - tail - log_scale

    def noise_scale(self, image: Array) -> Array:
        """s given this image: the root of E[s^2 | x, y] = (b + chi^2/2) / (n/2 + a - 1)."""
        chi_square, count, _ = self._misfit(image)
        a, b = like(self.shape, chi_square), like(self.scale, chi_square)
        below = jnp.maximum(0.5 * count + a - 1.0, 0.5)
        return jnp.sqrt((b + 0.5 * chi_square) / below)

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Check that the condition is Gaussian, and that no number is negative."""
        _check_gaussian(self.condition, "LearnedNoise")
        for name, value in (("shape", self.shape), ("scale", self.scale)):
            if not (np.isfinite(value) and np.asarray(value) >= 0):
                raise expected(f"LearnedNoise.{name}", "a number of at least 0", value)
        _check_redundancy("LearnedNoise", self.redundancy)
        self.condition.check(image_shape)

    def _misfit(self, image: Array) -> Misfit:
        return _thinned(self.condition.misfit(image), self.redundancy)


@pytree
class NoiseLevels(Condition):
    """A noise level among several, integrated out: log mean_k N(y; A x, (s_k noise)^2).

    Every s_k is as likely as another beforehand. Unlike `LearnedNoise` it has a smallest
    level, which keeps the posterior of an image that the generator made itself from
    becoming too sharp to sample; log Z is proper.

    Attributes:
      condition: a `GaussianNoise`; its noise is the unit.
      scales: s_k, `[K]`, positive.
      redundancy: how many residuals count as one, see above.
    """

    condition: GaussianNoise
    scales: Array
    redundancy: Scalar = 1.0

    def __call__(self, image: Array) -> Array:
        """Return the log density of what was observed, over the levels."""
        logits = self._logits(image)
        return jax.nn.logsumexp(logits) - math.log(logits.shape[0])

    def noise_scale(self, image: Array) -> Array:
        """s given this image: the root of E[s^2 | x, y]."""
        weights = jax.nn.softmax(self._logits(image))
        return jnp.sqrt(jnp.sum(weights * like(self.scales, weights) ** 2))

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Check that the condition is Gaussian and the scales are positive."""
        _check_gaussian(self.condition, "NoiseLevels")
        scales = np.asarray(self.scales)
        if scales.ndim != 1 or not (np.all(np.isfinite(scales)) and np.all(scales > 0)):
            raise expected("NoiseLevels.scales", "positive numbers [K]", scales)
        _check_redundancy("NoiseLevels", self.redundancy)
        self.condition.check(image_shape)

    def _logits(self, image: Array) -> Array:
        misfit = self.condition.misfit(image)
        chi_square, count, log_scale = _thinned(misfit, self.redundancy)
        scales = like(self.scales, chi_square)
        constant = log_scale + 0.5 * count * math.log(2 * math.pi)
        return -0.5 * chi_square / scales**2 - count * jnp.log(scales) - constant


def _check_gaussian(condition: object, name: str) -> None:
    if not isinstance(condition, GaussianNoise):
        raise expected(
            f"{name}.condition", "a condition with Gaussian noise", type(condition).__name__
        )


def _thinned(misfit: Misfit, redundancy: Scalar) -> Misfit:
    """Return the misfit of every k-th residual, had all been alike."""
    return Misfit(*(value / like(redundancy, value) for value in misfit))


def _check_redundancy(name: str, value: Scalar) -> None:
    if not (np.isfinite(value) and np.asarray(value) >= 1):
        raise expected(f"{name}.redundancy", "a number of at least 1", value)
