"""`python -m weights_convert caffe`: what it prints, writes, refuses and returns."""

import subprocess
import sys

import numpy as np
import pytest
from caffe_files import encode, net_text, opencv, write_net

import jaxgen
from jaxgen.models.weights import load_weights, save_weights
from weights_convert import caffe
from weights_convert.caffe.schema import message_class
from weights_convert.cli import main

TEXT = net_text(
    {"data": (1, 3, 8, 8)},
    'name: "conv" type: "Convolution" bottom: "data" top: "h" '
    "convolution_param { num_output: 4 kernel_size: 3 }",
    'name: "relu" type: "ReLU" bottom: "h" top: "h"',
    'name: "ip" type: "InnerProduct" bottom: "h" top: "ip" inner_product_param { num_output: 2 }',
)


@pytest.fixture
def net(tmp_path):
    prototxt, caffemodel = write_net(tmp_path, TEXT)
    return [str(prototxt), str(caffemodel)], tmp_path / "net.safetensors"


def test_converts_and_prints_the_layers(net, capsys):
    files, out = net
    assert main(["caffe", *files, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    for part in ("conv", "Convolution", "6 x 6 x 4", "112", "4 arrays, 402 numbers"):
        assert part in text
    x = np.random.default_rng(0).uniform(size=(8, 8, 3)).astype(np.float32)
    expected = caffe.convert(*files).network(x)
    np.testing.assert_array_equal(caffe.load_converted(out)(x), expected)


def test_the_registry_loads_and_describes_it(net):
    files, out = net
    assert main(["caffe", *files, "--out", str(out), "--channels", "bgr", "--mean", "1,2,3"]) == 0
    x = np.random.default_rng(0).uniform(size=(2, 8, 8, 3)).astype(np.float32)
    wanted = caffe.load_converted(out)(x)
    np.testing.assert_array_equal(jaxgen.load(out)(x), wanted)
    np.testing.assert_allclose(jaxgen.load(out)(x[1]), wanted[1], rtol=1e-5)
    info = jaxgen.models.describe(out)
    assert (info.kind, info.input_shape, info.output_shape) == ("network", (8, 8, 3), (2,))
    assert info.size >= 402
    arrays, metadata = load_weights(out)
    metadata["architecture"]["config"]["description"]["layers"][0]["type"] = "Unheard"
    save_weights(out, arrays, metadata)
    with pytest.raises(jaxgen.InputError, match="Unheard"):
        jaxgen.load(out)


def test_a_network_of_two_outputs_loads_but_is_not_described(net):
    files, out = net
    command = ["caffe", *files, "--out", str(out), "--output", "h", "--output", "ip"]
    assert main(command) == 0
    found = jaxgen.load(out)(np.zeros((8, 8, 3), np.float32))
    assert {name: array.shape for name, array in found.items()} == {"h": (6, 6, 4), "ip": (2,)}
    with pytest.raises(jaxgen.InputError, match="outputs: expected one to describe; got h, ip"):
        jaxgen.models.describe(out)


def test_verify_prints_the_parity(net, capsys):
    opencv()
    files, out = net
    assert main(["caffe", *files, "--out", str(out), "--verify"]) == 0
    text = capsys.readouterr().out
    assert "over 3 of 3 layers" in text
    assert text.count(" ok ") == 3


def test_a_failed_check_writes_nothing(net, capsys):
    opencv()
    files, out = net
    assert main(["caffe", *files, "--out", str(out), "--check", "--tolerance=-1"]) == 1
    assert "FAILED: conv, relu, ip; nothing was written" in capsys.readouterr().out
    assert not out.exists()


def test_stored_activations_are_a_judge(net, capsys, tmp_path):
    files, out = net
    graph = caffe.convert(*files).graph
    x = np.random.default_rng(0).standard_normal((8, 8, 3)).astype(np.float32)
    found = {name: np.asarray(tops[0]) for name, tops in graph.activations(x).items()}
    stored = {
        "data": x.transpose(2, 0, 1)[None],
        "conv": found["conv"].transpose(2, 0, 1)[None],
        "ip": found["ip"][None],
    }
    np.savez(tmp_path / "stored.npz", **stored)
    arguments = ["caffe", *files, "--out", str(out), "--against", str(tmp_path / "stored.npz")]
    assert main(arguments) == 0
    assert "over 2 of 3 layers" in capsys.readouterr().out
    np.savez(tmp_path / "stored.npz", **(stored | {"ip": stored["ip"] + 1}))
    assert main([*arguments, "--force"]) == 1
    assert "FAILED: ip" in capsys.readouterr().out


def test_never_overwrites_unasked(net, capsys):
    files, out = net
    out.write_text("precious")
    assert main(["caffe", *files, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error == f"error: --out: expected a new file; got {out}, which exists. " + (
        "Overwrite it with --force.\n"
    )
    assert out.read_text() == "precious"
    assert main(["caffe", *files, "--out", str(out), "--force"]) == 0
    assert len(load_weights(out)[0]) == 4


def test_preprocessing_and_records(net, tmp_path):
    files, out = net
    blob = message_class("BlobProto")(channels=3, height=8, width=8, num=1)
    mean = np.random.default_rng(0).uniform(0, 255, (3, 8, 8)).astype(np.float32)
    blob.data.extend(mean.ravel().tolist())
    (tmp_path / "mean.binaryproto").write_bytes(blob.SerializeToString())
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    arguments = ["caffe", *files, "--out", str(out), "--mean", str(tmp_path / "mean.binaryproto")]
    arguments += ["--channels", "rgb", "--scale", "0.5", "--licence", "BSD-2"]
    assert main([*arguments, "--classes", str(tmp_path / "classes.txt")]) == 0
    x = np.random.default_rng(1).uniform(size=(8, 8, 3)).astype(np.float32)
    raw = caffe.convert(*files).network(0.5 * (255 * x - mean.transpose(1, 2, 0)))
    np.testing.assert_allclose(caffe.load_converted(out)(x), raw, rtol=1e-4, atol=1e-3)
    _, metadata = load_weights(out)
    assert metadata["classes"] == ["cat", "dog"]
    assert metadata["licence"] == "BSD-2"
    assert metadata["preprocessing"]["channels"] == "rgb"


def test_options_that_cannot_be_used_are_one_line(net, capsys, tmp_path):
    files, out = net
    end = ["--out", str(out)]
    (tmp_path / "bad.caffemodel").write_bytes(b"\x0a\xff")
    for arguments, message in (
        ([*files, "--out", "net.npz"], "a name that ends in .safetensors"),
        (
            [files[0], str(tmp_path / "bad.caffemodel"), *end],
            "bad.caffemodel: a number at byte 1 is truncated",
        ),
        ([files[0], str(tmp_path / "none.caffemodel"), *end], "expected a file; got nothing"),
        ([*files, *end, "--mean", "1,two"], "--mean: expected a binaryproto"),
        ([*files, *end, "--input", "data"], "--input: expected NAME=N,C,H,W"),
        ([*files, *end, "--input", "nope=1,2"], "inputs: nope: expected an input"),
        ([*files, *end, "--ignore", "("], "ignore: expected a regular expression"),
        ([*files, *end, "--output", "z"], "outputs: expected blobs of"),
        ([*files, *end, "--classes", str(tmp_path)], "--classes: expected a text file"),
        ([*files, *end, "--preset", "lenet"], "the order of"),
    ):
        assert main(["caffe", *arguments]) == 2, arguments
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert message in error
    assert not out.exists()


def test_names_cannot_drive_the_terminal(capsys, tmp_path):
    path = tmp_path / "evil.caffemodel"
    path.write_bytes(encode({"\x1b[31mred": [np.zeros(2)]}))
    assert main(["inspect", str(path)]) == 0
    assert "\x1b" not in capsys.readouterr().out
    prototxt, _ = write_net(tmp_path, TEXT)
    assert main(["caffe", str(prototxt), str(path), "--out", str(tmp_path / "o.safetensors")]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_inspect_lists_what_files_hold(net, capsys, tmp_path):
    files, out = net
    assert main(["caffe", *files, "--out", str(out)]) == 0
    for path, parts in (
        (files[0], ["relu", "ReLU", "1 x 3 x 8 x 8"]),
        (files[1], ["conv[0]", "4 x 3 x 3 x 3", "float32"]),
        (str(out), ["conv.kernel", "3 x 3 x 3 x 4", "converter"]),
    ):
        capsys.readouterr()
        assert main(["inspect", path]) == 0
        text = capsys.readouterr().out
        for part in parts:
            assert part in text, path
    assert main(["inspect", str(tmp_path / "none")]) == 2


def test_runs_as_a_module(net):
    files, out = net
    out.write_text("precious")
    command = [sys.executable, "-m", "weights_convert", "caffe", *files, "--out", str(out)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("error: --out")
    assert result.stderr.count("\n") == 1
