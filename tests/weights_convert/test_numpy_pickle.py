"""Pickles of arrays: as NumPy reads them, and nothing else."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from jaxgen.core.errors import InputError
from weights_convert.numpy_pickle import read_numpy_pickle
from weights_convert.restricted_pickle import Forbidden

WEIGHTS = Path(
    os.environ.get("JAXGEN_TEST_WEIGHTS", Path(__file__).parents[3] / "shared" / "weights")
)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_agrees_with_pickle(tmp_path, protocol):
    rng = np.random.default_rng(0)
    tree = {
        "params": {"a": rng.normal(size=(2, 3)).astype("f4"), "b": [rng.normal(size=4)]},
        "fortran": np.asfortranarray(rng.normal(size=(3, 2))),
        "big": np.arange(3, dtype=">i4"),
        "flag": True,
        "name": "x",
        "empty": np.zeros((0, 3)),
    }
    (tmp_path / "t.pkl").write_bytes(pickle.dumps(tree, protocol=protocol))
    got = read_numpy_pickle(tmp_path / "t.pkl")
    assert set(got) == {"params/a", "params/b/0", "fortran", "big", "empty"}
    np.testing.assert_array_equal(got["params/a"], tree["params"]["a"])
    np.testing.assert_array_equal(got["params/b/0"], tree["params"]["b"][0])
    np.testing.assert_array_equal(got["fortran"], tree["fortran"])
    np.testing.assert_array_equal(got["big"], tree["big"])
    assert got["empty"].shape == (0, 3)


class Run:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_nothing_is_run(tmp_path):
    witness = tmp_path / "witness"
    tree = {"a": np.ones(3), "b": Run(witness)}
    (tmp_path / "t.pkl").write_bytes(pickle.dumps(tree))
    with pytest.raises(Forbidden, match="system"):
        read_numpy_pickle(tmp_path / "t.pkl")
    assert not witness.exists()


def test_objects_lies_and_cycles(tmp_path):
    path = tmp_path / "t.pkl"
    path.write_bytes(pickle.dumps(np.array([{}], object)))
    with pytest.raises(InputError, match="not plain"):
        read_numpy_pickle(path)
    good = pickle.dumps(np.ones(3, "f4"))
    path.write_bytes(good.replace(b"K\x03\x85", b"K\xff\x85"))
    with pytest.raises(InputError, match="in 12 bytes"):
        read_numpy_pickle(path)
    cycle = []
    cycle.append(cycle)
    path.write_bytes(pickle.dumps(cycle))
    with pytest.raises(InputError, match="too deeply"):
        read_numpy_pickle(path)
    shared = [np.ones(1)]
    for _ in range(30):
        shared = [shared, shared]  # 2^30 paths to one array
    path.write_bytes(pickle.dumps(shared))
    with pytest.raises(InputError, match="too much"):
        read_numpy_pickle(path)
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(InputError, match=r"t\.pkl"):
            read_numpy_pickle(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(InputError, match="no arrays"):
        read_numpy_pickle(path)


@pytest.mark.skipif(not WEIGHTS.is_dir(), reason=f"no weights in {WEIGHTS}")
def test_real_files():
    lpips = read_numpy_pickle(WEIGHTS / "lpips_alexnet/alexnet.ckpt")
    assert any(array.shape == (11, 11, 3, 64) for array in lpips.values())
    oracle = read_numpy_pickle(WEIGHTS / "seqgan_oracle/target_params_py3.pkl")
    assert len(oracle) == 15
    assert oracle["0"].shape == (5000, 32)


# What Python 2 wrote: pickle protocol 0 with strings for bytes, as the authors of co-generation
# published their toy weights. Python 3 cannot write it, so the streams are put together here.


def python2(array):
    """An array as Python 2's pickle writes it with protocol 0."""
    raw = repr(array.tobytes())[1:]  # without the b
    shape = "".join(f"I{n}\n" for n in array.shape)
    kind, order = array.dtype.str[1:], array.dtype.str[0]
    return (
        "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        f"(I1\n({shape}tcnumpy\ndtype\n(S'{kind}'\nI0\nI1\ntR(I3\nS'{order}'\nNNNI-1\nI-1\nI0\ntb"
        f"I00\nS{raw}\ntb"
    )


def test_pickles_of_python_2_with_bytes_that_are_no_text(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "W1": rng.normal(size=(7, 5)), "b": rng.normal(size=3).astype("f4"),
        "quotes": np.frombuffer(b"'\"\\\n\t\x00\xff\xc3\xa9", "u1"),
    }  # fmt: skip
    body = "".join(f"S'{name}'\n{python2(array)}s" for name, array in arrays.items())
    path = tmp_path / "toy.pkl"
    path.write_bytes(f"(d{body}V\u00e9\\u20ac\nI1\ns.".encode("latin-1"))
    found = read_numpy_pickle(path)
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    wanted = pickle.loads(path.read_bytes(), encoding="latin1")  # our own file, made above
    np.testing.assert_array_equal(wanted["W1"], arrays["W1"])
    assert set(wanted) == {*arrays, "\u00e9\u20ac"}


def test_binary_strings_of_python_2_keep_their_bytes(tmp_path):
    """Bytes that happen to be UTF-8 are not decoded on the way to an array."""
    array = np.frombuffer("\u00e9\u20ac\u00e9".encode(), "u1")
    raw = array.tobytes()
    stream = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        b"(K\x01K" + bytes([len(raw)]) + b"\x85cnumpy\ndtype\n(U\x02u1K\x00K\x01tR"
        b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U"
        + bytes([len(raw)]) + raw + b"tb."
    )  # fmt: skip
    (tmp_path / "a.pkl").write_bytes(stream)
    np.testing.assert_array_equal(read_numpy_pickle(tmp_path / "a.pkl")["array"], array)


@pytest.mark.parametrize(
    "line", ["S'a\\'\n", "S'abc\n", "Sabc\n", "S'\\x4'\n", "S\n", "V\\uzzzz\n"]
)
def test_quoted_strings_that_are_none(tmp_path, line):
    (tmp_path / "a.pkl").write_bytes(f"({line}.".encode())
    with pytest.raises(InputError, match="none"):
        read_numpy_pickle(tmp_path / "a.pkl")


def test_scalars_of_numpy_are_arrays_without_axes(tmp_path):
    for protocol in (2, 4):
        (tmp_path / "a.pkl").write_bytes(pickle.dumps({"s": np.float32(2.5)}, protocol=protocol))
        found = read_numpy_pickle(tmp_path / "a.pkl")["s"]
        assert (found.shape, float(found)) == ((), 2.5)
