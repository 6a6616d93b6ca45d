"""Networks that other people trained, converted, against their known accuracy and OpenCV."""

import gzip

import jax
import numpy as np
import pytest
from caffe_files import opencv, weights
from PIL import Image

from weights_convert import caffe


def predict(network, images, batch=500):
    run = jax.jit(jax.vmap(network))
    starts = range(0, len(images), batch)
    return np.concatenate([np.asarray(run(images[i : i + batch])) for i in starts])


def opencv_predict(prototxt, caffemodel, blob):
    net = opencv().dnn.readNetFromCaffe(str(prototxt), str(caffemodel))
    net.setInput(np.ascontiguousarray(blob, np.float32))
    return np.array(net.forward()).reshape(len(blob), -1)


@pytest.fixture(scope="module")
def mnist():
    def read(name, offset):
        path = weights("images", name)
        return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=offset)

    images = read("mnist_t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28, 1)
    return images, read("mnist_t10k-labels-idx1-ubyte.gz", 8)


def test_lenet_has_its_mnist_accuracy_after_a_round_trip_through_a_file(mnist, tmp_path):
    images, labels = mnist
    converted = caffe.convert(
        weights("caffe_lenet_mnist", "lenet.prototxt"),
        weights("caffe_lenet_mnist", "lenet_iter_10000.caffemodel"),
        preprocessing=caffe.PRESETS["lenet"],
    )
    caffe.save_converted(tmp_path / "lenet.safetensors", converted)
    network = caffe.load_converted(tmp_path / "lenet.safetensors")
    found = predict(network, images / np.float32(255), 1000)
    assert np.mean(found.argmax(1) == labels) == 0.9914


def test_cifar10_quick_predicts_what_opencv_predicts():
    prototxt = weights("caffe_cifar10_quick", "cifar10_quick.prototxt")
    caffemodel = weights("caffe_cifar10_quick", "cifar10_quick_iter_5000.caffemodel")
    mean = caffe.read_binaryproto(weights("caffe_cifar10_quick", "mean.binaryproto"))
    with np.load(weights("images", "cifar10_test_first2000.npz")) as file:
        images, labels = file["x"], file["y"]
    network = caffe.convert(
        prototxt, caffemodel, preprocessing=caffe.Preprocessing("rgb", mean), keep_softmax=True
    ).network
    found = predict(network, images / np.float32(255))
    judge = opencv_predict(prototxt, caffemodel, images.transpose(0, 3, 1, 2) - mean[None])
    np.testing.assert_array_equal(found.argmax(1), judge.argmax(1))
    np.testing.assert_allclose(found, judge, atol=1e-5)
    assert np.mean(found.argmax(1) == labels) == 0.745


def test_squeezenet_ranks_classes_as_opencv_does():
    prototxt = weights("caffe_squeezenet_imagenet", "deploy.prototxt")
    caffemodel = weights("caffe_squeezenet_imagenet", "squeezenet_v1.0.caffemodel")
    files = sorted(weights("images", "imagenet").glob("*.JPEG"))
    images = np.stack([
        np.asarray(Image.open(f).convert("RGB").resize((256, 256)), np.float32)[14:241, 14:241]
        for f in files
    ])  # fmt: skip
    labels = np.array([int(f.name[:3]) for f in files])
    network = caffe.convert(prototxt, caffemodel, preprocessing=caffe.PRESETS["imagenet"]).network
    found = predict(network, images / np.float32(255), 1)
    blob = (images[..., ::-1] - np.float32([104, 117, 123])).transpose(0, 3, 1, 2)
    judge = opencv_predict(prototxt, caffemodel, blob)
    top = np.argsort(-found, axis=1)[:, :5]
    np.testing.assert_array_equal(top, np.argsort(-judge, axis=1)[:, :5])
    assert np.sum(top == labels[:, None]) >= 19


def test_half_precision_written_by_opencv_is_read(tmp_path):
    cv2 = opencv()
    caffemodel = weights("caffe_lenet_mnist", "lenet_iter_10000.caffemodel")
    half = tmp_path / "half.caffemodel"
    cv2.dnn.shrinkCaffeModel(str(caffemodel), str(half))
    assert half.stat().st_size < 0.6 * caffemodel.stat().st_size
    whole, shrunk = caffe.Caffemodel(caffemodel), caffe.Caffemodel(half)
    assert list(whole) == list(shrunk)
    for key, array in whole.items():
        np.testing.assert_array_equal(shrunk[key], array.astype(np.float16).astype(np.float32))
