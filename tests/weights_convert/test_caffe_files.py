"""Caffe's file formats, and files that are damaged or mean harm."""

import contextlib
import struct
import time
import tracemalloc

import numpy as np
import pytest
from caffe_files import encode, fill, net_text, write_net

from jaxgen.core.errors import InputError
from weights_convert import caffe
from weights_convert.caffe import wire
from weights_convert.caffe.schema import message_class

BLOBS = {
    "conv1": [np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2), np.float32([0.5, -1.5])],
    "ip": [np.float32([[1, 2, 3]])],
}


def written(folder, raw, name="net.caffemodel"):
    path = folder / name
    path.write_bytes(raw)
    return path


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


@pytest.mark.parametrize("v1", [False, True])
@pytest.mark.parametrize("kind", ["float", "double", "half"])
def test_generations_and_number_formats(tmp_path, v1, kind):
    model = caffe.Caffemodel(written(tmp_path, encode(BLOBS, kind, v1=v1)))
    assert model.layers == {"conv1": 2, "ip": 1}
    for layer, arrays in BLOBS.items():
        for i, array in enumerate(arrays):
            found = model[f"{layer}[{i}]"]
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, array)


def test_legacy_shapes_find_their_layers(tmp_path):
    text = net_text(
        {"x": (1, 3, 4, 4)},
        'name: "c" type: "Convolution" bottom: "x" top: "c" '
        "convolution_param { num_output: 2 kernel_size: 2 }",
        'name: "d" type: "InnerProduct" bottom: "c" top: "d" inner_product_param { num_output: 4 }',
    )
    rng = np.random.default_rng(0)
    shapes = {"c": [(2, 3, 2, 2), (2,)], "d": [(4, 18), (4,)]}
    blobs = {k: [rng.standard_normal(s).astype(np.float32) for s in v] for k, v in shapes.items()}
    prototxt, current = write_net(tmp_path, text, blobs)
    legacy = written(tmp_path, encode(blobs, v1=True, legacy=True), "legacy.caffemodel")
    assert current is not None
    a, b = caffe.convert(prototxt, current), caffe.convert(prototxt, legacy)
    for key, array in a.arrays.items():
        np.testing.assert_array_equal(array, b.arrays[key])


def test_v0_files(tmp_path):
    text = """
    name: "old" input: "data" input_dim: 1 input_dim: 1 input_dim: 5 input_dim: 5
    layers { layer { name: "pad1" type: "padding" pad: 1 } bottom: "data" top: "pad1" }
    layers { layer { name: "conv1" type: "conv" num_output: 2 kernelsize: 3 stride: 2 }
             bottom: "pad1" top: "conv1" }
    layers { layer { name: "relu1" type: "relu" } bottom: "conv1" top: "conv1" }
    layers { layer { name: "pool1" type: "pool" kernelsize: 2 stride: 1 pool: AVE }
             bottom: "conv1" top: "pool1" }
    layers { layer { name: "ip" type: "innerproduct" num_output: 3 biasterm: false }
             bottom: "pool1" top: "ip" }
    """
    prototxt = tmp_path / "old.prototxt"
    prototxt.write_text(text)
    rng = np.random.default_rng(0)
    kernel, bias, matrix = (rng.standard_normal(s) for s in [(2, 1, 3, 3), (2,), (3, 8)])
    net = message_class("NetParameter")()
    for name, arrays in (("conv1", [kernel, bias]), ("ip", [matrix])):
        layer = net.layers.add().layer
        layer.name = name
        for array in arrays:
            fill(layer.blobs.add(), array, legacy=True)
    network = caffe.convert(prototxt, written(tmp_path, net.SerializeToString())).network
    x = rng.standard_normal((5, 5, 1)).astype(np.float32)
    padded = np.pad(x[..., 0], 1)
    h = np.array([
        [
            [(padded[i : i + 3, j : j + 3] * kernel[o, 0]).sum() + bias[o] for j in (0, 2, 4)]
            for i in (0, 2, 4)
        ]
        for o in range(2)
    ]).clip(0)  # fmt: skip
    h = (h[:, :-1, :-1] + h[:, 1:, :-1] + h[:, :-1, 1:] + h[:, 1:, 1:]) / 4
    np.testing.assert_allclose(network(x), matrix @ h.reshape(-1), rtol=1e-5)


def test_unpacked_numbers_and_packed_ones_in_pieces(tmp_path):
    numbers = np.arange(6, dtype="<f4")
    shape = field(7, field(1, bytes([2, 3])))
    unpacked = b"".join(b"\x2d" + struct.pack("<f", x) for x in numbers)
    pieces = field(5, numbers[:2].tobytes()) + field(5, numbers[2:].tobytes())
    for data in (unpacked + shape, shape + unpacked, pieces + shape):
        raw = field(100, field(1, b"a") + field(7, data))
        model = caffe.Caffemodel(written(tmp_path, raw))
        np.testing.assert_array_equal(model["a[0]"], numbers.reshape(2, 3))


def test_binaryproto_mean(tmp_path):
    blob = message_class("BlobProto")()
    array = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    fill(blob, array, legacy=True)
    path = written(tmp_path, blob.SerializeToString(), "mean.binaryproto")
    np.testing.assert_array_equal(caffe.read_binaryproto(path), array[0])


