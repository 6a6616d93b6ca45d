"""Every layer type of a description against torch's own module of that name and settings.

The torch modules are built here, from the same settings as keyword arguments, and not by the
reference that `--check` uses: a setting that both sides dropped would be seen.
"""

import re

import jax
import numpy as np
import pytest

from jaxgen.core.errors import InputError
from jaxgen.models.ported.sequential import check_layers
from jaxgen.models.ported.sequential_schema import SCHEMA
from weights_convert.pytorch import convert_state
from weights_convert.torch_names import TORCH_TYPES

torch = pytest.importorskip("torch", reason="compares with torch: pip install torch")
nn = torch.nn
torch.set_num_threads(1)

IMAGE, VECTOR = [4, 7, 6], [8]

# Name, shape of the input as PyTorch has it, class, settings as PyTorch spells them.
CASES = [
    ("Linear", VECTOR, {"in_features": 8, "out_features": 5, "bias": False}),
    ("Conv2d", IMAGE, {"in_channels": 4, "out_channels": 6, "kernel_size": [3, 2],
                       "stride": [2, 1], "padding": [1, 0]}),
    ("Conv2d", IMAGE, {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "dilation": [2, 1],
                       "padding": 2, "groups": 2}),
    ("Conv2d", IMAGE, {"in_channels": 4, "out_channels": 8, "kernel_size": 3, "groups": 4,
                       "padding": "valid", "padding_mode": "zeros", "bias": False}),
    ("ConvTranspose2d", IMAGE, {"in_channels": 4, "out_channels": 6, "kernel_size": 3, "stride": 2,
                                "padding": 1, "output_padding": 1}),
    ("ConvTranspose2d", IMAGE, {"in_channels": 4, "out_channels": 6, "kernel_size": [4, 3],
                                "stride": [2, 3], "padding": [1, 0], "groups": 2}),
    ("ConvTranspose2d", IMAGE, {"in_channels": 4, "out_channels": 2, "kernel_size": 3, "stride": 2,
                                "dilation": 2, "padding": 1, "output_padding": [1, 0],
                                "bias": False}),
    ("BatchNorm2d", IMAGE, {"num_features": 4, "eps": 0.1}),
    ("BatchNorm2d", IMAGE, {"num_features": 4, "affine": False}),
    ("BatchNorm1d", VECTOR, {"num_features": 8, "momentum": 0.3}),
    ("InstanceNorm2d", IMAGE, {"num_features": 4}),
    ("InstanceNorm2d", IMAGE, {"num_features": 4, "affine": True, "eps": 0.1}),
    ("GroupNorm", IMAGE, {"num_groups": 2, "num_channels": 4, "eps": 0.1}),
    ("GroupNorm", VECTOR, {"num_groups": 4, "num_channels": 8, "affine": False}),
    ("LayerNorm", IMAGE, {"normalized_shape": IMAGE, "eps": 0.1}),
    ("LayerNorm", VECTOR, {"normalized_shape": VECTOR, "bias": False}),
    ("LayerNorm", VECTOR, {"normalized_shape": 8, "elementwise_affine": False}),
    ("ReLU", IMAGE, {"inplace": True}),
    ("ReLU6", IMAGE, {}),
    ("LeakyReLU", IMAGE, {"negative_slope": 0.3}),
    ("PReLU", IMAGE, {}),
    ("PReLU", IMAGE, {"num_parameters": 4}),
    ("PReLU", VECTOR, {"num_parameters": 8}),
    ("ELU", IMAGE, {"alpha": 0.7}),
    ("CELU", IMAGE, {"alpha": 0.7}),
    ("SELU", IMAGE, {}),
    ("GELU", IMAGE, {}),
    ("GELU", IMAGE, {"approximate": "none"}),
    ("GELU", IMAGE, {"approximate": "tanh"}),
    ("SiLU", IMAGE, {}),
    ("Mish", IMAGE, {}),
    ("Softplus", IMAGE, {"beta": 2.0, "threshold": 1.5}),
    ("Softsign", IMAGE, {}),
    ("Tanh", IMAGE, {}),
    ("Sigmoid", IMAGE, {}),
    ("LogSigmoid", IMAGE, {}),
    ("Hardtanh", IMAGE, {"min_val": -0.3, "max_val": 0.8}),
    ("Hardsigmoid", IMAGE, {}),
    ("Hardswish", IMAGE, {}),
    ("LogSoftmax", VECTOR, {"dim": 1}),
    ("LogSoftmax", IMAGE, {"dim": 1}),
    ("Softmax", IMAGE, {"dim": -3}),
    ("Softmax2d", IMAGE, {}),
    ("MaxPool2d", IMAGE, {"kernel_size": [3, 2], "stride": 2, "padding": 1, "ceil_mode": True}),
    ("AvgPool2d", IMAGE, {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}),
    ("AvgPool2d", IMAGE, {"kernel_size": [2, 3], "padding": 1, "count_include_pad": False}),
    ("AdaptiveAvgPool2d", IMAGE, {"output_size": [3, 2]}),
    ("AdaptiveAvgPool2d", IMAGE, {"output_size": 1}),
    ("Flatten", IMAGE, {"start_dim": 1}),
    ("Unflatten", VECTOR, {"dim": 1, "unflattened_size": [2, 2, 2]}),
    ("Upsample", IMAGE, {"scale_factor": 2}),
    ("Upsample", IMAGE, {"scale_factor": [3.0, 2.0], "mode": "bilinear"}),
    ("Upsample", IMAGE, {"scale_factor": 2, "mode": "bilinear", "align_corners": True}),
    ("UpsamplingBilinear2d", IMAGE, {"scale_factor": 2}),
    ("UpsamplingNearest2d", IMAGE, {"scale_factor": 2}),
    ("PixelShuffle", IMAGE, {"upscale_factor": 2}),
    ("ZeroPad2d", IMAGE, {"padding": [1, 2, 3, 0]}),
    ("ConstantPad2d", IMAGE, {"padding": 1, "value": 0.5}),
    ("ReflectionPad2d", IMAGE, {"padding": [1, 2, 3, 0]}),
    ("ReplicationPad2d", IMAGE, {"padding": [1, 2, 3, 0]}),
    ("Identity", IMAGE, {}),
    ("Dropout", IMAGE, {"p": 0.3}),
    ("Dropout2d", IMAGE, {}),
    ("AlphaDropout", IMAGE, {}),
    ("Dropout1d", VECTOR, {}),
    ("SyncBatchNorm", IMAGE, {"num_features": 4}),
]  # fmt: skip


