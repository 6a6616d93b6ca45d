"""Compiled programs are kept where nobody else can put theirs, and heal."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxgen.core import cache

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "compiled").mkdir(mode=0o700)
    return tmp_path / "compiled"


def test_a_folder_of_this_user_alone_is_used(folder):
    assert cache._is_private(folder)
    folder.chmod(0o777)
    assert cache._is_private(folder)  # it is empty: it is made private
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_may_have_filled_is_not(folder, monkeypatch):
    (folder / "jit_f-0123-cache").write_bytes(b"native code")
    folder.chmod(0o777)
    assert not cache._is_private(folder)
    folder.chmod(0o700)
    assert cache._is_private(folder)
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    assert not cache._is_private(folder)


def test_a_link_to_a_folder_is_not(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert not cache._is_private(tmp_path / "link")


PROGRAM = """
import jax, jax.numpy as jnp
from jaxgen.core.cache import keep_compiled
print(keep_compiled())
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
print(float(jax.jit(lambda x: jnp.sin(x).sum())(jnp.arange(3.0))))
"""


def run(place):
    environment = {**os.environ, "JAXGEN_CACHE": str(place), "PYTHONPATH": str(ROOT)}
    environment["JAXGEN_COMPILE_CACHE"] = "on"
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_a_truncated_entry_heals(tmp_path):
    place, value = run(tmp_path)
    entries = {path: path.read_bytes() for path in Path(place).glob("jit__lambda*-cache")}
    assert entries
    for path, data in entries.items():
        path.write_bytes(data[: len(data) // 2])
    assert run(tmp_path) == [place, value]
    for path in entries:  # written again: programs are not the same to the byte
        assert path.stat().st_size > len(entries[path]) * 0.9
