"""TensorFlow.js readers, Progressive GAN and the face networks.

The networks are compared with a walk over the published graph (ProGAN) and a transcription
in NumPy and torch (faces), neither of which shares code with the package.
"""

import json
import os
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxgen.core.errors import InputError
from jaxgen.models.ported.blocks import Depthwise, upsample, upsample_conv
from jaxgen.models.ported.faceapi import EXPRESSIONS
from weights_convert.tfjs import NETWORKS, convert_tfjs, read_manifest, read_npz

DEFAULT = Path(__file__).parents[3] / "shared" / "weights"
WEIGHTS = Path(os.environ.get("JAXGEN_TEST_WEIGHTS", DEFAULT))
needs_weights = pytest.mark.skipif(
    not WEIGHTS.is_dir(), reason=f"no weights in {WEIGHTS}; set JAXGEN_TEST_WEIGHTS"
)
NPZ = WEIGHTS / "progan_celeba128/progan_celeba128_fp16.npz"
FACES = {
    "face-expression": WEIGHTS / "face_api/face_expression_model-weights_manifest.json",
    "face-age-gender": WEIGHTS / "face_api/age_gender_model-weights_manifest.json",
}


# Readers ---------------------------------------------------------------------------------


def manifest(folder, entries, data, name="w.bin"):
    (folder / "w.bin").write_bytes(data)
    path = folder / "manifest.json"
    path.write_text(json.dumps([{"paths": [name], "weights": entries}]))
    return path


def test_quantised_values(tmp_path):
    plain = np.array([1.5, -2.0], "<f4")
    codes = np.array([[0, 255], [7, 3]], "u1")
    halves = np.array([0.5, 3.0], "<f2")
    wide = np.array([0, 65535], "<u2")
    entries = [
        {"name": "a", "shape": [2], "dtype": "float32"},
        {"name": "b", "shape": [2, 2], "dtype": "float32",
         "quantization": {"dtype": "uint8", "scale": 0.1, "min": -3.0}},
        {"name": "c", "shape": [2], "dtype": "float32", "quantization": {"dtype": "float16"}},
        {"name": "d", "shape": [2], "dtype": "float32",
         "quantization": {"dtype": "uint16", "scale": 2.0, "min": 1.0}},
    ]  # fmt: skip
    data = plain.tobytes() + codes.tobytes() + halves.tobytes() + wide.tobytes()
    got = read_manifest(manifest(tmp_path, entries, data))
    np.testing.assert_array_equal(got["a"], plain)
    np.testing.assert_allclose(got["b"], codes * 0.1 - 3.0, rtol=1e-6)
    np.testing.assert_array_equal(got["c"], halves.astype("f4"))
    np.testing.assert_array_equal(got["d"], [1.0, 131071.0])
    assert all(array.dtype == np.float32 for array in got.values())


@pytest.mark.parametrize(
    ("entry", "data", "name", "wanted"),
    [
        ({"shape": [4]}, bytes(8), "w.bin", "16 bytes at offset 0 of 8"),
        ({"shape": [2**30, 2**30]}, bytes(8), "w.bin", "the limits are"),
        ({"shape": [-1]}, bytes(8), "w.bin", "damaged manifest"),
        ({"shape": [1]}, bytes(8), "w.bin", "4 bytes are left over"),
        ({"shape": [2], "dtype": "object"}, bytes(8), "w.bin", "damaged manifest"),
        ({"shape": [2]}, bytes(8), "../w.bin", "plain file name"),
        ({"shape": [2]}, bytes(8), "/etc/passwd", "plain file name"),
        ({"shape": [2]}, bytes(8), "other.bin", "is missing"),
    ],
)
def test_bad_manifests(tmp_path, entry, data, name, wanted):
    entry = {"name": "a", "dtype": "float32", **entry}
    with pytest.raises(InputError, match=wanted):
        read_manifest(manifest(tmp_path, [entry], data, name))


def test_npz(tmp_path):
    arrays = {"x|y": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(np.eye(3, 2))}
    np.savez(tmp_path / "a.npz", **arrays)
    got = read_npz(tmp_path / "a.npz")
    np.testing.assert_array_equal(got["x/y"], arrays["x|y"])
    np.testing.assert_array_equal(got["f"], arrays["f"])
    np.savez(tmp_path / "o.npz", a=np.array([{}], object))
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627775,)}"
    with zipfile.ZipFile(tmp_path / "h.npz", "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    (tmp_path / "t.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:-30])
    locked = bytearray((tmp_path / "a.npz").read_bytes())
    locked[locked.index(b"PK\x01\x02") + 8] |= 1  # the bit that says encrypted
    (tmp_path / "e.npz").write_bytes(locked)
    for name in ("o", "h", "t", "e"):
        with pytest.raises(InputError, match=rf"{name}\.npz"):
            read_npz(tmp_path / f"{name}.npz")


