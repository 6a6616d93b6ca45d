"""Constant folding: what does not depend on a network's input, computed in NumPy.

Exporters write the arithmetic of shapes as nodes: the shape of a tensor, one length of it,
a product, a list of lengths put together again, for one `Reshape`. All shapes of one sample are
known, so all of that is constant; so are weights that are scaled or transposed before use.
No result is computed before its size is known to be harmless.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxgen.core.errors import InputError
from weights_convert.tensor_graph.program import Node

__all__ = ["FOLDS", "MOST_ELEMENTS", "ONNX_TYPES", "fold", "resolved_shape", "slices"]

MOST_ELEMENTS = 1 << 28

# TensorProto.DataType; bfloat16 has no NumPy type of its own and is widened when read.
ONNX_TYPES: dict[int, Any] = {
    1: np.float32, 2: np.uint8, 3: np.int8, 4: np.uint16, 5: np.int16, 6: np.int32,
    7: np.int64, 9: np.bool_, 10: np.float16, 11: np.float64, 12: np.uint32, 13: np.uint64,
    16: np.float32,
}  # fmt: skip

Arrays = Sequence[np.ndarray]
FOLDS: dict[str, Callable[..., Any]] = {}


def fold(node: Node, inputs: Sequence[np.ndarray | None]) -> list[np.ndarray] | None:
    """Return the node's results, or None where it is not among those that are folded.

    Raises:
      InputError: naming the node, if its operands do not fit or the result is absurd.
    """
    if node.op not in FOLDS:
        return None
    try:
        with np.errstate(all="ignore"):
            result = FOLDS[node.op](node, *inputs)
    except InputError as error:
        raise InputError(f"{node.where}: {error}") from error
    except (
        TypeError, ValueError, IndexError, KeyError, OverflowError, ZeroDivisionError,
        AttributeError, MemoryError,
    ) as error:  # fmt: skip
        raise InputError(f"{node.where}: cannot be computed, {str(error)[:200]}") from error
    return [np.asarray(x) for x in (result if isinstance(result, list) else [result])]


def resolved_shape(shape: Sequence[int], target: Sequence[int], keep_zero: bool) -> list[int]:
    """Return the target of a Reshape with 0 (the same length) and -1 (the rest) filled in."""
    wanted = [int(n) for n in target]
    if len(wanted) > 8 or wanted.count(-1) > 1 or any(n < -1 for n in wanted):
        raise InputError(f"shape: expected lengths and at most one -1; got {wanted[:9]}")
    if not keep_zero:
        for i, n in enumerate(wanted):
            if n == 0:
                if i >= len(shape):
                    raise InputError(f"shape: no axis {i} to keep in {tuple(shape)}")
                wanted[i] = shape[i]
    if -1 in wanted:
        rest = math.prod(n for n in wanted if n != -1)
        if rest == 0 or math.prod(shape) % rest:
            raise InputError(f"shape: {tuple(shape)} does not fill {wanted}")
        wanted[wanted.index(-1)] = math.prod(shape) // rest
    if math.prod(wanted) != math.prod(shape):
        raise InputError(f"shape: {tuple(shape)} does not fill {wanted}")
    return wanted


def slices(
    shape: Sequence[int],
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int],
    steps: Sequence[int],
) -> tuple[list[int], list[int], list[int]]:
    """(start, length, step) of a Slice along every axis, by Python's rules."""
    begin, lengths, by = [0] * len(shape), list(shape), [1] * len(shape)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise InputError("starts, ends, axes, steps: expected as many of each")
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if not -len(shape) <= axis < len(shape) or step == 0:
            raise InputError(f"axes: no axis {axis} in {tuple(shape)}, or a step of 0")
        axis = axis % len(shape)
        # ONNX clamps where Python would take a negative end from the back a second time.
        indices = range(*slice(int(start), int(end), int(step)).indices(shape[axis]))
        begin[axis], lengths[axis] = (indices[0] if len(indices) else 0), len(indices)
        by[axis] = int(step)
    return begin, lengths, by


def listed(node: Node, name: str, operand: np.ndarray | None) -> list[int] | None:
    """Whole numbers from an operand or, in older operators, from an attribute; None for neither."""
    found = node.attributes.get(name) if operand is None else operand
    return None if found is None else [int(n) for n in np.asarray(found).reshape(-1)]


