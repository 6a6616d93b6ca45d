"""The settings of every layer type that `sequential` knows: their defaults and their types.

A description comes from a person or from a file's metadata, so that every value is checked
before a layer is built: `eps="x"`, `stride=0` or `padding=-1` is refused with the name of the
layer, never carried on. Names and meanings are PyTorch's. Values that come in pairs are one
number for both, or [rows, columns].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

__all__ = ["SCHEMA", "Setting", "pair", "settings_of", "sides"]

_LARGEST = 1 << 20
_MISSING = object()


class Setting(NamedTuple):
    """One setting of a layer type.

    Attributes:
      check: gives the value as it is kept. Raises ValueError, saying what was expected.
      default: the value where the description has none; `_MISSING` if it must have one.
    """

    check: Callable[[Any], Any]
    default: Any = _MISSING

    @property
    def required(self) -> bool:
        """Return whether there is no default."""
        return self.default is _MISSING


def settings_of(kind: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """All settings of a layer of one type, and what is wrong with those that are given."""
    found: dict[str, Any] = {}
    wrong = [f"no setting {key!r}" for key in given if key not in SCHEMA[kind]]
    for key, setting in SCHEMA[kind].items():
        if key not in given and setting.required:
            wrong.append(f"{key} is missing")
            continue
        value = given.get(key, setting.default)
        try:
            found[key] = value if value is setting.default else setting.check(value)
        except ValueError as error:
            wrong.append(f"{key}: expected {error}; got {value!r:.80}")
    return found, wrong


def pair(value: Any) -> tuple[int, int]:
    """Return a checked value, one number or two, as [rows, columns]."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def sides(value: object) -> tuple[int, int, int, int]:
    """Return a checked padding, one number or four, as PyTorch has it: left, right, top, bottom."""
    return (value,) * 4 if isinstance(value, int) else tuple(value)  # type: ignore[return-value]


# Checks ------------------------------------------------------------------------------


def _is_whole(value: object, least: int) -> bool:
    return type(value) is int and least <= value <= _LARGEST


