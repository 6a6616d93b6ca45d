"""Operators on each number by itself, and those that broadcast two tensors against each other.

Truth values are kept as 0 and 1 in the tensor's own floating type, so that every tensor of a
graph is of one type; `Not`, `Where` and the rest take any number other than 0 for true.
Formulas are those of the ONNX operator reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxgen.core.errors import InputError
from jaxgen.core.types import Array
from jaxgen.models.tensor_ops.base import MOST_OPERANDS, Operator, aligned, register

__all__: list[str] = []


def _number(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{name}: expected a finite number; got {value!r}")
    return float(value)


class _Unary(Operator):
    function: ClassVar[Callable[[Array], Array]]

    def compute(self, x: Array) -> Array:
        return type(self).function(x)


class _Binary(Operator):
    operands = (2, 2)
    function: ClassVar[Callable[[Array, Array], Array]]

    def compute(self, a: Array, b: Array) -> Array:
        x, y = aligned(a, b)
        return type(self).function(x, y).astype(jnp.result_type(x, y))


class _Many(Operator):
    operands = (1, MOST_OPERANDS)
    function: ClassVar[Callable[[Array, Array], Array]]

    def compute(self, *xs: Array) -> Array:
        result, *rest = aligned(*xs)
        for x in rest:
            result = type(self).function(result, x)
        return result


def _add(base: type[Operator], table: dict[str, Callable[..., Array]]) -> None:
    for name, function in table.items():
        register(name)(type(name, (base,), {"function": staticmethod(function)}))


def _truth(function: Callable[..., Array]) -> Callable[..., Array]:
    return lambda *xs: function(*xs).astype(xs[0].dtype)


_add(
    _Unary,
    {
        "Abs": jnp.abs,
        "Ceil": jnp.ceil,
        "Cos": jnp.cos,
        "Erf": jax.scipy.special.erf,
        "Exp": jnp.exp,
        "Floor": jnp.floor,
        "HardSwish": lambda x: x * jnp.clip(x / 6 + 0.5, 0.0, 1.0),
        "Identity": lambda x: x,
        "Log": jnp.log,
        "Mish": lambda x: x * jnp.tanh(jax.nn.softplus(x)),
        "Neg": jnp.negative,
        "Not": _truth(lambda x: x == 0),
        "Reciprocal": lambda x: 1.0 / x,
        "Relu": jax.nn.relu,
        "Round": jnp.round,
        "Sigmoid": jax.nn.sigmoid,
        "Sign": jnp.sign,
        "Sin": jnp.sin,
        "Softplus": jax.nn.softplus,
        "Softsign": jax.nn.soft_sign,
        "Sqrt": jnp.sqrt,
        "Tanh": jnp.tanh,
        # The whole part: what a cast to whole numbers leaves.
        "Truncate": jnp.trunc,
        "Truth": _truth(lambda x: x != 0),
    },
)
_add(
    _Binary,
    {
        "Sub": jnp.subtract,
        "Div": jnp.divide,
        "PRelu": lambda x, slope: jnp.where(x >= 0, x, slope * x),
        "SquaredDifference": lambda x, y: (x - y) ** 2,
        "Equal": jnp.equal,
        "Greater": jnp.greater,
        "GreaterOrEqual": jnp.greater_equal,
        "Less": jnp.less,
        "LessOrEqual": jnp.less_equal,
        "And": lambda x, y: (x != 0) & (y != 0),
        "Or": lambda x, y: (x != 0) | (y != 0),
        "Xor": lambda x, y: (x != 0) ^ (y != 0),
    },
)
_add(_Many, {"Add": jnp.add, "Mul": jnp.multiply, "Max": jnp.maximum, "Min": jnp.minimum})


@register("Mod")
class Mod(_Binary):
    """The remainder: with the divisor's sign, or the dividend's if `truncated`."""

    def configure(self, truncated: bool = False) -> None:
        self.truncated = bool(truncated)

    def compute(self, a: Array, b: Array) -> Array:
        x, y = aligned(a, b)
        return jnp.fmod(x, y) if self.truncated else jnp.mod(x, y)


@register("Power")
class Power(Operator):
    """x to a power that is a number of the file; whole ones by products.

    The general power is exp(p log x), whose gradient at zero is none.
    """

    def configure(self, power: float) -> None:
        self.power = _number("power", power)

    def compute(self, x: Array) -> Array:
        if self.power == 0.5:
            return jnp.sqrt(x)
        return x ** (int(self.power) if self.power.is_integer() else self.power)


@register("Pow")
class Pow(_Binary):
    """x to the power y, number by number."""

    function = staticmethod(jnp.power)


@register("LeakyRelu")
class LeakyRelu(Operator):
    """x, or slope * x where x is negative."""

    def configure(self, slope: float) -> None:
        self.slope = _number("slope", slope)

    def compute(self, x: Array) -> Array:
        return jax.nn.leaky_relu(x, self.slope)


@register("Elu")
class Elu(Operator):
    """x, or alpha * (exp(x / width) - 1) where x is negative, all times gamma."""

    def configure(self, alpha: float = 1.0, gamma: float = 1.0, width: float = 1.0) -> None:
        self.alpha, self.gamma = _number("alpha", alpha), _number("gamma", gamma)
        self.width = _number("width", width)

    def compute(self, x: Array) -> Array:
        low = self.alpha * jnp.expm1(jnp.minimum(x, 0.0) / self.width)
        return self.gamma * jnp.where(x > 0, x, low)


@register("HardSigmoid")
class HardSigmoid(Operator):
    """alpha * x + beta, cut to [0, 1]."""

    def configure(self, alpha: float = 0.2, beta: float = 0.5) -> None:
        self.alpha, self.beta = _number("alpha", alpha), _number("beta", beta)

    def compute(self, x: Array) -> Array:
        return jnp.clip(self.alpha * x + self.beta, 0.0, 1.0)


@register("Swish")
class Swish(Operator):
    """x * sigmoid(beta * x)."""

    def configure(self, beta: float = 1.0) -> None:
        self.beta = _number("beta", beta)

    def compute(self, x: Array) -> Array:
        return x * jax.nn.sigmoid(self.beta * x)


@register("Gelu")
class Gelu(Operator):
    """x * Phi(x), Phi of the normal distribution or its approximation by a tanh."""

    def configure(self, approximate: bool = False) -> None:
        self.approximate = bool(approximate)

    def compute(self, x: Array) -> Array:
        return jax.nn.gelu(x, approximate=self.approximate)


@register("ThresholdedRelu")
class ThresholdedRelu(Operator):
    """x where it is above the threshold, else 0."""

    def configure(self, threshold: float = 1.0) -> None:
        self.threshold = _number("threshold", threshold)

    def compute(self, x: Array) -> Array:
        return jnp.where(x > self.threshold, x, 0.0)


@register("Clip")
class Clip(Operator):
    """x cut to [low, high]; either may be missing."""

    def configure(self, low: float | None = None, high: float | None = None) -> None:
        self.low = None if low is None else _number("low", low)
        self.high = None if high is None else _number("high", high)

    def compute(self, x: Array) -> Array:
        return jnp.clip(x, self.low, self.high)


@register("Where")
class Where(Operator):
    """x where the condition holds, else y."""

    operands = (3, 3)

    def compute(self, condition: Array, x: Array, y: Array) -> Array:
        condition, x, y = aligned(condition, x, y)
        return jnp.where(condition != 0, x, y)


@register("Affine")
class Affine(Operator):
    """scale * x + shift, one number of each for every channel (axis 1)."""

    operands = (3, 3)

    def compute(self, x: Array, scale: Array, shift: Array) -> Array:
        if x.ndim < 2:
            raise InputError("operand: expected a tensor with channels, of two axes or more")
        axis = 3 if x.ndim == 4 else 1
        shape = tuple(-1 if a == axis else 1 for a in range(x.ndim))
        return x * scale.reshape(shape) + shift.reshape(shape)


@register("Towards")
class Towards(Operator):
    """centre + share * (x - centre): a latent brought nearer to the mean one, "truncated"."""

    operands = (3, 3)

    def compute(self, x: Array, centre: Array, share: Array) -> Array:
        x, centre, share = aligned(x, centre, share)
        return centre + share * (x - centre)
