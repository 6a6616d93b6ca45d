"""The idx reader, Fashion-MNIST's errors, and the ring of Gaussians."""

import gzip

import jax
import numpy as np
import pytest

from jaxgen import data
from jaxgen.core.errors import InputError


def idx(array: np.ndarray) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 6), ("t10k", 3)):
        images = rng.integers(0, 256, (count, 28, 28))
        labels = rng.integers(0, 10, count)
        (tmp_path / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return tmp_path


def test_reads_both_splits_and_the_environment_variable(folder, monkeypatch):
    assert data.fashion_mnist("train", str(folder)).images.shape == (6, 28, 28, 1)
    monkeypatch.setenv("JAXGEN_FASHION_MNIST", str(folder))
    images, labels = data.fashion_mnist("test")
    assert images.dtype == np.uint8
    assert images.shape == (3, 28, 28, 1)
    assert labels.shape == (3,)
    assert data.fashion_mnist_available()
    unit = data.to_unit(images)
    np.testing.assert_allclose(unit, images / 255.0, rtol=1e-6)


def test_idx_values_come_back(tmp_path):
    array = np.arange(24).reshape(2, 3, 4)
    path = tmp_path / "plain"
    path.write_bytes(idx(array))
    np.testing.assert_array_equal(data.read_idx(path), array)


def test_absent_files_say_how_to_get_them(tmp_path):
    with pytest.raises(InputError, match="apt-get install dataset-fashion-mnist") as caught:
        data.fashion_mnist("train", str(tmp_path))
    assert "JAXGEN_FASHION_MNIST" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not data.fashion_mnist_available(str(tmp_path))


def test_unknown_split():
    with pytest.raises(InputError, match="split"):
        data.fashion_mnist("validation")  # type: ignore[arg-type]


GOOD = idx(np.zeros((2, 3), np.uint8))


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "idx file"),
        (b"PK\x03\x04 a zip file", "idx file"),
        (GOOD[:6], "sizes"),
        (GOOD[:-1], "fewer"),
        (GOOD + b"x", "more"),
        (b"\0\0\x08\x02" + b"\xff" * 8, "at most"),
        (b"\0\0\x0d\x01" + b"\0\0\0\x01" + b"\0" * 4, "idx file"),
    ],
    ids=["empty", "zip", "no sizes", "truncated", "left over", "huge", "floats"],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_damaged_idx_files(tmp_path, content, word, zipped):
    path = tmp_path / ("x.gz" if zipped else "x")
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(InputError, match=word) as caught:
        data.read_idx(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_damaged_gzip(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(idx(np.arange(250)))[:-20])
    with pytest.raises(InputError, match=r"x\.gz"):
        data.read_idx(path)
    path.write_bytes(b"not gzip at all")
    with pytest.raises(InputError, match=r"x\.gz"):
        data.read_idx(path)


def test_a_gzip_bomb_is_not_unpacked(tmp_path, monkeypatch):
    # 64 MB of zeros behind a header that promises 4 bytes: at most 5 may be read.
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x04" + bytes(1 << 26), 1))
    asked = []
    read = gzip.GzipFile.read

    def watched(self, size=-1):
        asked.append(size)
        return read(self, size)

    monkeypatch.setattr(gzip.GzipFile, "read", watched)
    with pytest.raises(InputError, match="more"):
        data.read_idx(path)
    assert min(asked) >= 0
    assert max(asked) <= 5


def test_wrong_shapes_and_labels(folder):
    labels = folder / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(gzip.compress(idx(np.full(6, 10))))
    with pytest.raises(InputError, match="labels 0 to 9"):
        data.fashion_mnist("train", str(folder))
    labels.write_bytes(gzip.compress(idx(np.zeros(5))))
    with pytest.raises(InputError, match=r"images \[N, 28, 28\]"):
        data.fashion_mnist("train", str(folder))


def test_toy_ring_has_the_stated_modes_and_covariance():
    points = np.asarray(data.toy_ring(jax.random.key(0), 20_000), np.float64)
    modes = np.stack([[np.cos(2 * np.pi * k / 5), np.sin(2 * np.pi * k / 5)] for k in range(5)])
    np.testing.assert_allclose(data.ring_modes(), modes, atol=1e-6)
    nearest = np.argmin(((points[:, None] - modes) ** 2).sum(-1), axis=1)
    counts = np.bincount(nearest, minlength=5)
    # Binomial(20000, 1/5): standard deviation 57.
    assert np.all(np.abs(counts - 4000) < 5 * 57)
    for k in range(5):
        covariance = np.cov(points[nearest == k].T)
        # Standard error of a variance over 4000 draws: 0.002 * sqrt(2 / 4000) = 4.5e-5.
        np.testing.assert_allclose(covariance, 0.002 * np.eye(2), atol=5 * 4.5e-5)


def test_examples_come_with_the_package():
    import jaxgen

    found = jaxgen.examples()
    assert found.images.shape == (50, 28, 28, 1)
    assert found.images.dtype == np.uint8
    np.testing.assert_array_equal(found.labels, np.repeat(np.arange(10), 5))
