"""f-divergences between the data p and a generator q, as adversarial losses.

    D_f(p || q) = E_q f(p / q)  >=  E_p T(x) - E_q f*(T(x))

for every T into the domain of the convex conjugate f*, with equality at T = f'(p / q)
(Nowozin, Cseke & Tomioka 2016, Eq. 4). A network's free output v is mapped into that domain.
The slope w = f*'(T) estimates the ratio p / q, exactly so at the best T: boundary-seeking
GANs weigh a generator's samples with it (Hjelm et al. 2018, Theorem 1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core.errors import expected
from jaxgen.core.types import Array

__all__ = ["DIVERGENCES", "Divergence", "by_name"]

Map = Callable[[Array], Array]


class Divergence(NamedTuple):
    """One f, with f(1) = 0 but for "gan", where f(1) = -log 4.

    Attributes:
      f: of the ratio u = p / q > 0.
      conjugate: f*(t).
      output: the free output v -> t, into the domain of f*.
      best: T*(u) = f'(u).
      log_ratio: v -> log w = log f*'(output(v)), the estimate of log p / q.
    """

    f: Map
    conjugate: Map
    output: Map
    best: Map
    log_ratio: Map

    def value(self, on_data: Array, on_samples: Array) -> Array:
        """Return the bound E_p T - E_q f*(T) from a discriminator's free outputs."""
        return jnp.mean(self.output(on_data)) - jnp.mean(self.conjugate(self.output(on_samples)))


def _entropy(u: Array) -> Array:
    return jax.scipy.special.xlogy(u, u)


def _identity(v: Array) -> Array:
    return v


DIVERGENCES: dict[str, Divergence] = {
    "kl": Divergence(
        f=_entropy,
        conjugate=lambda t: jnp.exp(t - 1),
        output=_identity,
        best=lambda u: 1 + jnp.log(u),
        log_ratio=lambda v: v - 1,
    ),
    "reverse-kl": Divergence(
        f=lambda u: -jnp.log(u),
        conjugate=lambda t: -1 - jnp.log(-t),
        output=lambda v: -jnp.exp(-v),
        best=lambda u: -1 / u,
        log_ratio=_identity,
    ),
    # Its slope 1 + t / 2 is a ratio for t > -2 only; the output stays above.
    "pearson": Divergence(
        f=lambda u: (u - 1) ** 2,
        conjugate=lambda t: t**2 / 4 + t,
        output=lambda v: 2 * jax.nn.softplus(v) - 2,
        best=lambda u: 2 * (u - 1),
        log_ratio=lambda v: jnp.log(jax.nn.softplus(v)),
    ),
    "squared-hellinger": Divergence(
        f=lambda u: (jnp.sqrt(u) - 1) ** 2,
        conjugate=lambda t: t / (1 - t),
        output=lambda v: 1 - jnp.exp(-v),
        best=lambda u: 1 - 1 / jnp.sqrt(u),
        log_ratio=lambda v: 2 * v,
    ),
    "jensen-shannon": Divergence(
        f=lambda u: _entropy(u) - (u + 1) * jnp.log((u + 1) / 2),
        conjugate=lambda t: -jnp.log(2 - jnp.exp(t)),
        output=lambda v: jnp.log(2.0) - jax.nn.softplus(-v),
        best=lambda u: jnp.log(2 * u / (u + 1)),
        log_ratio=_identity,
    ),
    "gan": Divergence(
        f=lambda u: _entropy(u) - (u + 1) * jnp.log(u + 1),
        conjugate=lambda t: -jnp.log(-jnp.expm1(t)),
        output=lambda v: -jax.nn.softplus(-v),
        best=lambda u: jnp.log(u / (u + 1)),
        log_ratio=_identity,
    ),
}


def by_name(name: str) -> Divergence:
    """Return a divergence of the table, or `InputError`."""
    if name not in DIVERGENCES:
        raise expected("divergence", f"one of {', '.join(DIVERGENCES)}", repr(name))
    return DIVERGENCES[name]
