"""Hostile files of PyTorch and safetensors: pickles, tensors, zips and headers."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator

from hostile_files import (
    ESCAPE,
    Case,
    inspect_case,
    number,
    safetensors,
    state,
    stored,
    tensor,
    text,
    tfjs_case,
    torch_case,
)


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
