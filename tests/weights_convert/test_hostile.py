"""Files that were made to hurt: refused in a moment, without memory, in one line.

`benchmarks/conversion/hostile.py` has 380 of them, each in a process of its own; here are the
kinds that hurt earlier versions, small enough for every run of the tests.
"""

import json
import struct
import time
import zipfile

import numpy as np
import pytest
from caffe_files import net_text

from weights_convert.caffe import wire
from weights_convert.caffe.prototxt import _TOKEN, read_prototxt
from weights_convert.cli import main
from weights_convert.tfjs import read_manifest, read_npz

LIMIT = 5.0  # seconds, where earlier versions took up to 75


@pytest.fixture
def quick(monkeypatch):
    """No case may take long, whatever else the machine does: processor time counts."""
    start = time.process_time()
    yield
    assert time.process_time() - start < LIMIT


def refused(capsys, *command):
    """The error of a command that refuses its file, one line without control characters."""
    assert main([str(word) for word in command]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "\x1b" not in error
    return error


def caffe(tmp_path, capsys, text, model=b""):
    (tmp_path / "n.prototxt").write_text(text)
    (tmp_path / "n.caffemodel").write_bytes(model)
    files = [tmp_path / "n.prototxt", tmp_path / "n.caffemodel"]
    return refused(capsys, "caffe", *files, "--out", tmp_path / "o.safetensors")


def product(name, bottom, size):
    return (
        f'name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" '
        f"inner_product_param {{ num_output: {size} }}"
    )


def message(number, content):
    return wire_varint(number << 3 | 2) + wire_varint(len(content)) + content


def wire_varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("size", [16_384, 32_768, 1 << 24])
def test_matrices_that_no_file_holds_take_no_memory(tmp_path, capsys, size, memory):
    text = net_text({"x": (1, 8)}, product("a", "x", size), product("b", "a", size))
    model = message(100, message(1, b"a") + message(7, message(5, bytes(4))))
    error = caffe(tmp_path, capsys, text, model)
    assert "n.prototxt" in error or "n.caffemodel" in error
    assert memory() < 100 << 20


@pytest.fixture
def memory():
    """Bytes that NumPy and Python took at most since the start of the test."""
    import tracemalloc

    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("text", ['"\\' * 24_000, '"' * 100_000, "'\\" * 50_000, "layer {" * 9_000])
def test_texts_without_ends_are_read_once(tmp_path, capsys, text):
    assert "n.prototxt" in caffe(tmp_path, capsys, text)


def test_tokens_are_as_before():
    text = 'layer { name: "a\\"b" # "c\n type: \'d\' x: -1.5e3 [a] } "open'
    found = [m.group() for m in _TOKEN.finditer(text) if m.group() != "\n"]
    assert found == [
        "layer", "{", "name", ":", '"a\\"b"', '# "c', "type", ":", "'d'", "x", ":", "-1.5e3",
        "[a]", "}", '"open',
    ]  # fmt: skip


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("blob", "words"),
    [
        ((b"\x2d" + bytes(4) + b"\x08\x01") * 100_000, "over 1000 parts"),
        ((b"\x2a\x04" + bytes(4)) * 100_000, "over 1000 parts"),
        (b"\x2a\x00" * 100_000, "left over"),
    ],
    ids=["alternating runs", "packed fields of one number", "empty packed fields"],
)
def test_blobs_in_a_hundred_thousand_parts(tmp_path, capsys, blob, words):
    text = net_text({"x": (1, 8)}, 'name: "a" type: "ReLU" bottom: "x" top: "y"')
    model = message(100, message(1, b"a") + message(7, blob)) + message(3, bytes(8_000_000))
    assert words in caffe(tmp_path, capsys, text, model)


