"""OpenVINO's IR: a network written by hand, operators against OpenVINO, files that mean harm."""

import subprocess
import sys

import numpy as np
import pytest

import jaxgen
from jaxgen.core.errors import InputError
from weights_convert.cli import main
from weights_convert.openvino import operators  # noqa: F401  (registers the rewrites)
from weights_convert.openvino.judge import openvino_tensors
from weights_convert.openvino.reader import read_openvino
from weights_convert.tensor_graph import lower
from weights_convert.tensor_graph.check import compared, random_tensors

# OpenVINO starts a process to ask where it is.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")

IR = """<?xml version="1.0"?>
<net name="hand" version="{version}"><layers>
<layer id="0" name="x" type="Parameter" version="opset1"><data shape="{shape}" element_type="f32"/>
<output><port id="0"><dim>1</dim><dim>2</dim><dim>3</dim><dim>3</dim></port></output></layer>
<layer id="1" name="w" type="Const" version="opset1">
<data element_type="{kind}" shape="{weights}" offset="{offset}" size="{size}"/>
<output><port id="0"/></output></layer>
<layer id="2" name="conv" type="{op}" version="opset1">
<data strides="1, 1" pads_begin="1, 1" pads_end="1, 1" dilations="1, 1" auto_pad="explicit"/>
<input><port id="0"/><port id="1"/></input><output><port id="2"/></output></layer>
<layer id="3" name="out" type="Result" version="opset1"><input><port id="0"/></input></layer>
</layers><edges>
<edge from-layer="2" from-port="2" to-layer="3" to-port="0"/>
<edge from-layer="{source}" from-port="0" to-layer="2" to-port="0"/>
<edge from-layer="1" from-port="0" to-layer="2" to-port="1"/>
</edges></net>"""
FIELDS = {"version": 10, "shape": "1,2,3,3", "kind": "f32", "weights": "2,1,1,3,3", "offset": 0,
          "size": 72, "op": "GroupConvolution", "source": 0}  # fmt: skip
NUMBERS = np.random.default_rng(0).normal(size=18).astype(np.float32)


def hand(folder, text=None, **changes):
    """Write the network by hand with changed fields; the XML's path."""
    path = folder / "hand.xml"
    path.write_text(IR.format(**FIELDS | changes) if text is None else text)
    path.with_suffix(".bin").write_bytes(NUMBERS.tobytes())
    return path


def depthwise(x):
    """The network in NumPy: every channel with a kernel of its own, zeros around."""
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
    kernel = NUMBERS.reshape(2, 3, 3).transpose(1, 2, 0)
    return sum(padded[a : a + 3, b : b + 3] * kernel[a, b] for a in range(3) for b in range(3))


def test_a_network_written_by_hand_is_what_numpy_computes(tmp_path):
    path, out = hand(tmp_path), tmp_path / "hand.safetensors"
    assert main(["openvino", str(path), "--out", str(out)]) == 0
    x = np.random.default_rng(1).normal(size=(4, 3, 3, 2)).astype(np.float32)
    network = jaxgen.load(out)
    np.testing.assert_allclose(network(x), np.stack([depthwise(a) for a in x]), atol=1e-5)
    np.testing.assert_allclose(network.at("conv")(x[1]), depthwise(x[1]), atol=1e-5)
    assert set(network.layers) == {"conv"}


