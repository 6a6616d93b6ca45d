"""Hostile files of Caffe: network definitions and weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hostile_files import ESCAPE, Case, caffe_case, field, inspect_case, varint


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
