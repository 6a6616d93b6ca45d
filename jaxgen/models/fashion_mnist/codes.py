"""The codes of a classifier, as Plug & Play Generative Networks use them.

    image -> h1 (the last convolution, spatial) -> h (the hidden layer) -> logits

For CaffeNet h1 is pool5 and h is fc6, both after their ReLU; for the classifier of
`jaxgen.models.fashion_mnist.cnn` they are conv4 and the hidden layer, both after their GELU.

Shapes: image `[..., 28, 28, 1]`, h1 `[..., 7, 7, 2 * width]`, h `[..., hidden]`.
"""

from __future__ import annotations

import jax
from flax import nnx

from jaxgen.core.errors import expected
from jaxgen.core.pytree import pytree
from jaxgen.core.types import Array
from jaxgen.models.fashion_mnist.cnn import Classifier
from jaxgen.target.networks import Network

__all__ = ["Codes"]


@pytree
class Codes:
    """An encoder, image -> h; and the two halves that it is made of.

    Attributes:
      classifier: a `cnn.Classifier`, frozen, as `load("fashion-mnist/cnn")` gives it.
    """

    classifier: Network

    @classmethod
    def of(cls, classifier: Network) -> Codes:
        """Return the codes of a network, which must be a `cnn.Classifier`."""
        module = nnx.merge(classifier.graphdef, classifier.params)
        if not isinstance(module, Classifier):
            raise expected("classifier", "a cnn.Classifier", type(module).__name__)
        return cls(classifier)

    def __call__(self, image: Array) -> Array:
        """h(h1(image))."""
        return self.hidden(self.spatial(image))

    def spatial(self, image: Array) -> Array:
        """h1, after the last convolution."""
        return self.classifier.call("spatial", image)

    def hidden(self, h1: Array) -> Array:
        """h, after the hidden layer."""
        return jax.nn.gelu(self._module().hidden(h1.reshape((*h1.shape[:-3], -1))))

    def logits(self, h: Array) -> Array:
        """Return the classifier's logits, from a code."""
        return self._module().logits(h)

    def trained_with_xla(self) -> Codes:
        """Return the same, its convolutions computed as training outside a loop is fastest."""
        module = self._module()
        for layer in (module.conv1, module.conv2, module.conv3, module.conv4):
            layer.form = "xla"
        return Codes(Network(nnx.state(module), nnx.graphdef(module)))

    def _module(self) -> Classifier:
        return nnx.merge(self.classifier.graphdef, self.classifier.params)
