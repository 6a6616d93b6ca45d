"""Training a calibrated classifier that also knows what belongs to none of its classes.

A classifier of ten garments has to call every image a garment, also what a generator failed to
draw; a posterior under it then holds such images. Here the failures are an eleventh class: those
draws that are farther from their third nearest training image, in the codes of another trained
classifier, than nearly all real images that were held out are. Then

    log p(c | x) = log softmax(f(x) / T),

f trained by cross entropy on garments and failures without label smoothing, and the temperature
T fitted to the likelihood of training images that were held out (Guo et al., On Calibration of
Modern Neural Networks, 2017). T is stored in the weights of the last layer.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.core.types import Array
from jaxgen.models.fashion_mnist.cnn import Classifier

__all__ = ["RejectingConfig", "distances", "fitted_temperature", "with_temperature"]

# Temperatures that are tried, from 1/4 to 4.
_TRIED = 241


class RejectingConfig(NamedTuple):
    """Hyper-parameters.

    Attributes:
      steps: updates of the classifier.
      pool: draws of the generator among which failures are looked for.
      quantile: the share of held-out images that are nearer to the training images than a failure.
      none: the share of failures in a batch.
      held_out: training images that only the distances and the temperature are fitted to.
      batch, lr, dropout, shift, mirror, ema: as `ClassifierConfig` has them.
    """

    steps: int
    pool: int = 20_000
    quantile: float = 0.97
    none: float = 0.1
    held_out: int = 6_000
    batch: int = 128
    lr: float = 1e-3
    dropout: float = 0.3
    shift: int = 0
    mirror: bool = True
    ema: float = 0.998


def distances(points: Array, others: Array, neighbour: int = 3, batch: int = 50) -> Array:
    """Return the distance of each point from its n-th nearest of others, `[N]`.

    Args:
      points: `[N, D]`.
      others: `[M, D]`.
      neighbour: n, from 1 for the nearest.
      batch: points at once.
    """
    squares = jnp.sum(others**2, axis=1)

    def one(point: Array) -> Array:
        # Less |point|^2, which all have in common.
        nearest, _ = jax.lax.top_k(2.0 * (others @ point) - squares, neighbour)
        return jnp.sqrt(jnp.maximum(jnp.sum(point**2) - nearest[-1], 0.0))

    return jax.jit(lambda x: jax.lax.map(one, x, batch_size=batch))(points)


def fitted_temperature(logits: Array, labels: Array) -> Array:
    """Return the T of highest likelihood of `labels` `[n]` under softmax(logits / T), to 1.2%.

    Args:
      logits: `[n, K]`.
      labels: `[n]`, true classes of images that the network was not trained on.
    """
    tried = jnp.exp(jnp.linspace(jnp.log(0.25), jnp.log(4.0), _TRIED))

    def loss(temperature: Array) -> Array:
        log_p = jax.nn.log_softmax(logits / temperature)
        return -jnp.mean(jnp.take_along_axis(log_p, labels[:, None], axis=1))

    return tried[jnp.argmin(jax.lax.map(loss, tried))]


def with_temperature(classifier: Classifier, temperature: Array | float) -> Classifier:
    """Divide a classifier's logits by a temperature, in its weights; the same module."""
    layer = classifier.logits
    layer.kernel[...] = layer.kernel[...] / temperature
    layer.bias[...] = layer.bias[...] / temperature  # type: ignore[index]
    return classifier
