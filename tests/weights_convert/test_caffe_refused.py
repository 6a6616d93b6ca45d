"""Wrong definitions of Caffe are refused with one line, and damaged ones do no harm."""

import re
import time

import pytest
from caffe_files import net_text
from caffe_small import CONV, RELU, X, one_line, refused

from jaxgen.core.errors import InputError
from weights_convert import caffe

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