def _whole(least: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        if not _is_whole(value, least):
            raise ValueError(f"a whole number of at least {least}")
        return value

    return check


def _wholes(least: int, count: int) -> Callable[[Any], Any]:
    """One number, or a list of `count`."""

    def check(value: object) -> Any:
        if _is_whole(value, least):
            return value
        numbers = list(value) if isinstance(value, list | tuple) else []
        if len(numbers) == 1:
            numbers *= count
        if len(numbers) != count or not all(_is_whole(n, least) for n in numbers):
            raise ValueError(f"a whole number of at least {least}, or a list of {count}")
        return numbers[0] if len(set(numbers)) == 1 else numbers

    return check


def _list_of(least: int, *counts: int) -> Callable[[Any], list[int]]:
    def check(value: Any) -> list[int]:
        numbers = [value] if type(value) is int else value
        good = isinstance(numbers, list | tuple) and len(numbers) in counts
        if not good or not all(_is_whole(n, least) for n in numbers):
            wanted = " or ".join(map(str, counts))
            raise ValueError(f"a list of {wanted} whole numbers of at least {least}")
        return list(numbers)

    return check


def _number(above: float | None = None) -> Callable[[Any], float]:
    def check(value: Any) -> float:
        good = type(value) in (int, float) and math.isfinite(value)
        if not good or (above is not None and value <= above):
            raise ValueError("a number" if above is None else f"a number above {above:g}")
        return value

    return check


def _numbers(above: float | None = None) -> Callable[[Any], list[float]]:
    def check(value: object) -> list[float]:
        if not isinstance(value, list | tuple) or not value:
            raise ValueError("a list of numbers")
        return [_number(above)(item) for item in value]

    return check


def _fraction(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise ValueError("a number from 0 to 1")
    return value


def _flag(value: object) -> bool:
    if type(value) is not bool:
        raise ValueError("true or false")
    return value


def _choice(*names: str) -> Callable[[Any], str]:
    def check(value: object) -> str:
        if not isinstance(value, str) or value not in names:
            raise ValueError(" or ".join(f'"{name}"' for name in names))
        return value

    return check


def _approximate(value: object) -> str:
    """PyTorch's words; earlier files have true and false."""
    if type(value) is bool:
        return "tanh" if value else "none"
    return _choice("none", "tanh")(value)


_POSITIVE = _number(0.0)
_BIAS = Setting(_flag, True)
_EPS = Setting(_POSITIVE, 1e-5)
_CONV = {
    "out": Setting(_whole(1)),
    "kernel": Setting(_wholes(1, 2)),
    "stride": Setting(_wholes(1, 2), 1),
    "padding": Setting(_wholes(0, 2), 0),
    "groups": Setting(_whole(1), 1),
    "dilation": Setting(_wholes(1, 2), 1),
    "bias": _BIAS,
}
_POOL = {
    "kernel": Setting(_wholes(1, 2)),
    "stride": Setting(_wholes(1, 2), None),
    "padding": Setting(_wholes(0, 2), 0),
    "ceil": Setting(_flag, False),
}
_PAD = {"padding": Setting(_wholes(0, 4))}

SCHEMA: dict[str, dict[str, Setting]] = {
    "linear": {"out": Setting(_whole(1)), "bias": _BIAS},
    "conv": _CONV,
    "conv_transpose": {**_CONV, "output_padding": Setting(_wholes(0, 2), 0)},
    "batch_norm": {"eps": _EPS, "affine": Setting(_flag, True)},
    "instance_norm": {"eps": _EPS, "affine": Setting(_flag, False)},
    "group_norm": {"groups": Setting(_whole(1)), "eps": _EPS, "affine": Setting(_flag, True)},
    "layer_norm": {
        "shape": Setting(_list_of(1, 1, 2, 3), None),
        "eps": _EPS,
        "affine": Setting(_flag, True),
        "bias": _BIAS,
    },
    "relu": {},
    "relu6": {},
    "leaky_relu": {"slope": Setting(_number(), 0.01)},
    "prelu": {"count": Setting(_whole(1), 1)},
    "elu": {"alpha": Setting(_number(), 1.0)},
    "celu": {"alpha": Setting(_POSITIVE, 1.0)},
    "selu": {},
    "gelu": {"approximate": Setting(_approximate, "none")},
    "silu": {},
    "mish": {},
    "softplus": {"beta": Setting(_POSITIVE, 1.0), "threshold": Setting(_number(), 20.0)},
    "softsign": {},
    "tanh": {},
    "sigmoid": {},
    "log_sigmoid": {},
    "hardtanh": {"low": Setting(_number(), -1.0), "high": Setting(_number(), 1.0)},
    "hardsigmoid": {},
    "hardswish": {},
    "softmax": {},
    "log_softmax": {},
    "max_pool": _POOL,
    "avg_pool": {**_POOL, "count_padding": Setting(_flag, True)},
    "adaptive_avg_pool": {"size": Setting(_wholes(1, 2))},
    "flatten": {},
    "unflatten": {"shape": Setting(_list_of(1, 3))},
    "upsample": {
        "factor": Setting(_wholes(1, 2), 2),
        "mode": Setting(_choice("nearest", "bilinear"), "nearest"),
        "align_corners": Setting(_flag, False),
    },
    "pixel_shuffle": {"factor": Setting(_whole(1))},
    "zero_pad": _PAD,
    "constant_pad": {**_PAD, "value": Setting(_number(), 0.0)},
    "reflection_pad": _PAD,
    "replication_pad": _PAD,
    "pixel_norm": {"eps": Setting(_POSITIVE, 1e-8)},
    "standardise": {"mean": Setting(_numbers()), "std": Setting(_numbers(0.0))},
    "to_unit": {},
    "from_unit": {},
    "scalar": {},
    "identity": {},
    "dropout": {"p": Setting(_fraction, 0.5)},
}
"""Type -> its settings. `to_unit` maps [-1, 1] to [0, 1], `from_unit` back; `unflatten` takes
(C, H, W); `scalar` makes a vector of one element a number; `dropout` does nothing, as at
inference; `layer_norm`'s shape is PyTorch's `normalized_shape`, that of the whole input."""
