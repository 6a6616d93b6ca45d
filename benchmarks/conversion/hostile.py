"""Hostile files against every command of `weights_convert`: seconds, memory, traces.

    python benchmarks/conversion/hostile.py [--only TEXT] [--list] [--fork] [--verbose]

Each case writes a file of at most a few megabytes that was made to hurt (bombs, quadratic
parsers, sizes that do not fit, escapes for terminals, code in pickles) into a folder of its own
and gives it to the command line in a process of its own. A case passes if the process ends by
itself with status 0, 1 or 2, uses at most 2 GB and 20 s of processor time, prints no traceback
and no control character, and leaves no file but the one it was asked to write. Prints the worst
cases as a table and one line of JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import pickle
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

MOST_BYTES, MOST_SECONDS = 2 << 30, 20.0
ESCAPE = "\x1b]0;owned\x07\x1b[2J\u202e"

Case = tuple[str, Callable[[Path], list[str]]]


class Result(NamedTuple):
    """How a case went."""

    name: str
    status: int
    seconds: float
    megabytes: float
    faults: tuple[str, ...]
    said: str


# Writers -----------------------------------------------------------------------------


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


# Cases -------------------------------------------------------------------------------


def pickles() -> Iterator[Case]:
    """Streams of instructions, inside a zip, as a legacy file and alone."""
    deep = 40_000
    streams = {
        "os.system": pickle.dumps({"w": _Reduce("posix", "system", ("touch owned",))}, 2),
        "eval": b"\x80\x02c__builtin__\neval\n(" + text("open('owned','w')") + b"tR.",
        "exec by name": b"\x80\x04" + text("builtins") + text("exec") + b"\x93.",
        "subprocess, unused": b"\x80\x02}(" + text("a") + b"csubprocess\nPopen\n("
        + text("touch") + b"tR" + text("w") + tensor("0", 4, (4,), (1,)) + b"u.",
        "instance": b"\x80\x02(" + text("touch owned") + b"iposix\nsystem\n.",
        "object": b"\x80\x02(cposix\nsystem\n" + text("touch owned") + b"o.",
        "new object": b"\x80\x02cposix\nsystem\n" + text("x") + b"\x85\x81.",
        "extension": b"\x80\x02\x82\x01.",
        "lists in lists": b"\x80\x02" + b"]" * deep + b"a" * (deep - 1) + b".",
        "tuples in tuples": b"\x80\x02)" + b"\x85" * deep + b".",
        "dictionaries in dictionaries": b"\x80\x02" + (b"}" + text("a")) * deep + b"N"
        + b"s" * deep + b".",
        "2^5000 shared leaves": b"\x80\x02)" + b"2\x86" * 5000 + b".",
        "a list in itself": b"\x80\x02]q\x00h\x00a.",
        "a dictionary in itself": b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",
        "a dictionary many times in itself": b"\x80\x02}q\x00("
        + b"".join(text(str(i)) + b"h\x00" for i in range(2000)) + b"u.",
        "memo 2^32": b"\x80\x02" + b"Nr\xff\xff\xff\xff0" * 100_000 + b"N.",
        "a million marks": b"\x80\x02" + b"(" * 1_000_000 + b"N.",
        "eight million lists": b"\x80\x02" + b"]" * 8_000_000 + b".",
        "four million dictionaries": b"\x80\x02" + b"}\x94" * 4_000_000 + b".",
        "two million placeholders": b"\x80\x02ca\nb\n" + b"2)\x81" * 2_500_000 + b".",
        "dictionaries with many keys": b"\x80\x02}(" + b"".join(
            b"J" + struct.pack("<i", i) + b"N" for i in range(1_000_000)) + b"u.",
        "keys that collide": b"\x80\x02}(" + b"".join(
            number((2**61 - 1) * i) + b"N" for i in range(1, 100_000)) + b"u.",
        "keys that are tuples": b"\x80\x02}(" + (b")" + b"2\x86" * 40 + b"N") * 50_000 + b"u.",
        "a long integer": b"\x80\x02\x8b\xff\xff\xff\x7f" + b"\xff" * 64 + b".",
        "an integer of 10,000 digits": b"\x80\x02I" + b"9" * 10_000 + b"\n.",
        "a text of 2^62 bytes": b"\x80\x02\x8d" + struct.pack("<Q", 2**62) + b"a.",
        "bytes of 2^62": b"\x80\x02\x8e" + struct.pack("<Q", 2**62) + b"a.",
        "a line of seven megabytes": b"\x80\x02S'" + b"\\x41" * 1_700_000 + b"'\n.",
        "a line without an end": b"\x80\x02S'" + b"a" * 7_000_000,
        "escapes in a name": b"\x80\x02}(" + text(ESCAPE) + b"c" + b"x\n\x1b[2Jy\n" + b")Ru.",
        "a module in itself": b"\x80\x02ca\nB\n)\x81q\x00}(" + b"".join(
            text(p) + b"}" for p in ("_parameters", "_buffers")) + text("_modules")
        + b"}(" + text("a") + b"h\x00" + text("b") + b"h\x00uub.",
        "an array of 2^40": b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
        b"K\x00\x85U\x01btR(K\x01" + number(2**40) + b"\x85cnumpy\ndtype\n(U\x02f4K\x00K\x01tR\x89"
        b"U\x00tb.",
        "protocol 99": b"\x80\x63N.",
        "nothing": b"",
        "cut off": b"\x80\x02}(",
    }  # fmt: skip
    head = b"".join(
        pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    )
    for name, stream in streams.items():
        yield f"pickle: {name}", torch_case(stored(stream))
        if len(stream) < 1_000_000:
            yield f"pickle, old: {name}", torch_case(head + stream)
        yield f"pickle, alone: {name}", inspect_case("net.pth", stream or b"\x80")


class _Reduce:
    def __init__(self, module: str, name: str, arguments: tuple):
        self.made = (module, name, arguments)

    def __reduce__(self):
        module, name, arguments = self.made
        return getattr(__import__(module), name), arguments


def tensors() -> Iterator[Case]:
    """Tensors whose shape, stride or place lies, and numbers of them."""
    four = {"0": bytes(16)}
    windows = {
        "terabytes": (4, (2**40, 2**20), (2**20, 1), 0),
        "one number 10^12 times": (4, (10**6, 10**6), (0, 0), 0),
        "one number 2^27 times": (1, (2**27,), (0,), 0),
        "past the end": (4, (4,), (1,), 1),
        "a negative stride": (4, (2,), (-1,), 3),
        "a negative length": (4, (-2,), (1,), 0),
        "a rank of 1000": (4, (1,) * 1000, (1,) * 1000, 0),
        "an offset of 2^61": (4, (1,), (1,), 2**61),
        "a storage of 2^61": (2**61, (4,), (1,), 0),
        "zero times 2^50": (4, (0, 2**50), (1, 1), 0),
    }
    for name, (count, shape, stride, offset) in windows.items():
        made = state(("0.weight", tensor("0", count, shape, stride, offset)))
        yield f"tensor: {name}", torch_case(stored(made, four), "--list")
        yield f"tensor, converted: {name}", torch_case(stored(made, four))
    many = state(*((f"{i}.weight", tensor("0", 1, (2**20,), (0,))) for i in range(20_000)))
    yield "tensor: 20,000 expanded to a million", torch_case(stored(many, four))
    many = state(
        *((f"{i}.weight", tensor("0", 4, (2, 2, 1, 1), (2, 1, 1, 1))) for i in range(30_000))
    )
    for recipe in ("dcgan", "dcgan-discriminator", "mlp", "vae-decoder"):
        yield f"30,000 layers: {recipe}", torch_case(stored(many, four), "--recipe", recipe)
    towers = {
        "cifar-resnet": ("linear.weight", "layer{s}.{i}.conv1.weight", (2, 2)),
        "stylegan2": ("input.input", "convs.{i}.conv.weight", (1, 4, 1, 1)),
        "progan": ("formatLayer.weight", "scaleLayers.{i}.1.weight", (16, 1)),
        "resnet": ("fc.weight", "layer{s}.{i}.conv1.weight", (2, 2)),
        "vgg": ("classifier.6.weight", "features.{i}.weight", (2, 2)),
        "biggan-deep": ("embeddings.weight", "generator.layers.{i}.gamma", (2, 2)),
    }  # fmt: skip
    for count in (9_000, 20_000):
        for recipe, (first, pattern, shape) in towers.items():
            rank = 5 if recipe == "stylegan2" else 4
            stages = (1, 2, 3, 4) if "{s}" in pattern else (0,)
            names = [pattern.format(s=s, i=i) for s in stages for i in range(count // len(stages))]
            entries = [(first, tensor("0", 64, shape, (1,) * len(shape)))]
            entries += [(n, tensor("0", 64, (1,) * rank, (1,) * rank)) for n in names]
            content = stored(state(*entries), {"0": bytes(4 * 64)})
            yield f"a tower of {count}: {recipe}", torch_case(content, "--recipe", recipe)
    escaped = state((ESCAPE + ".weight", tensor("0", 4, (4,), (1,))))
    yield "escapes in a list", torch_case(stored(escaped, four), "--list")
    yield "escapes, inspected", inspect_case("net.pth", stored(escaped, four))
    yield "escapes in an error", torch_case(stored(escaped, four))
    long = state(("a" * 4_000_000, tensor("0", 4, (4,), (1,))))
    yield "a name of four megabytes", torch_case(stored(long, four), "--list")
    yield "a name of four megabytes, converted", torch_case(stored(long, four))
    for suffix in ("_orig", "_g"):
        pair = state(
            (f"0.weight{suffix}", tensor("0", 4, (2, 2), (2, 1))),
            ("0.weight_u", tensor("0", 4, (4,), (1,))), ("0.weight_v", tensor("0", 4, (1,), (1,))),
        )  # fmt: skip
        yield f"normalisation that does not fit: {suffix}", torch_case(stored(pair, four))
    names = ("0.parametrizations.weight.original", "0.parametrizations.weight.0.base")
    strange = state(*((n, tensor("0", 4, (2, 2), (2, 1))) for n in names))
    yield "a parametrisation of another kind", torch_case(stored(strange, four))


def zips() -> Iterator[Case]:
    """Yield archives that are bombs, overlap, or are something else."""

    def bomb(name: str, size: int = 3 << 30, level: int = 9) -> bytes:
        buffer = io.BytesIO()
        with (
            zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive,
            archive.open(name, "w", force_zip64=True) as file,
        ):
            for _ in range(size >> 24):
                file.write(bytes(1 << 24))
        return buffer.getvalue()

    def crowd(count: int) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for i in range(count):
                archive.writestr(f"a/{i}", b"")
        return buffer.getvalue()

    def flooded(entries: int) -> bytes:
        """Return a central directory of a million entries that all point at one place."""
        record = b"PK\x01\x02" + bytes(24) + struct.pack("<HHH", 1, 0, 0) + bytes(12) + b"a"
        body = record * entries
        return b"PK\x03\x04" + bytes(26) + body + b"PK\x05\x06" + struct.pack(
            "<HHHHIIH", 0, 0, 65535, 65535, len(body), 30, 0
        )  # fmt: skip

    yield "zip: a bomb as data.pkl", torch_case(lambda: bomb("archive/data.pkl", 1 << 30))
    yield "zip: 60,000 entries", torch_case(lambda: crowd(60_000))
    yield "zip: a directory of 400,000 entries", torch_case(lambda: flooded(400_000))
    yield (
        "zip: a directory of 400,000 entries, npz",
        tfjs_case("progan-celeba128", lambda: {"m.npz": flooded(400_000)}, "m.npz"),
    )
    yield "zip: a path out", torch_case(stored(b"N.", None, **{"../../evil": b"x"}))
    yield "zip: an absolute path", torch_case(stored(b"N.", None, **{"/tmp/evil": b"x"}))
    yield "zip: TorchScript", torch_case(stored(b"N.", None, **{"archive/constants.pkl": b"N."}))
    damaged = bytearray(stored(state(("w", tensor("0", 4, (4,), (1,)))), {"0": bytes(16)}))
    for place in (10, 40, len(damaged) // 2, len(damaged) - 30, len(damaged) - 10):
        other = bytearray(damaged)
        other[place] ^= 0xFF
        yield f"zip: damaged at {place}", torch_case(bytes(other))
        yield f"zip: cut off at {place}", torch_case(bytes(damaged[:place]))


def headers() -> Iterator[Case]:
    """Safetensors."""
    one = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    wide = b'"t%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    notes = {"format": '"jaxgen-weights/1"', "sha256": '"x"'}

    def crowd(count: int) -> bytes:
        return safetensors(b"{" + b",".join(wide % i for i in range(count)) + b"}")

    cases: dict[str, bytes | Callable[[], bytes]] = {
        "a million entries": lambda: crowd(1_000_000),
        "200,000 entries": lambda: crowd(200_000),
        "a header of 2^63": struct.pack("<Q", 2**63) + b"{}",
        "lists in lists": safetensors(b"{" + b'"a":' + b"[" * 1_000_000),
        "a list of ten million": lambda: safetensors(b'{"a":[' + b"0," * 10_000_000 + b"0]}"),
        "small objects": lambda: safetensors(
            b"{" + b",".join(b'"%d":{}' % i for i in range(1_500_000)) + b"}"
        ),
        "a name twice": safetensors(b'{"a":' + json.dumps(one).encode() + b',"a":1}', bytes(4)),
        "2^40 numbers": safetensors({"a": {**one, "shape": [2**40]}}, bytes(4)),
        "10^30 numbers": safetensors({"a": {**one, "shape": [10**30]}}, bytes(4)),
        "negative": safetensors({"a": {**one, "shape": [-1]}}, bytes(4)),
        "offsets turned": safetensors({"a": {**one, "data_offsets": [4, 0]}}, bytes(4)),
        "overlap": safetensors({"a": one, "b": one}, bytes(4)),
        "escapes": safetensors({ESCAPE: one}, bytes(4)),
        "metadata of escapes": safetensors(
            {"__metadata__": {**notes, "kind": json.dumps(ESCAPE)}}
        ),
        "architecture is a list": safetensors(
            {"__metadata__": {**notes, "architecture": "[1]"}}
        ),
        "a number of 5000 digits": safetensors(b'{"a":' + b"9" * 5000 + b"}"),
        "not UTF-8": safetensors(b'{"\xff\xfe":1}'),
    }  # fmt: skip
    for name, content in cases.items():
        yield f"safetensors: {name}", torch_case(content, name="net.safetensors")
        yield f"safetensors, inspected: {name}", inspect_case("net.safetensors", content)


def prototxts() -> Iterator[Case]:
    """Network definitions."""
    start = 'input: "x" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }\n'

    def product(name: str, bottom: str, size: int) -> str:
        return (
            f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" '
            f"inner_product_param {{ num_output: {size} }} }}\n"
        )

    model = field(
        100, field(1, b"a") + field(7, field(7, field(1, varint(1))) + field(5, bytes(4)))
    )
    texts: dict[str, str | Callable[[], str]] = {
        "two products of 32,768": start + product("a", "x", 32768) + product("b", "a", 32768),
        "2^24 outputs": start + product("a", "x", 1 << 24) + product("b", "a", 1 << 24),
        "2^32-1 outputs": start + product("a", "x", 2**32 - 1),
        "twelve products": start + "".join(
            product(f"p{i}", f"p{i - 1}" if i else "x", 16384) for i in range(12)
        ),
        "quotes and backslashes": '"\\' * 24_000,
        "quotes": '"' * 400_000,
        "single quotes and backslashes": "'\\" * 200_000,
        "backslashes": "\\" * 400_000,
        "comments": "#" * 400_000,
        "angles": "<>" * 200_000,
        "blocks in blocks": "layer {" * 100_000,
        "closed blocks": "}" * 400_000,
        "20,000 layers": start + "".join(
            f'layer {{ name: "r{i}" type: "ReLU" bottom: "x" top: "t{i}" }}\n'
            for i in range(20_000)
        ),
        "1,900 layers": start + "".join(
            f'layer {{ name: "r{i}" type: "ReLU" bottom: "x" top: "t{i}" }}\n'
            for i in range(1_900)
        ),
        "200,000 inputs": "".join(f'input: "x{i}"\n' for i in range(200_000)),
        "a megabyte of numbers": start + "input_dim: 1 " * 80_000,
        "a name of a megabyte": start + f'layer {{ name: "{"a" * 1_000_000}" type: "Strange" }}',
        "escapes": start + 'layer { name: "\\033[2J\\007" type: "\\033]0;x\\007" bottom: "x" }',
        "a kernel of 2^31": start + 'layer { name: "c" type: "Convolution" bottom: "x" top: "c" '
        "convolution_param { num_output: 4 kernel_size: 2147483647 } }",
        "a pad of 2^31": start + 'layer { name: "c" type: "Convolution" bottom: "x" top: "c" '
        "convolution_param { num_output: 4 kernel_size: 1 pad: 2147483647 } }",
        "a pad of 2^14": start + 'layer { name: "c" type: "Convolution" bottom: "x" top: "c" '
        "convolution_param { num_output: 4 kernel_size: 1 pad: 16384 } }",
        "a stride of 0": start + 'layer { name: "c" type: "Convolution" bottom: "x" top: "c" '
        "convolution_param { num_output: 4 kernel_size: 1 stride: 0 } }",
        "a dilation of 2^31": start + 'layer { name: "c" type: "Convolution" bottom: "x" top: "c" '
        "convolution_param { num_output: 4 kernel_size: 3 dilation: 2147483647 } }",
        "2^24 groups": start + 'layer { name: "c" type: "Convolution" bottom: "x" top: "c" '
        "convolution_param { num_output: 16777216 kernel_size: 1 group: 16777216 } }",
        "pooling of 2^31": start + 'layer { name: "p" type: "Pooling" bottom: "x" top: "p" '
        "pooling_param { kernel_size: 2147483647 } }",
        "an LRN of 2^31": start + 'layer { name: "l" type: "LRN" bottom: "x" top: "l" '
        "lrn_param { local_size: 4294967295 } }",
        "tiles of 65,536": start + 'layer { name: "t" type: "Tile" bottom: "x" top: "t" '
        "tile_param { tiles: 65536 } }",
        "interpolation to 2^31": start + 'layer { name: "i" type: "Interp" bottom: "x" top: "i" '
        "interp_param { height: 2147483647 width: 2147483647 } }",
        "interpolation to 2^14": start + 'layer { name: "i" type: "Interp" bottom: "x" top: "i" '
        "interp_param { height: 16384 width: 5461 } }",
        "an embedding of 2^28": 'input: "x" input_shape { dim: 4 }\nlayer { name: "e" '
        'type: "Embed" bottom: "x" top: "e" embed_param { num_output: 4096 input_dim: 268435456 } }',  # noqa: E501
        "a recurrence of 2^24": 'input: "x" input_shape { dim: 4 dim: 1 dim: 3 }\n'
        'input: "m" input_shape { dim: 4 dim: 1 }\nlayer { name: "l" type: "LSTM" bottom: "x" '
        'bottom: "m" top: "l" recurrent_param { num_output: 16777216 } }',
        "a reshape": start + 'layer { name: "r" type: "Reshape" bottom: "x" top: "r" '
        "reshape_param { shape { dim: 9223372036854775807 dim: -1 } } }",
        "a slice of 50,000": start + 'layer { name: "s" type: "Slice" bottom: "x" '
        + "".join(f'top: "s{i}" ' for i in range(50_000)) + "}",
        "a split of 50,000": start + 'layer { name: "s" type: "Split" bottom: "x" '
        + "".join(f'top: "s{i}" ' for i in range(50_000)) + "}",
        "a sum of 50,000": start + 'layer { name: "s" type: "Eltwise" top: "s" '
        + 'bottom: "x" ' * 50_000 + "}",
        "an input of 2^28": 'input: "x" input_shape { dim: 1 dim: 1 dim: 16384 dim: 16384 }\n'
        'layer { name: "r" type: "ReLU" bottom: "x" top: "y" }',
        "doubled forty times": start + "".join(
            f'layer {{ name: "c{i}" type: "Concat" bottom: "{f"c{i - 1}" if i else "x"}" '
            f'bottom: "{f"c{i - 1}" if i else "x"}" top: "c{i}" }}\n' for i in range(40)
        ),
        "unknown fields": start + "".join(f"strange_{i} {{ a: 1 }} " for i in range(50_000)),
        "extensions": start + "[a.b.c] { x: 1 }" * 20_000,
        "a script": "<script>alert(1)</script>",
    }  # fmt: skip
    for name, content in texts.items():
        yield (
            f"prototxt: {name}",
            caffe_case(content if isinstance(content, str) else content(), model),
        )
    for name in ("quotes and backslashes", "20,000 layers", "blocks in blocks", "escapes"):
        raw = texts[name]
        yield (
            f"prototxt, inspected: {name}",
            inspect_case("net.prototxt", (raw if isinstance(raw, str) else raw()).encode()),
        )


def caffemodels() -> Iterator[Case]:
    """Weights of Caffe."""
    relu = (
        'input: "x" input_shape { dim: 1 dim: 3 }\n'
        'layer { name: "a" type: "ReLU" bottom: "x" top: "y" }'
    )

    def layer(*blobs: bytes, name: bytes = b"a") -> bytes:
        return field(100, field(1, name) + b"".join(field(7, blob) for blob in blobs))

    one = b"\x2d" + bytes(4)  # field 5 as one fixed32
    models: dict[str, Callable[[], bytes]] = {
        "alternating runs": lambda: layer((one + b"\x08\x01") * 450_000),
        "alternating runs, far from the end": lambda: (
            layer((one + b"\x08\x01") * 4_000 + bytes(0)) + field(3, bytes(8_000_000))
        ),
        "900,000 empty fields": lambda: layer(b"\x2a\x00" * 900_000),
        "900,000 fields of one number": lambda: layer((b"\x2a\x04" + bytes(4)) * 900_000),
        "900,000 shapes": lambda: layer(b"\x3a\x00" * 900_000 + field(5, bytes(4))),
        "a shape of a million axes": lambda: layer(field(7, field(1, b"\x01" * 1_000_000))),
        "a shape of 2^62": lambda: layer(field(7, field(1, varint(2**62))) + field(5, bytes(4))),
        "a negative shape": lambda: layer(
            field(7, field(1, varint(2**64 - 1))) + field(5, bytes(4))
        ),
        "90,000 blobs": lambda: layer(*[field(5, bytes(4))] * 90_000),
        "a million layers": lambda: field(100, field(1, b"a")) * 700_000,
        "100,000 layers with blobs": lambda: b"".join(
            layer(field(5, bytes(4)), name=str(i).encode()) for i in range(99_000)
        ),
        "old layers in layers": lambda: field(2, field(1, field(50, field(5, bytes(4))))) * 100_000,
        "a million small fields": lambda: b"\x08\x01" * 1_500_000,
        "a length of 2^63": lambda: b"\xa2\x06" + varint(2**63) + b"a",
        "a varint without an end": lambda: b"\xff" * 1_000_000,
        "a field number 0": lambda: b"\x02\x00" * 1000,
        "groups": lambda: b"\x0b" * 1000,
        "a name of escapes": lambda: layer(field(5, bytes(4)), name=ESCAPE.encode()),
        "a name of a megabyte": lambda: layer(field(5, bytes(4)), name=b"a" * 1_000_000),
        "a name that is no text": lambda: layer(field(5, bytes(4)), name=b"\xff\xfe"),
        "a name twice": lambda: layer(field(5, bytes(4))) * 2,
        "two formats": lambda: layer(field(5, bytes(4)) + field(8, bytes(8))),
        "a raw type of 7": lambda: layer(b"\x50\x07" + field(12, bytes(4))),
        "HDF5": lambda: b"\x89HDF\r\n\x1a\n" + bytes(1000),
        "a web page": lambda: b"<!DOCTYPE html><html>" + b"a" * 1000,
        "text": lambda: b"layer { name: 'a' }" * 100,
    }
    for name, model in models.items():
        yield f"caffemodel: {name}", caffe_case(relu, model)
        yield f"caffemodel, inspected: {name}", inspect_case("net.caffemodel", model)
    for name in ("a shape of 2^62", "900,000 empty fields", "alternating runs"):
        content = models[name]()[6:]
        yield f"binaryproto: {name}", inspect_case("mean.binaryproto", content)


def manifests() -> Iterator[Case]:
    """TensorFlow.js."""

    def manifest(groups: Any) -> bytes:
        return json.dumps(groups).encode()

    def entry(shape: Any, name: str = "a", **more: Any) -> dict[str, Any]:
        return {"name": name, "shape": shape, "dtype": "float32", **more}

    shard = bytes(4 << 20)
    quantised = {"quantization": {"dtype": "uint8", "scale": 1e308, "min": -1e308}}
    cases: dict[str, Callable[[], dict[str, bytes]]] = {
        "one shard 500 times": lambda: {
            "m.json": manifest([{"paths": ["s"] * 500, "weights": [entry([500 << 20])]}]),
            "s": shard,
        },
        "one shard in 500 groups": lambda: {
            "m.json": manifest([
                {"paths": ["s"], "weights": [entry([1 << 20], f"t{i}")]} for i in range(500)
            ]), "s": shard,
        },
        "uint8 of four megabytes 100 times": lambda: {
            "m.json": manifest([
                {"paths": [f"s{i}"], "weights": [entry([4 << 20], f"t{i}", **quantised)]}
                for i in range(100)
            ]), **{f"s{i}": shard for i in range(100)},
        },
        "a path out": lambda: {"m.json": manifest([{"paths": ["../s"], "weights": []}])},
        "an absolute path": lambda: {
            "m.json": manifest([{"paths": ["/etc/passwd"], "weights": []}])
        },
        "2^31 numbers": lambda: {
            "m.json": manifest([{"paths": ["s"], "weights": [entry([2**31 - 1])]}]), "s": shard,
        },
        "0 times 2^30": lambda: {
            "m.json": manifest([{"paths": ["s"], "weights": [entry([0, 2**30])]}]), "s": b"",
        },
        "40,000 empty tensors": lambda: {
            "m.json": manifest([
                {"paths": ["s"], "weights": [entry([0], str(i)) for i in range(40_000)]}
            ]),
            "s": b"",
        },
        "escapes": lambda: {
            "m.json": manifest([{"paths": ["s"], "weights": [entry([1], ESCAPE)]}]), "s": bytes(4),
        },
        "infinite scale": lambda: {
            "m.json": manifest([{"paths": ["s"], "weights": [entry([4], "a", **quantised)]}]),
            "s": bytes(4),
        },
        "lists in lists": lambda: {"m.json": b"[" * 1_000_000},
        "a number of 10,000 digits": lambda: {
            "m.json": b'[{"paths":["s"],"weights":[{"name":"a","shape":['
            + b"9" * 10_000 + b"]}]}]",
        },
        "no dictionary": lambda: {"m.json": b"[1,2,3]"},
        "a string": lambda: {"m.json": b'"abc"'},
        "paths is a text": lambda: {"m.json": manifest([{"paths": "ss", "weights": []}]), "s": b""},
        "not UTF-8": lambda: {"m.json": b"\xff\xfe[]"},
        "a web page": lambda: {"m.json": b"<!DOCTYPE html><html></html>"},
    }  # fmt: skip
    for name, files in cases.items():
        yield f"tfjs: {name}", tfjs_case("face-expression", files, "m.json")

    def npz(members: dict[str, bytes]) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, raw in members.items():
                archive.writestr(name, raw)
        return buffer.getvalue()

    def npy(header: str, body: bytes = b"") -> bytes:
        raw = header.encode("latin-1")
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw + body

    def big(total: int) -> bytes:
        size = total // 4
        head = npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({size},), }}\n")
        buffer = io.BytesIO()
        with (
            zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
            archive.open("a.npy", "w", force_zip64=True) as file,
        ):
            file.write(head)
            for _ in range(total >> 24):
                file.write(bytes(1 << 24))
        return buffer.getvalue()

    good = "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }\n"
    arrays: dict[str, Callable[[], bytes]] = {
        "3 MB of 3 GB": lambda: big(3 << 30),
        "half a gigabyte": lambda: big((1 << 29) - (1 << 24)),
        "parentheses": lambda: npz({"a.npy": npy("(" * 9_000)}),
        "signs": lambda: npz({"a.npy": npy("{'descr': " + "-" * 9_000 + "1}")}),
        "objects": lambda: npz({"a.npy": npy(good.replace("<f4", "|O"), bytes(8))}),
        "records": lambda: npz({"a.npy": npy(good.replace("'<f4'", "[('a','<f4')]"), bytes(8))}),
        "10^12 numbers": lambda: npz({"a.npy": npy(good.replace("(1,)", "(10**12,)"))}),
        "2^39 numbers": lambda: npz({"a.npy": npy(good.replace("(1,)", "(549755813888,)"))}),
        "a type of 2^30 bytes": lambda: npz({"a.npy": npy(good.replace("<f4", "S1073741824"))}),
        "50,000 arrays": lambda: npz({f"{i}.npy": npy(good, bytes(4)) for i in range(50_000)}),
        "a text": lambda: npz({"a.npy": b"hello"}),
        "escapes": lambda: npz({ESCAPE + ".npy": npy(good, bytes(4))}),
        "truncated": lambda: big(1 << 24)[:-100],
    }
    for name, content in arrays.items():
        yield (
            f"npz: {name}",
            tfjs_case("progan-celeba128", lambda content=content: {"m.npz": content()}, "m.npz"),
        )

    def against(content: Callable[[], bytes]):
        def make(folder: Path) -> list[str]:
            entries = state(("0.weight", tensor("0", 48, (1, 3, 4, 4), (48, 16, 4, 1))))
            file = put(folder, "net.pth", stored(entries, {"0": bytes(192)}))
            pairs = put(folder, "p.npz", content())
            return ["torch", file, "--recipe", "dcgan", "--against", pairs]

        return make

    for name in ("3 MB of 3 GB", "objects", "records", "50,000 arrays", "escapes", "truncated"):
        yield f"pairs: {name}", against(arrays[name])


def descriptions() -> Iterator[Case]:
    """TOML and YAML for `--recipe sequential`."""

    def described(content: str, name: str = "net.toml"):
        def make(folder: Path) -> list[str]:
            entries = state(("0.weight", tensor("0", 4, (2, 2), (2, 1))))
            file = put(folder, "net.pth", stored(entries, {"0": bytes(16)}))
            option = f"description={put(folder, name, content)}"
            out = ["--out", str(folder / "out.safetensors")]
            return ["torch", file, "--recipe", "sequential", "--set", option, *out]

        return make

    head = "input = [2]\n[[layer]]\n"
    texts = {
        "50,000 dotted keys": ".".join(["a"] * 50_000) + " = 1\n",
        "lines of dotted keys": "".join(f"{'.'.join(['a'] * 400)}.b{i} = 1\n" for i in range(500)),
        "100,000 digits": f"input = [{'9' * 100_000}]\n",
        "arrays in arrays": "input = " + "[" * 100_000,
        "tables in tables": "input = " + "{a = " * 50_000,
        "values in a setting": f"{head}type = 'ReLU'\nslope = {'[' * 900}{']' * 900}\n",
        "20,000 layers": "input = [2]\n" + "[[layer]]\ntype = 'ReLU'\n" * 20_000,
        "1,900 layers": "input = [2]\n" + "[[layer]]\ntype = 'ReLU'\n" * 1_900,
        "20,000 unknown layers": "input = [2]\n" + "[[layer]]\ntype = 'X'\n" * 20_000,
        "an input of 10^18": "input = [1000000, 1000000, 1000000]\n[[layer]]\ntype = 'ReLU'\n",
        "a product of 2^20": "input = [1048576]\n[[layer]]\ntype = 'linear'\nout = 1048576\n",
        "a kernel of 2^20": "input = [1, 4, 4]\n[[layer]]\ntype = 'conv'\nout = 4\n"
        "kernel = 1048576\npadding = 1048575\n",
        "upsampling by 2^20": "input = [1, 4, 4]\n[[layer]]\ntype = 'upsample'\nfactor = 1048576\n",
        "adaptive pooling to 2^13": "input = [1, 8192, 8192]\n[[layer]]\n"
        "type = 'adaptive_avg_pool'\nsize = 8191\n",
        "padding of 2^13": "input = [1, 4, 4]\n[[layer]]\ntype = 'zero_pad'\npadding = 8000\n",
        "types that are none": f"{head}type = []\n[[layer]]\ntype = {{}}\n[[layer]]\ntype = 3\n",
        "sources that are none": f"{head}type = 'Linear'\nsource = [1]\n",
        "escapes": f"{head}type = '\\u001b[2J'\n",
        "a number that is none": f"{head}type = 'LeakyReLU'\nslope = nan\n",
        "not a list": "input = 3\nlayer = 'a'\n",
    }  # fmt: skip
    for name, content in texts.items():
        yield f"toml: {name}", described(content)
    yaml = {
        "a megabyte": "input: [2]\nlayer:\n" + "- {type: ReLU}\n" * 60_000,
        "a bomb": "a: &a [x, x]\n" + "".join(f"b{i}: &b{i} [*a, *a]\n" for i in range(20)),
        "code": "!!python/object/apply:os.system ['touch owned']\n",
        "lists in lists": "[" * 50_000,
    }
    for name, content in yaml.items():
        yield f"yaml: {name}", described(content, "net.yaml")


def others() -> Iterator[Case]:
    """Yield what people hand over by mistake."""
    files = {
        "a web page": b"<!DOCTYPE html><html><title>Sign in</title></html>",
        "a pointer of LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n",
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(2000),
        "ONNX": b"\x08\x07\x12\x07pytorch" + bytes(200),
        "an index": b'{"metadata": {}, "weight_map": {"a": "b"}}',
        "a tar archive": b"a".ljust(257, b"\0") + b"ustar\x0000" + bytes(500),
        "gzip": b"\x1f\x8b\x08" + bytes(100),
        "zeros": bytes(1_000_000),
        "ones": b"\xff" * 1_000_000,
        "escapes": ESCAPE.encode() * 1000,
        "one byte": b"\x80",
    }
    for name, content in files.items():
        yield f"other: {name}", torch_case(content)
        yield f"other, inspected: {name}", inspect_case("net.bin", content)
        yield f"other, as a caffemodel: {name}", caffe_case('input: "x"', content)

    def pipe(command: str, name: str):
        def make(folder: Path) -> list[str]:
            path = folder / name
            os.mkfifo(path)
            out = ["--out", str(folder / "out.safetensors")]
            return {
                "torch": ["torch", str(path), "--recipe", "dcgan", *out],
                "inspect": ["inspect", str(path)],
                "caffe": ["caffe", str(path), str(path), *out],
                "tfjs": ["tfjs", str(path), "--network", "face-expression", *out],
            }[command]

        return make

    for command, name in (("torch", "a.pth"), ("inspect", "a.prototxt"), ("inspect", "a.pth"),
                          ("caffe", "a.prototxt"), ("tfjs", "a.json")):  # fmt: skip
        yield f"a pipe: {command} {name}", pipe(command, name)


def cases() -> Iterator[Case]:
    """All of them."""
    for group in (pickles, tensors, zips, headers, prototxts, caffemodels, manifests,
                  descriptions, others):  # fmt: skip
        yield from group()


# Running -----------------------------------------------------------------------------


def attack(case: Case, root: Path, fork: bool) -> Result:
    """Run one case in a process of its own."""
    name, make = case
    folder = Path(tempfile.mkdtemp(dir=root))
    argv = make(folder)
    before = {path.name for path in folder.iterdir()}
    with (root / f"{folder.name}.out").open("w+b") as output:
        start = time.perf_counter()
        pid = (_forked if fork else _spawned)(argv, folder, output.fileno())
        deadline, status, usage = start + 120, None, None
        while status is None:
            done, code, usage = os.wait4(pid, os.WNOHANG)
            if done:
                status = os.waitstatus_to_exitcode(code)
            elif time.perf_counter() > deadline:
                os.kill(pid, signal.SIGKILL)
                _, _, usage = os.wait4(pid, 0)
                status = -9
            else:
                time.sleep(0.02)
        output.seek(0)
        said = output.read(1 << 22).decode("utf-8", "replace")
    assert usage is not None
    seconds = usage.ru_utime + usage.ru_stime
    megabytes = usage.ru_maxrss / 1024
    left = {path.name for path in folder.iterdir()} - before - {"out.safetensors"}
    faults = [
        fault
        for fault, there in {
            f"status {status}": status not in (0, 1, 2),
            f"{seconds:.1f} s": seconds > MOST_SECONDS,
            f"{megabytes:.0f} MB": megabytes * 1024 * 1024 > MOST_BYTES,
            "a traceback": "Traceback (most recent" in said,
            "control characters": any(c in said for c in ("\x1b", "\x07", "\u202e", "\0")),
            f"left {sorted(left)[:3]}": bool(left),
            "wrote outside": (root / "owned").exists() or (root.parent / "evil").exists(),
        }.items()
        if there
    ]
    shutil.rmtree(folder, ignore_errors=True)
    last = said.strip().splitlines()[-1][:160] if said.strip() else ""
    return Result(name, status, seconds, megabytes, tuple(faults), last)


def _spawned(argv: list[str], folder: Path, output: int) -> int:
    """Return a process that starts as a user's does."""
    process = subprocess.Popen(
        [sys.executable, "-m", "weights_convert", *argv], cwd=folder, stdin=subprocess.DEVNULL,
        stdout=output, stderr=subprocess.STDOUT, preexec_fn=_limit,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )  # fmt: skip
    process.returncode = 0  # it is waited for elsewhere
    return process.pid


