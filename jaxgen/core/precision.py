"""The precision of matrix products.

"float32" is bfloat16 on a TPU and TF32 on recent GPUs unless somebody says otherwise. For pixels
with noise 0.02 that is an error of several units in log p: half the step size, and another
target, without a sign of it. So whoever runs a sampler says which precision it means.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

import jax

from jaxgen.core.errors import expected

__all__ = ["PRECISIONS", "at_precision", "matmul_precision"]

P = ParamSpec("P")
R = TypeVar("R")

# "highest" is float32 whatever the device; "fast" leaves JAX's own setting alone.
PRECISIONS = ("highest", "fast")


@contextlib.contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Trace matrix products and convolutions at a precision of `PRECISIONS`.

    Products for which a network asks for a precision of its own keep it.

    Raises:
      InputError: for another name.
    """
    if name not in PRECISIONS:
        raise expected("precision", "'highest' or 'fast'", repr(name))
    if name == "fast":
        yield
        return
    with jax.default_matmul_precision("highest"):
        yield


def at_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function run at the precision that its keyword `precision` names."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        with matmul_precision(str(kwargs.get("precision", "highest"))):
            return function(*args, **kwargs)

    return run
