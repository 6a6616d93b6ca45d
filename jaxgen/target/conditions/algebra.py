"""The algebra of conditions: sums, weights, and which terms annealing tempers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.pytree import pytree, static
from jaxgen.core.types import Array, Scalar
from jaxgen.target.conditions.checks import check_scalar
from jaxgen.target.conditions.precision import like, real_type

__all__ = [
    "Condition",
    "Function",
    "Sum",
    "Term",
    "Untempered",
    "Weighted",
    "as_condition",
    "bare_terms",
    "split_tempered",
]


class Condition:
    """Base of all conditions: the algebra, and a check before anything is traced."""

    def __call__(self, image: Array) -> Array:
        """Return the log likelihood (or any log weight) of an image: a scalar."""
        raise NotImplementedError

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Raise `InputError` where the condition cannot apply to images of this shape."""

    def __add__(self, other: object) -> Sum:
        return Sum((*_terms(self), *_terms(as_condition(other))))

    def __radd__(self, other: object) -> Condition:
        if isinstance(other, int) and other == 0:  # where `sum([a, b])` begins
            return self
        return as_condition(other) + self

    def __mul__(self, weight: Scalar) -> Weighted:
        return Weighted(self, jnp.asarray(weight, jnp.float32))

    __rmul__ = __mul__

    def untempered(self) -> Untempered:
        """Return the same condition, held at full strength at every temperature."""
        return Untempered(self)


@pytree
class Sum(Condition):
    """The sum of conditions: all of them were observed, independently given the image."""

    terms: tuple[Any, ...]

    def __call__(self, image: Array) -> Array:
        """sum_k term_k(image)."""
        values = [_floating(term(image), image) for term in self.terms]
        return sum(values[1:], values[0]) if values else jnp.zeros((), real_type(image))

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Check every term."""
        for term in self.terms:
            term.check(image_shape)


@pytree
class Weighted(Condition):
    """weight * condition."""

    condition: Condition
    weight: Scalar

    def __call__(self, image: Array) -> Array:
        """weight * condition(image)."""
        value = _floating(self.condition(image), image)
        return like(self.weight, value) * value

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Check that the weight is finite."""
        if np.shape(self.weight) != () or not np.all(np.isfinite(self.weight)):
            raise expected("weight", "a finite number", self.weight)
        self.condition.check(image_shape)


@pytree
class Untempered(Condition):
    """A condition at full strength at every temperature."""

    condition: Condition

    def __call__(self, image: Array) -> Array:
        """condition(image)."""
        return self.condition(image)

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Check the condition inside."""
        self.condition.check(image_shape)


@pytree
class Function(Condition):
    """Any pure function of an image that returns a scalar log weight.

    Attributes:
      function: `function(image, *arguments)`, or `function(image)`. A pytree callable
        (such as a regulariser) may be given instead: its arrays are then data.
      arguments: arrays the function needs; changing them compiles nothing.
    """

    function: Any = static()
    arguments: tuple[Any, ...] = ()

    def __call__(self, image: Array) -> Array:
        """function(image, *arguments)."""
        return jnp.asarray(self.function(image, *self.arguments))

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Check that the function returns a scalar."""
        check_scalar("Function", self, image_shape)


@pytree
class Term(Condition):
    """A callable pytree (a regulariser, say) as a condition."""

    term: Any

    def __call__(self, image: Array) -> Array:
        """term(image)."""
        return jnp.asarray(self.term(image))

    def check(self, image_shape: tuple[int, ...]) -> None:
        """Check that the term returns a scalar."""
        check_scalar(type(self.term).__name__, self.term, image_shape)


def as_condition(term: object) -> Condition:
    """Return a condition as it is; a callable pytree or a plain function made into one."""
    if isinstance(term, Condition):
        return term
    if isinstance(term, type):
        raise expected("condition", "a condition", f"the class {term.__name__} itself")
    if isinstance(term, list | tuple):
        hint = "Add them: sum([a, b])"
        raise expected("condition", "one condition", f"a {type(term).__name__} of them", hint)
    if not callable(term):
        raise expected("condition", "a condition or a function of an image", type(term).__name__)
    is_pytree = jax.tree.structure(term) != jax.tree.structure(0)
    return Term(term) if is_pytree else Function(term)


def split_tempered(condition: Condition) -> tuple[Condition, Condition | None]:
    """Split into (tempered, untempered); the second is None where there is none."""
    terms = _terms(condition)
    tempered = tuple(t for t in terms if not isinstance(_unweighted(t), Untempered))
    untempered = tuple(t for t in terms if isinstance(_unweighted(t), Untempered))
    return Sum(tempered), Sum(untempered) if untempered else None


def bare_terms(condition: object) -> tuple[Any, ...]:
    """Return the summands without their weights, marks and learned noise levels."""
    return tuple(_bare(term) for term in _terms(condition))


def _bare(term: Any) -> Any:
    """Return what a weight, a mark or a noise level is about: conditions name it `condition`."""
    while isinstance(getattr(term, "condition", None), Condition):
        term = term.condition
    return term


def _floating(value: object, image: Array) -> Array:
    """Return a term's value in the image's precision; what is not floating is left for `check`."""
    value = jnp.asarray(value)
    return like(value, image) if jnp.issubdtype(value.dtype, jnp.floating) else value


def _unweighted(term: object) -> Any:
    while isinstance(term, Weighted):
        term = term.condition
    return term


def _terms(condition: object) -> tuple[Any, ...]:
    """Return the summands, with weights and untempered marks distributed over inner sums."""
    if isinstance(condition, Sum):
        return tuple(inner for term in condition.terms for inner in _terms(term))
    if isinstance(condition, Weighted):
        return tuple(Weighted(t, condition.weight) for t in _terms(condition.condition))
    if isinstance(condition, Untempered):
        return tuple(
            t if isinstance(_unweighted(t), Untempered) else Untempered(t)
            for t in _terms(condition.condition)
        )
    return (condition,)
