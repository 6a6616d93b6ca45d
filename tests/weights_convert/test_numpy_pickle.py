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


@pytest.mark.parametrize("protocol", [2, 3, 4])
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
    if protocol == 2:  # protocol 2 writes bytes as a call of _codecs.encode
        with pytest.raises(Forbidden, match=r"_codecs\.encode"):
            read_numpy_pickle(tmp_path / "t.pkl")
        return
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
