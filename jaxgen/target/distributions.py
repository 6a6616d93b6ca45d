"""Priors from elsewhere: distributions of NumPyro and TFP, and a sampled class label.

`Posterior(numpyro.distributions.Laplace(0, 1).expand([64]).to_event(1), ...)` passes its
prior through `as_prior`. A distribution whose support has a boundary is moved in
unconstrained coordinates u with x = T(u), T the library's own bijection, so that

    log p(u) = log p(x) + log |det dT/du|,

summed over all of a draw. Without this, chains leave the support of a `Uniform` and
NumPyro's `log_prob`, which does not look, counts them in.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxgen.core.errors import expected
from jaxgen.core.pytree import pytree, short, static
from jaxgen.core.types import Array, ArrayTree, Prior, PRNGKey
from jaxgen.target.priors import normal_like, standard_normal_log_prob

__all__ = ["FromNumPyro", "FromTFP", "RandomLabel", "as_prior"]

# Coordinates of a draw at the very edge of its support, where the bijection has no finite one:
# a uniform draw is 0 once in 2^23 times.
_EDGE = 15.0


@contextlib.contextmanager
def _their_rules() -> Iterator[None]:
    """Let the library mix ranks and types in its arithmetic, which the user may have forbidden."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@pytree
class FromNumPyro:
    """A continuous NumPyro distribution as a prior; batch and event shapes are one draw.

    Attributes:
      distribution: the distribution; its parameters are data.
    """

    distribution: Any

    def sample(self, key: PRNGKey) -> Array:
        """One draw, in unconstrained coordinates."""
        with _their_rules():
            return _inside(self._bijection().inv(self.distribution.sample(key)))

    def log_prob(self, u: Array) -> Array:
        """log p(T(u)) + log |det dT/du|, summed: normalised over u."""
        with _their_rules():
            bijection = self._bijection()
            x = bijection(u)
            volume = bijection.log_abs_det_jacobian(u, x)
            value = jnp.sum(self.distribution.log_prob(x)) + jnp.sum(volume)
        return value.astype(u.dtype)

    def latent(self, coordinates: Array) -> Array:
        """T(u), of the distribution's own shape."""
        with _their_rules():
            return self._bijection()(coordinates)

    def check(self) -> None:
        """Raise `InputError` for discrete distributions and those without a bijection."""
        with _their_rules():
            kind = _name(self.distribution)
            if self.distribution.is_discrete:
                raise expected("prior", "a continuous distribution", f"{kind}, which is discrete")
            try:
                self._bijection()
            except NotImplementedError as error:
                raise expected(
                    "prior", "a distribution with a bijection onto its support", kind
                ) from error

    def _bijection(self) -> Any:
        return sys.modules["numpyro.distributions"].biject_to(self.distribution.support)


@pytree
class FromTFP:
    """A continuous TFP distribution (JAX substrate) as a prior, joint ones included.

    Attributes:
      distribution: the distribution; its parameters are data.
    """

    distribution: Any

    def sample(self, key: PRNGKey) -> ArrayTree:
        """One draw, in unconstrained coordinates."""
        with _their_rules():
            x = self.distribution.sample(seed=key)
            return jax.tree.map(_inside, self._bijection().inverse(x))

    def log_prob(self, u: ArrayTree) -> Array:
        """log p(T(u)) + log |det dT/du|, summed: normalised over u."""
        with _their_rules():
            bijection = self._bijection()
            x = bijection.forward(u)
            # All axes of u are one draw: without their number a constant volume counts once only.
            volume = bijection.forward_log_det_jacobian(u, jax.tree.map(jnp.ndim, u))
            value = jnp.sum(self.distribution.log_prob(x)) + jnp.sum(volume)
        return value.astype(jax.tree.leaves(u)[0].dtype)

    def latent(self, coordinates: ArrayTree) -> ArrayTree:
        """T(u), of the distribution's own shape."""
        with _their_rules():
            return self._bijection().forward(coordinates)

    def check(self) -> None:
        """Raise `InputError` for discrete distributions and those without a bijection."""
        with _their_rules():
            kind = _name(self.distribution)
            types = jax.tree.leaves(self.distribution.dtype)
            if not all(jnp.issubdtype(dtype, jnp.floating) for dtype in types):
                raise expected("prior", "a continuous distribution", f"{kind} of {types}")
            parts = self.distribution.batch_shape
            if _is_joint(parts) and any(_shapes(parts)):
                raise expected(
                    "prior",
                    "a joint distribution of parts without a batch shape",
                    f"batch shapes {parts}",
                    "Wrap each part in tfd.Independent or tfd.Sample",
                )
            if self._bijection() is None:
                raise expected("prior", "a distribution with a bijection onto its support", kind)

    def _bijection(self) -> Any:
        return self.distribution.experimental_default_event_space_bijector()


