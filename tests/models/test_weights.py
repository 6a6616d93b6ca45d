"""Weight files: round trips, the safetensors library's opinion, and everything damaged."""

import json
import os

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors import safe_open
from safetensors.numpy import save_file

from jaxgen.core.errors import InputError
from jaxgen.models.fashion_mnist.mlp import MLP
from jaxgen.models.weights import FORMAT, fill, flatten, load_weights, read_metadata, save_weights

ARRAYS = {
    "a.kernel": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    "a.bias": np.asarray([1.5, -2.25], np.float32),
    "scalar": np.asarray(0.125, np.float32),
}
NOTES = {"name": "x", "recipe": {"lr": 1e-3, "steps": 5}, "figures": [1, 2.5]}


@pytest.fixture
def path(tmp_path):
    save_weights(tmp_path / "w.safetensors", ARRAYS, NOTES)
    return tmp_path / "w.safetensors"


def test_round_trip(path):
    arrays, metadata = load_weights(path)
    assert set(arrays) == set(ARRAYS)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, ARRAYS[name])
    assert {k: metadata[k] for k in NOTES} == NOTES
    assert metadata["format"] == FORMAT
    assert read_metadata(path) == metadata
    assert os.listdir(path.parent) == [path.name]


def test_the_safetensors_library_reads_it(path):
    with safe_open(path, "numpy") as file:
        assert set(file.keys()) == set(ARRAYS)
        for name in ARRAYS:
            np.testing.assert_array_equal(file.get_tensor(name), ARRAYS[name])
        assert json.loads(file.metadata()["recipe"]) == NOTES["recipe"]


def test_float16_rounds_to_nearest(tmp_path):
    path = tmp_path / "h.safetensors"
    save_weights(path, ARRAYS, NOTES, dtype="float16")
    arrays, _ = load_weights(path)
    for name, array in arrays.items():
        assert array.dtype == np.float16
        np.testing.assert_array_equal(array, ARRAYS[name].astype(np.float16))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_numbers_that_cannot_be_stored_are_refused(tmp_path, value):
    path = tmp_path / "bad.safetensors"
    with pytest.raises(InputError, match="b: expected finite numbers in float16"):
        save_weights(path, {"b": np.asarray([value])}, {}, dtype="float16")
    assert not os.listdir(tmp_path)


def test_unknown_dtype(tmp_path):
    with pytest.raises(InputError, match="dtype"):
        save_weights(tmp_path / "x", ARRAYS, {}, dtype="bfloat16")


def rewritten(path, change):
    """The file again, its header changed by a function; offsets start after the header."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])


def refused(path, word):
    with pytest.raises(InputError, match=word) as caught:
        load_weights(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_truncation_is_refused(path):
    content = path.read_bytes()
    for size in (*range(0, 40), len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        refused(path, "expected")


def test_a_flipped_bit_is_found_by_the_digest(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    refused(path, "sha256")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda h: h["scalar"].update(dtype="I64"), "scalar: dtype"),
        (lambda h: h["scalar"].update(dtype=["F32"]), "header|scalar: dtype"),
        (lambda h: h["scalar"].update(shape=[2]), "scalar: shape"),
        (lambda h: h["scalar"].update(shape=[-1]), "scalar: shape"),
        (lambda h: h["scalar"].update(shape="1"), "scalar: shape"),
        (lambda h: h["scalar"].update(shape=[10**30]), "scalar: shape"),
        (lambda h: h["scalar"].update(shape=[10**30, 0], data_offsets=[0, 0]), "scalar: shape"),
        (lambda h: h["scalar"].update(shape=[1] * 100), "scalar: shape"),
        (lambda h: h["scalar"].update(data_offsets=[0, 1 << 60]), "scalar: data_offsets"),
        (lambda h: h["scalar"].update(data_offsets=[8, 4]), "scalar: data_offsets"),
        (lambda h: h["scalar"].update(data_offsets=[0, 4]), "bytes from"),
        (lambda h: h.update({"scalar": 3}), "scalar: dtype"),
        (lambda h: h.pop("scalar"), "bytes of tensors"),
        (lambda h: h["__metadata__"].update(format='"other/2"'), "format"),
        (lambda h: h["__metadata__"].update(name="{"), "header"),
        (lambda h: h["__metadata__"].pop("sha256"), "sha256"),
    ],
)
def test_wrong_headers(path, change, word):
    rewritten(path, change)
    refused(path, word)


def test_numbers_that_are_not_finite_are_found_on_reading(path):
    content = bytearray(path.read_bytes())
    content[-4:] = np.float32(np.nan).tobytes()
    length = int.from_bytes(content[:8], "little")
    import hashlib

    digest = hashlib.sha256(content[8 + length :]).hexdigest()
    path.write_bytes(content)
    rewritten(path, lambda h: h["__metadata__"].update(sha256=json.dumps(digest)))
    refused(path, "finite")


def test_foreign_files(tmp_path):
    path = tmp_path / "foreign.safetensors"
    save_file(ARRAYS, path)
    refused(path, "weights_convert")
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    refused(path, "header")
    path.write_bytes((16).to_bytes(8, "little") + b"[[[[[[[[[[[[[[[[")
    refused(path, "header")
    path.write_bytes((2).to_bytes(8, "little") + b"[]")
    refused(path, "header")
    path.unlink()
    refused(path, "readable")
    path.mkdir()
    refused(path, "readable|header")


def test_fill_and_flatten_are_inverse():
    module = MLP((3, 4, 2), rngs=nnx.Rngs(0))
    abstract = nnx.eval_shape(lambda: MLP((3, 4, 2), rngs=nnx.Rngs(1)))
    x = jnp.ones((5, 3))
    np.testing.assert_array_equal(fill(abstract, flatten(module))(x), module(x))


def test_fill_lists_every_mistake_in_one_line():
    module = MLP((3, 4, 2), rngs=nnx.Rngs(0))
    weights = dict(flatten(module))
    weights.pop("layers.0.bias")
    weights["layers.1.kernel"] = np.zeros((5, 5))
    weights["more"] = np.zeros(1)
    with pytest.raises(InputError) as caught:
        fill(module, weights, "somewhere")
    message = str(caught.value)
    assert message.startswith("somewhere")
    for part in ("missing layers.0.bias [4]", "layers.1.kernel is [5, 5], not [4, 2]",
                 "left over more"):  # fmt: skip
        assert part in message
    assert "\n" not in message
