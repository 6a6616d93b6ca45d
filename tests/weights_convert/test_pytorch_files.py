"""The readers of PyTorch files: right on good files, harmless and clear on hostile ones."""

import contextlib
import io
import json
import os
import pickle
import struct
import time
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxgen.core.errors import InputError
from weights_convert import restricted_pickle
from weights_convert.restricted_pickle import MAX_PICKLE_BYTES, Forbidden, PickleError, load
from weights_convert.torch_files import read_file, tidy
from weights_convert.torch_storages import ALLOWED, storage_of

# A writer of our own, so that the tests need no torch ------------------------------------

KINDS = {"f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage", "i8": "LongStorage"}


class Fake:
    """Pickles as `module.name(*arguments)` without the module being importable."""

    def __init__(self, module, name, arguments=None, persistent=None):
        self.module, self.name = module, name
        self.arguments, self.persistent = arguments, persistent


class Writer(pickle._Pickler):  # the pickler written in Python: it can be extended
    def save(self, obj, save_persistent_id=True):
        if not isinstance(obj, Fake):
            return super().save(obj, save_persistent_id)
        if obj.persistent is not None:
            super().save(obj.persistent, save_persistent_id)
            self.write(pickle.BINPERSID)
            return None
        self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        if obj.arguments is not None:
            super().save(obj.arguments, save_persistent_id)
            self.write(pickle.REDUCE)
        return None


def pickled(obj, protocol=2):
    buffer = io.BytesIO()
    Writer(buffer, protocol).dump(obj)
    return buffer.getvalue()


def tensor(key, kind, count, shape, stride, offset=0, extra=()):
    place = ("storage", Fake("torch", kind), key, "cpu", count, *extra)
    arguments = (Fake("", "", persistent=place), offset, shape, stride, False, OrderedDict())
    return Fake("torch._utils", "_rebuild_tensor_v2", arguments)


