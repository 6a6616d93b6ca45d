"""Networks from Caffe in their file: whole, or refused with one line."""

import json

import numpy as np
import pytest
from caffe_files import net_text, write_net
from caffe_small import CONV, RELU, X, image, one_line

from jaxgen.core.errors import InputError
from jaxgen.models.weights import load_weights, save_weights
from weights_convert import caffe, parity


@pytest.fixture
def saved(tmp_path):
    converted = caffe.convert(*write_net(tmp_path, net_text(X, CONV, RELU)))
    caffe.save_converted(tmp_path / "net.safetensors", converted)
    return tmp_path / "net.safetensors", converted


def test_the_file_is_enough(saved, tmp_path):
    path, converted = saved
    (tmp_path / "net.prototxt").unlink()
    network = caffe.load_converted(path)
    np.testing.assert_array_equal(network(image()), converted.network(image()))
    _, metadata = load_weights(path)
    assert metadata["source"]["caffemodel"]["name"] == "net.caffemodel"
    assert len(metadata["source"]["prototxt"]["sha256"]) == 64
    assert caffe.load_converted(path, outputs=["x"])(image()).shape == (6, 6, 3)


DAMAGE = {
    "no description": (lambda d: None, "description"),
    "format": (lambda d: d | {"format": "x"}, "format 'caffe-graph-1'"),
    "unknown type": (
        lambda d: d | {"layers": [d["layers"][0] | {"type": "exec"}]},
        "unknown type",
    ),
    "bottom": (
        lambda d: d | {"layers": [d["layers"][0] | {"bottoms": ["y"]}]},
        "a blob that an input or an earlier layer makes",
    ),
    "config": (
        lambda d: d | {"layers": [d["layers"][0] | {"config": {"evil": 1}}, d["layers"][1]]},
        "bad configuration",
    ),
    "config type": (
        lambda d: (
            d | {"layers": [d["layers"][0] | {"config": {"kernel_size": "ab"}}, d["layers"][1]]}
        ),
        "bad configuration|expected",
    ),
    "huge input": (
        lambda d: d | {"inputs": [{"name": "x", "shape": [1, 3, 1 << 40, 1]}]},
        "up to four positive lengths",
    ),
    "huge parameters": (
        lambda d: d | {"layers": [d["layers"][0] | {"parameters": {"kernel": [1 << 40]}}]},
        "shapes by name",
    ),
    "other parameters": (
        lambda d: (
            d
            | {
                "layers": [
                    d["layers"][0] | {"parameters": {"kernel": [3, 3, 3, 4]}},
                    d["layers"][1],
                ]
            }
        ),
        "left over conv.bias",
    ),
    "output": (lambda d: d | {"outputs": ["nope"]}, "blobs that some layer makes"),
    "outputs": (lambda d: d | {"outputs": []}, "names of blobs"),
    "layers": (lambda d: d | {"layers": {}}, "a list"),
    "layer": (lambda d: d | {"layers": [3]}, "an object"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_descriptions_get_one_line(saved, case):
    path, converted = saved
    change, pattern = DAMAGE[case]
    arrays, metadata = load_weights(path)
    description = change(json.loads(json.dumps(converted.description)))
    architecture = {"name": "graph.Graph", "config": {"description": description}}
    save_weights(path, arrays, metadata | {"architecture": architecture})
    with pytest.raises(InputError, match=pattern) as caught:
        caffe.load_converted(path)
    assert one_line(caught).startswith(str(path))


def test_other_architectures_are_refused(tmp_path):
    save_weights(tmp_path / "x.safetensors", {"a": np.zeros(2)}, {"architecture": {"name": "vae"}})
    with pytest.raises(InputError, match=r"jaxgen\.load"):
        caffe.load_converted(tmp_path / "x.safetensors")


def test_inputs_of_the_wrong_shape_are_refused(saved):
    network = caffe.load_converted(saved[0])
    with pytest.raises(InputError, match=r"x: expected a sample"):
        network(np.zeros((6, 6), np.float32))
    with pytest.raises(InputError, match=r"inputs: expected 1 \(x\); got 2"):
        network(image(), image())


def test_random_inputs_fit_the_graph(saved):
    graph = saved[1].graph
    (x,) = parity.random_inputs(graph)
    assert x.shape == (6, 6, 3)
    assert saved[1].network(x).shape == (4, 4, 4)
