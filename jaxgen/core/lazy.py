"""BlackJAX, imported when it is first needed.

Its import takes a second and starts JAX's backends, after which neither the number of CPU
devices nor `jax.distributed` can be set up any more.
"""

from __future__ import annotations

import functools
from typing import Any

import jax

__all__ = ["blackjax"]


@functools.cache
def blackjax() -> Any:
    """Return the package; inside `jit` too, what its import computes stays outside."""
    with jax.ensure_compile_time_eval():
        import blackjax as package
        import blackjax.smc.resampling
    return package
