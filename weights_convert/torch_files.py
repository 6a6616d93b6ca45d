"""Read what PyTorch writes, without PyTorch and without running anything from the file.

Three containers: the zip of PyTorch 1.6 and later, the sequence of pickles before it, and
safetensors. Every tensor's dtype, shape, stride and place is checked against the size of the
file before any memory is taken, and arrays are read-only views of the file mapped into
memory: a header that claims terabytes costs nothing but an error.
"""

from __future__ import annotations

import itertools
import json
import math
import mmap
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxgen.core.errors import InputError
from weights_convert.archives import opened_zip
from weights_convert.restricted_pickle import PickleError, Placeholder, load
from weights_convert.sniff import refuse
from weights_convert.torch_storages import (
    ALLOWED,
    MAX_RANK,
    MAX_VOLUME,
    Storage,
    Tensor,
    storage_of,
    whole,
)
from weights_convert.torch_tree import state_dict, tidy, under_prefix

__all__ = ["Tensor", "read_file", "release_pages", "tidy", "under_prefix"]

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MAX_ENTRIES = 100_000
_MAX_HEADER_BYTES = 16 * 1024 * 1024
_MAX_REPEATED = 1 << 27  # bytes that tensors may show more than the file holds

_SAFETENSORS: dict[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}


def read_file(path: str | os.PathLike[str], key: str | None = None) -> dict[str, np.ndarray]:
    """Return the tensors of a PyTorch or safetensors file, as read-only views of the file.

    Args:
      path: a `.pth`, `.pt`, `.th`, `.ckpt` or `.safetensors` file; the content decides.
      key: dotted path to the state dict inside a checkpoint, as in `state_dict` or
        `ema.model`, where there is more than one.

    Returns:
      Name -> array, in the order of the file. bfloat16 has `ml_dtypes.bfloat16`.

    Raises:
      InputError: with the file, the field and the offset; never anything else for a bad file.
    """
    path = Path(path)
    size = _size(path)
    with path.open("rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    head = bytes(data[:8])
    wanted = "a PyTorch file (zip or older) or safetensors"
    if (other := refuse(path, wanted)) is not None:
        raise other
    if head[:4] == b"PK\x03\x04" or head[:4] == b"PK\x05\x06":
        tree, find = _read_zip(path, data)
    elif size >= 10 and bytes(data[8:9]) == b"{" and int.from_bytes(head, "little") < size:
        return _read_safetensors(path, data)
    elif head[:1] in (b"\x80", b"(", b"}", b"]", b"c"):
        tree, find = _read_legacy(path, data)
    else:
        raise InputError(f"{path}: expected {wanted}; it begins with {head!r}")
    tensors = state_dict(tree, str(path), Tensor, key)
    _check_volume(tensors, path)
    return {name: _view(tensor, name, path, find) for name, tensor in tensors.items()}


def release_pages(arrays: Mapping[str, np.ndarray]) -> None:
    """Give the memory of a mapped file back; it is read again where it is used again."""
    done: set[int] = set()
    for array in arrays.values():
        base: Any = array
        while isinstance(base, np.ndarray):
            base = base.base
        mapped = getattr(base, "obj", None)
        if isinstance(mapped, mmap.mmap) and id(mapped) not in done:
            done.add(id(mapped))
            if hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)


# Inside ------------------------------------------------------------------------------


