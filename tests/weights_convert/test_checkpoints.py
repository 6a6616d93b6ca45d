"""Checkpoints as people save them: one command each, every layer as torch has it."""

import re
import sys

import numpy as np
import pytest

from jaxgen.models.weights import load_weights, read_metadata
from weights_convert.cli import main

torch = pytest.importorskip("torch", reason="builds checkpoints: pip install torch")
torch.set_num_threads(1)

from checkpoints import CASES, NETS  # noqa: E402


@pytest.mark.parametrize("case", CASES)
def test_one_command_converts_it_and_every_layer_agrees(case, tmp_path, capsys):
    net, build = CASES[case]
    arguments = build(tmp_path / "net.pth")
    out = tmp_path / "out" / "net.safetensors"
    (tmp_path / "source.py").write_text(
        "from checkpoints import NETS\n"
        f"def net():\n    return NETS[{net!r}]()\n"
    )  # fmt: skip
    command = ["torch", *arguments, "--recipe", "dcgan", "--out", str(out)]
    assert main([*command, "--against", f"{tmp_path / 'source.py'}:net"]) == 0, capsys.readouterr()
    text = capsys.readouterr().out
    worst = float(re.findall(r"largest relative error (\S+) of (?:4|6) layers", text)[0])
    assert worst <= 1e-5
    assert read_metadata(out)["verified"]["the source's own class, net"]["largest_error"] <= 1e-5
    arrays, _ = load_weights(out)
    wanted = {k: v for k, v in NETS[net]().state_dict().items() if k.endswith("main.0.weight")}
    for weight in wanted.values():  # an independent look at one array: layout and place
        turned = weight.numpy().transpose(2, 3, 0, 1)[::-1, ::-1]
        np.testing.assert_array_equal(arrays["layers.1.kernel"], turned)
    assert "source" not in sys.modules