def torch_module(kind, settings):
    tuples = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()}
    module = nn.Sequential(getattr(nn, kind)(**tuples))
    generator = torch.Generator().manual_seed(0)
    for name, value in module.state_dict().items():
        if "num_batches" not in name:
            value.copy_(torch.randn(value.shape, generator=generator) * 0.5)
        if name.endswith("running_var"):
            value.abs_().add_(0.3)
    return module.eval()


def described(kind, shape, settings, state):
    description = {"input": shape, "layer": [{"type": kind, **settings}]}
    return convert_state(state, "sequential", {"description": description}, keep_softmax=True)


@pytest.fixture(scope="module")
def results():
    """For every case ours and torch's output for two samples; one compilation for all."""
    modules, inputs, wanted = [], [], []
    rng = np.random.default_rng(0)
    for kind, shape, settings in CASES:
        theirs = torch_module(kind, settings)
        state = {k: v.numpy() for k, v in theirs.state_dict().items() if "num_batches" not in k}
        x = (2 * rng.standard_normal((2, *shape))).astype(np.float32)
        with torch.no_grad():
            y = theirs(torch.from_numpy(x)).numpy()
        modules.append(described(kind, shape, settings, state).module)
        inputs.append(np.moveaxis(x, 1, -1) if x.ndim == 4 else x)
        wanted.append(np.moveaxis(y, 1, -1) if y.ndim == 4 else y)
    found = jax.jit(lambda xs: [m(x) for m, x in zip(modules, xs, strict=True)])(inputs)
    alone = jax.jit(lambda xs: [m(x[1]) for m, x in zip(modules, xs, strict=True)])(inputs)
    return found, alone, wanted


@pytest.mark.parametrize(
    "number", range(len(CASES)), ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)]
)
def test_a_layer_computes_what_torch_computes(results, number):
    found, alone, wanted = (result[number] for result in results)
    assert found.shape == wanted.shape
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-6 * scale)
    np.testing.assert_allclose(alone, wanted[1], rtol=0, atol=3e-6 * scale)


def test_every_class_and_every_type_was_compared():
    """Ours that PyTorch has no class for are compared in test_recipe_small."""
    assert {case[0] for case in CASES} == set(TORCH_TYPES)
    ours = {"to_unit", "from_unit", "scalar", "pixel_norm", "standardise"}
    assert {entry.type for entry in TORCH_TYPES.values()} == set(SCHEMA) - ours