def strides(array):
    return tuple(step // array.itemsize for step in array.strides)


def zip_file(path, tree, blobs, compression=zipfile.ZIP_STORED, names=()):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", tree if isinstance(tree, bytes) else pickled(tree))
        for key, blob in blobs.items():
            archive.writestr(f"archive/data/{key}", blob)
        for name in names:
            archive.writestr(name, b"")
    return path


def good_zip(path, arrays):
    tree, blobs = OrderedDict(), {}
    for i, (name, array) in enumerate(arrays.items()):
        kind = KINDS[array.dtype.str[1:]]
        tree[name] = tensor(str(i), kind, array.size, array.shape, strides(array))
        blobs[str(i)] = array.tobytes()
    return zip_file(path, tree, blobs)


def legacy_bytes(arrays):
    tree, body = OrderedDict(), b""
    for i, (name, array) in enumerate(arrays.items()):
        kind = KINDS[array.dtype.str[1:]]
        tree[name] = tensor(str(i), kind, array.size, array.shape, strides(array), extra=(None,))
        body += struct.pack("<q", array.size) + array.tobytes()
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    keys = [str(i) for i in range(len(arrays))]
    return b"".join(map(pickled, [*head, tree, keys])) + body


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    return {
        "conv.weight": rng.normal(size=(4, 3, 2, 2)).astype("f4"),
        "conv.bias": rng.normal(size=4).astype("f4"),
        "half": rng.normal(size=(3, 2)).astype("f2"),
        "double": rng.normal(size=(2, 2)),
        "count": np.array(7, "i8"),
    }


# Good files ------------------------------------------------------------------------------


def test_zip_and_legacy_agree_with_what_was_written(tmp_path, arrays):
    (tmp_path / "old.pth").write_bytes(legacy_bytes(arrays))
    for path in (good_zip(tmp_path / "new.pth", arrays), tmp_path / "old.pth"):
        got = read_file(path)
        assert list(got) == list(arrays)
        for name, array in arrays.items():
            assert got[name].dtype == array.dtype
            np.testing.assert_array_equal(got[name], array)
            assert not got[name].flags.writeable


def test_agrees_with_torch_on_what_torch_writes(tmp_path):
    torch = pytest.importorskip("torch", reason="compares with torch: pip install torch")
    base = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    state = OrderedDict(
        whole=base, transposed=base.t(), window=base[1:4, ::2], scalar=torch.tensor(3.0),
        half=base.half(), brain=base.bfloat16(), integers=torch.arange(5), flags=base > 0,
        parameter=torch.nn.Parameter(base), empty=torch.zeros(0, 3),
    )  # fmt: skip
    for zipped in (True, False):
        path = tmp_path / f"{zipped}.pth"
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
        got = read_file(path)
        assert list(got) == list(state)
        for name, value in state.items():
            value = value.detach()
            if name == "brain":
                assert got[name].dtype == ml_dtypes.bfloat16
                np.testing.assert_array_equal(got[name].astype("f4"), value.float().numpy())
            else:
                np.testing.assert_array_equal(got[name], value.numpy())
                assert got[name].dtype == value.numpy().dtype


def test_safetensors(tmp_path, arrays):
    from safetensors.numpy import save_file

    save_file(arrays, tmp_path / "x.safetensors", metadata={"a": "b"})
    got = read_file(tmp_path / "x.safetensors")
    assert set(got) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(got[name], array)


def test_nested_checkpoint_and_key(tmp_path, arrays):
    tree = {"w": tensor("0", "FloatStorage", 2, (2,), (1,))}
    blobs = {"0": np.ones(2, "f4").tobytes()}
    path = zip_file(tmp_path / "a.pth", {"epoch": 3, "state_dict": tree}, blobs)
    assert list(read_file(path)) == ["w"]
    both = zip_file(tmp_path / "b.pth", {"g": tree, "d": tree}, blobs)
    with pytest.raises(InputError, match="choose a key among 'g', 'd'"):
        read_file(both)
    assert list(read_file(both, "d")) == ["w"]
    with pytest.raises(InputError, match="no entry 'x'"):
        read_file(both, "x")


def test_tidy(arrays):
    state = {f"module._orig_mod.{k}": v for k, v in arrays.items()}
    state["module.bn.num_batches_tracked"] = np.array(1)
    got = tidy(state)
    assert list(got) == list(arrays)
    assert got["half"].dtype == np.float32
    assert tidy({"module.a": arrays["half"], "b": arrays["half"]}).keys() == {"module.a", "b"}
    with pytest.raises(InputError, match="two entries"):
        tidy({"a._orig_mod.w": arrays["half"], "a.w": arrays["half"]})


# Hostile pickles -------------------------------------------------------------------------


class Run:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def files_with(tmp_path, stream):
    """The same stream as a zip's data.pkl, as a legacy file's tree and as a plain pickle."""
    yield zip_file(tmp_path / "evil.pth", stream, {})
    head = b"".join(map(pickled, [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]))
    (tmp_path / "evil_old.pth").write_bytes(head + stream)
    yield tmp_path / "evil_old.pth"
    (tmp_path / "evil.pkl").write_bytes(stream)
    yield tmp_path / "evil.pkl"


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_command_in_a_pickle_is_named_and_not_run(tmp_path, protocol):
    witness = tmp_path / "witness"
    stream = pickle.dumps({"w": Run(f"touch {witness}")}, protocol=protocol)
    pickle.loads(stream)
    assert witness.exists()  # the attack works on pickle itself
    witness.unlink()
    for path in files_with(tmp_path, stream):
        with pytest.raises(Forbidden, match=r"system.*Nothing was run") as caught:
            read_file(path)
        assert path.name in str(caught.value)
        assert not witness.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("__builtin__", "exec"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch", "FloatStorage.__init__"),
        ("collections", "OrderedDict.fromkeys"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("__main__", "Net"),
    ],
)
def test_other_globals_are_refused(tmp_path, module, name):
    stream = pickled({"w": Fake(module, name, ("x",))})
    for path in files_with(tmp_path, stream):
        with pytest.raises(Forbidden, match=name.split(".")[-1]):
            read_file(path)


@pytest.mark.parametrize(
    "stream",
    [
        b"\x80\x02(iposix\nsystem\n.",  # INST
        b"\x80\x02c__builtin__\neval\n\x81.",  # NEWOBJ's global
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02(o.",  # OBJ
        b"\x80\x02).\x92",  # ends early: a tuple, then rubbish
        b"\x80\x05\x97.",  # NEXT_BUFFER
        b"\x80\x02ccollections\nOrderedDict\n.",  # a bare global
        b"\x80\x02]}b.",  # BUILD on a list
        b"\x80\x02ctorch\nFloatStorage\n)R.",  # a storage called
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NKKttR.",
        b"\x80\x02K\x01K\x01R.",
        b"\x80\x02X\x05\x00\x00\x00hello\x94\x93.",
        b"\x80\x02Q.",
        b"\x80\x02K\x01Q.",
        b"\x80\x02(K\x01.",
        b"\x80\x020.",
        b"\x80\x02h\x05.",
        b"\x80\x02j\xff\xff\xff\xff.",
        b"\x80\x02}(K\x01u.",
        b"\x80\x02}]K\x01s.",  # an unhashable key
        b"\x80\x02})K\x01s.",  # a tuple as key
        b"\x80\x06.",
        b"\x80\x02X\xff\xff\xff\x7fa.",
        b"\x80\x02\x8e\xff\xff\xff\xff\xff\xff\xff\xffa.",
        b"\x80\x02\x8b\xff\xff\xff\x7f" + b"\xff" * 64 + b".",
        b"\x80\x02I" + b"9" * 5000 + b"\n.",
        b"\x80\x02Fx\n.",
        b"\x80\x02S'a\n.",
        b"\x80\x02",
        b"",
    ],
)
def test_damaged_streams(tmp_path, stream):
    for path in files_with(tmp_path, stream):
        with pytest.raises(InputError, match=r"evil|empty"):
            read_file(path)


def test_deep_nesting_cycles_and_shared_tuples_cost_little(tmp_path):
    start = time.perf_counter()
    depth = 40_000
    for stream in (
        b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".",  # lists in lists
        b"\x80\x02)" + b"\x85" * depth + b".",  # tuples in tuples
        b"\x80\x02)" + b"2\x86" * 5000 + b".",  # 2^5000 leaves, all shared
        b"\x80\x02]q\x00h\x00a.",  # a list that holds itself
        b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",  # a dictionary that holds itself
        b"\x80\x02}" + b"\x85" * depth + b"K\x01s.",  # deep tuple as a key: never hashed
        b"\x80\x02})" + b"2\x86" * 5000 + b"K\x01s.",
    ):
        for path in files_with(tmp_path, stream):
            with pytest.raises(InputError) as caught:
                read_file(path)
            assert len(str(caught.value)) < 1000
    assert time.perf_counter() - start < 20


def test_memo_abuse_takes_no_memory(tmp_path):
    import tracemalloc

    stream = b"\x80\x02" + b"Nr\xff\xff\xff\xff0" * 1000 + b"N."  # memo[2**32 - 1], often
    tracemalloc.start()
    load(stream, "memo", {})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_integer_keys_cannot_be_made_to_collide():
    prime = 2**61 - 1  # every multiple hashes to zero
    stream = b"\x80\x02}\x8a\x08" + prime.to_bytes(8, "little") + b"Ns."
    with pytest.raises(PickleError, match="key"):
        load(stream, "keys", {})


def test_a_stream_longer_than_the_limit(monkeypatch):
    assert MAX_PICKLE_BYTES <= 2**23
    monkeypatch.setattr(restricted_pickle, "MAX_PICKLE_BYTES", 1000)
    stream = b"\x80\x02" + b"N0" * 500 + b"N."
    with pytest.raises(PickleError, match="longer than"):
        load(stream, "long", {})


@pytest.mark.parametrize(
    ("shape", "stride", "offset", "count"),
    [
        ((2**40, 2**20), (2**20, 1), 0, 4),  # terabytes
        ((10**6, 10**6), (0, 0), 0, 4),  # one number, shown 10^12 times
        ((4,), (1,), 1, 4),  # one past the end
        ((2, 2), (3, 1), 0, 4),
        ((2,), (-1,), 3, 4),
        ((-2,), (1,), 0, 4),
        ((4,), (1,), 0, 2**61),  # a storage larger than its entry
        ((0, 2**61), (1, 1), 0, 4),
        ((2, 2), (1,), 0, 4),
        ((1,) * 100, (1,) * 100, 0, 4),
        ((2.0,), (1,), 0, 4),
        ((True,), (1,), 0, 4),
    ],
)
def test_absurd_sizes(tmp_path, shape, stride, offset, count):
    tree = {"w": tensor("0", "FloatStorage", count, shape, stride, offset)}
    path = zip_file(tmp_path / "size.pth", tree, {"0": bytes(16)})
    with pytest.raises(InputError, match=r"size\.pth"):
        read_file(path)


def test_storages_that_are_missing_short_or_typed_twice(tmp_path):
    tree = {"w": tensor("7", "FloatStorage", 4, (4,), (1,))}
    with pytest.raises(InputError, match="no entry 'archive/data/7'"):
        read_file(zip_file(tmp_path / "a.pth", tree, {}))
    with pytest.raises(InputError, match="storage of 16 bytes"):
        read_file(zip_file(tmp_path / "b.pth", tree, {"7": bytes(15)}))
    tree = {"w": tensor("../../etc/passwd", "FloatStorage", 4, (4,), (1,))}
    with pytest.raises(InputError, match="no entry"):
        read_file(zip_file(tmp_path / "c.pth", tree, {}))


def test_not_a_state_dict(tmp_path):
    lone = tensor("0", "FloatStorage", 4, (4,), (1,))
    for tree, what in [
        (lone, "a lone tensor"),
        ([lone], "a list"),
        ({"epoch": 1}, "no tensors; the entries are 'epoch'"),
        ({"w": lone, "epoch": 1}, "1 entries of the state dict are no tensors: 'epoch'"),
    ]:
        path = zip_file(tmp_path / "n.pth", tree, {"0": bytes(16)})
        with pytest.raises(InputError, match=what):
            read_file(path)


# Hostile containers ----------------------------------------------------------------------


def test_zip_tricks(tmp_path, arrays):
    tree = pickled({})
    for names in (["../x"], ["/etc/x"], ["archive\\..\\..\\x"], ["C:/x"]):
        with pytest.raises(InputError, match="leads outside"):
            read_file(zip_file(tmp_path / "p.pth", tree, {}, names=names))
    bomb = zip_file(tmp_path / "bomb.pth", tree, {"0": bytes(10**7)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match="compressed"):
        read_file(bomb)
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = zip_file(tmp_path / "t.pth", tree, {}, names=["a/x", "a/x"])
    with pytest.raises(InputError, match="there are two"):
        read_file(twice)
    with pytest.raises(InputError, match="TorchScript"):
        read_file(zip_file(tmp_path / "s.pth", tree, {}, names=["archive/constants.pkl"]))
    with pytest.raises(InputError, match=r"one data\.pkl"):
        read_file(zip_file(tmp_path / "d.pth", tree, {}, names=["other/data.pkl"]))


def test_overlapping_zip_entries(tmp_path):
    path = zip_file(tmp_path / "o.pth", pickled({}), {"0": b"a" * 64, "1": b"a" * 64})
    raw = bytearray(path.read_bytes())
    first = raw.index(b"PK\x01\x02")
    second = raw.index(b"PK\x01\x02", raw.index(b"PK\x01\x02", first + 4) + 4)
    place = raw.index(b"PK\x03\x04", 40)
    raw[second + 42 : second + 46] = struct.pack("<I", place)  # both point at entry 0
    path.write_bytes(raw)
    with pytest.raises(InputError, match="overlap"):
        read_file(path)


def test_a_flipped_bit_in_the_weights_is_found(tmp_path, arrays):
    path = good_zip(tmp_path / "f.pth", arrays)
    raw = bytearray(path.read_bytes())
    place = raw.index(arrays["conv.weight"].tobytes())
    raw[place + 5] ^= 1
    path.write_bytes(raw)
    with pytest.raises(InputError, match="checksum"):
        read_file(path)


def test_every_truncation_is_an_input_error(tmp_path, arrays):
    zipped = good_zip(tmp_path / "z.pth", arrays).read_bytes()
    path = tmp_path / "cut.pth"
    for whole in (zipped, legacy_bytes(arrays)):
        for length in range(0, len(whole), 7):
            path.write_bytes(whole[:length])
            with pytest.raises(InputError, match=r"cut\.pth"):
                read_file(path)


def safetensors_bytes(header, body=bytes(16)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.mark.parametrize(
    "raw",
    [
        (2**62).to_bytes(8, "little") + b"{}" + bytes(20),
        safetensors_bytes(b'{"a":1,"a":2}'),
        safetensors_bytes(b'{"a":' * 100_000),
        safetensors_bytes({"w": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 16]}}),
        safetensors_bytes({"w": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}}),
        safetensors_bytes({"w": {"dtype": "F32", "shape": [-4], "data_offsets": [16, 0]}}),
        safetensors_bytes({"w": {"dtype": "X", "shape": [4], "data_offsets": [0, 16]}}),
        safetensors_bytes({"w": 3}),
        safetensors_bytes({"w": {"dtype": "F32", "shape": [0, 2**61], "data_offsets": [0, 0]}}),
        safetensors_bytes(
            {
                "v": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                "w": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]},
            }
        ),
        safetensors_bytes(b"{\xff}"),
        b"rubbish that is no file of weights",
    ],
)
def test_damaged_safetensors(tmp_path, raw):
    path = tmp_path / "bad.safetensors"
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"bad\.safetensors"):
        read_file(path)


# Fuzz ------------------------------------------------------------------------------------

quick = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@quick
@given(st.binary(max_size=200))
def test_fuzz_the_interpreter(stream):
    with contextlib.suppress(InputError):
        load(b"\x80\x02" + stream, "fuzz", ALLOWED, storage_of)


@quick
@given(st.data())
def test_fuzz_by_mutation(tmp_path, data):
    small = {"a": np.arange(3, dtype="f4"), "b": np.ones((2, 2), "f2")}
    whole = data.draw(
        st.sampled_from([good_zip(tmp_path / "g.pth", small).read_bytes(), legacy_bytes(small)])
    )
    raw = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "m.pth"
    path.write_bytes(raw)
    try:
        got = read_file(path)
    except InputError:
        return
    assert sum(array.nbytes for array in got.values()) <= 2 * len(raw)
