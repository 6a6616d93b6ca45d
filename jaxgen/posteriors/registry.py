"""The names of the reference set, and the posterior behind each."""

from __future__ import annotations

import functools
from collections.abc import Callable

from jaxgen.core.errors import expected
from jaxgen.posteriors import images, linear_gaussian, mixtures, planes, separable, shapes
from jaxgen.posteriors.reference import ReferencePosterior

__all__ = ["get", "names"]

_BUILDERS: dict[str, Callable[[], ReferencePosterior]] = {
    **linear_gaussian.BUILDERS,
    **mixtures.BUILDERS,
    **separable.BUILDERS,
    **shapes.BUILDERS,
    **planes.BUILDERS,
    **images.BUILDERS,
}


def names() -> tuple[str, ...]:
    """Every name of the set, in the order in which tables show them."""
    return tuple(_BUILDERS)


@functools.cache
def get(name: str) -> ReferencePosterior:
    """Build the posterior of a name, with its reference answers; built once per process.

    Raises:
      InputError: for a name that is not in the set.
    """
    if name not in _BUILDERS:
        raise expected("name", f"one of {', '.join(_BUILDERS)}", repr(name))
    return _BUILDERS[name]()
