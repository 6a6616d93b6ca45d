"""Weights on disk: safetensors files that say what they hold.

A file is a little-endian u64 (the header's length), a JSON header and the tensors' bytes.
Tensors have flat dotted names ("up1.kernel") and are stored as float32 or float16; the
header's `__metadata__` carries the format version, the name, the architecture and its
configuration, preprocessing, data, recipe, measured figures, licence, and the SHA-256
of the tensors' bytes. Each metadata value is a JSON text.

Reading trusts nothing: every size, offset, type and shape is checked before memory is
taken, and the digest and the finiteness of every number after.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxgen.core.atomic import replacing
from jaxgen.core.errors import InputError, expected

__all__ = ["FORMAT", "fill", "flatten", "load_weights", "read_metadata", "save_weights"]

FORMAT = "jaxgen-weights/1"

_DTYPES = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2")}
_MOST_HEADER = 1 << 24
# An axis beside one of length 0 may say anything, and takes no bytes.
_MOST_AXES, _LONGEST_AXIS = 32, 1 << 31
_AGAIN = "Fetch the file again."
_FOREIGN = "Weights of other makers are read by `weights_convert`."

M = TypeVar("M", bound=nnx.Module)


def save_weights(
    path: str | Path,
    params: Mapping[str, Any],
    metadata: Mapping[str, Any],
    *,
    dtype: str = "float32",
) -> None:
    """Write a flat dict of arrays, atomically (a temporary file beside it, then a rename).

    Args:
      path: the file to write or replace.
      params: dotted name -> array; see `flatten`.
      metadata: name -> anything JSON can hold; `format` and `sha256` are added.
      dtype: "float32" or "float16", how every array is stored.

    Raises:
      InputError: for another dtype, or an array with numbers that are not finite once
        stored, named.
    """
    kinds = {"float32": "F32", "float16": "F16"}
    if dtype not in kinds:
        raise expected("dtype", '"float32" or "float16"', repr(dtype))
    kind, stored = kinds[dtype], _DTYPES[kinds[dtype]]
    header: dict[str, Any] = {}
    digest, offset = hashlib.sha256(), 0

    def content(name: str) -> memoryview:
        """Return the bytes of one array: only one is held at a time, however large the file."""
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(np.asarray(params[name]), dtype=stored)
        if not np.isfinite(array).all():
            raise expected(name, f"finite numbers in {dtype}", "NaN or infinity")
        # Arrays are buffers, which Python 3.11's types cannot say.
        return memoryview(array.reshape(-1).view(np.uint8))  # type: ignore[arg-type]

    for name in sorted(params):
        raw = content(name)
        digest.update(raw)
        header[name] = {
            "dtype": kind,
            "shape": list(np.shape(params[name])),
            "data_offsets": [offset, offset + len(raw)],
        }
        offset += len(raw)
    notes = {**metadata, "format": FORMAT, "sha256": digest.hexdigest()}
    texts = {name: json.dumps(value, sort_keys=True) for name, value in sorted(notes.items())}
    text = json.dumps({"__metadata__": texts, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in sorted(params):
            file.write(content(name))


def load_weights(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `save_weights` wrote.

    Returns:
      Dotted name -> array as stored, and the metadata.

    Raises:
      InputError: for a file that is truncated, damaged or foreign; one line naming the
        file, the field, and the way out.
    """
    path = Path(path)
    tensors, metadata, start, size = _header(path)
    with path.open("rb") as file:
        file.seek(start)
        body = file.read(size)
    if len(body) != size:
        raise expected(str(path), f"{size} bytes of tensors", len(body), _AGAIN)
    digest = hashlib.sha256(body).hexdigest()
    if digest != metadata["sha256"]:
        raise expected(
            f"{path}: sha256", str(metadata["sha256"])[:16] + "...", digest[:16] + "...", _AGAIN
        )
    arrays = {}
    for name, (dtype, shape, begin, _) in tensors.items():
        array = np.frombuffer(body, dtype, math.prod(shape), begin).reshape(shape)
        if not np.isfinite(array).all():
            raise expected(f"{path}: {name}", "finite numbers", "NaN or infinity", _AGAIN)
        arrays[name] = array
    return arrays, metadata


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Return the metadata alone, without reading the tensors. Errors as in `load_weights`."""
    return _header(Path(path))[1]


def flatten(module: nnx.Module) -> dict[str, np.ndarray]:
    """Return the variables of a module by dotted name, as NumPy arrays."""
    return {
        ".".join(str(part) for part in path): np.asarray(variable[...])
        for path, variable in nnx.to_flat_state(nnx.state(module, nnx.Not(nnx.RngState)))
    }


def fill(module: M, weights: Mapping[str, Any], source: str = "weights") -> M:
    """Give every variable of a module its array; none may be missing, left over or of
    another shape.

    Args:
      module: real or abstract (from `nnx.eval_shape`); it is not changed.
      weights: dotted name -> array. Arrays take on the variable's dtype, but floating ones are
        float32 at most, which is all that a weight file holds: under `jax_enable_x64` an
        abstract module asks for float64, and would compute in it at twice the cost.
      source: what to call the weights in an error.

    Returns:
      A module of the same structure with the weights in it.

    Raises:
      InputError: with every mistake in one line.
    """
    graphdef, state = nnx.split(module)
    flat = nnx.to_flat_state(state)
    wanted = {".".join(str(part) for part in path): leaf for path, leaf in flat}
    missing = [name for name in wanted if name not in weights]
    wrong = [f"missing {name} {list(wanted[name].shape)}" for name in missing]
    wrong += [f"left over {name}" for name in weights if name not in wanted]
    wrong += [
        f"{name} is {list(np.shape(weights[name]))}, not {list(leaf.shape)}"
        for name, leaf in wanted.items()
        if name in weights and np.shape(weights[name]) != leaf.shape
    ]
    if wrong:
        raise InputError(f"{source}: do not fit {type(module).__name__}: {'; '.join(wrong)}")
    filled = [
        (path, leaf.replace(jnp.asarray(weights[".".join(str(p) for p in path)], _stored(leaf))))
        for path, leaf in flat
    ]
    return nnx.merge(graphdef, nnx.from_flat_state(filled))


def _stored(leaf: Any) -> Any:
    return jnp.dtype(jnp.float32) if leaf.dtype == jnp.float64 else leaf.dtype


Tensor = tuple[np.dtype, tuple[int, ...], int, int]


def _header(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], int, int]:
    """Return the tensors' descriptions, the metadata, where the bytes start and how many."""
    if path.exists() and not path.is_file():  # reading a pipe would wait for ever
        raise expected(str(path), "a readable weight file", "a folder, a pipe or a device")
    try:
        total = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if total < 8 or length > min(_MOST_HEADER, total - 8):
                raise expected(
                    f"{path}: header",
                    "a safetensors file",
                    f"a header of {length} bytes in a file of {total}",
                    _AGAIN,
                )
            text = file.read(length)
    except OSError as error:
        raise expected(str(path), "a readable weight file", error.strerror or error) from error
    try:
        header = json.loads(text)
        texts = header.pop("__metadata__", {})
        metadata = {name: json.loads(value) for name, value in texts.items()}
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise expected(f"{path}: header", "jaxgen's JSON", "something else", _FOREIGN) from error
    if metadata.get("format") != FORMAT:
        raise expected(f"{path}: format", FORMAT, repr(metadata.get("format")), _FOREIGN)
    if not isinstance(metadata.get("sha256"), str):
        raise expected(f"{path}: sha256", "a digest", "none", _FOREIGN)
    size = total - 8 - length
    tensors = {name: _tensor(path, name, entry, size) for name, entry in header.items()}
    position = 0
    for name, (_, _, begin, end) in sorted(tensors.items(), key=lambda item: item[1][2:]):
        if begin != position:
            raise expected(f"{path}: {name}", f"its bytes from {position} on", begin, _AGAIN)
        position = end
    if position != size:
        raise expected(f"{path}", f"{position} bytes of tensors", f"{size}", _AGAIN)
    return tensors, metadata, 8 + length, size


