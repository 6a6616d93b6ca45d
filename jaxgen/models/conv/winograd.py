"""Convolutions with fewer products than taps: minimal filtering (Winograd 1980; Lavin and
Gray 2016, "Fast algorithms for convolutional neural networks", section 4).

Along one axis, sums and differences of neighbouring pixels (`planes`) meet sums of taps, and
sums of the products (`join`) are the output. Along two axes the scheme is applied twice, so
that it saves twice. With matrices [Cin, Cout] for taps each product is a matrix product:

                                           along an axis    products, of direct ones
    SAME      3 taps, stride 1, padding 1      4 of 6              16 of 36
    UP        4 taps, stride 2, padding 1,     6 of 8              36 of 64
              transposed
    DOWN      the same, not transposed         6 of 8              36 of 64
    NEAREST   pixels doubled, then 3 taps,     3 of 6               9 of 36
              stride 1, padding 1

The rest is additions, exact but for rounding, which grows by a factor of two to three. Nothing
is gathered: a direct product would first copy every pixel once for each tap.

The gradient of the input is the transposed scheme with the same sums of taps: SAME's is SAME
with its slots in another order, UP's is DOWN, NEAREST has one of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxgen.core.types import Array

__all__ = ["DOWN", "NEAREST", "SAME", "UP", "Scheme", "chosen", "fewer_products", "worthwhile"]

LEAST_CHANNELS = {"SAME": 32, "UP": 32, "DOWN": 32, "NEAREST": 32}
MOST_FILLING = 1.2

Parts = list[Array]


class Scheme(NamedTuple):
    """The transforms along one axis.

    Attributes:
      name: of the scheme.
      scale: the output's side over the input's.
      stride: the input's pixels are cut into this many interleaved parts.
      planes: parts and axis -> what is multiplied: for each plane the arrays that are added
        up after multiplication, each with taps of its own.
      taps: taps -> for each plane what it is multiplied by; several where several arrays meet
        in it, or where it is wanted several times.
      spread: for each plane how often it is wanted: the number of its products.
      join: products and axis -> interleaved parts of the output.
    """

    name: str
    scale: float
    stride: int
    planes: Callable[[Parts, int], list[Parts]]
    taps: Callable[[Parts], list[Parts]]
    spread: tuple[int, ...]
    join: Callable[[Parts, int], Parts]


def _before(x: Array, axis: int) -> Array:
    """`y[i] = x[i - 1]`, zero at the border."""
    first = jnp.zeros_like(lax.slice_in_dim(x, 0, 1, axis=axis))
    return jnp.concatenate([first, lax.slice_in_dim(x, 0, x.shape[axis] - 1, axis=axis)], axis)


def _after(x: Array, axis: int) -> Array:
    """`y[i] = x[i + 1]`, zero at the border."""
    last = jnp.zeros_like(lax.slice_in_dim(x, 0, 1, axis=axis))
    return jnp.concatenate([lax.slice_in_dim(x, 1, x.shape[axis], axis=axis), last], axis)


# y[2i] = o[i-1] a + e[i] b + o[i] c and y[2i+1] = e[i] a + o[i] b + e[i+1] c, where e and o are
# the even and the odd pixels.
SAME = Scheme(
    "SAME",
    1.0,
    2,
    lambda x, axis: [
        [_before(x[1], axis) - x[1]],
        [x[0] + x[1]],
        [x[1] - x[0]],
        [x[0] - _after(x[0], axis)],
    ],
    lambda g: [[g[0]], [0.5 * (g[0] + g[1] + g[2])], [0.5 * (g[0] - g[1] + g[2])], [g[2]]],
    (1, 1, 1, 1),
    lambda m, axis: [m[0] + m[1] + m[2], m[1] - m[2] - m[3]],
)
# Its transpose is SAME with the taps turned around, which only swaps two sums of taps.
_TURNED = (3, 1, 2, 0)

# Pixel i adds x[i] g[a] to y[2i + a - 1]. Pairs of pixels e, o make four outputs: in even rows
# e g1 + o' g3 and o g1 + e g3, where o' is the odd pixel before; in odd rows e g2 + o g0 and
# o g2 + e' g0, where e' is the even pixel after. Each is two outputs of two taps, F(2, 2), and
# both need o - e.
UP = Scheme(
    "UP",
    2.0,
    2,
    lambda x, axis: [
        [_before(x[1], axis) - x[0]],
        [x[0]],
        [x[1] - x[0]],
        [x[1]],
        [_after(x[0], axis) - x[1]],
    ],
    lambda g: [[g[3]], [g[3] + g[1]], [g[1], -g[2]], [g[2] + g[0]], [g[0]]],
    (1, 1, 2, 1, 1),
    lambda m, axis: [m[0] + m[1], m[3] + m[4], m[1] + m[2], m[4] + m[5]],
)
# y[i] = sum_a x[2i + a - 1] g[a]: UP's transpose, over the same sums of taps.
DOWN = Scheme(
    "DOWN",
    0.5,
    4,
    lambda x, axis: [[x[0]], [x[0] + x[2]], [x[2], x[1]], [x[1] + x[3]], [x[3]]],
    UP.taps,
    (1, 1, 1, 1, 1),
    lambda m, axis: [
        m[1] - m[0] - m[2] + _before(m[4], axis),
        m[3] - m[4] + m[2] + _after(m[0], axis),
    ],
)

# y[2i] = x[i-1] a + x[i] (b + c) and y[2i+1] = x[i] (a + b) + x[i+1] c, each written with
# x[i] (a + b + c), which both need.
NEAREST = Scheme(
    "NEAREST",
    2.0,
    1,
    lambda x, axis: [[_before(x[0], axis) - x[0]], [x[0]], [_after(x[0], axis) - x[0]]],
    lambda g: [[g[0]], [g[0] + g[1] + g[2]], [g[2]]],
    (1, 1, 1),
    lambda m, axis: [m[0] + m[1], m[1] + m[2]],
)
_NEAREST_TRANSPOSED = Scheme(
    "NEAREST transposed",
    0.5,
    2,
    lambda y, axis: [[y[0]], [y[0] + y[1]], [y[1]]],
    NEAREST.taps,
    (1, 1, 1),
    lambda m, axis: [m[1] - m[0] - m[2] + _after(m[0], axis) + _before(m[2], axis)],
)


def chosen(
    kernel: tuple[int, ...],
    sides: tuple[int, ...],
    stride: object,
    pads: object,
    *,
    transposed: bool,
) -> Scheme | None:
    """Return the scheme for a kernel `[kh, kw, ...]` and an input of these sides, or None.

    A transposed kernel of stride 1 is none of them: it is a plain convolution.
    """
    if pads != ((1, 1), (1, 1)):
        return None
    if kernel[:2] == (3, 3) and stride == (1, 1) and not transposed:
        return SAME
    if kernel[:2] != (4, 4) or stride != (2, 2):
        return None
    if transposed:
        return UP
    return None if sides[0] % 2 or sides[1] % 2 else DOWN


def worthwhile(scheme: Scheme, sides: tuple[int, ...], channels: tuple[int, ...]) -> bool:
    """Return whether a scheme is faster than a direct product on CPU, as measured.

    Additions take as long for few channels as the products that they save; odd sides, filled
    up to even ones, cost products that nobody reads. At stride 1 only what comes in counts: the
    direct product gathers nine copies of it, however few channels go out.
    """
    counted = channels[0] if scheme is SAME else min(channels)
    if counted < LEAST_CHANNELS[scheme.name]:
        return False
    if scheme is NEAREST:
        return True
    # The sides that are filled up: DOWN's are those of its output.
    small = [side // 2 if scheme is DOWN else side for side in sides]
    filled = [side + side % 2 for side in small]
    return filled[0] * filled[1] <= MOST_FILLING * small[0] * small[1]


def fewer_products(scheme: Scheme, x: Array, kernel: Array) -> Array:
    """Return the convolution of a scheme with zeros around the image.

    Args:
      scheme: SAME, UP, DOWN or NEAREST.
      x: `[N, H, W, Cin]`; for DOWN with even sides. Odd ones are filled up for the others.
      kernel: the taps `[3, 3, Cin, Cout]` or `[4, 4, Cin, Cout]`, not turned.

    Returns:
      `[N, H, W, Cout]` (SAME), `[N, 2H, 2W, Cout]` (UP, NEAREST), `[N, H/2, W/2, Cout]` (DOWN).
    """
    y: Any = _applied(scheme, x, kernel)
    return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _applied(scheme: Scheme, x: Array, kernel: Array) -> Array:
    return _filtered(scheme, x, _sums(scheme, kernel), transposed=False)


def _forward(scheme: Scheme, x: Any, kernel: Any) -> tuple[Array, Any]:
    sums = _sums(scheme, kernel.value)
    y = _filtered(scheme, x.value, sums, transposed=False)
    # The kernel's gradient is needed in training only.
    kept = (x.value, kernel.value) if kernel.perturbed else None
    return y, (sums, kept)


def _backward(scheme: Scheme, residuals: Any, g: Any) -> tuple[Any, Any]:
    sums, kept = residuals
    if isinstance(g, jax.custom_derivatives.SymbolicZero):
        return None, None
    if scheme is SAME:
        order = [[sums[i][j] for j in _TURNED] for i in _TURNED]
        dx = _filtered(SAME, g, order, transposed=True)
    else:
        back = {UP: DOWN, DOWN: UP, NEAREST: _NEAREST_TRANSPOSED}[scheme]
        dx = _filtered(back, g, sums, transposed=True)
    if kept is None:
        return dx, None
    x, kernel = kept
    linear = jax.linear_transpose(
        lambda k: _filtered(scheme, x, _sums(scheme, k), transposed=False), kernel
    )
    return dx, linear(g)[0]


_applied.defvjp(_forward, _backward, symbolic_zeros=True)


def _sums(scheme: Scheme, kernel: Array) -> list[Parts]:
    """Return the sums of taps for every plane of rows and of columns, `[Cin, Cout]` side by side.

    They do not depend on the image: XLA takes them out of loops over steps.
    """
    axis = 0 if scheme is DOWN else 1  # DOWN adds several arrays up in one product
    rows = scheme.taps([kernel[a] for a in range(kernel.shape[0])])
    halves = [[scheme.taps([r[b] for b in range(kernel.shape[1])]) for r in row] for row in rows]
    return [
        [_joined([part for column in row for part in column[j]], axis) for j in range(len(row[0]))]
        for row in halves
    ]


def _filtered(scheme: Scheme, x: Array, sums: list[Parts], *, transposed: bool) -> Array:
    """Return a scheme along columns and rows; `transposed` swaps the channels of the sums."""
    n, height, width = x.shape[:3]
    out = [int(side * scheme.scale) for side in (height, width)]
    channel = (((3,), (1 if transposed else 0,)), ((), ()))
    more = [(0, 0), (0, -height % scheme.stride), (0, -width % scheme.stride), (0, 0)]
    if any(after for _, after in more):
        x = jnp.pad(x, more)
    joined = []  # for each product along columns, the parts of rows
    for j, column in enumerate(scheme.planes(_cut(x, 2, scheme.stride), 2)):
        planes = [scheme.planes(_cut(part, 1, scheme.stride), 1) for part in column]
        products: list[Parts] = [[] for _ in range(scheme.spread[j])]
        for i, wanted in enumerate(scheme.spread):
            parts = [plane[i][p] for p in range(len(planes[0][i])) for plane in planes]
            product = lax.dot_general(_joined(parts, 3), sums[i][j], channel)
            each = jnp.split(product, wanted * scheme.spread[j], axis=3)
            for q, product_list in enumerate(products):
                product_list += each[q :: scheme.spread[j]]
        joined += [scheme.join(rows, 1) for rows in products]
    parts = [scheme.join([rows[r] for rows in joined], 2) for r in range(len(joined[0]))]
    if len(parts) == 1:
        return parts[0][0]
    y = jnp.stack([jnp.stack(part, axis=3) for part in parts], axis=2)
    y = y.reshape(n, y.shape[1] * len(parts), y.shape[3] * len(parts), y.shape[5])
    return y[:, : out[0], : out[1]]


def _joined(parts: Parts, axis: int) -> Array:
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis)


def _cut(x: Array, axis: int, count: int) -> Parts:
    """Every `count`-th pixel from the first, from the second, ..."""
    if count == 1:
        return [x]
    shape = (*x.shape[:axis], x.shape[axis] // count, count, *x.shape[axis + 1 :])
    x = x.reshape(shape)
    return [lax.index_in_dim(x, i, axis + 1, keepdims=False) for i in range(count)]