WRONG = [
    ("GELU", IMAGE, {"approximate": "exact"}, 'approximate: expected "none" or "tanh"'),
    ("Softmax", IMAGE, {"dim": 2}, "dim: expected 1 or -3; got 2"),
    ("Softmax", IMAGE, {"dim": -1}, "dim: expected 1 or -3; got -1"),
    ("BatchNorm2d", IMAGE, {"eps": "x"}, "eps: expected a number above 0; got 'x'"),
    ("BatchNorm2d", IMAGE, {"eps": -5}, "eps: expected a number above 0; got -5"),
    ("BatchNorm2d", IMAGE, {"eps": True}, "eps: expected a number above 0; got True"),
    ("BatchNorm2d", IMAGE, {"eps": float("nan")}, "eps: expected a number above 0; got nan"),
    ("BatchNorm2d", IMAGE, {"track_running_stats": False}, "track_running_stats: expected True"),
    ("BatchNorm2d", IMAGE, {"num_features": 5}, "num_features: expected 4; got 5"),
    ("MaxPool2d", IMAGE, {"kernel_size": 2, "stride": 0}, "stride: expected a whole number of at"),
    ("MaxPool2d", IMAGE, {"kernel_size": 2, "padding": -1}, "padding: expected a whole number"),
    ("MaxPool2d", IMAGE, {"kernel_size": 2, "padding": 2}, "at most half the kernel"),
    ("MaxPool2d", IMAGE, {"kernel_size": 2, "dilation": 2}, "dilation: expected 1; got 2"),
    ("MaxPool2d", IMAGE, {"kernel_size": 2, "return_indices": True}, "return_indices"),
    ("AvgPool2d", IMAGE, {"kernel_size": 2, "divisor_override": 3}, "divisor_override"),
    ("Upsample", IMAGE, {"scale_factor": 1.5}, "factor: expected a whole number"),
    ("Upsample", IMAGE, {"size": [8, 8]}, "size: expected None; got [8, 8]; give scale_factor"),
    ("Upsample", IMAGE, {"scale_factor": 2, "mode": "bicubic"}, 'mode: expected "nearest" or'),
    ("Upsample", IMAGE, {"mode": "nearest"}, "scale_factor is missing"),
    ("Hardtanh", IMAGE, {"min_val": 2.0}, "low: expected one below high"),
    ("PReLU", IMAGE, {"num_parameters": 3}, "count: expected 1 or 4; got 3"),
    ("GroupNorm", IMAGE, {"num_groups": 3}, "groups: expected a divisor of 4; got 3"),
    ("InstanceNorm2d", VECTOR, {}, "needs an image of several pixels"),
    ("InstanceNorm2d", IMAGE, {"track_running_stats": True}, "is BatchNorm2d"),
    ("PixelShuffle", IMAGE, {"upscale_factor": 3}, "4 channels are no multiple of 9"),
    ("ReflectionPad2d", IMAGE, {"padding": 6}, "less than the image"),
    ("LayerNorm", IMAGE, {"normalized_shape": [6]}, "shape: expected that of the whole input"),
    ("Flatten", IMAGE, {"start_dim": 2}, "start_dim: expected 1 or -3; got 2"),
    ("Dropout", IMAGE, {"p": 2}, "p: expected a number from 0 to 1; got 2"),
    ("ReLU", IMAGE, {"inplace": "yes"}, "inplace: expected true or false"),
    ("ReLU", IMAGE, {"slope": 0.2}, "ReLU has no setting 'slope'"),
    ("LeakyReLU", IMAGE, {"negative_slope": 0.1, "slope": 0.2}, "are the same setting"),
    ("leaky_relu", IMAGE, {"slope": float("inf")}, "slope: expected a number; got inf"),
    ("Unflatten", VECTOR, {"shape": [2, 4]}, "shape: expected a list of 3 whole numbers"),
]


@pytest.mark.parametrize(
    ("kind", "shape", "settings", "words"), WRONG, ids=[f"{w[0]}-{i}" for i, w in enumerate(WRONG)]
)
def test_what_is_not_meant_is_refused_by_name(kind, shape, settings, words):
    state = {}
    if kind == "BatchNorm2d":
        state = {
            f"0.{name}": np.ones(4, "f4") for name in ("weight", "running_mean", "running_var")
        }
    with pytest.raises(InputError, match=re.escape(words)) as error:
        described(kind, shape, settings, state)
    assert "layer 0" in str(error.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"stride": 0}, "stride: expected a whole number of at least 1"),
        ({"padding": -1}, "padding: expected a whole number of at least 0"),
        ({"padding": "same"}, "padding: expected a whole number"),
        ({"padding_mode": "reflect"}, "a layer of its own, as in ReflectionPad2d"),
        ({"groups": 3}, "groups: expected a divisor of 4 inputs and 6 outputs; got 3"),
        ({"kernel_size": 5}, "kernel: the weights at '0' say 3, the description 5"),
        ({"bias": False}, "bias: the weights at '0' say True, the description False"),
        ({"in_channels": 3}, "in_channels: expected 4; got 3"),
    ],
)
def test_a_convolution_that_its_weights_contradict(settings, words):
    state = {"0.weight": np.ones((6, 4, 3, 3), "f4"), "0.bias": np.ones(6, "f4")}
    with pytest.raises(InputError, match=re.escape(words)):
        described("Conv2d", IMAGE, settings, state)


def test_files_of_earlier_versions_still_load():
    """Their metadata has true and false for gelu's approximate, and one number for pairs."""
    layers, shapes = check_layers(
        [7, 6, 4],
        [{"type": "gelu", "approximate": False}, {"type": "max_pool", "kernel": 2, "stride": None,
                                                  "padding": 0, "ceil": False}],
    )  # fmt: skip
    assert layers[0]["approximate"] == "none"
    assert shapes[-1] == (3, 3, 4)
