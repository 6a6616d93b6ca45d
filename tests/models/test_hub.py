"""`hf://` addresses, against a cache folder of the hub's own layout: no network is used."""

import importlib
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxgen
from jaxgen.core.errors import InputError
from jaxgen.models.hub import Address, address

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = f"hf://someone/toys/nets/gan.safetensors@{COMMIT}"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache with one file; returns its snapshot's folder."""
    package = pytest.importorskip("huggingface_hub", reason="pip install huggingface_hub")
    constants = importlib.import_module("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    download = package.hf_hub_download
    monkeypatch.setattr(
        package,
        "hf_hub_download",
        lambda *args, **more: download(*args, **more, cache_dir=tmp_path),
    )
    folder = tmp_path / "models--someone--toys" / "snapshots" / COMMIT
    (folder / "nets").mkdir(parents=True)
    shipped = Path(jaxgen.__file__).parent / "shipped" / "toy2d_gan_500.safetensors"
    shutil.copy(shipped, folder / "nets" / "gan.safetensors")
    return folder


def test_a_file_in_the_cache_is_loaded(hub):
    z = np.float32([0.3, -1.0])
    np.testing.assert_array_equal(jaxgen.load(NAME)(z), jaxgen.load("toy2d/gan-500")(z))
    assert jaxgen.models.describe(NAME).input_shape == (2,)


def test_another_commit_or_file_is_not_taken_for_it(hub):
    other = NAME.replace("@0", "@1")
    for name in (other, NAME.replace("gan.", "vae.")):
        with pytest.raises(InputError, match="the hub gave no file") as info:
            jaxgen.load(name)
        assert "\n" not in str(info.value)
        assert "file's path" in str(info.value)


def test_what_is_in_it_is_not_trusted(hub):
    (hub / "nets" / "gan.safetensors").write_bytes(b"\xff" * 30)
    with pytest.raises(InputError, match="header"):
        jaxgen.load(NAME)


def test_an_address_is_read():
    assert address(NAME) == Address("someone/toys", "nets/gan.safetensors", COMMIT)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hf://a/b/c.safetensors", "revision: expected a commit.*got none.*tomorrow"),
        ("hf://a/b/c.safetensors@main", "revision: expected a commit.*got 'main'.*tomorrow"),
        (f"hf://a/b/c.safetensors@{COMMIT[:-1]}", "expected a commit"),
        (f"hf://a/b/c.safetensors@{COMMIT.upper()}", "expected a commit"),
        (f"hf://a/b/c.bin@{COMMIT}", "expected a .safetensors file.*weights_convert"),
        (f"hf://a/b/c.pth@{COMMIT}", "may run code"),
        (f"hf://a/b@{COMMIT}", "expected hf://owner/name/file"),
        (f"hf://a/b/../c.safetensors@{COMMIT}", "expected hf://owner/name/file"),
        (f"hf://a/../../c.safetensors@{COMMIT}", "expected hf://owner/name/file"),
        (f"hf://a//b/c.safetensors@{COMMIT}", "expected hf://owner/name/file"),
    ],
)
def test_what_is_no_address_is_refused_before_the_hub_is_asked(monkeypatch, name, words):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=words):
        jaxgen.load(name)


def test_without_the_package_its_name_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match="pip install huggingface_hub"):
        jaxgen.load(NAME)
