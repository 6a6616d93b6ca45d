"""The parity report must fail when a network is wrong, and only then."""

import io

import numpy as np
import pytest
from caffe_files import net_text, opencv, write_net

from jaxgen.core.errors import InputError
from weights_convert import caffe, parity

TEXT = net_text(
    {"x": (1, 3, 9, 9)},
    'name: "conv" type: "Convolution" bottom: "x" top: "h" '
    "convolution_param { num_output: 4 kernel_size: 3 }",
    'name: "relu" type: "ReLU" bottom: "h" top: "h"',
    'name: "norm" type: "LRN" bottom: "h" top: "n" lrn_param { local_size: 3 alpha: 2 }',
    'name: "pool" type: "Pooling" bottom: "n" top: "p" pooling_param { kernel_size: 3 stride: 3 }',
    'name: "ip" type: "InnerProduct" bottom: "p" top: "ip" inner_product_param { num_output: 3 }',
    'name: "prob" type: "Softmax" bottom: "ip" top: "prob"',
)


def judged(files, converted, change=None):
    description, arrays = converted.description, dict(converted.arrays)
    if change:
        description = change(description, arrays) or description
    graph = converted._replace(description=description, arrays=arrays).graph
    inputs = parity.random_inputs(graph, seed=1)
    blobs = {n: parity.to_blob(x) for n, x in zip(graph.input_names, inputs, strict=True)}
    judge = parity.opencv_activations(*files, blobs)
    return {
        r.layer: r for r in parity.compare(graph, parity.graph_activations(graph, inputs), judge)
    }


def altered(layer, **changes):
    def change(description, arrays):
        layers = [
            entry | {"config": entry["config"] | changes} if entry["name"] == layer else entry
            for entry in description["layers"]
        ]
        return description | {"layers": layers}

    return change


def flipped(description, arrays):
    arrays["conv.kernel"] = arrays["conv.kernel"][::-1]


def chw_rows(description, arrays):
    kernel = arrays["ip.kernel"].reshape(3, 3, 4, 3)
    arrays["ip.kernel"] = kernel.transpose(2, 0, 1, 3).reshape(36, 3)


BREAKS = {
    "kernel turned": (flipped, "conv"),
    "matrix rows in Caffe's order": (chw_rows, "ip"),
    "alpha not divided": (altered("norm", alpha=6.0), "norm"),
    "floor instead of ceil": (altered("pool", ceil=False), "pool"),
    "average for maximum": (altered("pool", method="AVE"), "pool"),
    "slope": (altered("relu", slope=0.1), "relu"),
}


@pytest.fixture
def net(tmp_path):
    opencv()
    text = TEXT.replace("dim: 9 dim: 9", "dim: 10 dim: 10")
    files = write_net(tmp_path, text)
    return files, caffe.convert(*files, keep_softmax=True)


def test_a_right_conversion_passes(net):
    rows = judged(*net)
    assert list(rows) == ["conv", "relu", "norm", "pool", "ip", "prob"]
    assert all(row.passed and row.error is not None for row in rows.values())


@pytest.mark.parametrize("case", [c for c in BREAKS if c != "floor instead of ceil"])
def test_each_mistake_fails_where_it_is(net, case):
    change, layer = BREAKS[case]
    rows = judged(*net, change)
    names = list(rows)
    for name in names[: names.index(layer)]:
        assert rows[name].passed, name
    assert not rows[layer].passed
    assert "FAILED" in _printed(rows.values())


def test_a_wrong_output_size_fails(tmp_path):
    opencv()
    # Without the matrix behind it, whose size would not fit at all.
    text = "".join(TEXT.splitlines(True)[:6]).replace("dim: 9 dim: 9", "dim: 10 dim: 10")
    files = write_net(tmp_path, text)
    rows = judged(files, caffe.convert(*files), BREAKS["floor instead of ceil"][0])
    assert not rows["pool"].passed
    assert "(1, 4, 3, 3)" in rows["pool"].note
    assert rows["norm"].passed


def _printed(rows):
    from rich.console import Console

    stream = io.StringIO()
    Console(width=120, file=stream).print(parity.parity_table(list(rows)))
    return stream.getvalue()


def test_names_from_files_cannot_style_the_terminal():
    row = parity.LayerParity("[red]x[/red]\x1b[31m", "ReLU", (1,), 0.0, True)
    text = _printed([row])
    assert "[red]x[/red]" in text
    assert "\x1b" not in text


def test_relative_error():
    ours, judge = np.float32([1, 2.5]), np.float32([1, 2])
    assert parity.relative_error(ours, judge) == 0.25
    assert parity.relative_error(judge, judge) == 0
    assert parity.relative_error(ours, np.zeros(2, np.float32)) == np.inf
    assert parity.relative_error(np.float32([np.nan, 1]), judge) == np.inf
    assert parity.relative_error(np.zeros(0), np.zeros(0)) == 0


def test_stored_activations_are_plain_arrays(tmp_path):
    np.savez(tmp_path / "a.npz", conv=np.zeros((1, 2, 3, 3)))
    assert parity.stored_activations(tmp_path / "a.npz")["conv"][0].shape == (1, 2, 3, 3)
    np.savez(tmp_path / "b.npz", conv=np.array([{}], dtype=object))
    (tmp_path / "c.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:60])
    (tmp_path / "d.npz").write_bytes(b"PK\x03\x04 and nothing more")
    for name in ("b", "c", "d", "none"):
        with pytest.raises(InputError, match=r"plain arrays|npz|object") as caught:
            parity.stored_activations(tmp_path / f"{name}.npz")
        assert "\n" not in str(caught.value)


def test_a_net_that_opencv_cannot_read_is_said_so(tmp_path):
    opencv()
    text = net_text({"x": (1, 4)}, 'name: "l" type: "Threshold" bottom: "x" top: "y"')
    files = write_net(tmp_path, text)
    with pytest.raises(InputError, match="OpenCV cannot judge it") as caught:
        parity.opencv_activations(*files, {"x": np.zeros((1, 4))})
    assert "\n" not in str(caught.value)
