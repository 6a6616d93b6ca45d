"""Read the blobs of a caffemodel or binaryproto, lazily and without trust.

All generations of the format are understood: current (`layer`), V1 (`layers`) and V0
(`layers { layer }`); shapes as a list or as the legacy num, channels, height, width;
numbers as float32 (packed or not), float64 or float16. Structure is read first: every
length is held against the file's size and every shape against its count of numbers before
an array is made. An array is read when it is asked for.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxgen.core.errors import InputError, expected
from weights_convert.caffe import wire
from weights_convert.report import plain
from weights_convert.sniff import sniff

__all__ = ["BlobRecord", "Caffemodel", "blob_key", "read_binaryproto"]

_LAYER_V1, _LAYER = 2, 100
_RAW_TYPES = {0: "<f8", 1: "<f4", 2: "<f2"}
_MOST_BLOBS = 20_000
_MOST_PARTS = 1_000  # runs of numbers in a blob; every known writer makes one


class BlobRecord(NamedTuple):
    """The place of a blob in a file.

    Attributes:
      shape: as stored.
      legacy: whether the shape was given as num, channels, height, width.
      dtype: of the numbers in the file.
      parts: (start, end) of their bytes, most often one.
      unpacked: whether each number has a tag byte before it.
    """

    shape: tuple[int, ...]
    legacy: bool
    dtype: str
    parts: tuple[tuple[int, int], ...]
    unpacked: bool


def blob_key(layer: str, index: int) -> str:
    """Return the name under which a layer's blob is known: `conv1[0]`."""
    return f"{layer}[{index}]"