def test_fields_of_a_file_are_counted_over_all_messages(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(wire, "_MOST_FIELDS", 100)
    monkeypatch.setattr(wire.Budget.__init__, "__defaults__", (100,))
    text = net_text({"x": (1, 8)}, 'name: "a" type: "ReLU" bottom: "x" top: "y"')
    assert "over 100 fields" in caffe(tmp_path, capsys, text, message(100, message(1, b"a")) * 60)


def manifest(tmp_path, groups):
    (tmp_path / "m.json").write_text(json.dumps(groups))
    return tmp_path / "m.json"


def entry(name, count):
    return {"name": name, "shape": [count], "dtype": "float32"}


@pytest.mark.usefixtures("quick")
def test_a_shard_is_read_once_and_shards_are_measured_first(tmp_path, memory):
    (tmp_path / "s").write_bytes(bytes(1 << 20))
    twice = [{"paths": ["s"] * 500, "weights": [entry("a", 500 << 18)]}]
    groups = [{"paths": ["s"], "weights": [entry(f"t{i}", 1 << 18)]} for i in range(500)]
    for case in (twice, groups):
        with pytest.raises(ValueError, match="named more than once"):
            read_manifest(manifest(tmp_path, case))
    for i in range(600):
        (tmp_path / f"s{i}").touch()
        with (tmp_path / f"s{i}").open("r+b") as file:
            file.truncate(1 << 20)  # a hole: no room on disk
    many = [{"paths": [f"s{i}"], "weights": [entry(f"t{i}", 1 << 18)]} for i in range(600)]
    with pytest.raises(ValueError, match="the limits are"):
        read_manifest(manifest(tmp_path, many))
    assert memory() < 50 << 20


@pytest.mark.usefixtures("quick")
def test_an_npz_says_how_much_it_holds_before_it_is_unpacked(tmp_path, memory):
    header = {"descr": "<f4", "fortran_order": False, "shape": (150 << 20,)}
    with (
        zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a.npy", "w", force_zip64=True) as file,
    ):
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(150):
            file.write(bytes(4 << 20))
    with pytest.raises(ValueError, match="the limits are"):
        read_npz(tmp_path / "b.npz")
    assert memory() < 50 << 20


@pytest.mark.usefixtures("quick")
def test_headers_of_safetensors_are_bounded(tmp_path, capsys):
    one = b'"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    raw = b"{" + b",".join(one % i for i in range(110_000)) + b"}"
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw)
    error = refused(capsys, "torch", tmp_path / "a.safetensors", "--recipe", "dcgan", "--check")
    assert "110000 tensors" in error
    raw = b" " * (17 << 20)
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(raw) + 2) + b"{" + raw + b"}")
    error = refused(capsys, "torch", tmp_path / "a.safetensors", "--recipe", "dcgan", "--check")
    assert "a header of" in error


def test_names_are_printed_without_control_characters(tmp_path, capsys):
    name = "\x1b]0;owned\x07\x1b[2J\u202eweight"
    raw = json.dumps({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(4))
    for command in (["torch", path, "--list"], ["inspect", path]):
        assert main([str(word) for word in command]) == 0
        out = capsys.readouterr().out
        assert "weight" in out
        assert not any(c in out for c in "\x1b\x07\u202e")
    error = refused(capsys, "torch", path, "--recipe", "dcgan", "--check")
    assert "\u202e" not in error
    text = 'layer { name: "\\033[2J\\007n" type: "\\033]0;x\\007T" bottom: "x" top: "y" }'
    (tmp_path / "n.prototxt").write_text(text)
    assert main(["inspect", str(tmp_path / "n.prototxt")]) == 0
    out = capsys.readouterr().out
    assert "]0;x" in out
    assert not any(c in out for c in "\x1b\x07")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "text",
    [
        ".".join(["a"] * 50_000) + " = 1\n",
        f"input = [{'9' * 100_000}]\n",
        "input = " + "[" * 100_000,
        "input = [2]\n" + "[[layer]]\ntype = 'X'\n" * 10_000,
        "input = [1048576]\n[[layer]]\ntype = 'linear'\nout = 1048576\n",
        "input = [1, 4, 4]\n[[layer]]\ntype = 'upsample'\nfactor = 1048576\n",
        f"input = [2]\n[[layer]]\ntype = 'leaky_relu'\nslope = {'[' * 900}{']' * 900}\n",
        "input = [2]\n[[layer]]\ntype = []\n",
    ],
    ids=["dots", "digits", "arrays", "layers", "matrix", "pixels", "nested", "no type"],
)
def test_descriptions(tmp_path, capsys, text):
    raw = json.dumps({"0.weight": {"dtype": "F32", "shape": [1, 1], "data_offsets": [0, 4]}})
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(raw)) + raw.encode() + bytes(4))
    (tmp_path / "net.toml").write_text(text)
    option = f"description={tmp_path / 'net.toml'}"
    refused(capsys, "torch", path, "--recipe", "sequential", "--set", option, "--check")


