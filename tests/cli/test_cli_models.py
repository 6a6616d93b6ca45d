"""`jaxgen models`: three lists, and a card of each model."""

import json

import pytest

from jaxgen.cli import main
from jaxgen.models import describe
from jaxgen.models.catalogue import FETCHABLE, SHIPPED, TRAINABLE


def test_the_list_is_split_by_how_a_model_is_obtained(capsys):
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    at = [text.index(title) for title in ("Shipped:", "Fetchable:", "Trainable:")]
    assert at == sorted(at)
    parts = text[at[0] : at[1]], text[at[1] : at[2]], text[at[2] :]
    for part, names in zip(parts, (SHIPPED, FETCHABLE, TRAINABLE), strict=True):
        found = {line.split()[0] for line in part.splitlines() if line.split()}
        assert set(names) <= found


@pytest.mark.parametrize("name", SHIPPED)
def test_a_card_of_a_shipped_model_says_where_it_is_from(capsys, name):
    assert main(["models", name]) == 0
    card = capsys.readouterr().out
    metadata = describe(name).metadata
    assert metadata["sha256"] in card
    assert f"licence          {metadata['licence']}" in card
    assert metadata["preprocessing"] in card
    assert metadata["data"] in card


@pytest.mark.parametrize("name", FETCHABLE)
def test_a_card_of_a_fetchable_model_has_its_pinned_package(capsys, name, monkeypatch, tmp_path):
    monkeypatch.setenv("JAXGEN_CACHE", str(tmp_path))
    assert main(["models", name, "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert card["group"] == "fetchable"
    assert not card["installed"]
    assert len(card["published"]["package_sha256"]) == 64
    assert main(["models", name]) == 0
    text = capsys.readouterr().out
    assert card["published"]["package"] in text
    assert f"jaxgen fetch {name}" in text
    # Against what it was compared, how near it is, and how to see it again.
    parity = card["published"]["parity"]
    assert 0 < parity["worst relative error of the outputs"] <= 2e-5
    assert parity["against"] in text
    assert f"benchmarks/conversion/fetched.py --names {name}" in text


def test_an_unknown_name_has_the_nearest(capsys):
    assert main(["models", "fashion-mnist/dcgn"]) == 2
    assert "Did you mean 'fashion-mnist/dcgan'?" in capsys.readouterr().err


def test_a_damaged_file_has_no_card(capsys, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"\xff" * 30)
    assert main(["models", str(tmp_path / "a.safetensors")]) == 2
    assert "a.safetensors" in capsys.readouterr().err