class Caffemodel(Mapping[str, np.ndarray]):
    """A caffemodel: `blob_key(layer, i)` -> float32 array, read at each access.

    Attributes:
      path: the file.
      records: key -> `BlobRecord`.
      layers: layer name -> number of blobs, for layers that have any.

    Raises:
      InputError: when opened, if the file is missing, empty, damaged or inconsistent.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self.records: dict[str, BlobRecord] = {}
        self.layers: dict[str, int] = {}
        with _mapped(self.path) as data:
            where = self.path.name
            _refuse_other_files(self.path, data, where)
            budget = wire.Budget()
            for field in wire.fields(data, 0, len(data), where, budget):
                if field.number == _LAYER and field.wire_type == wire.BYTES:
                    self._scan(data, field, 1, 7, budget)
                elif field.number == _LAYER_V1 and field.wire_type == wire.BYTES:
                    self._scan_v1(data, field, budget)
        if not self.records:
            raise expected(where, "a caffemodel with weights", "a file without any blob")

    def __getitem__(self, key: str) -> np.ndarray:
        return _load(self.path, self.records[key], f"{self.path.name}: {key}")

    def __iter__(self) -> Iterator[str]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def _scan_v1(self, data: mmap.mmap, message: wire.Field, budget: wire.Budget) -> None:
        """Read a V1 layer, or the V0 layer inside it."""
        for field in wire.fields(data, message.start, message.end, self.path.name, budget):
            if field.number == 1 and field.wire_type == wire.BYTES:
                self._scan(data, field, 1, 50, budget)
                return
        self._scan(data, message, 4, 6, budget)

    def _scan(
        self, data: mmap.mmap, message: wire.Field, name: int, blobs: int, budget: wire.Budget
    ) -> None:
        where = f"{self.path.name}: layer at byte {message.start}"
        title: str | None = None
        found: list[wire.Field] = []
        for field in wire.fields(data, message.start, message.end, where, budget):
            if field.wire_type != wire.BYTES:
                continue
            if field.number == name:
                title = _text(data[field.start : min(field.end, field.start + 4096)], where)
            elif field.number == blobs:
                found.append(field)
        if not found:
            return
        if not title:
            raise InputError(f"{where}: it has blobs but no name; weights go by name")
        if title in self.layers:
            raise InputError(f"{self.path.name}: layer {title!r} stands twice in the file")
        if len(self.records) + len(found) > _MOST_BLOBS:
            raise InputError(f"{self.path.name}: over {_MOST_BLOBS} blobs; not a Caffe model")
        self.layers[title] = len(found)
        for i, field in enumerate(found):
            key = blob_key(title, i)
            label = f"{self.path.name}: {plain(key, 200)}"
            self.records[key] = _scan_blob(data, field.start, field.end, label, budget)


def read_binaryproto(path: str | os.PathLike[str]) -> np.ndarray:
    """Return the one blob of a binaryproto, for means: `[C, H, W]` float32 in Caffe's order.

    Raises:
      InputError: if it is not the mean of images.
    """
    path = Path(path)
    with _mapped(path) as data:
        record = _scan_blob(data, 0, len(data), path.name, wire.Budget())
    array = _load(path, record, path.name)
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 3 or not array.size:
        raise expected(path.name, "the mean of (C, H, W) images", f"shape {record.shape}")
    if not np.isfinite(array).all():
        raise expected(path.name, "finite numbers", "NaN or infinite ones")
    return array


def _scan_blob(
    data: mmap.mmap, start: int, end: int, where: str, budget: wire.Budget
) -> BlobRecord:
    legacy: dict[int, int] = {}
    shape: list[int] | None = None
    parts: dict[int, list[tuple[int, int]]] = {5: [], 8: [], 12: []}
    raw_type = 1
    unpacked: list[tuple[int, int]] = []
    position = start
    while position < end:
        if len(unpacked) + sum(map(len, parts.values())) > _MOST_PARTS:
            raise InputError(f"{where}: its numbers lie in over {_MOST_PARTS} parts; file damaged")
        for field in wire.fields(data, position, end, where, budget):
            position = field.end
            if field.wire_type == wire.BYTES and field.number in parts:
                if field.end > field.start:
                    parts[field.number].append((field.start, field.end))
                    break
            elif field.wire_type == wire.BYTES and field.number == 7:
                shape = _scan_shape(data, field, where, budget)
            elif field.wire_type == wire.VARINT and field.number <= 4:
                legacy[field.number] = wire.signed(field.value)
            elif field.wire_type == wire.VARINT and field.number == 10:
                raw_type = field.value
            elif field.wire_type == wire.FIXED32 and field.number == 5:
                # One tag for each number: skip the run at once, there may be millions.
                position = _run_end(data, field.start - 1, end)
                unpacked.append((field.start - 1, position))
                break
    kinds = [number for number, found in parts.items() if any(b > a for a, b in found)]
    if len(kinds) + bool(unpacked) > 1:
        raise InputError(f"{where}: has its numbers in more than one format; file damaged")
    if unpacked:
        dtype, found, size = "<f4", unpacked, 5
    else:
        number = kinds[0] if kinds else 5
        if number == 12 and raw_type not in _RAW_TYPES:
            raise expected(f"{where}: raw_data_type", "0, 1 or 2", raw_type)
        dtype = {5: "<f4", 8: "<f8", 12: _RAW_TYPES.get(raw_type, "")}[number]
        found, size = parts[number], np.dtype(dtype).itemsize
    length = sum(b - a for a, b in found)
    if length % size:
        raise InputError(f"{where}: {length} bytes are no whole count of {dtype[1:]} numbers")
    if shape is not None:
        dims = shape
    elif legacy:
        dims = [legacy.get(i, 0) for i in (1, 2, 3, 4)]
    else:
        dims = [length // size]
    count = 1
    for dim in dims:
        if dim < 0:
            raise expected(f"{where}: shape", "lengths of at least 0", tuple(dims))
        count *= dim
    if count != length // size:
        raise InputError(
            f"{where}: its shape {tuple(dims)} needs {count} numbers, the file holds "
            f"{length // size}; the file is damaged"
        )
    return BlobRecord(tuple(dims), shape is None, dtype, tuple(found), bool(unpacked))


def _scan_shape(data: mmap.mmap, message: wire.Field, where: str, budget: wire.Budget) -> list[int]:
    dims: list[int] = []
    for field in wire.fields(data, message.start, message.end, f"{where}: shape", budget):
        if field.number != 1:
            continue
        if field.wire_type == wire.VARINT:
            dims.append(wire.signed(field.value))
        position = field.start
        while field.wire_type == wire.BYTES and position < field.end:
            value, position = wire.varint(data, position, field.end, f"{where}: shape")
            dims.append(wire.signed(value))
            if len(dims) > 32:
                break
        if len(dims) > 32:
            raise InputError(f"{where}: its shape has over 32 axes; the file is damaged")
    return dims


def _run_end(data: mmap.mmap, start: int, end: int) -> int:
    """Return where the run of (tag, float) groups that begins at `start` ends."""
    position = start
    tag = data[start]
    length = 320  # grows, so that a short run costs little and a long one few steps
    while position + 5 <= end:
        chunk = np.frombuffer(data[position : min(position + length, end)], np.uint8)
        length = min(8 * length, 5_242_880)
        tags = chunk[: len(chunk) // 5 * 5 : 5]
        wrong = np.flatnonzero(tags != tag)
        if len(wrong):
            return position + 5 * int(wrong[0])
        position += 5 * len(tags)
    return position


def _load(path: Path, record: BlobRecord, where: str) -> np.ndarray:
    pieces = []
    try:
        for start, end in record.parts:
            raw = np.fromfile(path, np.uint8, end - start, offset=start)
            if len(raw) != end - start:
                raise InputError(f"{where}: the file became shorter while it was read")
            if record.unpacked:
                raw = np.ascontiguousarray(raw.reshape(-1, 5)[:, 1:]).reshape(-1)
            pieces.append(raw.view(record.dtype))
    except OSError as error:
        raise InputError(f"{where}: cannot be read ({error.strerror})") from error
    array = pieces[0] if len(pieces) == 1 else np.concatenate([np.zeros(0, record.dtype), *pieces])
    return array.astype(np.float32, copy=False).reshape(record.shape)


def _refuse_other_files(path: Path, data: mmap.mmap, where: str) -> None:
    """Say plainly what a file is that a user may well mistake for a caffemodel."""
    head = data[:64]
    # A protocol buffer may begin with letters, but not go on with them for long.
    letters = len(head) >= 16 and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in head)
    if head[:1] in (b"\xa2", b"\x12") or (head[:1] == b"\n" and not letters):
        return  # the layers, or the network's name
    kind = sniff(path)
    if letters and (kind is None or kind.name in ("a prototxt", "a text")):
        raise expected(where, "a caffemodel", "text", "The prototxt comes first.")
    if kind is not None and kind.name != "a caffemodel":
        raise expected(where, "a caffemodel", kind.name, f"{kind.hint}.")
    if head.startswith(b"PK\x03\x04"):
        raise expected(where, "a caffemodel", "a zip archive (a .pth or .npz file?)")


def _text(raw: bytes, where: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: its name is not UTF-8; the file is damaged") from error


def _mapped(path: Path) -> mmap.mmap:
    """Return the file in memory, read as it is used."""
    try:
        if not path.is_file():
            raise expected(str(path), "a file", "nothing" if not path.exists() else "no file")
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise expected(str(path), "a protocol buffer", "an empty file")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
