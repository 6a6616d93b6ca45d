"""Weight files on the Hugging Face Hub: `hf://owner/name/file.safetensors@revision`.

The revision is a whole commit, 40 hexadecimal digits: a branch or a tag may hold other weights
tomorrow. The package `huggingface_hub` obtains the file and keeps it in its own cache, from which
it comes without a network; only safetensors files are asked for, and they are read as all others
are, by sizes and digests that are checked.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any, NamedTuple

from jaxgen.core.errors import InputError, expected

__all__ = ["PREFIX", "Address", "address", "obtained"]

PREFIX = "hf://"
_FORM = "hf://owner/name/file.safetensors@revision"
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


class Address(NamedTuple):
    """Where a file on the hub is.

    Attributes:
      repository: "owner/name".
      file: its path in the repository.
      revision: a commit.
    """

    repository: str
    file: str
    revision: str


def address(text: str) -> Address:
    """Read an address.

    Raises:
      InputError: for another form, a file that is not safetensors, or a revision that is missing
        or is no commit.
    """
    place, _, revision = text.removeprefix(PREFIX).partition("@")
    owner, _, rest = place.partition("/")
    name, _, file = rest.partition("/")
    parts = [owner, name, *file.split("/")]
    if not text.startswith(PREFIX) or not all(_PART.fullmatch(part) for part in parts):
        raise expected("name", _FORM, repr(text)[:200])
    if not file.endswith(".safetensors"):
        hint = "Other files may run code; convert it once by `python -m weights_convert`"
        raise expected(f"{text[:200]}: file", "a .safetensors file", repr(file)[:80], hint)
    if not _COMMIT.fullmatch(revision):
        hint = (
            "A branch or a tag may hold other weights tomorrow; the commit stands on the page "
            "of the file's history"
        )
        got = repr(revision)[:80] if revision else "none"
        raise expected(f"{text[:200]}: revision", "a commit, @ and 40 hex digits", got, hint)
    return Address(f"{owner}/{name}", file, revision)


def obtained(text: str) -> Path:
    """Return the file of an address, out of the hub's cache or from the hub.

    Raises:
      InputError: for an address that is none, without `huggingface_hub`, or where the hub has no
        such file or cannot be reached.
    """
    where = address(text)
    try:
        hub: Any = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise InputError(f"{text}: files of the hub need: pip install huggingface_hub") from error
    try:
        path = hub.hf_hub_download(where.repository, where.file, revision=where.revision)
    except Exception as error:  # its many errors of networks and names
        words = str(error).split("\n\n")[0].replace("\n", " ").strip()
        reason = f"{type(error).__name__}: {words}"[:300]
        raise InputError(
            f"{text}: the hub gave no file ({reason}). Where there is a network, obtain it there "
            "and give the file's path"
        ) from error
    return Path(path)