# Blocks ----------------------------------------------------------------------------------


def test_upsample_conv_is_upsampling_then_a_convolution():
    rng = np.random.default_rng(0)
    x, kernel = (
        rng.normal(size=(2, 5, 4, 3)).astype("f4"),
        rng.normal(size=(3, 3, 3, 2)).astype("f4"),
    )
    wanted = jax.lax.conv_general_dilated(
        upsample(x), kernel, (1, 1), [(1, 1), (1, 1)], dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(upsample_conv(x, kernel), wanted, atol=2e-5)


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, ((0, 1), (0, 1)))])
def test_depthwise_is_a_grouped_convolution(stride, padding):
    from flax import nnx

    layer = Depthwise(5, 3, stride=stride, padding=padding, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(2, 6, 8, 5)).astype("f4")
    pads = [(padding, padding)] * 2 if isinstance(padding, int) else padding
    wanted = jax.lax.conv_general_dilated(
        x, layer.kernel[...], (stride, stride), pads, feature_group_count=5,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    np.testing.assert_allclose(layer(x), wanted, atol=1e-5)


# Networks against transcriptions -----------------------------------------------------------


def same_pad(x, kernel, stride):
    """Zeros as TensorFlow's SAME puts them, channels first."""
    import torch.nn.functional as functional

    pads = []
    for size in (x.shape[3], x.shape[2]):
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [total // 2, total - total // 2]
    return functional.pad(x, pads)


def tf_conv(x, kernel, stride=1, groups=1):
    import torch

    weight = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
    return torch.nn.functional.conv2d(
        same_pad(x, kernel.shape[0], stride), weight, stride=stride, groups=groups
    )


def separable(x, t, name, stride=1):
    import torch

    depth = t[f"{name}/depthwise_filter"]
    x = tf_conv(x, depth.transpose(0, 1, 3, 2), stride, groups=depth.shape[2])
    return tf_conv(x, t[f"{name}/pointwise_filter"]) + bias(torch, t[f"{name}/bias"])


def bias(torch, values):
    return torch.from_numpy(values.copy()).view(1, -1, 1, 1)


def expression_by_torch(torch, t, x):
    relu = torch.relu
    for i in range(4):
        name = f"dense{i}"
        if i == 0:
            o1 = tf_conv(x, t["dense0/conv0/filters"], 2) + bias(torch, t["dense0/conv0/bias"])
        else:
            o1 = separable(x, t, f"{name}/conv0", 2)
        o1 = relu(o1)
        o2 = separable(o1, t, f"{name}/conv1")
        o3 = separable(relu(o1 + o2), t, f"{name}/conv2")
        o4 = separable(relu(o1 + o2 + o3), t, f"{name}/conv3")
        x = relu(o1 + o2 + o3 + o4)
    x = torch.nn.functional.avg_pool2d(x, 7, 2).flatten(1)
    return x.numpy() @ t["fc/weights"] + t["fc/bias"]


def age_gender_by_torch(torch, t, x):
    relu = torch.relu

    def reduction(x, name, activate=True):
        y = separable(relu(x) if activate else x, t, f"{name}/separable_conv0")
        y = separable(relu(y), t, f"{name}/separable_conv1")
        y = torch.nn.functional.pad(y, (0, 1, 0, 1), value=-torch.inf)
        y = torch.nn.functional.max_pool2d(y, 3, 2)
        skip = tf_conv(x, t[f"{name}/expansion_conv/filters"], 2)
        return y + skip + bias(torch, t[f"{name}/expansion_conv/bias"])

    x = relu(
        tf_conv(x, t["entry_flow/conv_in/filters"], 2) + bias(torch, t["entry_flow/conv_in/bias"])
    )
    x = reduction(x, "entry_flow/reduction_block_0", activate=False)
    x = reduction(x, "entry_flow/reduction_block_1")
    for i in range(2):
        y = x
        for j in range(3):
            y = separable(relu(y), t, f"middle_flow/main_block_{i}/separable_conv{j}")
        x = x + y
    x = reduction(x, "exit_flow/reduction_block")
    x = relu(separable(x, t, "exit_flow/separable_conv")).mean((2, 3)).numpy()
    age = x @ t["fc/age/weights"] + t["fc/age/bias"]
    return np.concatenate([age, x @ t["fc/gender/weights"] + t["fc/gender/bias"]], 1)


@needs_weights
@pytest.mark.parametrize(
    ("network", "transcription"),
    [
        ("face-expression", expression_by_torch),
        ("face-age-gender", age_gender_by_torch),
    ],
)
def test_face_networks(tmp_path, network, transcription):
    torch = pytest.importorskip("torch", reason="compares with torch: pip install torch")
    torch.set_num_threads(1)
    module, metadata = convert_tfjs(FACES[network], network, tmp_path / "x.safetensors")
    x = np.random.default_rng(0).random((3, 112, 112, 3), np.float32)
    mean = np.array([122.782, 117.001, 104.298], "f4")
    with torch.no_grad():
        image = torch.from_numpy(((255 * x - mean) / 255).transpose(0, 3, 1, 2).copy())
        wanted = transcription(torch, read_manifest(FACES[network]), image)
    run = jax.jit(module)
    got = np.asarray(run(x))
    assert np.abs(got - wanted).max() < 1e-5 * np.abs(wanted).max()
    np.testing.assert_allclose(run(x[1]), got[1], atol=1e-5 * np.abs(wanted).max())
    assert len(metadata["classes"]) == got.shape[1]


def progan_by_graph(tensors, z):
    """Walk the published graph's operations with NumPy, up to before the clip."""
    nodes = json.loads((WEIGHTS / "progan_celeba128/model.json").read_text())
    values = {"latent_vector": z}
    for node in nodes["modelTopology"]["node"]:
        name, op = node["name"], node["op"]
        if op == "Const":
            values[name] = (
                tensors[name].astype("f4") if tensors[name].dtype == "f2" else tensors[name]
            )
            continue
        if op == "Placeholder" or name.startswith("module_apply_default/clip"):
            continue
        a = [values[i] for i in node["input"]]
        if op == "Conv2D":
            valid = node["attr"]["padding"]["s"] == "VkFMSUQ="
            x = (
                a[0]
                if valid
                else np.pad(a[0], [(0, 0), *[((k - 1) // 2,) * 2 for k in a[1].shape[:2]], (0, 0)])
            )
            kh, kw = a[1].shape[:2]
            rows, cols = x.shape[1] - kh + 1, x.shape[2] - kw + 1
            y = sum(
                x[:, i : i + rows, j : j + cols] @ a[1][i, j] for i in range(kh) for j in range(kw)
            )
        elif op == "BatchToSpaceND":
            n, h, w, c = a[0].shape
            y = a[0].reshape(2, 2, n // 4, h, w, c).transpose(2, 3, 0, 4, 1, 5)
            y = y.reshape(n // 4, 2 * h, 2 * w, c)
        else:
            y = {
                "Square": lambda a: a[0] * a[0],
                "Mean": lambda a: a[0].mean(-1, keepdims=True),
                "Add": lambda a: a[0] + a[1],
                "Rsqrt": lambda a: 1 / np.sqrt(a[0]),
                "Mul": lambda a: a[0] * a[1],
                "Maximum": lambda a: np.maximum(a[0], a[1]),
                "Reshape": lambda a: a[0].reshape(a[1]),
                "Pad": lambda a: np.pad(a[0], a[1]),
                "Tile": lambda a: np.tile(a[0], a[1]),
                "Identity": lambda a: a[0],
            }[op](a)
        values[name] = y
    return values["module_apply_default/add_27"]


@pytest.mark.slow
@needs_weights
def test_progan_is_the_published_graph_with_its_spread_mended(tmp_path):
    module, metadata = convert_tfjs(NPZ, "progan-celeba128", tmp_path / "g.safetensors")
    z = np.random.default_rng(0).normal(size=(1, 512)).astype("f4")
    rgb = progan_by_graph(read_npz(NPZ), z)
    got = np.asarray(jax.jit(module)(z[0]))
    wanted = 0.5 * (rgb[0] - 0.5) + 0.5
    assert np.abs(got - wanted).max() < 1e-5 * np.abs(rgb).max()
    assert ((got < 0) | (got > 1)).mean() < 0.1
    assert "licence" in metadata["source"]


@needs_weights
def test_a_wrong_network_is_reported_whole(tmp_path):
    with pytest.raises(InputError, match=r"100 mistakes: .*left over"):
        convert_tfjs(FACES["face-age-gender"], "face-expression")
    with pytest.raises(InputError, match="network: expected one of"):
        convert_tfjs(NPZ, "x")
    with pytest.raises(InputError, match="no such file"):
        convert_tfjs(tmp_path / "none", "face-expression")
    assert set(NETWORKS) == {"progan-celeba128", *FACES}
    assert len(EXPRESSIONS) == 7
