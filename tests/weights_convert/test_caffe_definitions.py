"""Full-size networks with random weights, layer by layer against OpenCV's importer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from caffe_files import opencv, weights

from weights_convert import caffe, parity
from weights_convert.caffe.random_blobs import random_blobs, write_caffemodel
from weights_convert.caffe.wiring import wire_up

BIG = [
    "bvlc_alexnet.deploy.prototxt",
    "bvlc_reference_caffenet.deploy.prototxt",
    "bvlc_googlenet.deploy.prototxt",
    "ppgn_generator.prototxt",
    "ppgn_caffenet.prototxt",
]


def filled(name, folder, seed=0):
    prototxt = weights("caffe_definitions", name)
    path = folder / "random.caffemodel"
    write_caffemodel(path, random_blobs(wire_up(caffe.read_prototxt(prototxt)).plans, seed))
    return prototxt, path


@pytest.mark.slow
@pytest.mark.parametrize("name", BIG)
def test_every_layer_equals_opencv(name, tmp_path):
    opencv()
    files = filled(name, tmp_path)
    graph = caffe.convert(*files).graph
    inputs = parity.random_inputs(graph)
    blobs = {n: parity.to_blob(x) for n, x in zip(graph.input_names, inputs, strict=True)}
    judge = parity.opencv_activations(*files, blobs)
    rows = parity.compare(graph, parity.graph_activations(graph, inputs), judge)
    assert all(row.error is not None for row in rows)
    assert max(row.error for row in rows if row.error is not None) <= 1e-5


@pytest.mark.slow
def test_alexnet_gradient_equals_torch(tmp_path):
    torch = pytest.importorskip("torch", reason="needs torch, the judge of gradients")
    functional = torch.nn.functional
    files = filled(BIG[0], tmp_path)
    model = caffe.Caffemodel(files[1])
    network = caffe.convert(*files, outputs=["fc8"]).network
    x = np.random.default_rng(0).standard_normal((227, 227, 3))
    # In float64: at float32 a rounding error may choose another pixel of a pooling window,
    # which is another, equally right, gradient.
    with jax.enable_x64(True):
        ours = np.asarray(jax.grad(lambda image: network(image)[7])(jnp.asarray(x)))

    w = {key: torch.tensor(np.array(array)).double() for key, array in model.items()}
    image = torch.tensor(x.transpose(2, 0, 1)[None].copy(), requires_grad=True)

    def conv(h, name, **options):
        return functional.relu(functional.conv2d(h, w[f"{name}[0]"], w[f"{name}[1]"], **options))

    def norm(h):
        return functional.local_response_norm(h, 5, 1e-4, 0.75, 1.0)

    h = functional.max_pool2d(norm(conv(image, "conv1", stride=4)), 3, 2)
    h = functional.max_pool2d(norm(conv(h, "conv2", padding=2, groups=2)), 3, 2)
    h = conv(conv(h, "conv3", padding=1), "conv4", padding=1, groups=2)
    h = functional.max_pool2d(conv(h, "conv5", padding=1, groups=2), 3, 2).flatten(1)
    for name in ("fc6", "fc7"):
        h = functional.relu(functional.linear(h, w[f"{name}[0]"], w[f"{name}[1]"]))
    functional.linear(h, w["fc8[0]"], w["fc8[1]"])[0, 7].backward()
    assert image.grad is not None
    judge = image.grad.numpy()[0].transpose(1, 2, 0)
    assert parity.relative_error(ours, judge) <= 1e-10


def test_the_word_predictor_equals_its_layers_in_numpy(tmp_path):
    """LRCN, smaller: OpenCV has no Embed."""
    import caffe_numpy as reference

    text = weights("caffe_definitions", "lrcn_word_to_preds.deploy.prototxt").read_text()
    for large, small in (("8801", "30"), ("1000", "8")):
        text = text.replace(large, small)
    text = text.replace("dim: 1 dim: 20", "dim: 5 dim: 2").replace(
        "dim: 20 dim: 8", "dim: 2 dim: 8"
    )
    prototxt = tmp_path / "lrcn.prototxt"
    prototxt.write_text(text)
    blobs = random_blobs(wire_up(caffe.read_prototxt(prototxt)).plans, 1)
    write_caffemodel(tmp_path / "lrcn.caffemodel", blobs)
    converted = caffe.convert(prototxt, tmp_path / "lrcn.caffemodel")
    rng = np.random.default_rng(0)
    words, image = rng.integers(0, 30, (5, 2)), rng.standard_normal((2, 8)).astype(np.float32)
    marks = np.float32([[0, 0], [1, 1], [1, 1], [1, 1], [1, 1]])
    h = blobs["embedding"][0][words]
    h = reference.lstm(h, marks, blobs["lstm1"])
    h = reference.lstm(h, marks, blobs["lstm2"], image)
    logits = h @ blobs["predict"][0].T + blobs["predict"][1]
    expected = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    inputs = {"cont_sentence": marks, "input_sentence": words}
    for n in range(2):
        samples = [
            image[n] if name == "image_features" else inputs[name][:, n]
            for name in converted.graph.input_names
        ]
        ours = converted.network(*samples)
        np.testing.assert_allclose(ours, expected[:, n], rtol=2e-5, atol=2e-5)