def _forked(argv: list[str], folder: Path, output: int) -> int:
    """Return a copy of this process, which has imported the package: a second sooner a case."""
    from weights_convert.cli import main as command

    if pid := os.fork():
        return pid
    status = 70
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(folder)
        _limit()
        status = command(argv)
        sys.stdout.flush()
    except SystemExit as error:
        status = int(error.code or 0)
    except BaseException:
        traceback.print_exc()
        status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _limit() -> None:
    """Limit the address space to 12 GB, so that the benchmark does not bring the machine down."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> int:
    """Run the cases; 1 if one failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", default="", help="run the cases whose name holds this text")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--fork", action="store_true", help="copy a process that has imported all")
    parser.add_argument("--verbose", action="store_true", help="print each case as it ends")
    args = parser.parse_args()
    # One case at a time: what a parent holds counts as its children's memory.
    chosen = (case for case in cases() if args.only in case[0])
    if args.list:
        names = [name for name, _ in chosen]
        print("\n".join(names), f"\n{len(names)} cases")
        return 0
    if args.fork:
        os.environ["JAX_PLATFORMS"] = "cpu"
        sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
        for name in ("cli", "pytorch_command", "caffe.command", "tfjs", "recipes.dcgan"):
            importlib.import_module(f"weights_convert.{name}")
    results = []
    with tempfile.TemporaryDirectory() as root:
        for case in chosen:
            result = attack(case, Path(root), args.fork)
            results.append(result)
            if args.verbose or result.faults:
                words = ", ".join(result.faults) or result.said
                print(f"{result.name}: {result.seconds:.1f} s, {result.megabytes:.0f} MB, {words}",
                      file=sys.stderr, flush=True)  # fmt: skip
    failed = [result for result in results if result.faults]
    ranked = sorted(results, key=lambda r: (bool(r.faults), r.seconds), reverse=True)
    print(f"{'case':<56} {'status':>6} {'s':>7} {'MB':>7}  faults, or the last line")
    for result in ranked[: max(15, len(failed) + 5)]:
        words = ", ".join(result.faults) or result.said
        print(f"{result.name[:56]:<56} {result.status:>6} {result.seconds:7.1f} "
              f"{result.megabytes:7.0f}  {words[:110]}")  # fmt: skip
    summary = {
        "cases": len(results),
        "failed": len(failed),
        "worst_seconds": round(max(r.seconds for r in results), 1),
        "worst_megabytes": round(max(r.megabytes for r in results)),
        "refused": sum(r.status == 2 for r in results),
    }
    print(json.dumps(summary))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
