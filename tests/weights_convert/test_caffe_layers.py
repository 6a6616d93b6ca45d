"""Every Caffe layer type against OpenCV's importer, or a NumPy transcription of Caffe."""

import caffe_numpy as reference
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from caffe_files import encode, net_text, opencv, write_net

from weights_convert import caffe, parity
from weights_convert.caffe.random_blobs import random_blobs
from weights_convert.caffe.wiring import wire_up

IMAGE = {"x": (1, 4, 7, 9)}
PAIR = {"x": (1, 4, 3, 5), "y": (1, 4, 3, 5)}

# name -> (inputs, type, parameters); judged by OpenCV.
OPENCV = {
    "conv": (IMAGE, "Convolution", "convolution_param { num_output: 6 kernel_size: 3 }"),
    "conv each axis": (
        IMAGE,
        "Convolution",
        "convolution_param { num_output: 6 kernel_h: 3 kernel_w: 2 stride_h: 2 stride_w: 1 "
        "pad_h: 0 pad_w: 2 }",
    ),
    "conv groups dilated": (
        IMAGE,
        "Convolution",
        "convolution_param { num_output: 6 kernel_size: 3 group: 2 dilation: 2 pad: 2 "
        "bias_term: false }",
    ),
    "deconv": (
        IMAGE,
        "Deconvolution",
        "convolution_param { num_output: 6 kernel_size: 4 stride: 2 pad: 1 }",
    ),
    "deconv upsample": (
        IMAGE,
        "Deconvolution",
        "convolution_param { num_output: 4 kernel_size: 4 stride: 2 pad: 1 group: 4 "
        "bias_term: false }",
    ),
    "deconv groups": (
        IMAGE,
        "Deconvolution",
        "convolution_param { num_output: 6 kernel_size: 3 stride: 3 group: 2 }",
    ),
    "dense of image": (IMAGE, "InnerProduct", "inner_product_param { num_output: 5 }"),
    "dense of axis 2": (IMAGE, "InnerProduct", "inner_product_param { num_output: 5 axis: 2 }"),
    "dense of axis -1": (IMAGE, "InnerProduct", "inner_product_param { num_output: 5 axis: -1 }"),
    "max": (IMAGE, "Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }"),
    "max padded": (IMAGE, "Pooling", "pooling_param { kernel_size: 3 stride: 2 pad: 1 }"),
    "average": (IMAGE, "Pooling", "pooling_param { pool: AVE kernel_size: 3 stride: 2 }"),
    "average padded": (
        IMAGE,
        "Pooling",
        "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }",
    ),
    "average oblong": (
        IMAGE,
        "Pooling",
        "pooling_param { pool: AVE kernel_h: 2 kernel_w: 4 stride_h: 2 stride_w: 3 pad_h: 1 "
        "pad_w: 0 }",
    ),
    "max floor": (IMAGE, "Pooling", "pooling_param { kernel_size: 2 stride: 2 ceil_mode: false }"),
    "global average": (IMAGE, "Pooling", "pooling_param { pool: AVE global_pooling: true }"),
    "global max": (IMAGE, "Pooling", "pooling_param { pool: MAX global_pooling: true }"),
    "lrn across": (IMAGE, "LRN", "lrn_param { local_size: 3 alpha: 0.5 beta: 0.6 }"),
    "lrn within": (
        IMAGE,
        "LRN",
        "lrn_param { local_size: 3 alpha: 0.5 beta: 0.75 norm_region: WITHIN_CHANNEL }",
    ),
    "relu": (IMAGE, "ReLU", ""),
    "leaky relu": (IMAGE, "ReLU", "relu_param { negative_slope: 0.2 }"),
    "prelu": (IMAGE, "PReLU", ""),
    "elu": (IMAGE, "ELU", "elu_param { alpha: 0.7 }"),
    "sigmoid": (IMAGE, "Sigmoid", ""),
    "tanh": (IMAGE, "TanH", ""),
    "absval": (IMAGE, "AbsVal", ""),
    "bnll": (IMAGE, "BNLL", ""),
    "power": (IMAGE, "Power", "power_param { power: 2 scale: 0.5 shift: 3 }"),
    "exp": (IMAGE, "Exp", "exp_param { base: 2 scale: 0.5 shift: 0.3 }"),
    "softmax": (IMAGE, "Softmax", ""),
    "softmax last": (IMAGE, "Softmax", "softmax_param { axis: -1 }"),
    "batch norm": (IMAGE, "BatchNorm", "batch_norm_param { eps: 0.01 }"),
    "scale": (IMAGE, "Scale", "scale_param { bias_term: true }"),
    "scale of two axes": (IMAGE, "Scale", "scale_param { axis: 2 num_axes: 2 }"),
    "scale by blob": ({"x": (1, 4, 3, 5), "y": (1, 4)}, "Scale", "scale_param { axis: 0 }"),
    "flatten": (IMAGE, "Flatten", ""),
    "flatten from 2": (IMAGE, "Flatten", "flatten_param { axis: 2 }"),
    "reshape": (
        IMAGE,
        "Reshape",
        "reshape_param { shape { dim: 0 dim: 2 dim: -1 dim: 9 } }",
    ),
    "reshape an axis": (IMAGE, "Reshape", "reshape_param { shape { dim: -1 } axis: 1 }"),
    "permute": (IMAGE, "Permute", "permute_param { order: 0 order: 2 order: 3 order: 1 }"),
    "normalize": (
        IMAGE,
        "Normalize",
        "norm_param { across_spatial: false channel_shared: false }",
    ),
    "mvn": (IMAGE, "MVN", ""),
    "mvn across": (IMAGE, "MVN", "mvn_param { across_channels: true }"),
    "interp": (IMAGE, "Interp", "interp_param { height: 13 width: 5 }"),
    "interp zoom": (IMAGE, "Interp", "interp_param { zoom_factor: 3 }"),
    "dropout": (IMAGE, "Dropout", "dropout_param { dropout_ratio: 0.4 }"),
    "sum": (PAIR, "Eltwise", "eltwise_param { operation: SUM coeff: 2 coeff: -1 }"),
    "product": (PAIR, "Eltwise", "eltwise_param { operation: PROD }"),
    "maximum": (PAIR, "Eltwise", "eltwise_param { operation: MAX }"),
    "concat": ({"x": (1, 4, 3, 5), "y": (1, 2, 3, 5)}, "Concat", ""),
    "concat rows": (
        {"x": (1, 4, 3, 5), "y": (1, 4, 2, 5)},
        "Concat",
        "concat_param { axis: 2 }",
    ),
    "crop": (
        {"x": (1, 4, 8, 9), "y": (1, 4, 3, 5)},
        "Crop",
        "crop_param { axis: 2 offset: 1 offset: 2 }",
    ),
    "slice": (IMAGE, "Slice", 'top: "b" slice_param { slice_point: 1 }'),
    "split": (IMAGE, "Split", 'top: "b"'),
}

