"""Say what a file is, by its first bytes, and what to do with one that is something else.

People hand over what a download or a framework left: a web page saved under the name of the
weights, a pointer of Git LFS, an ONNX graph. A reader that fails on such a file asks here.
"""

from __future__ import annotations

import json
import re
import zipfile
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from jaxgen.core.errors import InputError
from weights_convert.report import plain

__all__ = ["Kind", "check_directory", "refuse", "sniff"]

_HEAD = 4096
_MOST_DIRECTORY = 16 << 20


class Kind(NamedTuple):
    """The kind of a file.

    Attributes:
      name: with its article, as "an HDF5 file".
      hint: the way out, a sentence.
    """

    name: str
    hint: str


_STATE = "save model.state_dict() by torch.save, or as safetensors"
_AGAIN = "Download the file itself once more"

_MAGIC: tuple[tuple[bytes, Kind], ...] = (
    (
        b"\x89HDF\r\n\x1a\n",
        Kind(
            "an HDF5 file (Keras or Caffe)",
            "Keras: in Python, keras.models.load_model(FILE).export('net.onnx', format='onnx'), "
            "then python -m weights_convert onnx net.onnx; Caffe: save with snapshot_format: "
            "BINARYPROTO",
        ),
    ),
    (b"\x93NUMPY", Kind("one NumPy array (.npy)", "Several arrays by name are a state dict")),
    (b"GGUF", Kind("a GGUF file", "Take the original PyTorch or safetensors weights")),
    (b"\x1f\x8b", Kind("a gzip archive", "Unpack it first: gunzip, or tar xzf for a .tar.gz")),
    (b"BZh", Kind("a bzip2 archive", "Unpack it first")),
    (b"\xfd7zXZ\x00", Kind("an xz archive", "Unpack it first")),
    (b"(\xb5/\xfd", Kind("a zstd archive", "Unpack it first")),
    (b"7z\xbc\xaf\x27\x1c", Kind("a 7z archive", "Unpack it first")),
    (b"Rar!", Kind("a RAR archive", "Unpack it first")),
    (b"%PDF", Kind("a PDF document", _AGAIN)),
    (b"\x89PNG", Kind("a PNG image", "The weights come first")),
    (b"\xff\xd8\xff", Kind("a JPEG image", "The weights come first")),
    (b"\x7fELF", Kind("a program", "It is not run and holds no weights")),
)
_LFS = Kind(
    "a pointer of Git LFS, not the file it points to",
    "Run `git lfs install` and `git lfs pull` in the repository, or download the file itself",
)
_HTML = Kind("a web page (HTML)", f"{_AGAIN}: the link gave a page about it, or a login")
_INDEX = Kind(
    "the index of a sharded checkpoint",
    "Convert the shards together: load them in PyTorch and save one state dict, "
    "torch.save({k: v for f in shards for k, v in load(f).items()}, 'all.pth')",
)
_ONNX = Kind(
    "an ONNX graph",
    "Convert it by `python -m weights_convert onnx FILE`",
)
_TFLITE = Kind(
    "a TensorFlow Lite model",
    "Turn it into ONNX, python -m tf2onnx.convert --tflite FILE --output net.onnx, then "
    "python -m weights_convert onnx net.onnx",
)
_OPENVINO = Kind(
    "an OpenVINO network (.xml)",
    "Convert it, its .bin beside it, by `python -m weights_convert openvino FILE.xml`",
)
_SAVED_MODEL = Kind(
    "a TensorFlow SavedModel",
    "Turn its folder into ONNX, python -m tf2onnx.convert --saved-model FOLDER --output net.onnx, "
    "then python -m weights_convert onnx net.onnx",
)
_KERAS = Kind(
    "a Keras model (.keras)",
    "In Python, keras.models.load_model(FILE).export('net.onnx', format='onnx'), then "
    "python -m weights_convert onnx net.onnx; or save its weights as npz",
)
_TAR = Kind(
    "a tar archive",
    f"Unpack it first (tar xf); of a file of PyTorch 0.1.9 or older, load it there and {_STATE}",
)


def sniff(path: Path) -> Kind | None:
    """Return what a file is, if it is none of those that are read; None if nothing is known.

    Raises:
      InputError: if it cannot be read.
    """
    if path.is_dir():
        return _SAVED_MODEL if (path / "saved_model.pb").is_file() else _folder(path)
    if path.name == "saved_model.pb":
        return _SAVED_MODEL
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and length <= path.stat().st_size:
        return None  # safetensors, whatever its first numbers look like
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    if head.startswith(b"version https://git-lfs"):
        return _LFS
    if head[257:262] == b"ustar":
        return _TAR
    if head[4:8] == b"TFL3":
        return _TFLITE
    if head.startswith(b"PK"):
        return _zip(path)
    return _text(head) or _protobuf(head)


