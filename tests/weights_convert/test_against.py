"""A comparison with the source itself sees what a reference of our own cannot."""

import numpy as np
import pytest

from jaxgen.core.errors import InputError
from jaxgen.models.weights import read_metadata
from weights_convert.cli import main
from weights_convert.pytorch import convert_state

torch = pytest.importorskip("torch", reason="compares with torch: pip install torch")
nn = torch.nn
torch.set_num_threads(1)

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, slope=0.2):
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(6, 5, 4, 1, 0), nn.LeakyReLU(slope),
            nn.ConvTranspose2d(5, 3, 4, 2, 1), nn.Tanh())

    def forward(self, z):
        return self.main(z.view(-1, 6, 1, 1))

class Needy(Net):
    def __init__(self, slope):
        super().__init__(slope)

def broken():
    raise OSError("no such thing")
"""


@pytest.fixture
def source(tmp_path):
    """A module's file, a checkpoint of it and pairs that torch computed."""
    (tmp_path / "net.py").write_text(SOURCE)
    scope = {"__name__": "net"}
    exec(SOURCE, scope)
    torch.manual_seed(0)
    net = scope["Net"]().eval()
    torch.save(net.state_dict(), tmp_path / "net.pth")
    with torch.no_grad():  # the three lines of the documentation
        z = torch.randn(16, 6)
        np.savez(tmp_path / "pairs.npz", z=z.numpy(), images=net(z).numpy())
    return tmp_path


def command(folder, *more):
    files = [str(folder / "net.pth"), "--recipe", "dcgan", "--out", str(folder / "o.safetensors")]
    return main(["torch", *files, *more])


@pytest.mark.parametrize("against", ["pairs.npz", "net.py:Net"])
def test_a_wrong_slope_passes_the_check_but_not_the_source(source, against, capsys):
    assert command(source, "--check", "--against", str(source / against)) == 1
    text = capsys.readouterr().out
    assert "activation: relu" in text  # it was said what was assumed
    assert not (source / "o.safetensors").exists()
    own, truth = text.split("largest relative error ")[1:]
    assert float(own.split()[0]) < 1e-5 < 1e-2 < float(truth.split()[0])
    assert "FAILED" in text


@pytest.mark.parametrize("against", ["pairs.npz", "net.py:Net"])
def test_the_right_slope_passes_both_and_the_file_says_so(source, against, capsys):
    assert command(source, "--set", "slope=0.2", "--against", str(source / against)) == 0
    notes = read_metadata(source / "o.safetensors")
    ((what, record),) = notes["verified"].items()
    assert what.endswith("the source computed") == (against == "pairs.npz")
    assert record["largest_error"] <= 1e-5
    assert notes["options"] == {"slope": 0.2}
    assert notes["assumed"] == {
        "stride": [1, 2], "padding": [0, 1], "output": "tanh, mapped from [-1, 1] to [0, 1]",
    }  # fmt: skip
    assert "activation:" not in capsys.readouterr().out


def test_pairs_in_every_shape_that_torch_gives(source, tmp_path):
    with np.load(source / "pairs.npz") as pairs:
        z, images = pairs["z"], pairs["images"]
    np.savez(tmp_path / "p.npz", latents=z[..., None, None], y=images)
    assert command(source, "--set", "slope=0.2", "--against", str(tmp_path / "p.npz")) == 0


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"z": (3, 6)}, "output: expected one array called images"),
        ({"z": (3, 6), "images": (2, 3, 8, 8)}, "as many outputs as inputs; got 3 and 2"),
        ({"z": (3, 5), "images": (3, 3, 8, 8)}, r"samples of shape \(6,\); got \(5,\)"),
        ({"z": (3, 6), "images": (3, 3, 4, 4)}, r"expected shape \(3, 3, 8, 8\)"),
        ({"z": (3, 6), "x": (3, 6), "images": (3, 3, 8, 8)}, "input: expected one array"),
    ],
)
def test_pairs_that_do_not_fit(source, tmp_path, capsys, arrays, words):
    import re

    np.savez(tmp_path / "p.npz", **{k: np.zeros(v, "f4") for k, v in arrays.items()})
    assert command(source, "--against", str(tmp_path / "p.npz")) == 2
    assert re.search(words, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("net.py:Nothing", "a name in"),
        ("net.py:Needy", "Write a function without arguments"),
        ("net.py:broken", "OSError: no such thing"),
        ("none.py:Net", "of a file that exists"),
        ("net.py:torch", "Write a function"),
    ],
)
def test_modules_that_cannot_be_had(source, capsys, name, words):
    assert command(source, "--against", str(source / name)) == 2
    assert words in capsys.readouterr().err


def test_a_classifier_with_probabilities_is_compared_with_ours_after_the_cut(tmp_path, capsys):
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3), nn.Softmax(1)).eval()
    torch.save(net.state_dict(), tmp_path / "net.pth")
    (tmp_path / "net.toml").write_text(
        "input = [4]\n" + "".join(
            f'[[layer]]\ntype = "{kind}"\n' for kind in ("Linear", "ReLU", "Linear", "Softmax")
        )
    )  # fmt: skip
    x = torch.randn(5, 4)
    with torch.no_grad():
        np.savez(tmp_path / "p.npz", x=x.numpy(), y=net(x).numpy())
    files = [str(tmp_path / "net.pth"), "--recipe", "sequential"]
    files += ["--set", f"description={tmp_path / 'net.toml'}"]
    against = ["--against", str(tmp_path / "p.npz")]
    out = ["--out", str(tmp_path / "a.safetensors")]
    assert main(["torch", *files, *against, *out]) == 0
    assert "the source's last softmax (3) was cut" in capsys.readouterr().out
    kept = ["--keep-softmax", "--out", str(tmp_path / "b.safetensors")]
    assert main(["torch", *files, *against, *kept]) == 0
    import jaxgen

    logits, probabilities = (jaxgen.load(tmp_path / f"{n}.safetensors") for n in "ab")
    sample = x[0].numpy()
    with torch.no_grad():
        wanted = net[:3](x[:1])[0].numpy()
    np.testing.assert_allclose(logits(sample), wanted, atol=1e-5)
    assert float(probabilities(sample).sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"eps": "x"}, "eps: expected a number above 0; got 'x'"),
        ({"eps": -5}, "eps: expected a number above 0; got -5"),
        ({"stride": 0}, "stride: expected a whole number of at least 1"),
        ({"padding": -1}, "padding: expected a whole number of at least 0"),
        ({"slope": "x"}, "slope: expected a number of at least 0"),
        ({"output": "none"}, "output: expected"),
        ({"stride": {"a": 1}}, "stride: expected"),
    ],
)
def test_options_are_typed(options, words):
    net = nn.Sequential(nn.ConvTranspose2d(6, 5, 4), nn.BatchNorm2d(5), nn.ReLU(),
                        nn.ConvTranspose2d(5, 3, 4, 2, 1))  # fmt: skip
    state = {k: v.numpy() for k, v in net.state_dict().items() if "tracked" not in k}
    with pytest.raises(InputError, match=words):
        convert_state(state, "dcgan", options)