# name -> (inputs, type, parameters, function of (blobs, inputs)), where OpenCV lacks the
# layer, ignores a parameter or crashes.
NUMPY = {
    "dense transposed": (
        IMAGE,
        "InnerProduct",
        "inner_product_param { num_output: 5 transpose: true }",
        lambda w, x: x.reshape(1, -1) @ w[0] + w[1],
    ),
    "deconv cropping": (
        IMAGE,
        "Deconvolution",
        "convolution_param { num_output: 3 kernel_size: 1 pad: 2 }",
        lambda w, x: reference.deconvolution(x, w[0], w[1], (1, 1), (2, 2)),
    ),
    "deconv loop": (
        IMAGE,
        "Deconvolution",
        "convolution_param { num_output: 6 kernel_h: 2 kernel_w: 3 stride_h: 1 stride_w: 2 "
        "pad_h: 0 pad_w: 1 group: 2 }",
        lambda w, x: reference.deconvolution(x, w[0], w[1], (1, 2), (0, 1), groups=2),
    ),
    "max empty window": (
        {"x": (1, 2, 4, 4)},
        "Pooling",
        "pooling_param { kernel_size: 1 stride: 2 }",
        lambda w, x: reference.pooling(x, "MAX", 1, 2, 0),
    ),
    "max loop": (
        IMAGE,
        "Pooling",
        "pooling_param { kernel_size: 3 stride: 2 pad: 1 }",
        lambda w, x: reference.pooling(x, "MAX", 3, 2, 1),
    ),
    "average loop": (
        {"x": (1, 2, 8, 8)},
        "Pooling",
        "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }",
        lambda w, x: reference.pooling(x, "AVE", 3, 2, 1),
    ),
    "lrn with k": (
        IMAGE,
        "LRN",
        "lrn_param { local_size: 3 alpha: 0.5 beta: 0.75 k: 2 }",
        lambda w, x: reference.lrn(x, 3, 0.5, 0.75, 2.0),
    ),
    "log": (
        IMAGE,
        "Log",
        "log_param { base: 2 scale: 0.1 shift: 3 }",
        lambda w, x: np.log2(3 + 0.1 * x),
    ),
    "swish": (IMAGE, "Swish", "swish_param { beta: 2 }", lambda w, x: x / (1 + np.exp(-2 * x))),
    "clip": (IMAGE, "Clip", "clip_param { min: -0.5 max: 0.3 }", lambda w, x: x.clip(-0.5, 0.3)),
    "threshold": (
        IMAGE,
        "Threshold",
        "threshold_param { threshold: 0.1 }",
        lambda w, x: (x > 0.1).astype(np.float32),
    ),
    "bias": (IMAGE, "Bias", "", lambda w, x: x + w[0][None, :, None, None]),
    "bias by blob": (
        {"x": (1, 4, 3, 5), "y": (1, 4)},
        "Bias",
        "bias_param { axis: 0 }",
        lambda w, x, y: x + y[:, :, None, None],
    ),
    "prelu shared": (
        IMAGE,
        "PReLU",
        "prelu_param { channel_shared: true }",
        lambda w, x: np.where(x > 0, x, w[0] * x),
    ),
    "normalize all": (
        IMAGE,
        "Normalize",
        "norm_param { eps: 0.1 }",
        lambda w, x: w[0] * x / np.sqrt((x * x).sum() + 0.1),
    ),
    "slice equally": (IMAGE, "Slice", 'top: "b"', lambda w, x: x[:, :2]),
    "tile": (
        IMAGE,
        "Tile",
        "tile_param { axis: 1 tiles: 2 }",
        lambda w, x: np.concatenate([x, x], axis=1),
    ),
    "reduction": (
        IMAGE,
        "Reduction",
        "reduction_param { operation: SUMSQ axis: 2 coeff: 0.5 }",
        lambda w, x: 0.5 * (x * x).sum((2, 3)),
    ),
    "reduction mean": (
        IMAGE,
        "Reduction",
        "reduction_param { operation: MEAN axis: 1 }",
        lambda w, x: x.mean((1, 2, 3)),
    ),
    "argmax": (
        IMAGE,
        "ArgMax",
        "argmax_param { axis: 1 }",
        lambda w, x: x.argmax(1, keepdims=True).astype(np.float32),
    ),
    "argmax of all": (
        IMAGE,
        "ArgMax",
        "argmax_param { top_k: 3 out_max_val: true }",
        lambda w, x: np.stack(
            [np.argsort(-x.ravel())[:3].astype(np.float32), -np.sort(-x.ravel())[:3]]
        )[None, ..., None],
    ),
    "permute part": (
        IMAGE,
        "Permute",
        "permute_param { order: 0 order: 3 }",
        lambda w, x: x.transpose(0, 3, 1, 2),
    ),
    "reshape middle": (
        IMAGE,
        "Reshape",
        "reshape_param { shape { dim: 2 dim: 2 } axis: 1 num_axes: 1 }",
        None,
    ),
    "interp cropped": (
        IMAGE,
        "Interp",
        "interp_param { shrink_factor: 2 pad_beg: -1 pad_end: -1 }",
        lambda w, x: x[:, :, 1:-1:2, 1:-1:2],
    ),
    "batch norm without a factor": (
        IMAGE,
        "BatchNorm",
        "",
        lambda w, x: reference.batch_norm(x, *w, 1e-5),
    ),
}