def blob(shape=b"", data=b""):
    return field(100, field(1, b"conv1") + field(7, shape + data))


HOSTILE = {
    "empty": (b"", "an empty file"),
    "no blobs": (field(1, b"net"), "without any blob"),
    "no name": (field(100, field(7, b"")), "blobs but no name"),
    "shape against data": (
        blob(field(7, field(1, bytes([2, 3]))), field(5, bytes(16))),
        "its shape (2, 3) needs 6 numbers, the file holds 4",
    ),
    "terabytes in a shape": (
        blob(field(7, field(1, varint(1 << 40))), field(5, bytes(16))),
        "needs 1099511627776 numbers",
    ),
    "overflowing shape": (
        blob(field(7, field(1, varint(1 << 62) * 9)), field(5, bytes(16))),
        "the file holds 4",
    ),
    "negative shape": (
        blob(field(7, field(1, varint((1 << 64) - 2))), field(5, bytes(8))),
        "lengths of at least 0",
    ),
    "many axes": (blob(field(7, field(1, bytes([1]) * 99))), "over 32 axes"),
    "terabytes in a length": (
        b"\xa2\x06" + varint(1 << 42) + b"xx",
        "claims 4398046511104 bytes, 2 are left",
    ),
    "odd bytes": (blob(data=field(5, bytes(7))), "no whole count"),
    "two formats": (
        blob(data=field(5, bytes(8)) + field(8, bytes(8))),
        "more than one format",
    ),
    "unknown raw type": (blob(data=b"\x50\x09" + field(12, bytes(8))), "raw_data_type"),
    "group": (b"\xa3\x06", "bad wire type 3"),
    "field zero": (b"\x00\x00", "bad field number 0"),
    "truncated number": (b"\xa2", "truncated"),
    "endless number": (b"\xa2\x06" + b"\xff" * 12, "longer than ten bytes"),
    "twice": (blob(data=field(5, bytes(4))) * 2, "stands twice"),
    "name not text": (field(100, field(1, b"\xff\xfe") + field(7, field(5, bytes(4)))), "UTF-8"),
    "text": (b'name: "LeNet"\nlayer { name: "data" }\n', "got text. The prototxt comes first."),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(40), "an HDF5 file"),
    "zip": (b"PK\x03\x04" + bytes(40), "a zip archive"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_caffemodels_get_one_line(tmp_path, case):
    raw, message = HOSTILE[case]
    path = written(tmp_path, raw)
    tracemalloc.start()
    with pytest.raises(InputError) as caught:
        caffe.Caffemodel(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert message in str(caught.value)
    assert "net.caffemodel" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert peak < 1 << 20


def test_every_truncation_is_an_error_or_a_smaller_file(tmp_path):
    raw = encode(BLOBS)
    whole = caffe.Caffemodel(written(tmp_path, raw)).records
    for length in range(len(raw)):
        with contextlib.suppress(InputError):
            found = caffe.Caffemodel(written(tmp_path, raw[:length])).records
            assert set(found) < set(whole)


def test_a_million_tiny_fields_end_soon(tmp_path):
    raw = b"\x38\x01" * 3_000_000
    start = time.monotonic()
    with pytest.raises(InputError, match="over 1000000 fields"):
        caffe.Caffemodel(written(tmp_path, raw))
    assert time.monotonic() - start < 20


def test_missing_and_unreadable_files(tmp_path):
    with pytest.raises(InputError, match="expected a file; got nothing"):
        caffe.Caffemodel(tmp_path / "none.caffemodel")
    with pytest.raises(InputError, match="expected a file; got no file"):
        caffe.Caffemodel(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        caffe.read_prototxt(tmp_path / "none.prototxt")


def test_means_that_are_none(tmp_path):
    path = written(tmp_path, field(5, struct.pack("<2f", 1, 2)), "mean.binaryproto")
    with pytest.raises(InputError, match="the mean of"):
        caffe.read_binaryproto(path)
    raw = field(5, struct.pack("<2f", 1, np.nan)) + b"\x08\x01\x10\x02\x18\x01\x20\x01"
    with pytest.raises(InputError, match="finite"):
        caffe.read_binaryproto(written(tmp_path, raw, "mean.binaryproto"))


def test_varints_are_those_of_protobuf():
    for value in (0, 1, 127, 128, 300, 1 << 32, (1 << 64) - 1):
        assert wire.varint(varint(value), 0, 99, "x") == (value, len(varint(value)))
    assert wire.signed((1 << 64) - 5) == -5


def test_random_damage_never_gets_past_the_reader(tmp_path):
    """Bytes changed, cut and inserted at random: an InputError or a well-formed result."""
    hypothesis = pytest.importorskip("hypothesis", reason="needs hypothesis")
    st = hypothesis.strategies
    raw = encode(BLOBS)
    edit = st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 3), st.binary(max_size=4))

    @hypothesis.settings(max_examples=400, deadline=None, derandomize=True, database=None)
    @hypothesis.given(st.lists(edit, min_size=1, max_size=4))
    def run(edits):
        damaged = bytearray(raw)
        for position, cut, insert in edits:
            damaged[position : position + cut] = insert
        path = written(tmp_path, bytes(damaged))
        with contextlib.suppress(InputError):
            for key, array in caffe.Caffemodel(path).items():
                assert array.dtype == np.float32, key

    run()
