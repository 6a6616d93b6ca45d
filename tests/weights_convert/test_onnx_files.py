"""ONNX files: whole networks, odd exports, folding, and files that mean harm."""

# ruff: noqa: E402  (the package is optional)

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
reference = pytest.importorskip("onnx.reference")

from onnx_files import model, parity, write

import jaxgen
from jaxgen.core.errors import InputError
from jaxgen.models.registry import describe
from weights_convert.cli import main
from weights_convert.onnx.reader import read_onnx
from weights_convert.tensor_graph import lower

I64 = np.int64


def f(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def dcgan(**options):
    """A generator of 8 x 8 images from a latent that is an image of one pixel."""
    nodes = [
        ("ConvTranspose", "z w0", "h0", {}),
        ("BatchNormalization", "h0 scale shift mean var", "h1", {}),
        ("Relu", "h1", "h2", {}),
        ("ConvTranspose", "h2 w1", "h3", {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
        ("Tanh", "h3", "image", {}),
    ]
    constants = {"w0": f(5, 4, 4, 4), "w1": f(4, 3, 4, 4, seed=1), "scale": f(4, seed=2),
                 "shift": f(4, seed=3), "mean": f(4, seed=4), "var": f(4, seed=5) ** 2}  # fmt: skip
    return model(nodes, {"z": ("N", 5, 1, 1)}, "image", constants, **options)


def test_one_command_makes_a_file_that_loads(tmp_path, capsys):
    source, out = write(tmp_path / "g.onnx", dcgan()), tmp_path / "g.safetensors"
    command = ["onnx", str(source), "--out", str(out), "--check", "--span=-1,1"]
    assert main([*command, "--licence", "MIT"]) == 0
    text = capsys.readouterr().out
    assert "over 5 of 5 layers" in text
    info = describe(out)
    assert (info.kind, info.input_shape, info.output_shape) == ("generator", (5,), (8, 8, 3))
    assert info.metadata["licence"] == "MIT"
    assert 0 <= info.metadata["parity"]["worst_layer_error"] <= 1e-5
    z = f(3, 5, seed=6)
    network = jaxgen.load(out)
    images = np.asarray(network(z))
    judge = reference.ReferenceEvaluator(dcgan()).run(None, {"z": z[:, :, None, None]})[0]
    np.testing.assert_allclose(images, judge.transpose(0, 2, 3, 1) / 2 + 0.5, atol=1e-5)
    np.testing.assert_allclose(network(z[1]), images[1], atol=1e-5)
    assert network.at("relu_2")(z[0]).shape == (4, 4, 4)
    assert main(command) == 2
    assert "Overwrite it with --force" in capsys.readouterr().err


def test_a_failed_check_writes_nothing(tmp_path, capsys):
    source, out = write(tmp_path / "g.onnx", dcgan()), tmp_path / "g.safetensors"
    command = ["onnx", str(source), "--out", str(out), "--check", "--tolerance=-1"]
    assert main(command) == 1
    assert "nothing was written" in capsys.readouterr().out
    assert not out.exists()


def test_a_classifier_takes_rgb_images_in_0_to_1(tmp_path):
    nodes = [
        ("Conv", "x w", "h", {}), ("GlobalAveragePool", "h", "p", {}), ("Flatten", "p", "y", {}),
    ]  # fmt: skip
    weights = f(4, 3, 3, 3)
    source = write(tmp_path / "c.onnx", model(nodes, {"x": (1, 3, 6, 6)}, "y", {"w": weights}))
    out, classes = tmp_path / "c.safetensors", tmp_path / "classes.txt"
    classes.write_text("cat\ndog\nowl\nelk\n")
    command = ["onnx", str(source), "--out", str(out), "--mean", "0.1,0.2,0.3", "--std", "0.5",
               "--bgr", "--kind", "classifier", "--classes", str(classes)]  # fmt: skip
    assert main(command) == 0
    image = np.random.default_rng(1).uniform(size=(6, 6, 3)).astype(np.float32)
    inside = ((image - np.float32([0.1, 0.2, 0.3])) / 0.5)[:, :, ::-1].transpose(2, 0, 1)[None]
    wanted = reference.ReferenceEvaluator(onnx.load(source)).run(None, {"x": inside})[0]
    np.testing.assert_allclose(jaxgen.load(out)(image), wanted[0], atol=1e-5)
    assert describe(out).classes == ("cat", "dog", "owl", "elk")


def test_shape_arithmetic_is_computed_away(tmp_path):
    one = onnx.numpy_helper.from_array(np.ones(1, I64))
    nodes = [
        ("Shape", "x", "s", {}),
        ("Gather", "s zero", "n", {}),
        ("Unsqueeze", "n axes", "n1", {}),
        ("Concat", "n1 rest", "target", {"axis": 0}),
        ("Reshape", "x target", "h", {}),
        ("ConstantOfShape", "four", "ones", {"value": one}),
        ("Equal", "ones minus", "e", {}),
        ("Where", "e ones repeats", "times", {}),
        ("Tile", "h times", "y", {}),
    ]  # fmt: skip
    constants = {
        "zero": np.array(0, I64), "axes": np.array([0], I64), "rest": np.array([2, 3, 2], I64),
        "four": np.array([4], I64), "minus": np.array(-1, I64),
        "repeats": np.array([1, 2, 1, 1], I64),
    }  # fmt: skip
    path = write(tmp_path / "s.onnx", model(nodes, {"x": ("N", 12)}, "y", constants))
    converted, rows = parity(path)
    assert [layer["type"] for layer in converted.description["layers"]] == ["Reshape", "Tile"]
    assert converted.folded == 7
    assert all(row.passed for row in rows)


def test_outputs_by_name_inputs_handed_on_and_several_outputs(tmp_path):
    nodes = [("Relu", "x", "a", {}), ("Identity", "a", "b", {}), ("Neg", "b", "c", {})]
    path = write(tmp_path / "m.onnx", model(nodes, {"x": (1, 3)}, "a b x c"))
    found = lower(read_onnx(path)).network(np.float32([1, -2, 3]))
    assert [np.asarray(v).tolist() for v in found.values()] == [
        [1, 0, 3], [1, 0, 3], [1, -2, 3], [-1, 0, -3],
    ]  # fmt: skip
    cut = lower(read_onnx(path, outputs=["b"]))
    assert [layer["type"] for layer in cut.description["layers"]] == ["Relu", "Identity"]
    with pytest.raises(InputError, match=r"expected a tensor of m\.onnx; got 'zz'"):
        read_onnx(path, outputs=["zz"])


def test_saving_spares_sources_and_what_is_there(tmp_path, capsys):
    source = write(tmp_path / "m.safetensors", model([("Relu", "x", "y", {})], {"x": (1, 3)}, "y"))
    converted, before = lower(read_onnx(source)), source.read_bytes()
    out = converted.save(tmp_path / "out.safetensors")
    assert describe(out).input_shape == (3,)
    with pytest.raises(InputError, match="which exists"):
        converted.save(out)
    converted.save(out, force=True)
    with pytest.raises(InputError, match="never overwritten"):
        converted.save(source, sources=[source], force=True)
    with pytest.raises(InputError, match=r"ends in \.safetensors"):
        converted.save(tmp_path / "out.pth")
    assert main(["onnx", str(source), "--out", str(source), "--force"]) == 2
    assert "never overwritten" in capsys.readouterr().err
    assert source.read_bytes() == before


def test_functions_are_put_in_place(tmp_path):
    helper = onnx.helper
    opset = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    body = [helper.make_node("Relu", ["a"], ["t"]), helper.make_node("Neg", ["t"], ["b"])]
    function = helper.make_function("own", "Fold", ["a"], ["b"], body, opset[:1])
    graph = helper.make_graph(
        [helper.make_node("Fold", ["x"], ["y"], domain="own")], "g",
        [helper.make_tensor_value_info("x", 1, (1, 3))], [onnx.ValueInfoProto(name="y")],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=opset, functions=[function], ir_version=10)
    converted, rows = parity(write(tmp_path / "f.onnx", proto))
    assert [layer["type"] for layer in converted.description["layers"]] == ["Relu", "Neg"]
    assert all(row.passed for row in rows)
    # A function that calls itself twice, forty times over.
    for i in range(40):
        call = [helper.make_node(f"F{i + 1}", ["a"], ["t"], domain="own"),
                helper.make_node(f"F{i + 1}", ["t"], ["b"], domain="own")]  # fmt: skip
        proto.functions.append(helper.make_function("own", f"F{i}", ["a"], ["b"], call, opset))
    proto.functions.append(helper.make_function("own", "F40", ["a"], ["b"], body, opset[:1]))
    proto.graph.node[0].op_type = "F0"
    with pytest.raises(InputError, match="functions grow beyond 20000 nodes"):
        read_onnx(write(tmp_path / "bomb.onnx", proto))
    proto.functions[-1].node[0].op_type, proto.functions[-1].node[0].domain = "F0", "own"
    with pytest.raises(InputError, match="nest deeper than 50, or call themselves"):
        read_onnx(write(tmp_path / "loop.onnx", proto))


def external(name="weights.bin", offset="0", length="16"):
    proto = model([("Add", "x w", "y", {})], {"x": (1, 4)}, "y", {"w": np.zeros(4, np.float32)})
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = tensor.EXTERNAL
    for key, value in (("location", name), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=value)
    return proto


def test_numbers_beside_the_file_are_read_and_nothing_else(tmp_path):
    (tmp_path / "weights.bin").write_bytes(np.float32([9, 1, 2, 3, 4]).tobytes())
    program = read_onnx(write(tmp_path / "e.onnx", external(offset="4")))
    np.testing.assert_array_equal(program.constants["w"], [1, 2, 3, 4])
    (tmp_path / "link.bin").symlink_to("/etc/passwd")
    for options, message in (
        ({"name": "../weights.bin"}, "expected a plain file name"),
        ({"name": "/etc/passwd"}, "expected a plain file name"),
        ({"name": "link.bin"}, "expected a file beside the model"),
        ({"name": "none.bin"}, "expected a file beside the model"),
        ({"offset": "8"}, "expected 16 bytes within the file"),
        ({"offset": "-4"}, "expected 16 bytes within the file"),
        ({"length": "99999999999"}, "expected 16 bytes within the file"),
        ({"offset": "x"}, "expected whole numbers"),
    ):
        with pytest.raises(InputError, match=message):
            read_onnx(write(tmp_path / "e.onnx", external(**options)))


def changed(change, nodes=None, constants=None, inputs=None):
    proto = model(
        nodes or [("Add", "x w", "y", {})], inputs or {"x": (1, 4)}, "y",
        {"w": np.zeros(4, np.float32)} if constants is None else constants,
    )  # fmt: skip
    change(proto)
    return proto


def _dims(*dims):
    def change(proto):
        proto.graph.initializer[0].dims[:] = dims

    return change  # fmt: skip


def _op(name, domain=""):
    def change(proto):
        proto.graph.node[0].op_type, proto.graph.node[0].domain = name, domain

    return change  # fmt: skip


HOSTILE = {
    "terabytes": (_dims(1 << 40, 1 << 20), "dims: expected at most"),
    "negative": (_dims(-4), "dims: expected at most"),
    "short": (_dims(5), "raw_data: expected 20 bytes; got 16"),
    "text": (lambda p: setattr(p.graph.initializer[0], "data_type", 8), "expected a type of"),
    "unknown": (_op("NonMaxSuppression"), r"not known here: small.onnx: node 'add_0' "
                r"\(NonMaxSuppression, opset 18\)"),
    "other domain": (_op("Attention", "com.microsoft"), r"com.microsoft.Attention, domain com"),
    "cycle": (lambda p: p.graph.node[0].input.__setitem__(1, "y"), "comes later, or in a cycle"),
    "nothing": (lambda p: p.graph.node[0].input.__setitem__(1, "q"), "which nothing makes"),
    "twice": (lambda p: p.graph.node.append(p.graph.node[0]), "makes 'y' a second time"),
    "old": (lambda p: setattr(p.opset_import[0], "version", 6), "expected 7 or newer; got 6"),
    "no graph": (lambda p: p.ClearField("graph"), "expected an ONNX model with a graph"),
    "no outputs": (lambda p: p.graph.ClearField("output"), "has no outputs"),
    "constant output": (lambda p: p.graph.node[0].input.__setitem__(0, "w"),
                        "does not depend on the network's input"),
    "does not fit": (lambda p: p.graph.initializer[0].CopyFrom(
        onnx.numpy_helper.from_array(np.zeros(5, np.float32), "w")),
        r"node 'add_0' \(Add, opset 18\): layer 'add_0': does not fit"),
    "sparse": (lambda p: p.graph.sparse_initializer.add(), "sparse tensors are not read"),
    "same name": (lambda p: p.graph.initializer.append(p.graph.initializer[0]), "name of its own"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_files_that_mean_harm_are_one_line(tmp_path, capsys, name):
    change, message = HOSTILE[name]
    path = write(tmp_path / "small.onnx", changed(change))
    with pytest.raises(InputError, match=message):
        lower(read_onnx(path))
    assert main(["onnx", str(path), "--out", str(tmp_path / "o.safetensors")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert not (tmp_path / "o.safetensors").exists()


@pytest.mark.parametrize(
    ("node", "constants", "message"),
    [
        (("Expand", "w big", "y", {}), {"big": np.array([1 << 40, 1 << 20], I64)}, "at most"),
        (("ConstantOfShape", "big", "y", {}), {"big": np.array([1 << 20] * 3, I64)}, "at most"),
        (("Range", "a b c", "y", {}), {"a": np.array(0, I64), "b": np.array(1 << 60, I64),
                                       "c": np.array(1, I64)}, "at most"),
        (("Tile", "w big", "y", {}), {"big": np.array([1 << 40], I64)}, "at most"),
        (("Add", "col row", "y", {}), {"col": np.zeros((1 << 15, 1), np.float32),
                                       "row": np.zeros((1, 1 << 15), np.float32)}, "at most"),
        (("Div", "a zero", "y", {}), {"a": np.array(3, I64), "zero": np.array(0, I64)}, "by zero"),
        (("Reshape", "x s", "y", {}), {"s": np.array([-1, -1], I64)}, "at most one -1"),
        (("Reshape", "x s", "y", {}), {"s": np.array([3], I64)}, "does not fill"),
        (("Expand", "x big", "y", {}), {"big": np.array([1 << 40, 1, 4], I64)}, "whole numbers"),
        (("Tile", "x big", "y", {}), {"big": np.array([1 << 40, 1], I64)}, "whole numbers"),
        (("Pad", "x big", "y", {}), {"big": np.array([1 << 40, 0, 0, 0], I64)}, "whole numbers"),
        (("Gather", "x big", "y", {"axis": 1}), {"big": np.array([4], I64)}, "indices: expected"),
        (("Slice", "x s e a", "y", {}), {"s": np.array([0], I64), "e": np.array([1], I64),
                                         "a": np.array([7], I64)}, "no axis 7"),
        (("Transpose", "x", "y", {"perm": [0, 9]}), {}, "axis: expected"),
        (("Resize", "x r s", "y", {}), {"r": np.zeros(0, np.float32),
                                        "s": np.array([1, 1e12], np.float32)}, "lengths: expected"),
        (("Cast", "x", "y", {"to": 8}), {}, "to: expected a type of numbers"),
        (("Softmax", "x", "y", {"axis": 7}), {}, "axis: expected"),
        (("Squeeze", "x a", "y", {}), {"a": np.array([1], I64)}, "expected axes of length 1"),
    ],
)  # fmt: skip
def test_operators_of_hostile_sizes_are_named(tmp_path, node, constants, message):
    extra = {"w": np.zeros(4, np.float32)} | constants
    nodes = [node, ("Add", "x y", "out", {})] if "x" not in node[1].split() else [node]
    proto = model(nodes, {"x": (1, 4)}, "out" if len(nodes) > 1 else "y", extra)
    path = write(tmp_path / "small.onnx", proto)
    with pytest.raises(InputError, match=message) as caught:
        lower(read_onnx(path))
    assert f"({node[0]}, opset 18)" in str(caught.value)


def test_inputs_that_the_file_leaves_open(tmp_path):
    path = write(tmp_path / "m.onnx", model([("Relu", "x", "y", {})], {"x": ("N", 3, "H", 4)}, "y"))
    with pytest.raises(InputError, match="--input x=1,3,224,224"):
        read_onnx(path)
    assert read_onnx(path, inputs={"x": (1, 3, 2, 4)}).inputs == {"x": (1, 3, 2, 4)}
    for given, message in (
        ({"q": (1,)}, "expected an input of m.onnx"),
        ({"x": (1, 3, 0, 4)}, "expected positive lengths"),
        ({"x": (1, 1 << 20, 1 << 20, 4)}, "expected at most"),
    ):
        with pytest.raises(InputError, match=message):
            read_onnx(path, inputs=given)
    batch = write(tmp_path / "b.onnx", model([("Relu", "x", "y", {})], {"x": (8, 3)}, "y"))
    with pytest.raises(InputError, match="expected one sample"):
        read_onnx(batch)


@pytest.mark.parametrize("data", [b"", b"\x0a\xff", b"no model", bytes(100)])
def test_other_files_are_no_models(tmp_path, data):
    (tmp_path / "x.onnx").write_bytes(data)
    with pytest.raises(InputError, match="expected an ONNX model"):
        read_onnx(tmp_path / "x.onnx")
    with pytest.raises(InputError, match="an ONNX file that exists"):
        read_onnx(tmp_path / "none.onnx")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "dynamo"),
    [
        ("OddClassifier", False),
        pytest.param("OddClassifier", True, marks=pytest.mark.slow),
        pytest.param("OddGenerator", False, marks=pytest.mark.slow),
        pytest.param("OddGenerator", True, marks=pytest.mark.slow),
    ],
)
def test_odd_torch_modules_by_both_exporters(tmp_path, name, dynamo):
    torch = pytest.importorskip("torch")
    if dynamo:
        pytest.importorskip("onnxscript")
    import torch_modules

    torch.manual_seed(0)
    module = getattr(torch_modules, name)().eval()
    x = torch.randn(1, 8) if name == "OddGenerator" else torch.rand(1, 3, 33, 30)
    options = {"external_data": False, "verbose": False} if dynamo else {}
    torch.onnx.export(module, (x,), str(tmp_path / "m.onnx"), dynamo=dynamo, input_names=["x"],
                      output_names=["y"], **options)  # fmt: skip
    converted, rows = parity(tmp_path / "m.onnx")
    assert all(row.passed for row in rows), rows
    assert len([row for row in rows if row.error is not None]) > 20
    with torch.no_grad():
        wanted = module(x).numpy()
    sample = x.numpy()[0].transpose(1, 2, 0) if x.ndim == 4 else x.numpy()[0]
    found = np.asarray(converted.network(sample))
    found = found.transpose(2, 0, 1) if found.ndim == 3 else found
    np.testing.assert_allclose(found, wanted[0], atol=2e-5)


def classifier(ends, outputs="p", **more):
    """A linear classifier of three classes whose last nodes are given."""
    nodes = [("Gemm", "x w b", "y", {}), *ends]
    constants = {"w": f(5, 3, seed=7), "b": f(3, seed=8)}
    return model(nodes, {"x": ("N", 5)}, outputs, constants, **more)


@pytest.mark.parametrize(
    "ends",
    [
        [("Softmax", "y", "p", {"axis": 1})],
        [("Softmax", "y", "q", {}), ("Identity", "q", "p", {})],
    ],
    ids=["last", "identity"],
)
def test_a_last_softmax_is_cut_and_said(tmp_path, capsys, ends):
    source, out = write(tmp_path / "c.onnx", classifier(ends)), tmp_path / "c.safetensors"
    assert main(["onnx", str(source), "--out", str(out), "--check"]) == 0
    assert "was cut; --keep-softmax keeps it" in capsys.readouterr().out
    assert describe(out).metadata["output"].startswith("logits; the source's last softmax")
    x = f(5, seed=9)
    logits = x @ f(5, 3, seed=7) + f(3, seed=8)
    np.testing.assert_allclose(jaxgen.load(out)(x), logits, rtol=1e-5, atol=1e-5)
    kept = tmp_path / "kept.safetensors"
    assert main(["onnx", str(source), "--out", str(kept), "--keep-softmax"]) == 0
    assert jaxgen.load(kept)(x).sum() == pytest.approx(1.0, abs=1e-5)
    assert "output" not in describe(kept).metadata


@pytest.mark.parametrize(
    ("ends", "outputs"),
    [
        ([("Softmax", "y", "p", {}), ("Mul", "p p", "square", {})], "p square"),
        ([("LogSoftmax", "y", "p", {})], "p"),
        ([("Softmax", "y", "q", {}), ("Relu", "q", "p", {})], "p"),
    ],
    ids=["read again", "log", "not last"],
)
def test_other_softmaxes_stay(tmp_path, capsys, ends, outputs):
    source, out = write(tmp_path / "c.onnx", classifier(ends, outputs)), tmp_path / "c.safetensors"
    assert main(["onnx", str(source), "--out", str(out)]) == 0
    assert "was cut" not in capsys.readouterr().out
