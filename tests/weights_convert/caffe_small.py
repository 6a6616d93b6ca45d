"""A small Caffe network, an image for it, and the error of converting one that is wrong."""

import numpy as np
import pytest
from caffe_files import encode

from jaxgen.core.errors import InputError
from weights_convert import caffe

X = {"x": (1, 3, 6, 6)}
CONV = (
    'name: "conv" type: "Convolution" bottom: "x" top: "h" '
    "convolution_param { num_output: 4 kernel_size: 3 }"
)
RELU = 'name: "relu" type: "ReLU" bottom: "h" top: "h"'


def one_line(caught):
    assert "\n" not in str(caught.value)
    return str(caught.value)


def refused(folder, text, blobs=None, **options):
    """The error of converting a prototxt; blobs default to none."""
    prototxt = folder / "net.prototxt"
    prototxt.write_text(text)
    caffemodel = None
    if blobs is not None:
        caffemodel = folder / "net.caffemodel"
        caffemodel.write_bytes(encode(blobs))
    with pytest.raises(InputError) as caught:
        caffe.convert(prototxt, caffemodel, **options)
    return one_line(caught)


def image(seed=0, shape=(6, 6, 3)):
    return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)
