"""Training a calibrated classifier that also knows what belongs to none of its classes.

A classifier of ten garments has to call every image a garment, also what a generator failed to
draw; a posterior under it then holds such images. Here the failures are an eleventh class. Which
draws they are is found by a held-out discriminator (`jaxgen.train.realism`), trained on real images
against other draws of the same generator: the share of its lowest logits. Then

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

__all__ = ["RejectingConfig", "fitted_temperature", "lowest", "with_temperature"]

# Temperatures that are tried, from 1/4 to 4.
_TRIED = 241


class RejectingConfig(NamedTuple):
    """Hyper-parameters.

    Attributes:
      steps: updates of the classifier.
      scoring: updates of the discriminator before.
      pool: draws of the generator for each of the two.
      failures: the share of the draws that are called failures.
      none: the share of failures in a batch.
      held_out: training images that only the temperature is fitted to.
      batch, lr, dropout, shift, mirror, ema: as `ClassifierConfig` has them.
    """

    steps: int
    scoring: int = 800
    pool: int = 20_000
    failures: float = 0.15
    none: float = 0.1
    held_out: int = 6_000
    batch: int = 128
    lr: float = 1e-3
    dropout: float = 0.3
    shift: int = 0
    mirror: bool = True
    ema: float = 0.998


def lowest(scores: Array, share: float) -> Array:
    """Return the indices of the `share` of lowest scores `[n]`, at least one."""
    count = max(1, int(share * scores.shape[0]))
    return jnp.argsort(scores)[:count]


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
