"""A classifier that ends in a softmax is converted to its logits, and says so."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest
from caffe_files import net_text, write_net

import jaxgen
from jaxgen.models.weights import read_metadata
from weights_convert import caffe
from weights_convert.cli import main
from weights_convert.softmax import cut_from_layers

DEFAULT = Path(__file__).parents[3] / "shared" / "weights"
WEIGHTS = Path(os.environ.get("JAXGEN_TEST_WEIGHTS", DEFAULT))

IP = 'name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 3 }'
ENDINGS = {
    "own blob": 'name: "p" type: "Softmax" bottom: "ip" top: "prob"',
    "in place": 'name: "p" type: "Softmax" bottom: "ip" top: "ip"',
}


@pytest.mark.parametrize("batch", [1, 64])
@pytest.mark.parametrize("ending", ENDINGS)
def test_the_logits_come_out_whatever_the_declared_batch(tmp_path, ending, batch):
    files = write_net(tmp_path, net_text({"x": (batch, 5)}, IP, ENDINGS[ending]))
    logits, kept = caffe.convert(*files), caffe.convert(*files, keep_softmax=True)
    assert "softmax (p) was cut" in logits.metadata["output"]
    assert "output" not in kept.metadata
    x = np.linspace(-1, 1, 5, dtype=np.float32)
    plain = caffe.convert(*files, outputs=["ip"]) if ending == "own blob" else logits
    np.testing.assert_array_equal(logits.network(x), plain.network(x))
    np.testing.assert_allclose(jax.nn.softmax(logits.network(x)), kept.network(x), atol=1e-6)
    assert abs(float(logits.network(x).sum()) - 1) > 1e-3


def test_what_is_asked_for_by_name_is_given(tmp_path):
    files = write_net(tmp_path, net_text({"x": (1, 5)}, IP, ENDINGS["own blob"]))
    probabilities = caffe.convert(*files, outputs=["prob"]).network(np.ones(5, np.float32))
    assert float(probabilities.sum()) == pytest.approx(1, abs=1e-6)


def test_a_softmax_over_channels_of_an_image_or_steps_of_a_sequence_stays(tmp_path):
    for shape in ((1, 3, 4, 4), (4, 1, 3)):
        axis = 1 if len(shape) == 4 else 2
        text = net_text(
            {"x": shape},
            'name: "r" type: "ReLU" bottom: "x" top: "h"',
            f'name: "p" type: "Softmax" bottom: "h" top: "prob" softmax_param {{ axis: {axis} }}',
        )
        converted = caffe.convert(
            *write_net(tmp_path, text, {"unused": [np.ones(1)]}), ignore=["unused"]
        )
        assert converted.description["outputs"] == ["prob"], shape


def test_lenet_by_the_command_line_gives_the_right_class_conditions(tmp_path, capsys):
    folder = WEIGHTS / "caffe_lenet_mnist"
    if not folder.is_dir():
        pytest.skip(f"no weights in {WEIGHTS}; set JAXGEN_TEST_WEIGHTS")
    files = [str(folder / "lenet.prototxt"), str(folder / "lenet_iter_10000.caffemodel")]
    outs = [str(tmp_path / name) for name in ("logits.safetensors", "prob.safetensors")]
    assert main(["caffe", *files, "--preset", "lenet", "--out", outs[0]]) == 0
    assert "softmax (prob) was cut; --keep-softmax keeps it" in capsys.readouterr().out
    assert main(["caffe", *files, "--preset", "lenet", "--keep-softmax", "--out", outs[1]]) == 0
    assert read_metadata(outs[0])["output"] == "logits; the source's last softmax (prob) was cut"
    logits, probabilities = jaxgen.load(outs[0]), jaxgen.load(outs[1])
    images = np.random.default_rng(0).random((4, 28, 28, 1), np.float32)
    wanted = np.log(np.asarray(probabilities(images), np.float64))
    for image, row in zip(images, wanted, strict=True):
        for label in (0, 7):
            found = float(jaxgen.ClassLogSoftmax(logits, label)(image))
            assert found == pytest.approx(row[label], rel=1e-4, abs=1e-4)
            p = float(jaxgen.ClassProbability(logits, label)(image))
            assert p == pytest.approx(np.exp(row[label]), abs=1e-5)


def test_lists_of_layers_lose_only_a_last_softmax_over_a_vector():
    layers = [{"type": "linear", "name": "0"}, {"type": "softmax", "name": "1"}]
    idle = {"type": "dropout", "name": "2"}
    assert cut_from_layers(layers, (3,)) == (layers[:1], ("1",))
    assert cut_from_layers([*layers, idle], (3,)) == ([layers[0], idle], ("1",))
    assert cut_from_layers(layers, (2, 2, 3)) == (layers, ())
    assert cut_from_layers([*layers, layers[0]], (3,))[1] == ()
