"""What PyTorch's pickles say of tensors: storages, strided windows, and the globals they name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from weights_convert.restricted_pickle import Attributes, PickleError

__all__ = [
    "ALLOWED",
    "MAX_RANK",
    "MAX_VOLUME",
    "STORAGES",
    "Storage",
    "Tensor",
    "storage_of",
    "whole",
]

MAX_RANK = 32
MAX_VOLUME = 2**48

STORAGES: dict[str, np.dtype] = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
    "ComplexFloatStorage": np.dtype("<c8"),
    "ComplexDoubleStorage": np.dtype("<c16"),
}


@dataclass(frozen=True, eq=False)
class Storage:
    """A run of numbers in the file; `key` finds its bytes later."""

    key: str
    dtype: np.dtype
    count: int
    start: int = 0


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor in a file: a strided window (in elements) of a storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def whole(value: object, what: str) -> int:
    """Return a number from a file, which must be whole, not negative and of a possible size."""
    if type(value) is not int or not 0 <= value < 2**62:
        raise PickleError(f"{what} is no whole number in range")
    return value


def _rebuild_tensor(
    storage: object, offset: object, shape: object, stride: object, *_rest: object
) -> Tensor:
    """Check a tensor's window against its storage; `_rest` is for gradients and hooks."""
    if not isinstance(storage, Storage):
        raise PickleError("a tensor without a storage")
    if not (isinstance(shape, tuple) and isinstance(stride, tuple)):
        raise PickleError("a shape or stride that is no tuple")
    if len(shape) != len(stride) or len(shape) > MAX_RANK:
        raise PickleError(f"shape of rank {len(shape)}, stride of rank {len(stride)}")
    offset = whole(offset, "the offset")
    shape = tuple(whole(n, "a dimension") for n in shape)
    stride = tuple(whole(n, "a stride") for n in stride)
    count = math.prod(shape)
    if math.prod(max(n, 1) for n in shape) >= MAX_VOLUME:
        raise PickleError(f"a shape that no file can fill, {shape[:8]}")
    if count:
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
        # A stride of zero is what `.expand` leaves: one row shown many times.
        repeated = any(step == 0 and n > 1 for n, step in zip(shape, stride, strict=True))
        if last >= storage.count or (count > storage.count and not repeated):
            raise PickleError(
                f"a tensor of shape {shape[:8]} reaches element {last} of a storage of "
                f"{storage.count}"
            )
    return Tensor(storage, offset, shape, stride)


def _rebuild_parameter(tensor: object, *_rest: object) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise PickleError("a parameter without a tensor")
    return tensor


def _default_dict(*_factory: object) -> Attributes:
    """Return a defaultdict; what it makes of missing keys is of no interest."""
    return Attributes()


def _set(items: object = ()) -> list[Any]:
    """Return a set as the list that it is written as: nothing here needs to hash its members."""
    if not isinstance(items, list | tuple):
        raise PickleError("a set that is not made of a list")
    return list(items)


def _rebuild_from_type(
    function: object, _type: object, arguments: object, _state: object
) -> Tensor:
    """Rebuild a tensor of a subclass, or one with attributes of its own, which are dropped."""
    build = {id(f): f for f in (_rebuild_tensor, _rebuild_parameter)}.get(
        id(getattr(function, "function", None))
    )
    if build is None or not isinstance(arguments, tuple):
        raise PickleError("a tensor that is rebuilt by an unknown function")
    return build(*arguments)


def _ordered_dict(*arguments: object) -> Attributes:
    if not arguments:
        return Attributes()
    (pairs,) = arguments  # protocol 0 writes OrderedDict([[key, value], ...])
    if not isinstance(pairs, list | tuple):
        raise PickleError("an OrderedDict that is not built from pairs")
    result = Attributes()
    for pair in pairs:
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str)):
            raise PickleError("an OrderedDict that is not built from pairs")
        result[pair[0]] = pair[1]
    return result


def _storage_type(name: str):
    def refuse(*_arguments: object) -> Any:
        raise PickleError("a storage inside the pickle stream")

    refuse.storage = name  # type: ignore[attr-defined]
    return refuse


ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("collections", "defaultdict"): _default_dict,
    ("builtins", "set"): _set,
    ("builtins", "frozenset"): _set,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("torch._tensor", "_rebuild_from_type_v2"): _rebuild_from_type,
    **{("torch", name): _storage_type(name) for name in STORAGES},
}


def storage_of(identifier: Any) -> Any:
    """Read a persistent identifier: ("storage", type, key, device, count[, view])."""
    length = len(identifier) if isinstance(identifier, tuple) else 0
    if length == 4 and identifier[0] == "module":
        return identifier[1]  # a class, with its source code, which older versions kept
    if length not in (5, 6):
        raise PickleError("a persistent identifier that is no storage")
    tag, kind, key, _device, count = identifier[:5]
    name = getattr(getattr(kind, "function", None), "storage", None)
    if tag != "storage" or name is None or not isinstance(key, str | int):
        raise PickleError("a persistent identifier that is no storage")
    count = whole(count, "the length of a storage")
    root = Storage(str(key), STORAGES[name], count)
    view = identifier[5] if len(identifier) == 6 else None
    if view is None:
        return root
    if not (isinstance(view, tuple) and len(view) == 3):
        raise PickleError("a view of a storage that is none")
    start, length = whole(view[1], "a view's offset"), whole(view[2], "a view's length")
    return Storage(str(key), root.dtype, length, start)
