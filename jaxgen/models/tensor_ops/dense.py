"""Matrix products: Gemm, MatMul, Einsum."""

from __future__ import annotations

import jax.numpy as jnp

from jaxgen.core.errors import InputError
from jaxgen.core.types import Array
from jaxgen.models.tensor_ops.base import (
    MOST_OPERANDS,
    Operator,
    aligned,
    from_caffe,
    register,
    to_caffe,
)
from jaxgen.models.tensor_ops.pointwise import _number

__all__: list[str] = []


@register("Gemm")
class Gemm(Operator):
    """alpha * A B + beta * C of matrices, A and B transposed first if so configured."""

    operands = (2, 3)

    def configure(
        self,
        alpha: float = 1.0,
        beta: float = 1.0,
        transpose_a: bool = False,
        transpose_b: bool = False,
    ) -> None:
        self.alpha, self.beta = _number("alpha", alpha), _number("beta", beta)
        self.transpose_a, self.transpose_b = bool(transpose_a), bool(transpose_b)

    def compute(self, a: Array, b: Array, *c: Array) -> Array:
        if a.ndim != 2 or b.ndim != 2:
            raise InputError(f"operands: expected matrices; got {a.ndim} and {b.ndim} axes")
        y = (a.T if self.transpose_a else a) @ (b.T if self.transpose_b else b)
        y = y if self.alpha == 1.0 else self.alpha * y
        if not c:
            return y
        y, shift = aligned(y, c[0])
        return y + (shift if self.beta == 1.0 else self.beta * shift)


@register("MatMul")
class MatMul(Operator):
    """NumPy's matmul of whole tensors, the last two axes of each swapped first if configured."""

    operands = (2, 2)

    def configure(self, transpose_a: bool = False, transpose_b: bool = False) -> None:
        self.transpose_a, self.transpose_b = bool(transpose_a), bool(transpose_b)

    def compute(self, a: Array, b: Array) -> Array:
        a, b = to_caffe(a), to_caffe(b)
        # OpenVINO: vectors are not transposed.
        a = jnp.swapaxes(a, -1, -2) if self.transpose_a and a.ndim > 1 else a
        b = jnp.swapaxes(b, -1, -2) if self.transpose_b and b.ndim > 1 else b
        return from_caffe(jnp.matmul(a, b))


@register("Einsum")
class Einsum(Operator):
    """A sum of products by an equation such as "bij,bjk->bik"."""

    operands = (1, MOST_OPERANDS)

    def configure(self, equation: str) -> None:
        if not isinstance(equation, str) or len(equation) > 200:
            raise InputError(f"equation: expected text such as 'ij,jk->ik'; got {equation!r:.80}")
        self.equation = equation.replace(" ", "")

    def compute(self, *xs: Array) -> Array:
        return from_caffe(jnp.einsum(self.equation, *(to_caffe(x) for x in xs)))