def _sized(shape: Sequence[int]) -> tuple[int, ...]:
    if any(n < 0 for n in shape) or math.prod(shape) > MOST_ELEMENTS or len(shape) > 16:
        raise InputError(f"expected at most {MOST_ELEMENTS} numbers; got {tuple(shape)[:16]}")
    return tuple(int(n) for n in shape)


def _folds(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        FOLDS.update(dict.fromkeys(names, function))
        return function

    return add


def _unary(name: str, function: Callable[[np.ndarray], Any]) -> None:
    FOLDS[name] = lambda node, x: np.asarray(function(x)).astype(x.dtype)


def _binary(name: str, function: Callable[..., Any], truth: bool = False) -> None:
    def run(node: Node, *xs: np.ndarray) -> Any:
        _sized(np.broadcast_shapes(*(x.shape for x in xs)))
        result = xs[0]
        for x in xs[1:]:
            result = function(result, x)
        return result if truth else np.asarray(result).astype(xs[0].dtype)

    FOLDS[name] = run


def _divide(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if np.issubdtype(x.dtype, np.floating):
        return x / y
    if not np.all(y):
        raise InputError("divides by zero")
    return np.sign(x) * np.sign(y) * (np.abs(x) // np.abs(y))


for _name, _function in {
    "Abs": np.abs, "Neg": np.negative, "Floor": np.floor, "Ceil": np.ceil, "Round": np.round,
    "Sqrt": np.sqrt, "Exp": np.exp, "Log": np.log, "Reciprocal": lambda x: 1.0 / x,
    "Relu": lambda x: np.maximum(x, 0), "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Tanh": np.tanh, "Identity": lambda x: x, "Not": np.logical_not, "Sign": np.sign,
    "Sin": np.sin, "Cos": np.cos,
}.items():  # fmt: skip
    _unary(_name, _function)
for _name, _function in {
    "Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": _divide, "Pow": np.power,
    "Max": np.maximum, "Min": np.minimum, "Sum": np.add,
}.items():  # fmt: skip
    _binary(_name, _function)
for _name, _function in {
    "Equal": np.equal, "Greater": np.greater, "GreaterOrEqual": np.greater_equal,
    "Less": np.less, "LessOrEqual": np.less_equal, "And": np.logical_and,
    "Or": np.logical_or, "Xor": np.logical_xor,
}.items():  # fmt: skip
    _binary(_name, _function, truth=True)


@_folds("Mod")
def _mod(node: Node, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    _sized(np.broadcast_shapes(x.shape, y.shape))
    return (np.fmod if node.attributes.get("fmod") else np.mod)(x, y)


@_folds("Cast")
def _cast(node: Node, x: np.ndarray) -> np.ndarray:
    kind = node.attributes.get("to")
    if kind not in ONNX_TYPES:
        raise InputError(f"to: expected a type of numbers; got {kind}")
    return x.astype(ONNX_TYPES[kind])


@_folds("ConstantOfShape")
def _constant_of_shape(node: Node, shape: np.ndarray) -> np.ndarray:
    value = np.asarray(node.attributes.get("value", np.zeros(1, np.float32)))
    return np.full(_sized(shape.tolist()), value.reshape(-1)[0], value.dtype)


@_folds("Range")
def _range(node: Node, start: np.ndarray, limit: np.ndarray, step: np.ndarray) -> np.ndarray:
    first, last, by = (x.reshape(-1)[0] for x in (start, limit, step))
    count = math.ceil((float(last) - float(first)) / float(by))
    _sized([max(count, 0)])
    return (first + np.arange(max(count, 0)) * by).astype(start.dtype)


@_folds("Reshape")
def _reshape(node: Node, x: np.ndarray, shape: np.ndarray | None = None) -> np.ndarray:
    target = listed(node, "shape", shape)
    return x.reshape(resolved_shape(x.shape, target or [], bool(node.attributes.get("allowzero"))))


@_folds("Flatten")
def _flatten(node: Node, x: np.ndarray) -> np.ndarray:
    axis = node.attributes.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), -1)


@_folds("Squeeze")
def _squeeze(node: Node, x: np.ndarray, axes: np.ndarray | None = None) -> np.ndarray:
    wanted = listed(node, "axes", axes)
    return np.squeeze(x) if wanted is None else np.squeeze(x, tuple(wanted))


@_folds("Unsqueeze")
def _unsqueeze(node: Node, x: np.ndarray, axes: np.ndarray | None = None) -> np.ndarray:
    return np.expand_dims(x, tuple(listed(node, "axes", axes) or ()))


@_folds("Transpose")
def _transpose(node: Node, x: np.ndarray) -> np.ndarray:
    return x.transpose(node.attributes.get("perm"))


@_folds("Concat")
def _concat(node: Node, *xs: np.ndarray) -> np.ndarray:
    return np.concatenate(xs, node.attributes["axis"])


@_folds("Slice")
def _slice(node: Node, x: np.ndarray, *rest: np.ndarray | None) -> np.ndarray:
    operands = [*rest, *[None] * (4 - len(rest))]
    starts, ends, axes, steps = (
        listed(node, name, operand)
        for name, operand in zip(("starts", "ends", "axes", "steps"), operands, strict=True)
    )
    starts, ends = starts or [], ends or []
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    begin, lengths, by = slices(x.shape, starts, ends, axes, steps)
    for axis, (start, length, step) in enumerate(zip(begin, lengths, by, strict=True)):
        x = np.take(x, start + step * np.arange(length), axis)
    return x


@_folds("Split")
def _split(node: Node, x: np.ndarray, split: np.ndarray | None = None) -> list[np.ndarray]:
    axis, lengths = node.attributes.get("axis", 0), listed(node, "split", split)
    if lengths is None:
        return list(np.array_split(x, len(node.outputs), axis))
    return list(np.split(x, np.cumsum(lengths)[:-1], axis))


@_folds("Gather")
def _gather(node: Node, x: np.ndarray, indices: np.ndarray) -> np.ndarray:
    axis = node.attributes.get("axis", 0)
    _sized([*indices.shape, x.size])
    _sized([indices.size, max(x.size // max(x.shape[axis], 1), 1)])
    return np.take(x, indices.astype(np.int64), axis)


@_folds("Expand")
def _expand(node: Node, x: np.ndarray, shape: np.ndarray) -> np.ndarray:
    return np.broadcast_to(x, _sized(np.broadcast_shapes(x.shape, _sized(shape.tolist())))).copy()


@_folds("Tile")
def _tile(node: Node, x: np.ndarray, repeats: np.ndarray) -> np.ndarray:
    counts = repeats.tolist()
    if len(counts) != x.ndim:
        raise InputError(f"repeats: expected {x.ndim}; got {counts}")
    _sized([n * k for n, k in zip(x.shape, counts, strict=True)])
    return np.tile(x, counts)


@_folds("Where")
def _where(node: Node, condition: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    _sized(np.broadcast_shapes(condition.shape, x.shape, y.shape))
    return np.where(condition, x, y)


@_folds("ReduceProd", "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin")
def _reduce(node: Node, x: np.ndarray, axes: np.ndarray | None = None) -> np.ndarray:
    wanted = listed(node, "axes", axes)
    if not wanted and node.attributes.get("noop_with_empty_axes"):
        return x
    name = {"ReduceProd": "prod", "ReduceSum": "sum", "ReduceMean": "mean", "ReduceMax": "max",
            "ReduceMin": "min"}[node.op]  # fmt: skip
    keep = bool(node.attributes.get("keepdims", 1))
    return getattr(np, name)(x, axis=tuple(wanted) if wanted else None, keepdims=keep).astype(
        x.dtype
    )


@_folds("MatMul")
def _matmul(node: Node, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    inner = max(x.shape[-1], 1)
    _sized([x.size // inner, y.size // inner])
    if node.attributes.get("transpose_a") or node.attributes.get("transpose_b"):
        x = x.swapaxes(-1, -2) if node.attributes.get("transpose_a") else x
        y = y.swapaxes(-1, -2) if node.attributes.get("transpose_b") else y
    return np.matmul(x, y)


@_folds("NonZero")
def _non_zero(node: Node, x: np.ndarray) -> np.ndarray:
    return np.array(np.nonzero(x), np.int64)


@_folds("Trilu")
def _trilu(node: Node, x: np.ndarray, k: np.ndarray | None = None) -> np.ndarray:
    shift = 0 if k is None else int(k.reshape(-1)[0])
    return (np.triu if node.attributes.get("upper", 1) else np.tril)(x, shift)
