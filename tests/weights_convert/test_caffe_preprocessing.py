"""Preprocessing is part of a network from Caffe, and weights are data of it."""

import jax
import numpy as np
import pytest
from caffe_files import net_text, write_net
from caffe_small import CONV, RELU, X, image

from jaxgen.core.errors import InputError
from weights_convert import caffe


def test_preprocessing_is_part_of_the_network(tmp_path):
    converted = caffe.convert(*write_net(tmp_path, net_text(X, CONV)))
    raw = converted.network
    x = image()
    mean = np.arange(3 * 8 * 8, dtype=np.float32).reshape(3, 8, 8)
    files = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    for preprocessing, expected in (
        (
            caffe.Preprocessing("bgr", (104, 117, 123), 0.5),
            0.5 * (255 * x[..., ::-1] - np.float32([104, 117, 123])),
        ),
        (
            caffe.Preprocessing("rgb", mean),
            255 * x - mean.transpose(1, 2, 0)[1:7, 1:7],
        ),
        (caffe.Preprocessing("rgb", ()), 255 * x),
    ):
        network = caffe.convert(*files, preprocessing=preprocessing).network
        np.testing.assert_allclose(network(x), raw(expected), rtol=1e-4, atol=1e-3)


def test_the_middle_of_larger_images_is_taken(tmp_path):
    files = write_net(tmp_path, net_text(X, CONV))
    network = caffe.convert(*files, preprocessing=caffe.PRESETS["imagenet"]).network
    large = image(shape=(9, 8, 3))
    np.testing.assert_array_equal(network(large), network(large[1:7, 1:7]))
    with pytest.raises(InputError, match="at least 6 x 6 pixels; got 5 x 8"):
        network(large[:5])


def test_other_weights_compile_nothing(tmp_path):
    traces = []

    @jax.jit
    def run(network, x):
        traces.append(1)
        return network(x)

    text = net_text(X, CONV, RELU)
    for seed in range(3):
        network = caffe.convert(*write_net(tmp_path, text, seed=seed)).network
        run(network, image())
    caffe.save_converted(tmp_path / "net.safetensors", caffe.convert(*write_net(tmp_path, text)))
    run(caffe.load_converted(tmp_path / "net.safetensors"), image())
    assert len(traces) == 1


def test_a_generator_draws_images(tmp_path):
    text = net_text(
        {"z": (1, 5)},
        'name: "fc" type: "InnerProduct" bottom: "z" top: "fc" '
        "inner_product_param { num_output: 12 }",
        'name: "r" type: "Reshape" bottom: "fc" top: "r" '
        "reshape_param { shape { dim: 1 dim: 3 dim: 2 dim: 2 } }",
    )
    files = write_net(tmp_path, text)
    z = np.random.default_rng(0).standard_normal(5).astype(np.float32)
    raw = np.asarray(caffe.convert(*files).network(z))
    converted = caffe.convert(*files, preprocessing=caffe.PRESETS["imagenet-generator"])
    expected = ((raw + np.float32([104, 117, 123])) / 255)[..., ::-1]
    np.testing.assert_allclose(converted.network(z), expected, rtol=1e-5)
    assert converted.metadata["preprocessing"]["inside"] == "ToImage"


def test_bad_preprocessing_is_refused(tmp_path):
    files = write_net(tmp_path, net_text(X, CONV))
    for preprocessing, message in (
        (caffe.Preprocessing("cmyk"), "rgb, bgr or grey"),
        (caffe.Preprocessing("grey"), "the order of"),
        (caffe.Preprocessing("rgb", (1, 2)), "1 or 3 numbers"),
        (caffe.Preprocessing("rgb", np.zeros((3, 4, 4))), "at least 6 x 6"),
        (caffe.Preprocessing("rgb", (np.nan,)), "finite"),
        (caffe.Preprocessing("rgb", scale=0.0), "other than 0"),
    ):
        with pytest.raises(InputError, match=message):
            caffe.convert(*files, preprocessing=preprocessing)
