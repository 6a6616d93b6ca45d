"""Posteriors through the networks that are shipped, whose answers were computed once and stored.

Class posteriors: log Z is the log mean of p(class | G(z)) over draws of the prior, and rejection
gives exact draws (a prior draw is kept with that probability). Posteriors given pixels are of
images that the generator drew itself, with noise of the given level; `answers.json` holds what
`benchmarks/truth/reference_answers.py` found, and only where its methods agreed.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.types import Array, PRNGKey
from jaxgen.models import load
from jaxgen.posteriors.reference import ReferencePosterior, generator_of
from jaxgen.target.conditions import BoxAverage, ClassLogSoftmax, Operator
from jaxgen.target.observations import BernoulliObservation, GaussianObservation
from jaxgen.target.posterior import Posterior
from jaxgen.target.priors import Gaussian

__all__ = ["BUILDERS", "POSTERIORS", "Simulated", "class_posterior", "simulated"]

_CLASSES = (0, 6, 8)
_BATCH = 256


class Simulated(NamedTuple):
    """A posterior given an image that the model drew, and the latent that it was drawn from.

    The latent is an exact draw from the posterior.
    """

    posterior: Posterior
    latent: np.ndarray


def class_posterior(label: int) -> Posterior:
    """p(z | class) of the shipped GAN under the shipped classifier."""
    return Posterior(
        Gaussian.standard(64),
        load("fashion-mnist/dcgan"),
        ClassLogSoftmax(load("fashion-mnist/cnn"), label),
    )


def _half(noise: float) -> Callable[[Array, Any], Any]:
    mask = jnp.zeros((28, 28)).at[:14].set(1.0)
    return _masked(mask, noise)


def _hole(noise: float) -> Callable[[Array, Any], Any]:
    mask = jnp.ones((28, 28)).at[9:19, 9:19].set(0.0)
    return _masked(mask, noise)


def _masked(mask: Array, noise: float) -> Callable[[Array, Any], Any]:
    observation = GaussianObservation(jnp.float32(noise), mask)

    def observe(image: Array, rng: np.random.Generator) -> Any:
        seen = image + noise * jnp.asarray(rng.normal(size=image.shape), jnp.float32)
        return observation.condition(seen)

    return observe


def _reduced(noise: float) -> Callable[[Array, Any], Any]:
    def observe(image: Array, rng: np.random.Generator) -> Any:
        view = BoxAverage(4)(image)
        seen = view + noise * jnp.asarray(rng.normal(size=view.shape), jnp.float32)
        return Operator(seen, jnp.float32(noise), forward=BoxAverage(4))

    return observe


def _binary(image: Array, rng: np.random.Generator) -> Any:
    drawn = rng.random(image.shape) < np.asarray(image)
    return BernoulliObservation().condition(jnp.asarray(drawn, jnp.float32))


# name: the generator, how its image is observed, and the seed of latent and noise.
_OBSERVED: dict[str, tuple[str, Callable[[Array, Any], Any], int]] = {
    "dcgan-reduced": ("fashion-mnist/dcgan", _reduced(0.1), 51),
    "dcgan-hole": ("fashion-mnist/dcgan", _hole(0.1), 52),
    "dcgan-half": ("fashion-mnist/dcgan", _half(0.1), 53),
    "vae-image": ("fashion-mnist/vae", _binary, 54),
    "vae-gaussian-image": ("fashion-mnist/vae-gaussian", _masked(jnp.ones((28, 28)), 0.1), 55),
}
# Every posterior that answers are computed for, known yet or not.
POSTERIORS = (*(f"dcgan-class-{label}" for label in _CLASSES), *_OBSERVED)


def simulated(name: str) -> Simulated:
    """Return a posterior of `_OBSERVED`, and its exact draw."""
    network, observe, seed = _OBSERVED[name]
    rng = np.random.default_rng(seed)
    generator = load(network)
    size = 64 if "dcgan" in network else 20
    latent = rng.normal(size=size).astype(np.float32)
    condition = observe(generator(jnp.asarray(latent)), rng)
    return Simulated(Posterior(Gaussian.standard(size), generator, condition), latent)


@functools.cache
def _answers() -> dict[str, Any]:
    return json.loads((files("jaxgen.posteriors") / "answers.json").read_text())


def _builder(name: str) -> Callable[[], ReferencePosterior]:
    def build() -> ReferencePosterior:
        answer = _answers()[name]
        by_class = name.startswith("dcgan-class-")
        posterior = (
            class_posterior(int(name.rsplit("-", 1)[1])) if by_class else simulated(name).posterior
        )
        mean = np.array(answer["mean"])
        return ReferencePosterior(
            name=name,
            posterior=posterior,
            dimension=len(mean),
            log_z=answer["log_z"],
            log_z_error=answer["log_z_error"],
            mean=mean,
            mean_error=np.array(answer["mean_error"]),
            variance=np.array(answer["variance"]),
            draws=functools.partial(_rejection, posterior) if by_class else None,
            how=answer["how"],
        )

    return build


@jax.jit
def _proposals(posterior: Posterior, key: PRNGKey) -> tuple[Array, Array]:
    """Prior draws, and whether each is kept: with probability p(class | G(z))."""
    key_z, key_u = jax.random.split(key)
    z = jax.vmap(posterior.prior.sample)(jax.random.split(key_z, _BATCH))
    log_p = jax.vmap(posterior.log_likelihood)(z)
    return z, jnp.log(jax.random.uniform(key_u, (_BATCH,))) < log_p


def _rejection(posterior: Posterior, key: PRNGKey, count: int) -> np.ndarray:
    """Exact draws by rejection: about ten forward passes each."""
    rng = generator_of(key)
    found: list[np.ndarray] = []
    while sum(len(z) for z in found) < count:
        key = jax.random.key(int(rng.integers(1 << 31)))
        z, kept = _proposals(posterior, key)
        found.append(np.asarray(z)[np.asarray(kept)])
    return np.concatenate(found)[:count]


BUILDERS = {name: _builder(name) for name in POSTERIORS if name in _answers()}
