"""Files of other kinds are named for what they are, with the way out."""

import io
import json
import tarfile
import zipfile

import numpy as np
import pytest

from jaxgen.core.errors import InputError
from weights_convert.cli import main
from weights_convert.sniff import sniff
from weights_convert.torch_files import read_file


def zipped(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return buffer.getvalue()


def tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.pth"))
    return buffer.getvalue()


def npy():
    buffer = io.BytesIO()
    np.save(buffer, np.ones(3))
    return buffer.getvalue()


KINDS = {
    "TorchScript": (zipped("net/data.pkl", "net/constants.pkl"), r"torch\.jit\.load"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "snapshot_format: BINARYPROTO"),
    "ONNX": (b"\x08\x08\x12\x07pytorch\x1a\x051.9.0" + bytes(60), "weights_convert onnx FILE"),
    "sharded": (
        json.dumps({"metadata": {}, "weight_map": {"a": "1-of-2.bin"}}).encode(),
        "save one state dict",
    ),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "lfs pull"),
    "web page": (b"\n<!DOCTYPE html>\n<html><head></head></html>", "Download the file itself"),
    "tar archive": (tar(), "tar xf"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(40), "Unpack it first"),
    "NumPy array": (npy(), "state dict"),
    "Keras model": (zipped("config.json", "model.weights.h5"), "npz"),
    "files of weights in it": (zipped("a/net.pth", "b.txt"), "Unpack it first"),
    "GGUF": (b"GGUF\x03\x00\x00\x00" + bytes(40), "safetensors"),
    "TensorFlow.js manifest": (
        b'[{"paths": ["a.bin"], "weights": []}]', "`weights_convert tfjs`"
    ),
    "prototxt": (b'name: "net"\nlayer { name: "a" type: "Input" }\n', "`weights_convert caffe`"),
    "PNG image": (b"\x89PNG\r\n\x1a\n" + bytes(40), "weights"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_named_with_the_way_out(tmp_path, kind, capsys):
    raw, way_out = KINDS[kind]
    path = tmp_path / "net.pth"
    path.write_bytes(raw)
    with pytest.raises(InputError, match=rf"got (an?|one|the) .*{kind}.*{way_out}"):
        read_file(path)
    for command in (["torch", str(path), "--recipe", "dcgan", "--check"], ["inspect", str(path)]):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert kind in error
        assert error.count("\n") == 1


def test_what_is_read_is_not_taken_for_something_else(tmp_path):
    torch = pytest.importorskip("torch", reason="writes checkpoints: pip install torch")
    from safetensors.torch import save_file

    state = {"a.weight": torch.ones(3, 2)}
    for zipped in (True, False):
        torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
        assert sniff(tmp_path / "a.pth") is None
        assert list(read_file(tmp_path / "a.pth")) == ["a.weight"]
    (tmp_path / "a.pkl").write_bytes(b"(dp0\nS'name'\np1\nI1\ns.")
    assert sniff(tmp_path / "a.pkl") is None
    save_file(state, tmp_path / "a.safetensors")
    assert sniff(tmp_path / "a.safetensors") is None


def test_a_whole_torchscript_file_is_one(tmp_path):
    torch = pytest.importorskip("torch", reason="writes a program: pip install torch")
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(torch.nn.Linear(2, 3)).save(str(tmp_path / "net.pt"))
    with pytest.raises(InputError, match="TorchScript program"):
        read_file(tmp_path / "net.pt")


ONNX = KINDS["ONNX"][0]
XML = b'<?xml version="1.0"?>\n<net name="a" version="11"></net>'
TFLITE = b"\x1c\x00\x00\x00TFL3" + bytes(60)
WAYS_OUT = [
    # command, file, what is in it, what it is called, the way out
    ("torch", "net.onnx", ONNX, "an ONNX graph", "weights_convert onnx FILE"),
    ("torch", "net.xml", XML, "an OpenVINO network", "weights_convert openvino FILE.xml"),
    ("torch", "net.tflite", TFLITE, "a TensorFlow Lite model", "tf2onnx.convert --tflite FILE"),
    ("torch", "net.h5", KINDS["HDF5"][0], "an HDF5 file", "format='onnx'"),
    ("torch", "net.keras", KINDS["Keras model"][0], "a Keras model", "format='onnx'"),
    ("onnx", "net.xml", XML, "an OpenVINO network", "weights_convert openvino FILE.xml"),
    ("onnx", "net.tflite", TFLITE, "a TensorFlow Lite model", "tf2onnx.convert --tflite FILE"),
    ("onnx", "net.h5", KINDS["HDF5"][0], "an HDF5 file", "load_model(FILE).export"),
    ("onnx", "net.keras", KINDS["Keras model"][0], "a Keras model", "load_model(FILE).export"),
    ("onnx", "net.onnx", KINDS["Git LFS"][0], "a pointer of Git LFS", "git lfs pull"),
    ("openvino", "net.onnx", ONNX, "an ONNX graph", "weights_convert onnx FILE"),
    ("openvino", "net.h5", KINDS["HDF5"][0], "an HDF5 file", "load_model(FILE).export"),
    ("tfjs", "net.onnx", ONNX, "an ONNX graph", "weights_convert onnx FILE"),
    ("tfjs", "net.tflite", TFLITE, "a TensorFlow Lite model", "tf2onnx.convert --tflite FILE"),
]


def arguments(command, path, folder):
    """The command line, with what the command wants besides."""
    more = {"torch": ["--recipe", "dcgan"], "tfjs": ["--network", "face-expression"]}
    return [command, str(path), *more.get(command, []), "--out", str(folder / "out.safetensors")]


@pytest.mark.parametrize(("command", "name", "raw", "kind", "way_out"), WAYS_OUT)
def test_a_file_for_another_converter_names_it(tmp_path, capsys, command, name, raw, kind, way_out):
    if command == "onnx":
        pytest.importorskip("onnx", reason="parses ONNX: pip install onnx")
    (tmp_path / name).write_bytes(raw)
    assert main(arguments(command, tmp_path / name, tmp_path)) == 2
    error = capsys.readouterr().err
    assert f"got {kind}" in error
    assert way_out in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize("command", ["torch", "onnx", "openvino", "tfjs"])
def test_a_folder_is_a_saved_model_or_holds_the_file(tmp_path, capsys, command):
    if command == "onnx":
        pytest.importorskip("onnx", reason="parses ONNX: pip install onnx")
    saved, other = tmp_path / "saved", tmp_path / "other"
    saved.mkdir()
    other.mkdir()
    (saved / "saved_model.pb").write_bytes(b"\x08\x01")
    (other / "net.onnx").write_bytes(ONNX)
    for folder, words in ((saved, "tf2onnx.convert --saved-model"), (other, "files: net.onnx")):
        assert main(arguments(command, folder, tmp_path)) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1


def test_an_xml_without_its_numbers_and_numbers_without_xml(tmp_path, capsys):
    layer = '<layer id="0" name="c" type="Const" version="opset1"><data element_type="f32" '
    layer += 'shape="2" offset="0" size="8"/><output><port id="0"><dim>2</dim></port></output>'
    text = f'<net name="a" version="11"><layers>{layer}</layer></layers><edges/></net>'
    (tmp_path / "net.xml").write_text(text)
    assert main(arguments("openvino", tmp_path / "net.xml", tmp_path)) == 2
    error = capsys.readouterr().err
    assert "net.bin" in error
    assert "--weights FILE" in error
    (tmp_path / "net.bin").write_bytes(bytes(8))
    assert main(arguments("openvino", tmp_path / "net.bin", tmp_path)) == 2
    assert "Give net.xml" in capsys.readouterr().err
