"""How hostile files are written: parts of protocol buffers, pickles and zips, and commands on them.

`hostile_pytorch.py`, `hostile_caffe.py`, `hostile_tfjs.py` and `hostile_others.py` make their cases
of these parts, and `hostile.py` runs them.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ESCAPE = "\x1b]0;owned\x07\x1b[2J\u202e"

# A name, and what writes the files into a folder and returns the command on them.
Case = tuple[str, Callable[[Path], list[str]]]


def varint(value: int) -> bytes:
    """Return a whole number as protocol buffers write it, seven bits a byte."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, content: bytes) -> bytes:
    """Return a field of a protocol buffer that holds bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def stored(tree: bytes, blobs: dict[str, bytes] | None = None, **names: bytes) -> bytes:
    """Return a file as torch.save writes it, around any pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", tree)
        for key, blob in (blobs or {}).items():
            archive.writestr(f"archive/data/{key}", blob)
        for name, blob in names.items():
            archive.writestr(name, blob)
    return buffer.getvalue()


def text(value: str) -> bytes:
    """Return the instruction that puts a text on the stack of a pickle."""
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def tensor(key: str, count: int, shape: Any, stride: Any, offset: int = 0,
           kind: str = "FloatStorage") -> bytes:  # fmt: skip
    """Return the instructions that build one tensor."""
    place = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu")
    place += number(count) + b"tQ"
    both = b"".join(b"(" + b"".join(map(number, n)) + b"t" for n in (shape, stride))
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + place + number(offset) + both
        + b"\x89ccollections\nOrderedDict\n)RtR"
    )  # fmt: skip


def number(value: int) -> bytes:
    """Return the instruction that puts a whole number on the stack of a pickle."""
    size = max(1, (value.bit_length() + 8) // 8)
    return b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)


def state(*entries: tuple[str, bytes]) -> bytes:
    """Return a pickled state dict of entries that are instructions already."""
    return b"\x80\x02}(" + b"".join(text(name) + made for name, made in entries) + b"u."


def safetensors(header: Any, body: bytes = b"") -> bytes:
    """Return a safetensors file of this header and body."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + body


def put(folder: Path, name: str, content: bytes | str) -> str:
    """Write a file into a folder and return its path."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def torch_case(content: bytes | Callable[[], bytes], *more: str, name: str = "net.pth"):
    """Return what makes the command that converts a PyTorch file of this content."""

    def make(folder: Path) -> list[str]:
        raw = content if isinstance(content, bytes) else content()
        out = [] if "--list" in more else ["--out", str(folder / "out.safetensors")]
        recipe = [] if "--recipe" in more or "--list" in more else ["--recipe", "dcgan"]
        return ["torch", put(folder, name, raw), *recipe, *more, *out]

    return make


def caffe_case(prototxt: bytes | str, model: bytes | Callable[[], bytes] = b"", *more: str):
    """Return what makes the command that converts a Caffe network of these files."""

    def make(folder: Path) -> list[str]:
        raw = model if isinstance(model, bytes) else model()
        files = [put(folder, "net.prototxt", prototxt), put(folder, "net.caffemodel", raw)]
        return ["caffe", *files, "--out", str(folder / "out.safetensors"), *more]

    return make


def inspect_case(name: str, content: bytes | Callable[[], bytes]):
    """Return what makes the command that inspects a file of this content."""

    def make(folder: Path) -> list[str]:
        return ["inspect", put(folder, name, content if isinstance(content, bytes) else content())]

    return make


def tfjs_case(network: str, files: Callable[[], dict[str, bytes]], first: str):
    """Return what makes the command that converts these files of TensorFlow.js."""

    def make(folder: Path) -> list[str]:
        for name, raw in files().items():
            put(folder, name, raw)
        out = ["--out", str(folder / "out.safetensors")]
        return ["tfjs", str(folder / first), "--network", network, *out]

    return make