def test_one_import_registers_all_operators():
    """In a process of its own: another test may have imported the rest."""
    code = (
        "from weights_convert.openvino import operators\n"
        "from weights_convert.tensor_graph.lowering import REWRITES\n"
        "wanted = {'Convolution', 'Transpose', 'Reshape', 'Gather', 'DepthToSpace'}\n"
        "missing = {w for w in wanted if not any(w in str(name) for name in REWRITES)}\n"
        "assert not missing, missing"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


HOSTILE = {
    "entities": (dict(text='<!DOCTYPE a [<!ENTITY b "c">]><net version="10"/>'), "a document type"),
    "document type": (dict(text='<!DOCTYPE a SYSTEM "/etc/passwd"><net version="10"/>'),
                      "a document type or entity"),
    "deep": (dict(text='<net version="10">' + "<a>" * 100_000), "deeper than 12"),
    "no xml": (dict(text="hello"), "no XML"),
    "other": (dict(text="<svg/>"), "a document of 'svg'"),
    "cut": (dict(text="<net version='10'><layers>"), "no XML"),
    "old": (dict(version=7), "version: expected 10 or newer"),
    "beyond": (dict(offset=8), "bytes within hand.bin"),
    "before": (dict(offset=-8), "bytes within hand.bin"),
    "long": (dict(size=1 << 40), "size: expected 72 bytes"),
    "terabytes": (dict(weights="1099511627776,1099511627776"), "shape: expected at most"),
    "words": (dict(weights="two"), "expected whole numbers"),
    "kind": (dict(kind="string"), "element_type: expected one of"),
    "unknown": (dict(op="FakeQuantize"), r"layer 'conv' \(FakeQuantize, opset1\)"),
    "cycle": (dict(source=2), "joins no ports|comes later, or in a cycle"),
    "open": (dict(shape="?,2,?,3"), "--input x=1,3,224,224"),
    "does not fit": (dict(weights="2,1,3,3,1", op="Convolution"), "kernel: expected one length"),
    "body": (dict(text='<net version="11"><layers><layer name="l" type="Loop"><body/></layer>'
                       "</layers></net>"), "networks inside layers"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_files_that_mean_harm_are_one_line(tmp_path, capsys, name):
    changes, message = HOSTILE[name]
    path = hand(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        lower(read_openvino(path))
    assert main(["openvino", str(path), "--out", str(tmp_path / "o.safetensors")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_file_of_numbers_may_be_missing_or_elsewhere(tmp_path):
    path = hand(tmp_path)
    path.with_suffix(".bin").rename(tmp_path / "other")
    with pytest.raises(InputError, match=r"expected the network's numbers.*give --weights FILE"):
        read_openvino(path)
    assert read_openvino(path, weights=tmp_path / "other").constants["w"].shape == (2, 1, 1, 3, 3)


def cases():
    """Name -> (a function from OpenVINO's operators and a parameter to a node, shape)."""
    r = np.random.default_rng(2)

    def f(*shape):
        return r.normal(size=shape).astype(np.float32)

    i = np.int64
    image = (1, 4, 6, 5)
    return {
        **{name: (lambda o, x, n=name: getattr(o, n)(x), image) for name in (
            "relu", "sigmoid", "tanh", "exp", "abs", "negative", "floor", "ceiling", "erf",
            "hswish", "hsigmoid", "mish", "softplus", "sign", "sin", "cos", "swish")},
        "elu": (lambda o, x: o.elu(x, 0.5), image),
        "clamp": (lambda o, x: o.clamp(x, -0.3, 0.4), image),
        "gelu": (lambda o, x: o.gelu(x, "tanh"), image),
        "prelu": (lambda o, x: o.prelu(x, f(4)), image),
        "convolution": (lambda o, x: o.convolution(
            x, f(3, 4, 3, 3), [2, 1], [1, 0], [0, 1], [1, 2]), image),
        "group convolution": (lambda o, x: o.group_convolution(
            x, f(2, 3, 2, 3, 3), [1, 1], [1, 1], [1, 1], [1, 1]), image),
        "transposed": (lambda o, x: o.convolution_backprop_data(
            x, f(4, 3, 3, 3), [2, 2], pads_begin=[1, 1], pads_end=[1, 1], output_padding=[1, 1]),
            image),
        "transposed groups": (lambda o, x: o.group_convolution_backprop_data(
            x, f(4, 1, 1, 2, 1), [2, 1], pads_begin=[0, 0], pads_end=[0, 0]), image),
        "matmul": (lambda o, x: o.matmul(x, f(3, 5), False, True), image),
        "multiply": (lambda o, x: o.multiply(x, f(4, 1, 1)), image),
        "squared difference": (lambda o, x: o.squared_difference(x, f(5)), image),
        "power": (lambda o, x: o.power(o.abs(x), np.float32(0.5)), image),
        "not equal": (lambda o, x: o.select(o.not_equal(o.relu(x), np.float32(0)), x, o.exp(x)),
                      image),
        "max pool": (lambda o, x: o.max_pool(x, [2, 2], [1, 1], [1, 0], [0, 1], [3, 2], "ceil"),
                     image),
        "average pool": (lambda o, x: o.avg_pool(x, [2, 2], [1, 1], [1, 1], [3, 3], True), image),
        "average all": (lambda o, x: o.avg_pool(x, [2, 2], [1, 1], [1, 1], [3, 3], False), image),
        "reduce": (lambda o, x: o.reduce_mean(x, np.array([2, 3], i), True), image),
        "reduce l2": (lambda o, x: o.reduce_l2(x, np.array([1], i), False), image),
        "softmax": (lambda o, x: o.softmax(x, 1), image),
        "reshape": (lambda o, x: o.reshape(x, np.array([0, -1, 5], i), True), image),
        "transpose": (lambda o, x: o.transpose(x, np.array([0, 2, 3, 1], i)), image),
        "split": (lambda o, x: o.concat(list(o.split(x, np.array(1, i), 2).outputs())[::-1], 1),
                  image),
        "variadic split": (lambda o, x: o.concat(
            list(o.variadic_split(x, np.array(1, i), np.array([1, -1], i)).outputs())[::-1], 1),
            image),
        "strided slice": (lambda o, x: o.strided_slice(
            x, np.array([0, 1, 0, -2], i), np.array([0, 3, 0, 5], i), np.array([1, 1, 2, 1], i),
            [1, 0, 1, 0], [1, 0, 1, 0], [0] * 4, [0, 0, 0, 1]), image),
        "slice": (lambda o, x: o.slice(x, np.array([1], i), np.array([6], i), np.array([2], i),
                                       np.array([2], i)), image),
        "gather": (lambda o, x: o.gather(x, np.array([2, 0], i), np.array(1, i)), image),
        "pad": (lambda o, x: o.pad(
            x, np.array([0, 0, 1, 2], i), np.array([0, 0, 2, 1], i), "reflect"), image),
        "tile": (lambda o, x: o.tile(x, np.array([1, 2, 1, 1], i)), image),
        "broadcast": (lambda o, x: o.broadcast(x, np.array([1, 4, 6, 5], i)), (1, 4, 1, 1)),
        "shape of": (lambda o, x: o.reshape(x, o.concat(
            [o.gather(o.shape_of(x), np.array([0], i), np.array(0, i)), np.array([-1], i)], 0),
            False), image),
        "depth to space": (lambda o, x: o.depth_to_space(x, "depth_first", 2), image),
        "interpolate": (lambda o, x: o.interpolate(
            x, np.array([9, 10], i), "linear_onnx", "sizes", axes=np.array([2, 3], i)), image),
        "batch norm": (lambda o, x: o.batch_norm_inference(x, f(4), f(4), f(4), f(4) ** 2, 1e-3),
                       image),
        "mvn": (lambda o, x: o.mvn(x, np.array([2, 3], i), True, 1e-5, "inside_sqrt"), image),
        "normalize": (lambda o, x: o.normalize_l2(x, np.array([1], i), 1e-3, "add"), image),
    }  # fmt: skip


CASES = cases()


@pytest.mark.parametrize("name", CASES)
def test_an_operator_gives_what_openvino_gives(tmp_path, name):
    ov = pytest.importorskip("openvino")
    opset = pytest.importorskip("openvino.opset15")
    make, shape = CASES[name]
    x = opset.parameter(list(shape), np.float32, name="x")
    ov.save_model(ov.Model([make(opset, x)], [x], "one"), tmp_path / "m.xml", False)
    program = read_openvino(tmp_path / "m.xml")
    rows, _ = compared(
        lower(program).graph,
        random_tensors(program.inputs),
        lambda inputs, names: openvino_tensors(tmp_path / "m.xml", inputs, names),
        1e-5,
    )
    judged = [row for row in rows if row.error is not None]
    assert judged, rows
    assert all(row.passed for row in judged), judged