def test_a_pipe_is_no_file(tmp_path, capsys):
    import os

    os.mkfifo(tmp_path / "p")
    out = ["--out", tmp_path / "o.safetensors"]
    refused(capsys, "inspect", tmp_path / "p")
    refused(capsys, "torch", tmp_path / "p", "--recipe", "dcgan", *out)
    refused(capsys, "caffe", tmp_path / "p", tmp_path / "p", *out)
    refused(capsys, "tfjs", tmp_path / "p", "--network", "face-expression", *out)
    with pytest.raises(ValueError, match="no plain file"):
        read_prototxt(tmp_path / "p")


STRANGE = [
    ("mlp", {"layers": None}, "layers: expected a list of texts"),
    ("mlp", {"ignore": "("}, "ignore: expected a list of texts"),
    ("mlp", {"ignore": ["("]}, "ignore: expected regular expressions"),
    ("mlp", {"ignore": 0}, "ignore: expected"),
    ("mlp", {"image": 3}, "image: expected"),
    ("mlp", {"output": 3}, "unknown type 3"),
    ("dcgan", {"stride": None}, "stride: expected"),
    ("dcgan", {"slope": float("nan")}, "slope: expected"),
    ("dcgan-discriminator", {"size": "x"}, "size: expected"),
    ("resnet", {"mean": "abc"}, "mean, std: expected|no 'conv1.weight'"),
    ("sequential", {"description": 3}, "description: expected"),
    ("sequential", {"description": {"input": [2], "layer": [{"type": "ReLU", "eps": []}]}}, "eps"),
]


@pytest.mark.parametrize(("recipe", "options", "words"), STRANGE)
def test_options_of_any_kind_are_answered_in_one_line(recipe, options, words):
    from jaxgen.core.errors import InputError
    from weights_convert.pytorch import convert_state

    state = {"a.weight": np.ones((3, 2, 4, 4), "f4"), "b.weight": np.ones((2, 3, 4, 4), "f4")}
    if recipe == "mlp":
        state = {"a.weight": np.ones((3, 2), "f4")}
    with pytest.raises(InputError, match=words):
        convert_state(state, recipe, options)


@pytest.mark.parametrize(
    "recipe", ["dcgan", "dcgan-discriminator", "mlp", "stylegan2", "progan", "cifar-resnet"]
)
def test_empty_axes_and_shapes_of_any_rank_are_answered_in_one_line(recipe):
    from jaxgen.core.errors import InputError
    from weights_convert.pytorch import convert_state

    names = {
        "stylegan2": ["input.input", "style.1.weight", "convs.1.conv.weight"],
        "progan": ["formatLayer.weight", "scaleLayers.0.1.weight", "toRGBLayers.1.weight"],
        "cifar-resnet": ["conv1.weight", "linear.weight", "layer1.0.conv1.weight"],
    }.get(recipe, ["a.weight", "b.weight", "b.running_mean"])
    rng = np.random.default_rng(0)
    for _ in range(100):
        state = {
            name: np.ones(rng.choice([0, 1, 2, 16], rng.integers(0, 6)), "f4") for name in names
        }
        with pytest.raises(InputError) as error:
            convert_state(state, recipe)
        assert "\n" not in str(error.value)
