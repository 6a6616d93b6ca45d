"""Read zip archives, npz files among them, that come from somebody else.

A zip says in its list of contents how large its entries are, and nothing makes it tell the truth.
`opened_zip` is the one way in: the list's own size is looked at before `zipfile` makes objects of
it, then the number of entries, and whatever `zipfile` raises on damaged bytes is one `InputError`.
"""

from __future__ import annotations

import ast
import contextlib
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from jaxgen.core.errors import InputError
from weights_convert.sniff import check_directory

__all__ = ["opened_zip", "read_npz"]

_MAX_NPZ = 512 * 1024**2
_MAX_ARRAYS = 20_000
_ZIP_TROUBLE = (
    zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError, IndexError,
    NotImplementedError, OverflowError, RuntimeError,
)  # fmt: skip


@contextlib.contextmanager
def opened_zip(
    path: Path, most_entries: int, *, kind: str = "zip", name: str | None = None
) -> Iterator[tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]]:
    """Open a zip and yield it with its entries; damage found in the block is an `InputError` too.

    Args:
      path: the file.
      most_entries: refuse a zip of more.
      kind: what the file is called in errors: "damaged npz", say.
      name: how errors call the file; its path by default.

    Raises:
      InputError: for a damaged zip, or one with an absurd list of contents.
    """
    name = str(path) if name is None else name
    check_directory(path)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > most_entries:
                raise InputError(
                    f"{name}: a {kind} of {len(entries)} entries; {most_entries} is the limit"
                )
            yield archive, entries
    except _ZIP_TROUBLE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: damaged {kind}: {str(error)[:200]}") from None


def read_npz(path: str | Path, *, slashes: bool = True) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file without objects; `|` in names becomes `/` if `slashes`.

    Raises:
      InputError: for a damaged file or an entry whose header claims more than it holds.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: expected an npz; there is no such file")
    arrays: dict[str, np.ndarray] = {}
    with opened_zip(path, _MAX_ARRAYS, kind="npz") as (archive, entries):
        claimed = sum(entry.file_size for entry in entries)
        if claimed > _MAX_NPZ:
            raise InputError(
                f"{path}: {len(entries)} arrays of {claimed} bytes; the limits are "
                f"{_MAX_ARRAYS} and {_MAX_NPZ}"
            )
        for entry in entries:
            if entry.flag_bits & 0x1:
                raise InputError(f"{path}: {entry.filename[:80]!r} is encrypted")
            with archive.open(entry) as file:
                shape, fortran, dtype = _npy_header(file, path, entry.filename)
                length = math.prod(shape) * dtype.itemsize
                if dtype.hasobject or length > entry.file_size:
                    raise InputError(f"{path}: {entry.filename[:80]!r}: {dtype}, {shape[:8]}")
                raw = file.read(length)
            if len(raw) != length:
                raise InputError(f"{path}: {entry.filename[:80]!r}: truncated")
            array = np.frombuffer(raw, dtype).reshape(shape, order="F" if fortran else "C")
            name = entry.filename.removesuffix(".npy")
            arrays[name.replace("|", "/") if slashes else name] = array
    return arrays


def _npy_header(file: IO[bytes], path: Path, name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    head = file.read(8)
    if head[:6] != b"\x93NUMPY" or head[6] not in (1, 2, 3):
        raise InputError(f"{path}: {name[:80]!r}: no npy header")
    size = int.from_bytes(file.read(2 if head[6] == 1 else 4), "little")
    if size > 10_000:
        raise InputError(f"{path}: {name[:80]!r}: an npy header of {size} bytes")
    try:
        fields = ast.literal_eval(file.read(size).decode("latin-1").strip())
        shape, dtype = tuple(fields["shape"]), np.dtype(str(fields["descr"]))
        if not all(type(n) is int and 0 <= n < 2**40 for n in shape):
            raise ValueError("shape")
        return shape, bool(fields["fortran_order"]), dtype
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise InputError(f"{path}: {name[:80]!r}: npy header: {str(error)[:100]}") from None
