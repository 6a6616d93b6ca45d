"""Write an ONNX file with Keras: a network of random weights with the layers that convert oddly.

`python foreign_keras.py OUT.onnx` needs keras, tensorflow and tf2onnx, which may live in an
environment of their own: nothing of jaxgen is imported here. Attention, normalisation over
channels, groups and the whole image, separable, dilated and transposed convolutions, "same"
padding of odd sizes.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")


def network(keras: Any) -> Any:
    """Return the network, its normalisations with scales and shifts that are not 1 and 0."""
    import numpy as np

    keras.utils.set_random_seed(0)
    layers = keras.layers
    images = keras.Input((47, 47, 3), batch_size=1)
    x = layers.Conv2D(16, 3, strides=2, padding="same")(images)
    x = layers.Activation(lambda v: keras.activations.gelu(v, approximate=True))(x)
    x = layers.BatchNormalization()(x)
    y = layers.SeparableConv2D(32, 5, strides=2, padding="same", activation="swish")(x)
    y = layers.Conv2DTranspose(16, 3, strides=2, padding="same")(y)
    x = layers.Add()([x, y])
    tokens = layers.LayerNormalization(epsilon=1e-6)(layers.Reshape((576, 16))(x))
    tokens = layers.MultiHeadAttention(4, 8)(tokens, tokens)
    x = layers.Add()([x, layers.Reshape((24, 24, 16))(tokens)])
    x = layers.LayerNormalization(axis=[1, 2, 3])(x)
    x = layers.DepthwiseConv2D(3, padding="same", dilation_rate=2)(x)
    x = layers.PReLU(shared_axes=[1, 2])(x)
    x = layers.GroupNormalization(4)(layers.UpSampling2D(2, interpolation="bilinear")(x))
    x = layers.AveragePooling2D(3, 2, padding="same")(layers.ZeroPadding2D(((1, 0), (0, 1)))(x))
    x = layers.Dense(32, activation="elu")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(images, layers.Dense(10, activation="softmax")(x))
    draws = np.random.default_rng(0)
    for layer in model.layers:
        if "normalization" in layer.name:
            layer.set_weights([w + draws.uniform(0, 0.5, w.shape) for w in layer.get_weights()])
    model(np.zeros((1, 47, 47, 3), np.float32))  # an export wants it called
    return model


if __name__ == "__main__":
    network(importlib.import_module("keras")).export(sys.argv[1], format="onnx", verbose=False)
