"""Where the weights are in a checkpoint; what is read past and what is refused."""

import argparse
import collections
import pickle
from collections import OrderedDict

import numpy as np
import pytest

from jaxgen.core.errors import InputError
from weights_convert.cli import main
from weights_convert.pytorch import load_state
from weights_convert.restricted_pickle import Forbidden
from weights_convert.torch_files import read_file, tidy, under_prefix

torch = pytest.importorskip("torch", reason="writes checkpoints: pip install torch")

W, V = {"w": torch.ones(2)}, {"v": torch.zeros(3)}


def saved(tmp_path, value):
    torch.save(value, tmp_path / "c.pth")
    return tmp_path / "c.pth"


class Thing:
    """An object whose class nobody else has; torch.save writes its name and its attributes."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


@pytest.mark.parametrize(
    ("tree", "names"),
    [
        ({"state_dict": W, "args": argparse.Namespace(a=1)}, ["w"]),
        ({"a": {"b": {"c": W}}, "best": np.float64(1)}, ["w"]),
        ({"g_ema": W, "d": V, "latent_avg": torch.zeros(2)}, ["w"]),
        ({"model": W, "optimizer": {"state": {0: {"exp_avg": torch.ones(1)}}}}, ["w"]),
        ({"model": W, "log": collections.defaultdict(dict, {"x": {"y": 1}})}, ["w"]),
        ({"model": collections.defaultdict(int, W)}, ["w"]),
        ({"model": W, (1, 2): 3, 2.5: 1, None: 2, b"x": 0}, ["w"]),
        ({"model": W, "sets": [{1, 2}, frozenset("ab")], "range": range(3)}, ["w"]),
        ({"model": W, "thing": Thing(a=Thing(b=[1])), "class": Thing}, ["w"]),
        ({"model": W, "array": np.arange(3), "date": np.datetime64("2020-01-01")}, ["w"]),
        ({"thing": Thing(model=W)}, ["w"]),
    ],
)
def test_what_is_not_asked_for_need_not_be_understood(tmp_path, tree, names):
    for zipped in (True, False):
        torch.save(tree, tmp_path / "c.pth", _use_new_zipfile_serialization=zipped)
        assert list(read_file(tmp_path / "c.pth")) == names


@pytest.mark.parametrize(
    ("tree", "key", "words"),
    [
        ({"a": Thing(x=1)}, None, "wants to use '.*Thing'.*Nothing was run"),
        ({"a": W, "b": Thing(x=1)}, "b", "wants to use '.*Thing'"),
        ({"w": torch.ones(1), "n": Thing(x=1)}, None, "'n'.*wants to use '.*Thing'"),
        ({"w": torch.ones(1), "n": 3}, None, "1 entries of the state dict are no tensors: 'n'"),
        ({"A": W, "B": V}, None, "choose a key among 'A', 'B'"),
        ({"x": {"A": W}, "y": {"model": W}, "z": {"net": V}}, None, "'x.A', 'y.model', 'z.net'"),
        ({"A": W}, "C", "no entry 'C'; there are: 'A'"),
        ([W], None, "the file holds a list"),
        (torch.ones(2), None, "a lone tensor"),
        ({"epoch": 3}, None, "no tensors; the entries are 'epoch'"),
    ],
)
def test_what_lies_on_the_path_is(tmp_path, tree, key, words):
    with pytest.raises(InputError, match=words):
        read_file(saved(tmp_path, tree), key)


def test_a_command_is_refused_even_where_nobody_looks(tmp_path):
    class Run:
        def __reduce__(self):
            import os

            return os.system, (f"touch {tmp_path / 'witness'}",)

    with pytest.raises(Forbidden, match="system"):
        read_file(saved(tmp_path, {"model": W, "extra": Run()}))
    assert not (tmp_path / "witness").exists()


def test_keys_with_dots_and_through_objects(tmp_path):
    path = saved(tmp_path, {"v1.0": {"ema.g": W, "ema": {"g": V}}, "o": Thing(net=V), "W": W})
    assert list(read_file(path, "v1.0.ema.g")) == ["w"]
    assert list(read_file(path, "o.net")) == ["v"]


def test_whole_modules_are_their_state_dicts(tmp_path):
    net = torch.nn.Sequential(
        torch.nn.Linear(2, 3, bias=False), torch.nn.BatchNorm1d(3),
        torch.nn.ModuleDict({"a": torch.nn.PReLU()}),
    )  # fmt: skip
    net.register_buffer("temporary", torch.ones(1), persistent=False)
    net.register_buffer("kept", torch.ones(1))
    for zipped in (True, False):
        torch.save(net, tmp_path / "c.pth", _use_new_zipfile_serialization=zipped)
        found = read_file(tmp_path / "c.pth")
        assert set(found) == set(net.state_dict())
        for name, value in net.state_dict().items():
            np.testing.assert_array_equal(found[name], value.numpy())


def test_expanded_and_shared_tensors(tmp_path):
    base = torch.arange(6.0).view(2, 3)
    state = {"a": base.expand(4, 2, 3), "b": base[:1].expand(5, 3), "c": base, "d": base.t()}
    found = read_file(saved(tmp_path, state))
    for name, value in state.items():
        np.testing.assert_array_equal(found[name], value.numpy())
    with pytest.raises(InputError, match=r"save tensors that were expanded by \.contiguous"):
        read_file(saved(tmp_path, {"a": torch.ones(1).expand(1 << 14, 1 << 13)}))


def test_counters_and_wrappers_are_taken_off():
    state = {"module.n_averaged": np.array(3), "module.module.a.weight": np.ones(2, "f2")}
    assert list(tidy({"n_averaged": np.array(3), "module.a.weight": np.ones(2)})) == ["a.weight"]
    assert list(tidy(state)) == ["a.weight"]


def test_prefixes(tmp_path):
    state = {"gen.a": np.ones(1), "gen.b": np.ones(1), "gender.a": np.ones(1), "g_a": np.ones(1)}
    assert list(under_prefix(state, "gen", "x")) == ["a", "b"]
    assert list(under_prefix(state, "gen.", "x")) == ["a", "b"]
    assert list(under_prefix(state, "g_", "x")) == ["a"]
    with pytest.raises(InputError, match="they begin with 'gen', 'gender', 'g_a'"):
        under_prefix(state, "disc", "x")
    path = saved(tmp_path, OrderedDict({"g.module.w": torch.ones(2), "d.v": torch.ones(1)}))
    assert list(load_state(path, prefix="g")) == ["w"]


def test_buffers_fill_what_an_average_lacks(tmp_path):
    path = saved(tmp_path, {"avg": {"w": torch.ones(1)}, "all": {"w": torch.zeros(1), "s": W["w"]}})
    found = load_state(path, "avg", buffers="all")
    assert {name: float(value[0]) for name, value in found.items()} == {"w": 1.0, "s": 1.0}


def test_two_networks_without_a_prefix_are_explained(tmp_path, capsys):
    layers = {"main.0.weight": torch.ones(4, 3, 4, 4), "main.1.weight": torch.ones(3)}
    state = {f"{net}.{k}": v for net in ("generator", "critic") for k, v in layers.items()}
    path = saved(tmp_path, {"state_dict": state})
    assert main(["torch", str(path), "--recipe", "dcgan", "--check"]) == 2
    error = capsys.readouterr().err
    assert "generator (2), critic (2): choose one network by --prefix" in error


def test_recipes_are_listed_with_every_default(capsys):
    from weights_convert.recipes import RECIPES, find_recipe

    assert main(["recipes"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in RECIPES)
    for name in RECIPES:
        assert main(["recipes", name]) == 0
        text = capsys.readouterr().out
        for option in find_recipe(name).options:
            assert f"--set {option}=" in text
    assert main(["recipes", "dcgan"]) == 0
    assert "--set eps=...  of batch normalisation; default: 1e-05" in capsys.readouterr().out
    assert main(["recipes", "gan"]) == 2


def test_plain_pickles_of_other_things_say_so(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": [1, 2]}))
    with pytest.raises(InputError, match="no tensors"):
        read_file(tmp_path / "a.pkl")
