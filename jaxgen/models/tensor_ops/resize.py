"""Resizing along each axis by itself: nearest, linear and cubic interpolation.

Output pixel i of an axis of `out` pixels looks at the place x(i) of an axis of `n`:

    half_pixel             (i + 1/2) / scale - 1/2
    pytorch_half_pixel     the same, but 0 where out = 1
    half_pixel_symmetric   the same, with the middle of the image kept in the middle
    align_corners          i (n - 1) / (out - 1)
    asymmetric             i / scale

`linear` weighs the two pixels around x, `cubic` the four (Keys 1981 with coefficient `a`),
and pixels beyond the image are its outermost, or left out and the weights made to add up to
one again (`exclude_outside`). With `antialias` and a scale below one the kernel is widened by
1 / scale. Each axis is one product with a matrix of weights, except that a whole factor of
nearest neighbours repeats pixels. Source: the Resize operator of the ONNX reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import InputError
from jaxgen.core.types import Array
from jaxgen.models.tensor_ops.base import MOST_AXES, Operator, axis_of, integers, register
from jaxgen.models.tensor_ops.pointwise import _number

__all__ = ["weights"]

_MOST_WEIGHTS = 1 << 26
_PLACES = (
    "half_pixel",
    "pytorch_half_pixel",
    "half_pixel_symmetric",
    "align_corners",
    "asymmetric",
)
_ROUNDINGS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "round_prefer_floor": lambda x: np.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: np.floor(x + 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@register("Resize")
class Resize(Operator):
    """The tensor with other lengths of some axes.

    Args:
      axes, lengths, scales: the axes that change, their new lengths, and the scales that
        places are computed with (not always the ratio of the lengths).
      mode: "nearest", "linear" or "cubic".
      places: how output pixels lie over the input's, see the module.
      rounding: of nearest neighbours, a name in the ONNX reference.
      a: the coefficient of cubic interpolation.
      exclude_outside, antialias: see the module.
    """

    def configure(
        self,
        axes: Sequence[int],
        lengths: Sequence[int],
        scales: Sequence[float],
        mode: str = "nearest",
        places: str = "half_pixel",
        rounding: str = "round_prefer_floor",
        a: float = -0.75,
        exclude_outside: bool = False,
        antialias: bool = False,
    ) -> None:
        self.axes = integers("axes", axes, 0, MOST_AXES)
        self.lengths = integers("lengths", lengths, 1, 1 << 20)
        self.scales = tuple(_number("scales", s) for s in scales)
        if not len(self.axes) == len(self.lengths) == len(self.scales) or min(
            self.scales, default=1.0
        ) <= 0:  # fmt: skip
            raise InputError("axes, lengths, scales: expected a length and a scale for each axis")
        for name, value, known in (
            ("mode", mode, ("nearest", "linear", "cubic")),
            ("places", places, _PLACES),
            ("rounding", rounding, tuple(_ROUNDINGS)),
        ):
            if value not in known:
                raise InputError(f"{name}: expected one of {', '.join(known)}; got {value!r}")
        self.mode, self.places, self.rounding = mode, places, rounding
        self.a, self.exclude_outside = _number("a", a), bool(exclude_outside)
        self.antialias = bool(antialias)

    def compute(self, x: Array) -> Array:
        for axis, length, scale in zip(self.axes, self.lengths, self.scales, strict=True):
            at = axis_of(x.ndim, axis)
            n = x.shape[at]
            if self.mode == "nearest":
                chosen = np.clip(
                    _ROUNDINGS[self.rounding](_positions(self.places, n, length, scale)), 0, n - 1
                ).astype(np.int64)
                factor = length // n
                if factor * n == length and (chosen == np.arange(length) // factor).all():
                    x = jnp.repeat(x, factor, at, total_repeat_length=length) if factor > 1 else x
                else:
                    x = jnp.take(x, chosen, at)
                continue
            if length * n > _MOST_WEIGHTS:
                raise InputError(f"lengths: {n} to {length} pixels is too much for {self.mode}")
            matrix = weights(
                n, length, scale, mode=self.mode, places=self.places, a=self.a,
                exclude_outside=self.exclude_outside, antialias=self.antialias,
            )  # fmt: skip
            moved = jnp.tensordot(jnp.asarray(matrix, x.dtype), x, ([1], [at]))
            x = jnp.moveaxis(moved, 0, at)
        return x


def weights(
    n: int,
    length: int,
    scale: float,
    *,
    mode: str = "linear",
    places: str = "half_pixel",
    a: float = -0.75,
    exclude_outside: bool = False,
    antialias: bool = False,
) -> np.ndarray:
    """Return the `[length, n]` weights of the input's pixels in the output's, for one axis."""
    kernel = _linear if mode == "linear" else lambda t: _cubic(t, a)
    reach = 1 if mode == "linear" else 2
    stretch = min(scale, 1.0) if antialias else 1.0
    at = _positions(places, n, length, scale)
    half = math.ceil(reach / stretch)
    first = np.floor(at).astype(np.int64)
    taps = first[:, None] + np.arange(1 - half, half + 1)
    values = kernel((taps - at[:, None]) * stretch)
    inside = (taps >= 0) & (taps < n)
    if exclude_outside:
        values = np.where(inside, values, 0.0)
    if exclude_outside or antialias:
        values = values / values.sum(1, keepdims=True)
    matrix = np.zeros((length, n))
    rows = np.broadcast_to(np.arange(length)[:, None], taps.shape)
    np.add.at(matrix, (rows, np.clip(taps, 0, n - 1)), values)
    return matrix


def _positions(places: str, n: int, length: int, scale: float) -> np.ndarray:
    """x(i) for all output pixels."""
    i = np.arange(length, dtype=np.float64)
    if places == "align_corners":
        return i * (n - 1) / (length - 1) if length > 1 else np.zeros(1)
    if places == "asymmetric":
        return i / scale
    if places == "pytorch_half_pixel" and length == 1:
        return np.zeros(1)
    x = (i + 0.5) / scale - 0.5
    if places == "half_pixel_symmetric":
        x += n / 2 * (1 - length / (n * scale))
    return x


def _linear(t: np.ndarray) -> np.ndarray:
    return np.maximum(1.0 - np.abs(t), 0.0)


def _cubic(t: np.ndarray, a: float) -> np.ndarray:
    t = np.abs(t)
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0.0))