@pytree
class RandomLabel:
    """A latent and a class label, for class-conditional generators whose label is sampled.

    The label is the place of the largest of K coordinates g_k = log p_k - log(-log Phi(u_k)),
    u standard normal (the Gumbel-max construction), so label k has probability p_k exactly
    and chains of real numbers move through it. The likelihood jumps where the label does; an
    accept step keeps the target exact, but no gradient leads to another label, so anneal.

    The latent is `{"latent": z, "label": c}`, as `Labelled(generator)` takes it.

    Attributes:
      prior: of z.
      log_probs: log p_k `[K]`, normalised.
    """

    prior: Prior
    log_probs: Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "prior", as_prior(self.prior))

    @classmethod
    def uniform(cls, prior: Prior, classes: int, dtype: DTypeLike = jnp.float32) -> RandomLabel:
        """Return a prior under which all of this many classes have the same probability."""
        if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
            raise expected("RandomLabel.uniform: classes", "an integer of at least 2", classes)
        return cls(prior, jnp.full((classes,), -np.log(classes), dtype))

    def sample(self, key: PRNGKey) -> ArrayTree:
        """One draw, in coordinates."""
        for_latent, for_label = jax.random.split(key)
        return {
            "latent": self.prior.sample(for_latent),
            "label": normal_like(for_label, self.log_probs),
        }

    def log_prob(self, coordinates: ArrayTree) -> Array:
        """log p(z) + log N(u; 0, I)."""
        latent = self.prior.log_prob(coordinates["latent"])
        return latent + standard_normal_log_prob(coordinates["label"]).astype(latent.dtype)

    def latent(self, coordinates: ArrayTree) -> ArrayTree:
        """{"latent": z, "label": c}."""
        log_cdf = jax.scipy.stats.norm.logcdf(coordinates["label"])
        gumbel = -jnp.log(-log_cdf)
        label = jnp.argmax(self.log_probs + gumbel).astype(jnp.int32)
        return {"latent": self.prior.latent(coordinates["latent"]), "label": label}

    def check(self) -> None:
        """Raise `InputError` unless the probabilities are normalised."""
        check = getattr(self.prior, "check", None)
        if check is not None:
            check()
        values = np.asarray(self.log_probs, np.float64)
        if values.ndim != 1 or not np.isclose(np.exp(values).sum(), 1, atol=1e-4):
            raise expected(
                "RandomLabel.log_probs", "log probabilities [K] that sum to one", short(values)
            )


def as_prior(value: object) -> Any:
    """Return a distribution of NumPyro or TFP as a prior; anything else as it is."""
    if isinstance(value, type):
        raise expected("prior", "a distribution", f"the class {value.__name__} itself")
    for module, name, wrap in (
        ("numpyro.distributions", "Distribution", FromNumPyro),
        ("tensorflow_probability.substrates.jax.distributions", "Distribution", FromTFP),
    ):
        found = getattr(sys.modules.get(module), name, None)
        if isinstance(found, type) and isinstance(value, found):
            return wrap(_carried(value))
    return value


@pytree
class Opaque:
    """A distribution that JAX cannot take apart: it is compiled into the program."""

    value: Any = static()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.value, name)


def _carried(distribution: object) -> Any:
    """Return the distribution, or all of it as structure: TFP's joint ones fail to flatten."""
    try:
        leaves = jax.tree.leaves(distribution)
    except (AttributeError, TypeError, ValueError):
        return Opaque(distribution)
    whole = len(leaves) == 1 and leaves[0] is distribution
    return Opaque(distribution) if whole else distribution


def _is_joint(parts: object) -> bool:
    return isinstance(parts, dict | list) or hasattr(parts, "_fields")


def _shapes(tree: ArrayTree) -> list[Any]:
    """Return the shapes of a joint distribution's parts."""
    parts = tree.values() if isinstance(tree, dict) else tree
    return [tuple(part) for part in parts]


def _name(distribution: object) -> str:
    kept = distribution.value if isinstance(distribution, Opaque) else distribution
    return type(kept).__name__


def _inside(u: Array) -> Array:
    """Coordinates without infinities."""
    return jnp.nan_to_num(u, nan=jnp.nan, posinf=_EDGE, neginf=-_EDGE)
