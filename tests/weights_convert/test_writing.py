"""No command writes over what it reads, over what is there, or before its check has passed."""

import os
import shutil

import numpy as np
import pytest
from caffe_files import net_text, write_net

from jaxgen.core.errors import InputError
from jaxgen.models.weights import load_weights
from weights_convert import caffe
from weights_convert.cli import main
from weights_convert.writing import destination, write_new

ARRAYS = {"a": np.ones(3, np.float32)}


def test_a_new_file_is_whole_and_leaves_nothing_beside_it(tmp_path):
    path = write_new(tmp_path / "deep" / "x.safetensors", ARRAYS, {"kind": "test"})
    np.testing.assert_array_equal(load_weights(path)[0]["a"], ARRAYS["a"])
    assert os.listdir(path.parent) == ["x.safetensors"]
    with pytest.raises(InputError, match=r"a new file; got .* which exists\. Overwrite it with"):
        write_new(path, {"a": np.zeros(3)}, {})
    write_new(path, {"a": np.zeros(3)}, {}, force=True)
    assert not load_weights(path)[0]["a"].any()


def test_a_failure_in_the_middle_leaves_what_was_there(tmp_path):
    path = write_new(tmp_path / "x.safetensors", ARRAYS, {})
    with pytest.raises(InputError, match="finite"):
        write_new(path, {"a": np.full(3, np.nan)}, {}, force=True)
    np.testing.assert_array_equal(load_weights(path)[0]["a"], ARRAYS["a"])
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_a_file_made_meanwhile_is_not_replaced(tmp_path, monkeypatch):
    path, link = tmp_path / "x.safetensors", os.link

    def late(source, target):
        path.write_bytes(b"another's")
        link(source, target)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(InputError, match="which exists"):
        write_new(path, ARRAYS, {})
    assert path.read_bytes() == b"another's"


def test_without_hard_links_it_is_written_all_the_same(tmp_path, monkeypatch):
    def none(*_):
        raise OSError("not here")

    monkeypatch.setattr(os, "link", none)
    write_new(tmp_path / "x.safetensors", ARRAYS, {})
    assert os.listdir(tmp_path) == ["x.safetensors"]


@pytest.mark.parametrize("how", ["same", "symbolic", "hard", "dots"])
def test_a_source_is_never_written_under_any_of_its_names(tmp_path, how):
    source = tmp_path / "source.safetensors"
    source.write_bytes(b"precious")
    out = tmp_path / "other.safetensors"
    if how == "same":
        out = source
    elif how == "symbolic":
        out.symlink_to(source)
    elif how == "hard":
        os.link(source, out)
    else:
        out = tmp_path / "a" / ".." / "source.safetensors"
        (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match="A source is never overwritten"):
        destination(out, sources=["nothing", source], force=True)
    with pytest.raises(InputError, match="A source is never overwritten"):
        write_new(out, ARRAYS, {}, sources=[source], force=True)
    assert source.read_bytes() == b"precious"


def test_names_and_folders(tmp_path):
    with pytest.raises(InputError, match=r"ends in \.safetensors; got 'x\.pth'"):
        destination(tmp_path / "x.pth", force=True)
    (tmp_path / "d.safetensors").mkdir()
    with pytest.raises(InputError, match="which is a folder"):
        destination(tmp_path / "d.safetensors", force=True)
    (tmp_path / "lost.safetensors").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="which exists"):
        destination(tmp_path / "lost.safetensors")


# The commands ----------------------------------------------------------------------------


def torch_command(folder):
    torch = pytest.importorskip("torch", reason="writes a checkpoint: pip install torch")
    net = torch.nn.Sequential(torch.nn.ConvTranspose2d(4, 3, 4))
    torch.save(net.state_dict(), folder / "mine.safetensors")
    return ["torch", str(folder / "mine.safetensors"), "--recipe", "dcgan"], ["mine.safetensors"]


def caffe_command(folder):
    text = net_text({"x": (1, 3)}, 'name: "i" type: "InnerProduct" bottom: "x" top: "i" '
                    "inner_product_param { num_output: 2 }")  # fmt: skip
    files = write_net(folder, text)
    names = ["a.safetensors", "b.safetensors"]
    for file, name in zip(files, names, strict=True):
        shutil.move(file, folder / name)
    return ["caffe", *(str(folder / name) for name in names)], names


@pytest.mark.parametrize("make", [torch_command, caffe_command])
def test_commands_spare_their_sources_and_what_is_there(tmp_path, capsys, make):
    arguments, sources = make(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in sources}
    for name in sources:
        for force in ([], ["--force"]):
            assert main([*arguments, "--out", str(tmp_path / name), *force]) == 2
            assert "never overwritten" in capsys.readouterr().err
    out = tmp_path / "out.safetensors"
    assert main([*arguments, "--out", str(out)]) == 0
    first = out.read_bytes()
    assert main([*arguments, "--out", str(out)]) == 2
    assert "--force" in capsys.readouterr().err
    assert main([*arguments, "--out", str(tmp_path / "out.pth")]) == 2
    assert main([*arguments, "--out", str(out), "--force"]) == 0
    assert out.read_bytes() == first
    assert {name: (tmp_path / name).read_bytes() for name in sources} == before
    assert sorted(os.listdir(tmp_path)) == sorted([*sources, "out.safetensors"])


def test_a_check_that_fails_writes_nothing(tmp_path, capsys, monkeypatch):
    torch = pytest.importorskip("torch", reason="writes a checkpoint: pip install torch")
    net = torch.nn.Sequential(torch.nn.ConvTranspose2d(4, 3, 4))
    torch.save(net.state_dict(), tmp_path / "net.pth")
    out = tmp_path / "out.safetensors"
    files = [str(tmp_path / "net.pth"), "--recipe", "dcgan", "--out", str(out)]
    assert main(["torch", *files, "--check", "--tolerance", "1e-30"]) == 1
    assert "nothing was written" in capsys.readouterr().out
    assert not out.exists()
    for bad in ("nan", "0", "-1"):
        assert main(["torch", *files, "--check", "--tolerance", bad]) == 2
    assert main(["torch", *files, "--check"]) == 0


def test_the_functions_do_not_replace_either(tmp_path):
    text = net_text({"x": (1, 3)}, 'name: "r" type: "ReLU" bottom: "x" top: "y"')
    converted = caffe.convert(*write_net(tmp_path, text))
    caffe.save_converted(tmp_path / "x.safetensors", converted)
    with pytest.raises(InputError, match="which exists"):
        caffe.save_converted(tmp_path / "x.safetensors", converted)
    caffe.save_converted(tmp_path / "x.safetensors", converted, force=True)