def _tensor(path: Path, name: str, entry: object, size: int) -> Tensor:
    """One tensor's entry of the header, checked."""
    field = f"{path}: {name}"
    if not isinstance(entry, dict) or str(entry.get("dtype")) not in _DTYPES:
        got = entry.get("dtype") if isinstance(entry, dict) else entry
        raise expected(f"{field}: dtype", " or ".join(_DTYPES), repr(got))
    shape: Any = entry.get("shape")
    offsets: Any = entry.get("data_offsets")
    for what, value in (("shape", shape), ("data_offsets", offsets)):
        if not isinstance(value, list) or not all(type(n) is int and n >= 0 for n in value):
            raise expected(f"{field}: {what}", "a list of whole numbers", repr(value)[:80])
    dtype = _DTYPES[entry["dtype"]]
    if len(shape) > _MOST_AXES or any(n > _LONGEST_AXIS for n in shape):
        wanted = f"at most {_MOST_AXES} axes of up to {_LONGEST_AXIS}"
        raise expected(f"{field}: shape", wanted, repr(shape)[:80], _AGAIN)
    if len(offsets) != 2 or offsets[0] > offsets[1] or offsets[1] > size:
        raise expected(f"{field}: data_offsets", f"a range within {size} bytes", offsets, _AGAIN)
    if math.prod(shape) * dtype.itemsize != offsets[1] - offsets[0]:
        raise expected(f"{field}: shape", f"{offsets[1] - offsets[0]} bytes", shape, _AGAIN)
    return dtype, tuple(shape), offsets[0], offsets[1]
