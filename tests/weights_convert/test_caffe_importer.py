"""From prototxt to graph: phases, wiring, outputs and blobs."""

import numpy as np
import pytest
from caffe_files import encode, net_text, write_net
from caffe_small import CONV, RELU, X, image, refused

from jaxgen.core.errors import InputError
from weights_convert import caffe
from weights_convert.caffe.schema import message_class


def test_a_training_definition_becomes_its_test_network(tmp_path):
    text = """
    name: "train_val"
    layer { name: "data" type: "Data" top: "x" top: "label" include { phase: TRAIN }
            transform_param { crop_size: 6 mirror: true } data_param { source: "a" backend: LMDB } }
    layer { name: "data" type: "Data" top: "x" top: "label" include { phase: TEST }
            data_param { source: "b" batch_size: 50 } }
    layer { name: "conv" type: "Convolution" bottom: "x" top: "h"
            param { lr_mult: 1 } param { lr_mult: 2 }
            convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "msra" } } }
    layer { name: "relu" type: "ReLU" bottom: "h" top: "h" }
    layer { name: "aux" type: "InnerProduct" bottom: "h" top: "aux"
            inner_product_param { num_output: 2 } exclude { phase: TEST } }
    layer { name: "drop" type: "Dropout" bottom: "h" top: "h" }
    layer { name: "ip" type: "InnerProduct" bottom: "h" top: "ip"
            inner_product_param { num_output: 2 } }
    layer { name: "deploy" type: "Softmax" bottom: "ip" top: "prob" include { stage: "deploy" } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
    layer { name: "acc" type: "Accuracy" bottom: "ip" bottom: "label" top: "acc"
            include { phase: TEST not_stage: "deploy" } }
    """
    prototxt = tmp_path / "train_val.prototxt"
    prototxt.write_text(text)
    rng = np.random.default_rng(0)
    blobs = {
        "conv": [rng.standard_normal((4, 3, 3, 3)), rng.standard_normal(4)],
        "aux": [rng.standard_normal((2, 64)), rng.standard_normal(2)],
        "ip": [rng.standard_normal((2, 64)), rng.standard_normal(2)],
    }
    caffemodel = tmp_path / "net.caffemodel"
    caffemodel.write_bytes(encode(blobs))
    with pytest.raises(InputError, match="input 'x': expected a shape"):
        caffe.convert(prototxt, caffemodel)
    shape = {"x": (50, 3, 6, 6)}
    converted = caffe.convert(prototxt, caffemodel, inputs=shape)
    assert list(converted.graph.layer_types) == ["conv", "relu", "drop", "ip"]
    assert converted.description["outputs"] == ["ip"]
    assert converted.graph.input_names == ("x",)
    assert converted.ignored == ("aux[0]", "aux[1]")
    deployed = caffe.convert(
        prototxt, caffemodel, inputs=shape, stages=["deploy"], keep_softmax=True
    )
    assert deployed.description["outputs"] == ["prob"]
    assert float(deployed.network(image()).sum()) == pytest.approx(1, abs=1e-6)


def test_levels(tmp_path):
    text = net_text(
        X,
        'name: "a" type: "Sigmoid" bottom: "x" top: "a" include { min_level: 1 max_level: 2 }',
        'name: "b" type: "TanH" bottom: "x" top: "b"',
    )
    prototxt, _ = write_net(tmp_path, text)
    assert len(caffe.read_prototxt(prototxt).layers) == 1
    assert len(caffe.read_prototxt(prototxt, level=2).layers) == 2
    assert caffe.read_prototxt(prototxt, level=3).excluded == ("a",)
    prototxt.write_text(text + "state { level: 1 }")
    assert len(caffe.read_prototxt(prototxt).layers) == 2


def test_v1_and_current_definitions_agree(tmp_path):
    current = net_text(X, CONV, RELU, 'name: "s" type: "Softmax" bottom: "h" top: "s"')
    v1 = current.replace("layer {", "layers {").replace('"Convolution"', "CONVOLUTION")
    v1 = v1.replace('"ReLU"', "RELU").replace('"Softmax"', "SOFTMAX")
    a = caffe.convert(*write_net(tmp_path, current))
    (tmp_path / "v1.prototxt").write_text(v1)
    b = caffe.convert(tmp_path / "v1.prototxt", tmp_path / "net.caffemodel")
    assert a.description == b.description


def test_input_layers_of_every_kind(tmp_path):
    tail = 'layer { name: "t" type: "TanH" bottom: "x" top: "t" }'
    heads = [
        'layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 9 dim: 3 dim: 6 '
        "dim: 5 } } }",
        'layer { name: "i" type: "MemoryData" top: "x" top: "label" memory_data_param '
        "{ batch_size: 9 channels: 3 height: 6 width: 5 } }",
        'layer { name: "i" type: "DummyData" top: "x" dummy_data_param '
        "{ num: 9 channels: 3 height: 6 width: 5 } }",
        'input: "x" input_dim: 9 input_dim: 3 input_dim: 6 input_dim: 5',
    ]
    for head in heads:
        prototxt = tmp_path / "net.prototxt"
        prototxt.write_text(head + "\n" + tail)
        graph = caffe.convert(prototxt, None).graph
        assert graph.sample_shapes == ((6, 5, 3),), head