def refuse(path: Path, wanted: str, besides: str = "") -> InputError | None:
    """Return the error for a file that is something known; None if nothing is known of it.

    Args:
      path: a file, or a folder.
      wanted: what it should have been, with its article.
      besides: the name of a kind that is not refused here: that of the reader itself.
    """
    kind = sniff(path)
    if kind is None or kind.name == besides:
        return None
    return InputError(f"{path}: expected {wanted}; got {kind.name}. {kind.hint}")


def _folder(path: Path) -> Kind:
    """Return what a folder is: one of the files in it may be the one that was meant."""
    known = (".onnx", ".xml", ".pth", ".pt", ".safetensors", ".caffemodel", "model.json")
    names = sorted(f.name for f in islice(path.iterdir(), 1000) if f.name.endswith(known))
    hint = f"Give one of its files: {', '.join(names[:5])}" if names else "Give a file"
    return Kind("a folder", plain(hint, 300))


_PICKLE = re.compile(rb"\((d|l|c|S|V|I|i|\()|c[\w.]+\n[\w.]+\n")


def check_directory(path: Path) -> None:
    """Refuse a zip with an absurd list of contents before `zipfile` makes objects of it.

    Raises:
      InputError: if the list takes more than 16 MiB, a few hundred thousand entries.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 65557))
        tail = file.read()
        at = tail.rfind(b"PK\x05\x06")
        length = int.from_bytes(tail[at + 12 : at + 16], "little") if at >= 0 else 0
        place = tail.rfind(b"PK\x06\x06")
        if length == 0xFFFFFFFF and place >= 0:
            length = int.from_bytes(tail[place + 40 : place + 48], "little")
    if length > _MOST_DIRECTORY:
        raise InputError(
            f"{path}: a zip whose list of contents claims {length} bytes; at most "
            f"{_MOST_DIRECTORY} are read"
        )


def _zip(path: Path) -> Kind | None:
    """Return what a zip is, by the names in it."""
    check_directory(path)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # a damaged zip is for the reader to complain of
        return None
    last = {name.rsplit("/", 1)[-1] for name in names[:100_000]}
    if "constants.pkl" in last:
        return Kind(
            "a TorchScript program",
            "Its code is not run. In Python: torch.save(torch.jit.load(FILE).state_dict(), NEW)",
        )
    if "data.pkl" in last:
        return None
    if "model.weights.h5" in last:
        return _KERAS
    if names and all(name.endswith(".npy") for name in names):
        return Kind("an npz of NumPy arrays", "Only `tfjs` reads ProGAN's; save a state dict")
    inner = [name for name in names if name.endswith((".pth", ".pt", ".ckpt", ".safetensors"))]
    if inner:
        return Kind(f"a zip with {len(inner)} files of weights in it", "Unpack it first")
    return Kind("a zip archive without PyTorch's data.pkl", f"Unpack it first, or {_STATE}")


def _text(head: bytes) -> Kind | None:
    stripped = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    lower = stripped[:200].lower()
    if lower.startswith((b"<!doctype", b"<html", b"<head")) or b"<html" in lower:
        return _HTML
    if stripped.startswith(b"<?xml"):
        if b"<net " in head or b"<net\n" in head:
            return _OPENVINO
        return Kind("an XML document", "OpenVINO's .xml begins with <net; a page goes nowhere")
    if stripped.startswith((b"{", b"[")):
        if b'"weight_map"' in head:
            return _INDEX
        if b'"weightsManifest"' in head or b'"paths"' in head:
            return Kind("a TensorFlow.js manifest", "Convert it by `weights_convert tfjs`")
        if _is_json(head):
            return Kind("a JSON document", "The weights lie in another file")
    if _PICKLE.match(head):
        return None  # of protocol 0, which is text
    printable = sum(byte in b"\t\r\n" or 32 <= byte < 127 for byte in head)
    if len(head) >= 16 and printable == len(head):
        if re.search(rb"\b(layers?|input|name)\s*[:{]", head):
            return Kind("a prototxt", "Caffe networks are converted by `weights_convert caffe`")
        return Kind("a text", _AGAIN)
    return None


def _is_json(head: bytes) -> bool:
    try:
        json.loads(head)
    except ValueError:  # only the beginning was read
        return len(head) == _HEAD and b'"' in head[:200]
    except RecursionError:
        return False
    return True


def _protobuf(head: bytes) -> Kind | None:
    """ONNX begins with its version (field 1, a small number) and its producer (field 2)."""
    if len(head) > 8 and head[0] == 0x08 and 1 <= head[1] < 32 and head[2] in (0x12, 0x3A, 0x42):
        return _ONNX
    layers = re.match(rb"\n[\x00-\x40][ -~]{1,64}[\x12\xa2]", head)
    if layers and (b"\xa2\x06" in head or b"\x12" in head):
        return Kind("a caffemodel", "It goes with its prototxt: `weights_convert caffe`")
    return None
