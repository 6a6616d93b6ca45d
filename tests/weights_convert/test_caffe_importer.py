"""From prototxt to graph: phases, wiring, preprocessing, and what is refused."""

import json
import re
import time

import jax
import numpy as np
import pytest
from caffe_files import encode, net_text, write_net

from jaxgen.core.errors import InputError
from jaxgen.models.weights import load_weights, save_weights
from weights_convert import caffe, parity
from weights_convert.caffe.schema import message_class

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


WRONG = {
    "unknown type": (
        net_text(X, 'name: "a" type: "Magic" bottom: "x" top: "a"'),
        r"net.prototxt:3: layer 'a' has unknown type 'Magic'; known: ",
    ),
    "unknown V1 type": (
        'layers {\n name: "b" type: RELU }\nlayers {\n name: "a"\n type: MAGIC }',
        r"net.prototxt:5:\d+: layer 'a' has an unknown type: .* no value named MAGIC",
    ),
    "unknown field": (
        net_text(X, 'name: "a" type: "ReLU" bottom: "x" top: "a"\nmagic_param { }'),
        r"net.prototxt:3: layer 'a' \(ReLU\) has no field named magic_param.*delete it",
    ),
    "syntax": ("layer {\n name 3 }", r"net.prototxt:2:\d+: "),
    "empty": ("", "expected a network with layers"),
    "no type": (net_text(X, 'name: "a"'), r"net.prototxt:3: layer 'a': type: expected"),
    "no bottom": (
        net_text(X, 'name: "a" type: "ReLU" bottom: "y" top: "a"'),
        r"bottom 'y': expected an input or an earlier layer",
    ),
    "bottom of a loss": (
        net_text(
            X,
            'name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "x" top: "l"',
            'name: "a" type: "ReLU" bottom: "l" top: "a"',
        ),
        r"not 'l' \(SoftmaxWithLoss\)",
    ),
    "same name": (
        net_text(
            X,
            'name: "a" type: "ReLU" bottom: "x" top: "a"',
            'name: "a" type: "ReLU" bottom: "a" top: "b"',
        ),
        r"net.prototxt:4: layer 'a': expected a name of its own",
    ),
    "overwritten top": (
        net_text(
            X,
            'name: "a" type: "ReLU" bottom: "x" top: "h"',
            'name: "b" type: "ReLU" bottom: "x" top: "h"',
        ),
        "top 'h': expected a new name; got one that a uses",
    ),
    "no kernel": (
        net_text(X, 'name: "p" type: "Pooling" bottom: "x" top: "p"'),
        r"net.prototxt:3: layer 'p' \(Pooling\): kernel_size: expected a number; got nothing",
    ),
    "absurd pooling": (
        net_text(
            X,
            'name: "p" type: "Pooling" bottom: "x" top: "p" '
            "pooling_param { kernel_size: 4000000000 }",
        ),
        "kernel: expected two numbers from 1 to 65536",
    ),
    "pad beyond kernel": (
        net_text(
            X,
            'name: "p" type: "Pooling" bottom: "x" top: "p" '
            "pooling_param { kernel_size: 2 pad: 2 }",
        ),
        "pad: expected less than the kernel",
    ),
    "pooling too large": (
        net_text(
            X, 'name: "p" type: "Pooling" bottom: "x" top: "p" pooling_param { kernel_size: 20 }'
        ),
        "net.prototxt:3: layer 'p': kernel: expected at most the padded image, 6; got 20",
    ),
    "kernel too large": (
        net_text(X, CONV.replace("kernel_size: 3", "kernel_size: 7")),
        "expected a padded image of at least 7 x 7",
    ),
    "terabytes": (
        net_text(
            X,
            'name: "i" type: "Interp" bottom: "x" top: "i" '
            "interp_param { height: 60000 width: 60000 }",
        ),
        r"its top \(1, 3, 60000, 60000\) has over",
    ),
    "tile": (
        net_text(X, 'name: "t" type: "Tile" bottom: "x" top: "t" tile_param { tiles: 2000000000 }'),
        "tiles: expected a positive number",
    ),
    "groups": (
        net_text(X, CONV.replace("num_output: 4", "num_output: 4 group: 2")),
        "group: expected a divisor of 3 inputs and 4 outputs; got 2",
    ),
    "axis": (
        net_text(X, 'name: "s" type: "Softmax" bottom: "x" top: "s" softmax_param { axis: 9 }'),
        "net.prototxt:3: layer 's': axis: expected -4 to 3; got 9",
    ),
    "reshape": (
        net_text(
            X,
            'name: "r" type: "Reshape" bottom: "x" top: "r" '
            "reshape_param { shape { dim: 0 dim: 7 dim: -1 } }",
        ),
        "net.prototxt:3: layer 'r': does not fit bottoms",
    ),
    "batch statistics": (
        net_text(
            X,
            'name: "b" type: "BatchNorm" bottom: "x" top: "b" '
            "batch_norm_param { use_global_stats: false }",
        ),
        "use_global_stats: expected true or nothing; got false",
    ),
    "stochastic": (
        net_text(
            X,
            'name: "p" type: "Pooling" bottom: "x" top: "p" '
            "pooling_param { pool: STOCHASTIC kernel_size: 2 }",
        ),
        "pool: expected MAX or AVE; got 'STOCHASTIC'",
    ),
    "input dims": ('input: "x" input_dim: 1 input_dim: 2', "expected 4 numbers for each"),
    "input terabytes": (
        net_text({"x": (1, 3, 1 << 30, 1 << 30)}, RELU.replace('"h"', '"x"')),
        "input 'x': expected up to 4 positive lengths",
    ),
    "input of five axes": (
        net_text({"x": (1, 2, 2, 2, 2)}, RELU.replace('"h"', '"x"')),
        "input 'x': expected up to 4 positive lengths",
    ),
    "deep": ("layer {" * 100_000, "blocks nest deeper than 16"),
    "many layers": (
        net_text(X, *['name: "r" type: "ReLU" bottom: "x" top: "x"'] * 4001),
        "expected at most 4000 layers; got 4001",
    ),
    "both generations": (
        'layer { name: "a" type: "ReLU" } layers { name: "b" type: RELU }',
        "expected `layer` or `layers` blocks; got both",
    ),
    "two bottoms": (
        net_text(X, 'name: "r" type: "ReLU" bottom: "x" bottom: "x" top: "r"'),
        r"net.prototxt:3: layer 'r' \(ReLU\): expected 1 bottoms; got 2",
    ),
    "two tops": (
        net_text(X, 'name: "r" type: "ReLU" bottom: "x" top: "r" top: "s"'),
        "top: expected 1; got 2",
    ),
    "coefficients": (
        net_text(
            {"x": (1, 2), "y": (1, 2)},
            'name: "e" type: "Eltwise" bottom: "x" bottom: "y" top: "e" eltwise_param { coeff: 1 }',
        ),
        "coeff: expected one for each bottom",
    ),
    "not a number": (
        net_text(X, CONV.replace("kernel_size: 3", "kernel_size: -3")),
        r"net.prototxt:3:\d+: ",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_definitions_get_one_line(tmp_path, case):
    text, pattern = WRONG[case]
    start = time.monotonic()
    message = refused(tmp_path, text)
    assert re.search(pattern, message), message
    assert "net.prototxt" in message
    assert time.monotonic() - start < 5


def test_files_that_are_no_text(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_bytes(b"\xff\x00\x01")
    with pytest.raises(InputError, match=r"Is it the caffemodel\?"):
        caffe.convert(path, None)
    path.write_bytes(b" " * ((2 << 20) + 1))
    with pytest.raises(InputError, match="at most 2 MiB"):
        caffe.convert(path, None)


def test_random_damage_to_a_definition(tmp_path):
    hypothesis = pytest.importorskip("hypothesis", reason="needs hypothesis")
    st = hypothesis.strategies
    text = net_text(X, CONV, RELU)
    pieces = st.sampled_from(["{", "}", '"', "99999999999", "-1", "dim: 0 ", "x", "type: 3", "\\"])
    edit = st.tuples(st.integers(0, len(text) - 1), st.integers(0, 6), pieces)
    path = tmp_path / "net.prototxt"

    @hypothesis.settings(max_examples=150, deadline=None, derandomize=True, database=None)
    @hypothesis.given(st.lists(edit, min_size=1, max_size=3))
    def run(edits):
        damaged = text
        for position, cut, insert in edits:
            damaged = damaged[:position] + insert + damaged[position + cut :]
        path.write_text(damaged)
        # Without weights even the undamaged definition ends in an error of ours.
        with pytest.raises(InputError) as caught:
            caffe.convert(path, None)
        one_line(caught)

    run()


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


@pytest.fixture
def saved(tmp_path):
    converted = caffe.convert(*write_net(tmp_path, net_text(X, CONV, RELU)))
    caffe.save_converted(tmp_path / "net.safetensors", converted)
    return tmp_path / "net.safetensors", converted


def test_the_file_is_enough(saved, tmp_path):
    path, converted = saved
    (tmp_path / "net.prototxt").unlink()
    network = caffe.load_converted(path)
    np.testing.assert_array_equal(network(image()), converted.network(image()))
    _, metadata = load_weights(path)
    assert metadata["source"]["caffemodel"]["name"] == "net.caffemodel"
    assert len(metadata["source"]["prototxt"]["sha256"]) == 64
    assert caffe.load_converted(path, outputs=["x"])(image()).shape == (6, 6, 3)


DAMAGE = {
    "no description": (lambda d: None, "description"),
    "format": (lambda d: d | {"format": "x"}, "format 'caffe-graph-1'"),
    "unknown type": (
        lambda d: d | {"layers": [d["layers"][0] | {"type": "exec"}]},
        "unknown type",
    ),
    "bottom": (
        lambda d: d | {"layers": [d["layers"][0] | {"bottoms": ["y"]}]},
        "a blob that an input or an earlier layer makes",
    ),
    "config": (
        lambda d: d | {"layers": [d["layers"][0] | {"config": {"evil": 1}}, d["layers"][1]]},
        "bad configuration",
    ),
    "config type": (
        lambda d: (
            d | {"layers": [d["layers"][0] | {"config": {"kernel_size": "ab"}}, d["layers"][1]]}
        ),
        "bad configuration|expected",
    ),
    "huge input": (
        lambda d: d | {"inputs": [{"name": "x", "shape": [1, 3, 1 << 40, 1]}]},
        "up to four positive lengths",
    ),
    "huge parameters": (
        lambda d: d | {"layers": [d["layers"][0] | {"parameters": {"kernel": [1 << 40]}}]},
        "shapes by name",
    ),
    "other parameters": (
        lambda d: (
            d
            | {
                "layers": [
                    d["layers"][0] | {"parameters": {"kernel": [3, 3, 3, 4]}},
                    d["layers"][1],
                ]
            }
        ),
        "left over conv.bias",
    ),
    "output": (lambda d: d | {"outputs": ["nope"]}, "blobs that some layer makes"),
    "outputs": (lambda d: d | {"outputs": []}, "names of blobs"),
    "layers": (lambda d: d | {"layers": {}}, "a list"),
    "layer": (lambda d: d | {"layers": [3]}, "an object"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_descriptions_get_one_line(saved, case):
    path, converted = saved
    change, pattern = DAMAGE[case]
    arrays, metadata = load_weights(path)
    description = change(json.loads(json.dumps(converted.description)))
    architecture = {"name": "graph.Graph", "config": {"description": description}}
    save_weights(path, arrays, metadata | {"architecture": architecture})
    with pytest.raises(InputError, match=pattern) as caught:
        caffe.load_converted(path)
    assert one_line(caught).startswith(str(path))


def test_other_architectures_are_refused(tmp_path):
    save_weights(tmp_path / "x.safetensors", {"a": np.zeros(2)}, {"architecture": {"name": "vae"}})
    with pytest.raises(InputError, match=r"jaxgen\.load"):
        caffe.load_converted(tmp_path / "x.safetensors")


def test_inputs_of_the_wrong_shape_are_refused(saved):
    network = caffe.load_converted(saved[0])
    with pytest.raises(InputError, match=r"x: expected a sample"):
        network(np.zeros((6, 6), np.float32))
    with pytest.raises(InputError, match=r"inputs: expected 1 \(x\); got 2"):
        network(image(), image())


def test_random_inputs_fit_the_graph(saved):
    graph = saved[1].graph
    (x,) = parity.random_inputs(graph)
    assert x.shape == (6, 6, 3)
    assert saved[1].network(x).shape == (4, 4, 4)


def test_shared_layers_of_a_binary_net_are_ignored_without_blobs(tmp_path):
    """Caffemodels list layers without weights, such as automatic splits: no matter."""
    files = write_net(tmp_path, net_text(X, CONV))
    net = message_class("NetParameter").FromString(files[1].read_bytes())
    net.layer.add(name="x_split", type="Split")
    entry = net.layer.add(name="data", type="Data")
    entry.top.append("x")
    files[1].write_bytes(net.SerializeToString())
    assert caffe.convert(*files).network(image()).shape == (4, 4, 4)
