"""Hostile descriptions in TOML and YAML, and files that people hand over by mistake."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from hostile_files import (
    ESCAPE,
    Case,
    caffe_case,
    inspect_case,
    put,
    state,
    stored,
    tensor,
    torch_case,
)


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
