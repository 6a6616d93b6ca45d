"""Hostile files of TensorFlow.js, and archives of NumPy arrays."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hostile_files import ESCAPE, Case, put, state, stored, tensor, tfjs_case


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