def test_the_declared_batch_size_is_not_part_of_the_network(tmp_path):
    text = net_text(
        {"x": (10, 12)},
        'name: "r" type: "Reshape" bottom: "x" top: "r" '
        "reshape_param { shape { dim: 10 dim: 3 dim: 2 dim: 2 } }",
        'name: "p" type: "Pooling" bottom: "r" top: "p" pooling_param { global_pooling: true }',
    )
    network = caffe.convert(*write_net(tmp_path, text)).network
    x = np.arange(12, dtype=np.float32)
    np.testing.assert_array_equal(network(x), [3, 7, 11])
    assert network(np.stack([x] * 4)).shape == (4, 3)


def test_several_outputs_and_chosen_ones(tmp_path):
    text = net_text(
        X,
        'name: "s" type: "Slice" bottom: "x" top: "a" top: "b" slice_param { slice_point: 1 }',
        'name: "t" type: "TanH" bottom: "b" top: "t"',
    )
    files = write_net(tmp_path, text)
    result = caffe.convert(*files).network(image())
    assert {name: value.shape for name, value in result.items()} == {
        "a": (6, 6, 1),
        "t": (6, 6, 2),
    }
    np.testing.assert_array_equal(
        caffe.convert(*files, outputs=["b"]).network(image()), image()[..., 1:]
    )
    message = refused(tmp_path, text, outputs=["nothing"])
    assert message == "outputs: expected blobs of net.prototxt; got 'nothing'"


def test_a_blob_written_again_after_it_was_read_is_an_output(tmp_path):
    text = net_text(
        X,
        'name: "t" type: "TanH" bottom: "x" top: "h"',
        'name: "e" type: "Exp" bottom: "h" top: "e"',
        'name: "a" type: "AbsVal" bottom: "h" top: "h"',
    )
    result = caffe.convert(*write_net(tmp_path, text)).network(image() - 1)
    assert set(result) == {"h", "e"}
    np.testing.assert_allclose(result["e"], np.exp(np.tanh(image() - 1)), rtol=1e-5)
    np.testing.assert_allclose(result["h"], np.tanh(1 - image()), rtol=1e-5)


def test_layers_may_be_called_as_they_like(tmp_path):
    names = ["train", "eval", "conv.1", "fire2/squeeze", "_x", "description", "split", "7"]
    layers = [
        f'name: "{name}" type: "Scale" bottom: "b{i}" top: "b{i + 1}"'
        for i, name in enumerate(names)
    ]
    converted = caffe.convert(*write_net(tmp_path, net_text({"b0": (1, 3, 2, 2)}, *layers)))
    x = image(shape=(2, 2, 3))
    expected = converted.network(x)
    caffe.save_converted(tmp_path / "net.safetensors", converted)
    network = caffe.load_converted(tmp_path / "net.safetensors")
    np.testing.assert_array_equal(network(x), expected)
    scale = converted.arrays["conv.1.scale"] * converted.arrays["eval.scale"]
    np.testing.assert_allclose(
        network.at("conv.1")(x), x * converted.arrays["train.scale"] * scale, rtol=1e-6
    )


def test_a_layer_can_be_tapped(tmp_path):
    converted = caffe.convert(*write_net(tmp_path, net_text(X, CONV, RELU)))
    network = converted.network
    before, after = network.at("conv")(image()), network.at("relu")(image())
    assert before.shape == (4, 4, 4)
    assert float(before.min()) < 0
    np.testing.assert_array_equal(np.maximum(before, 0), after)


def test_every_mismatch_of_blobs_is_listed(tmp_path):
    blobs = {"conv": [np.zeros((4, 3, 2, 2))], "fc9": [np.zeros(3)]}
    message = refused(tmp_path, net_text(X, CONV), blobs)
    assert message.startswith("net.caffemodel: 3 mistakes")
    assert "conv[0] gives (2, 2, 3, 4) from (4, 3, 2, 2)" in message
    assert "fc9[0]: left over (shape (3,))" in message
    assert "conv.bias: not filled (shape (4,))" in message
    good = {"conv": [np.zeros((4, 3, 3, 3)), np.zeros(4)], "fc9": [np.zeros(3)]}
    (tmp_path / "net.caffemodel").write_bytes(encode(good))
    files = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    assert caffe.convert(*files, ignore=["fc."]).ignored == ("fc9[0]",)
    assert "NaN" in refused(
        tmp_path, net_text(X, CONV), {"conv": [np.full((4, 3, 3, 3), np.nan), np.zeros(4)]}
    )
    assert "2 mistakes" in refused(tmp_path, net_text(X, CONV))


def test_shared_layers_of_a_binary_net_are_ignored_without_blobs(tmp_path):
    """Caffemodels list layers without weights, such as automatic splits: no matter."""
    files = write_net(tmp_path, net_text(X, CONV))
    net = message_class("NetParameter").FromString(files[1].read_bytes())
    net.layer.add(name="x_split", type="Split")
    entry = net.layer.add(name="data", type="Data")
    entry.top.append("x")
    files[1].write_bytes(net.SerializeToString())
    assert caffe.convert(*files).network(image()).shape == (4, 4, 4)