def convert(folder, inputs, kind, params, blobs=None):
    bottoms = " ".join(f'bottom: "{name}"' for name in inputs)
    text = net_text(inputs, f'name: "layer" type: "{kind}" {bottoms} top: "a" {params}')
    files = write_net(folder, text, blobs, seed=3)
    return files, caffe.convert(*files)


@pytest.mark.parametrize("case", OPENCV)
def test_layer_equals_opencv(case, tmp_path):
    opencv()
    files, converted = convert(tmp_path, *OPENCV[case])
    graph = converted.graph
    inputs = parity.random_inputs(graph, seed=1)
    blobs = {n: parity.to_blob(x) for n, x in zip(graph.input_names, inputs, strict=True)}
    judge = parity.opencv_activations(*files, blobs)
    (row,) = parity.compare(graph, parity.graph_activations(graph, inputs), judge)
    assert row.error is not None
    assert row.error <= 1e-6, row


@pytest.mark.parametrize("case", [name for name, spec in NUMPY.items() if spec[3]])
def test_layer_equals_numpy(case, tmp_path):
    inputs, kind, params, function = NUMPY[case]
    (prototxt, _), converted = convert(tmp_path, inputs, kind, params)
    blobs = random_blobs(wire_up(caffe.read_prototxt(prototxt)).plans, seed=3).get("layer", [])
    graph = converted.graph
    samples = parity.random_inputs(graph, seed=1)
    ours = parity.graph_activations(graph, samples)["layer"][0]
    expected = function(blobs, *(parity.to_blob(x) for x in samples))
    expected = np.moveaxis(expected[0], 0, -1) if expected.ndim == 4 else expected[0]
    assert ours.shape == expected.shape
    np.testing.assert_allclose(ours, expected, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("case", OPENCV)
def test_one_sample_does_not_see_the_others(case, tmp_path):
    _, converted = convert(tmp_path, *OPENCV[case])
    graph, network = converted.graph, converted.network
    samples = [parity.random_inputs(graph, seed=s) for s in range(3)]
    batch = [jnp.stack(parts) for parts in zip(*samples, strict=True)]
    first = network(*batch)
    alone = network(*samples[0])
    for together, single in zip(jax.tree.leaves(first), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(together[0], single, rtol=1e-5, atol=1e-6)
    mapped = jax.vmap(network)(*batch)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(mapped), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("case", ["conv", "deconv", "max", "average", "lrn across", "elu"])
def test_gradient_equals_finite_differences(case, tmp_path):
    _, converted = convert(tmp_path, *OPENCV[case])
    (shape,) = converted.graph.sample_shapes
    # Numbers far enough apart that no step changes which of them is the largest.
    spread = np.random.default_rng(1).permutation(np.linspace(-2, 2, int(np.prod(shape))))
    x = spread.reshape(shape).astype(np.float32)
    direction = np.random.default_rng(2).standard_normal(x.shape).astype(np.float32)

    def total(t):
        return jnp.sum(jnp.sin(converted.network(x + t * direction)))

    step = 1e-3
    numeric = (total(step) - total(-step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(total)(0.0), numeric, rtol=2e-2)


def test_five_axes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="five axes and more"):
        convert(tmp_path, *NUMPY["reshape middle"][:3])


def test_batch_norm_with_zero_factor_has_zero_statistics(tmp_path):
    blobs = {"layer": [np.ones(4, np.float32), np.ones(4, np.float32), np.zeros(1, np.float32)]}
    _, converted = convert(tmp_path, IMAGE, "BatchNorm", "batch_norm_param { eps: 1 }", blobs)
    (x,) = parity.random_inputs(converted.graph)
    np.testing.assert_allclose(converted.network(x), x, rtol=1e-6)


def lstm_blobs(static: bool):
    rng = np.random.default_rng(0)
    shapes = [(12, 5), (12,), *([(12, 4)] if static else []), (12, 3)]
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("static", [False, True])
def test_lstm_equals_numpy(static, tmp_path):
    inputs = {"x": (6, 2, 5), "marks": (6, 2), **({"s": (2, 4)} if static else {})}
    blobs = lstm_blobs(static)
    params = "recurrent_param { num_output: 3 }"
    _, converted = convert(tmp_path, inputs, "LSTM", params, {"layer": blobs})
    rng = np.random.default_rng(1)
    x = rng.standard_normal((6, 2, 5)).astype(np.float32)
    marks = np.float32([[0, 0], [1, 1], [1, 0], [0, 1], [1, 1], [1, 1]])
    s = rng.standard_normal((2, 4)).astype(np.float32) if static else None
    expected = reference.lstm(x, marks, blobs, s)
    extra = [] if s is None else [s]
    for n in range(2):
        ours = converted.network(x[:, n], marks[:, n], *(e[n] for e in extra))
        np.testing.assert_allclose(ours, expected[:, n], rtol=1e-5, atol=1e-6)


def test_frames_folded_into_the_batch_reach_the_lstm(tmp_path):
    """As in LRCN's activity recognition: images (T * N, C, H, W), then (T, N, C * H * W)."""
    text = net_text(
        {"frames": (6, 2, 3, 4), "marks": (3, 2)},
        'name: "p" type: "Pooling" bottom: "frames" top: "p" pooling_param { kernel_size: 2 }',
        'name: "f" type: "Reshape" bottom: "p" top: "f" '
        "reshape_param { shape { dim: 3 dim: 2 dim: 12 } }",
        'name: "l" type: "LSTM" bottom: "f" bottom: "marks" top: "l" '
        "recurrent_param { num_output: 3 }",
    )
    rng = np.random.default_rng(0)
    blobs = [rng.standard_normal(s).astype(np.float32) for s in ((12, 12), (12,), (12, 3))]
    converted = caffe.convert(*write_net(tmp_path, text, {"l": blobs}))
    assert converted.graph.sample_shapes == ((6, 3, 4, 2), (3, 2))
    frames = rng.standard_normal((6, 2, 3, 4)).astype(np.float32)
    marks = np.float32([[0, 0], [1, 1], [1, 0]])
    pooled = reference.pooling(frames, "MAX", 2, 1, 0).reshape(3, 2, 12)
    ours = converted.network(frames.transpose(0, 2, 3, 1), marks)
    np.testing.assert_allclose(ours, reference.lstm(pooled, marks, blobs), rtol=1e-5, atol=1e-6)


def test_embed_looks_up_rows_and_marks_strangers(tmp_path):
    params = "embed_param { input_dim: 7 num_output: 3 }"
    rng = np.random.default_rng(0)
    blobs = [rng.standard_normal((7, 3)), rng.standard_normal(3)]
    _, converted = convert(tmp_path, {"x": (5, 2)}, "Embed", params, {"layer": blobs})
    ours = np.asarray(converted.network(np.array([6])))
    np.testing.assert_allclose(ours[0], blobs[0][6] + blobs[1], rtol=1e-6)
    assert np.isnan(np.asarray(converted.network(np.array([7])))).all()


def test_written_files_are_what_protobuf_reads(tmp_path):
    """Our own writer against the protobuf library."""
    from weights_convert.caffe.random_blobs import write_caffemodel
    from weights_convert.caffe.schema import message_class

    blobs = {"a": [np.float32([[1, 2], [3, 4]]), np.float32([5])], "b": [np.float32(6).reshape(())]}
    write_caffemodel(tmp_path / "x.caffemodel", blobs)
    raw = (tmp_path / "x.caffemodel").read_bytes()
    net = message_class("NetParameter").FromString(raw)
    assert net == message_class("NetParameter").FromString(encode(blobs))