def _check_volume(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Bound how many more numbers expanded and shared tensors show than the file holds."""
    shown = sum(math.prod(t.shape) * t.storage.dtype.itemsize for t in tensors.values())
    held = {t.storage.key: t.storage.count * t.storage.dtype.itemsize for t in tensors.values()}
    if shown > 2 * sum(held.values()) + _MAX_REPEATED:
        raise InputError(
            f"{path}: its tensors show {shown} bytes of storages of {sum(held.values())}; "
            "save tensors that were expanded by .contiguous()"
        )


def _short(value: object) -> str:
    """Return a name from a file, safe to print and of bounded length."""
    return repr(value[:80]) if isinstance(value, str) else type(value).__name__


def _size(path: Path) -> int:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    if not path.is_file():
        if path.is_dir() and (other := refuse(path, "a file of PyTorch or safetensors")):
            raise other
        raise InputError(f"{path}: expected a file")
    if size == 0:
        raise InputError(f"{path}: the file is empty")
    return size


def _view(tensor: Tensor, name: str, path: Path, find: Any) -> np.ndarray:
    """Return the array a tensor stands for, a view of the mapped file."""
    storage = tensor.storage
    if math.prod(tensor.shape) == 0:
        return np.zeros(tensor.shape, storage.dtype)
    raw = find(storage, name)
    first = (storage.start + tensor.offset) * storage.dtype.itemsize
    if first + storage.dtype.itemsize > len(raw):
        raise InputError(f"{path}: {_short(name)}: lies outside its storage")
    array = np.ndarray(
        tensor.shape,
        storage.dtype,
        raw,
        first,
        tuple(step * storage.dtype.itemsize for step in tensor.stride),
    )
    array.flags.writeable = False
    return array


def _read_zip(path: Path, data: memoryview):
    """`archive/data.pkl` and one stored entry `archive/data/KEY` per storage."""
    with opened_zip(path, _MAX_ENTRIES) as (_, entries):
        pass  # only the list is wanted; the bytes are read from the map, checked by ourselves
    places = _zip_places(path, data, entries)
    pickles = [name for name in places if name.rsplit("/", 1)[-1] == "data.pkl"]
    if len(pickles) != 1:
        raise InputError(f"{path}: expected one data.pkl in the zip; got {len(pickles)}")
    folder = pickles[0].removesuffix("data.pkl")
    if bytes(_entry(path, data, places, folder + "byteorder", b"little")) != b"little":
        raise InputError(f"{path}: {folder}byteorder: only little-endian files are read")
    tree, _ = load(_entry(path, data, places, pickles[0]), f"{path}: {pickles[0]}",
                   ALLOWED, storage_of, placeholders=True)  # fmt: skip
    checked: dict[str, memoryview] = {}

    def find(storage: Storage, name: str) -> memoryview:
        entry = f"{folder}data/{storage.key}"
        if entry not in checked:
            checked[entry] = _entry(path, data, places, entry)
        wanted = (storage.start + storage.count) * storage.dtype.itemsize
        if len(checked[entry]) < wanted:
            raise InputError(
                f"{path}: {_short(name)}: storage of {wanted} bytes, but {_short(entry)} "
                f"has {len(checked[entry])}"
            )
        return checked[entry]

    return tree, find


def _zip_places(path: Path, data: memoryview, entries: list[zipfile.ZipInfo]):
    """Entry name -> (start, length, crc), every one checked to lie apart in the file."""
    places: dict[str, tuple[int, int, int]] = {}
    spans: list[tuple[int, int]] = []
    for entry in entries:
        name = entry.orig_filename
        parts = name.replace("\\", "/").split("/")
        if name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0] or "\0" in name:
            raise InputError(f"{path}: zip entry {_short(name)}: a path that leads outside")
        if name in places:
            raise InputError(f"{path}: zip entry {_short(name)}: there are two of them")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 0x1:
            raise InputError(
                f"{path}: zip entry {_short(name)}: compressed or encrypted, claiming "
                f"{entry.file_size} bytes. PyTorch stores entries as they are: save the file anew"
            )
        header = bytes(data[entry.header_offset : entry.header_offset + 30])
        if entry.header_offset < 0 or len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise InputError(
                f"{path}: zip entry {_short(name)}: no header at offset {entry.header_offset}"
            )
        lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:], "little")
        start = entry.header_offset + 30 + lengths
        if entry.file_size != entry.compress_size or start + entry.file_size > len(data):
            raise InputError(
                f"{path}: zip entry {_short(name)}: {entry.file_size} bytes at offset {start} "
                f"reach past the end of the file, {len(data)}"
            )
        places[name] = (start, entry.file_size, entry.CRC)
        spans.append((entry.header_offset, start + entry.file_size))
    spans.sort()
    for (_, end), (begin, _) in itertools.pairwise(spans):
        if begin < end:
            raise InputError(f"{path}: zip entries overlap at offset {begin}")
    return places


def _entry(
    path: Path, data: memoryview, places: Mapping[str, Any], name: str, default: bytes | None = None
):
    """Return the bytes of an entry, after its checksum was found right."""
    if name not in places:
        if default is not None:
            return memoryview(default)
        raise InputError(f"{path}: no entry {_short(name)} in the zip")
    start, length, crc = places[name]
    raw = data[start : start + length]
    if zlib.crc32(raw) != crc:
        raise InputError(f"{path}: zip entry {_short(name)}: wrong checksum, the file is damaged")
    return raw


def _read_legacy(path: Path, data: memoryview):
    """Magic number, version, system, the tree, the storage keys: five pickles; then the data."""
    name = str(path)
    magic, at = load(data, name, {})
    if type(magic) is not int or magic != _LEGACY_MAGIC:
        # A plain pickle: read on only to name what it wants to import.
        found, _ = load(data, name, ALLOWED, storage_of, placeholders=True)
        if isinstance(found, Placeholder | dict):
            state_dict(found, name, Tensor)
        raise InputError(
            f"{path}: a pickle, but none that torch.save wrote; arrays of NumPy are read by "
            "weights_convert.numpy_pickle"
        )
    version, at = load(data, name, {}, offset=at)
    if version != _LEGACY_PROTOCOL:
        raise InputError(f"{path}: legacy protocol version: expected {_LEGACY_PROTOCOL}")
    system, at = load(data, name, {}, offset=at)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise InputError(f"{path}: only little-endian files are read")
    known: dict[str, Storage] = {}

    def remember(identifier: object) -> Any:
        storage = storage_of(identifier)
        if not isinstance(storage, Storage):
            return storage
        other = known.setdefault(storage.key, storage)
        if other.dtype != storage.dtype:
            raise PickleError(f"storage {_short(storage.key)} has two types")
        return storage

    tree, at = load(data, name, ALLOWED, remember, offset=at, placeholders=True)
    places: dict[str, memoryview] = {}

    def find(storage: Storage, tensor: str) -> memoryview:
        # The tree is judged first: what is no state dict needs no storages.
        if not places:
            places.update(_legacy_storages(path, data, at, known))
        raw = places.get(storage.key)
        wanted = (storage.start + storage.count) * storage.dtype.itemsize
        if raw is None or len(raw) < wanted:
            raise InputError(f"{path}: {_short(tensor)}: its storage is missing or too short")
        return raw

    return tree, find


def _legacy_storages(
    path: Path, data: memoryview, at: int, known: Mapping[str, Storage]
) -> dict[str, memoryview]:
    """Storage -> its bytes: a list of keys, then for each its length and its numbers."""
    keys, at = load(data, str(path), {}, offset=at)
    if not isinstance(keys, list) or not all(isinstance(key, str | int) for key in keys):
        raise InputError(f"{path}: offset {at}: the list of storages is damaged")
    places: dict[str, memoryview] = {}
    for key in map(str, keys):
        if key not in known or key in places:
            raise InputError(f"{path}: offset {at}: storage {_short(key)} unknown or twice")
        count = int.from_bytes(data[at : at + 8], "little")
        length = count * known[key].dtype.itemsize
        if at + 8 + length > len(data):
            raise InputError(
                f"{path}: offset {at}: truncated: a storage of {length} bytes, "
                f"{max(0, len(data) - at - 8)} are left"
            )
        places[key] = data[at + 8 : at + 8 + length]
        at += 8 + length
    return places


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _read_safetensors(path: Path, data: memoryview) -> dict[str, np.ndarray]:
    """Read safetensors: an 8-byte length, a JSON header, the data; tensors may not overlap."""
    length = int.from_bytes(data[:8], "little")
    if length > min(len(data) - 8, _MAX_HEADER_BYTES):
        raise InputError(f"{path}: a header of {length} bytes in a file of {len(data)}")
    try:
        header = json.loads(bytes(data[8 : 8 + length]).decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: safetensors header: {str(error)[:200]}") from None
    if not isinstance(header, dict):
        raise InputError(f"{path}: safetensors header: expected an object")
    if len(header) > _MAX_ENTRIES:
        raise InputError(f"{path}: {len(header)} tensors; {_MAX_ENTRIES} is the limit")
    body = data[8 + length :]
    arrays: dict[str, np.ndarray] = {}
    spans: list[tuple[int, int]] = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        label = f"{path}: {_short(name)}"
        try:
            dtype = _SAFETENSORS[entry["dtype"]]
            shape = tuple(whole(n, "a dimension") for n in entry["shape"])
            begin, end = (whole(n, "an offset") for n in entry["data_offsets"])
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{label}: safetensors header: a damaged entry") from None
        if math.prod(max(n, 1) for n in shape) >= MAX_VOLUME:
            raise InputError(f"{label}: a shape that no file can fill, {shape[:8]}")
        if len(shape) > MAX_RANK or end > len(body) or begin > end:
            raise InputError(f"{label}: data {begin} to {end} of {len(body)} bytes")
        if math.prod(shape) * dtype.itemsize != end - begin:
            raise InputError(f"{label}: shape {shape[:8]} does not fit {end - begin} bytes")
        if begin == end:
            arrays[name] = np.zeros(shape, dtype)
            continue
        arrays[name] = np.ndarray(shape, dtype, body[begin:end])
        arrays[name].flags.writeable = False
        spans.append((begin, end))
    spans.sort()
    for (_, stop), (begin, _) in itertools.pairwise(spans):
        if begin < stop:
            raise InputError(f"{path}: tensors overlap at offset {8 + length + begin}")
    return arrays
