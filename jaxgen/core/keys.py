"""Random keys in whichever form they are given."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxgen.core.errors import expected

__all__ = ["as_key"]


def as_key(key: Any, name: str = "key") -> Any:
    """One typed key, from an integer seed, a typed key or an old-style one.

    Args:
      key: an integer, as in `key=0`; `jax.random.key(0)`; or `jax.random.PRNGKey(0)`, an
        array of unsigned integers.
      name: of the argument, for the error.

    Raises:
      InputError: for anything else: several keys at once, a float, no key.
    """
    if isinstance(key, int | np.integer) and not isinstance(key, bool):
        if not -(2**63) <= int(key) < 2**64:
            raise expected(name, "an integer of 64 bits", key)
        return jax.random.key(int(key))
    wanted = "an integer or one key, as jax.random.key(0) makes it"
    dtype = getattr(key, "dtype", None)
    if dtype is None:
        raise expected(name, wanted, type(key).__name__)
    if jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        if np.shape(key) != ():
            raise expected(name, wanted, f"{np.shape(key)} keys", "Take one: key[0]")
        return key
    if dtype == jnp.uint32 and np.ndim(key) == 1:
        try:
            return jax.random.wrap_key_data(jnp.asarray(key))
        except (TypeError, ValueError) as error:  # of another length than JAX's generator has
            raise expected(name, wanted, f"uint32{list(np.shape(key))}") from error
    if jnp.issubdtype(dtype, jnp.integer) and np.shape(key) == () and not isinstance(key, Tracer):
        return jax.random.key(int(key))
    raise expected(name, wanted, f"{dtype}{list(np.shape(key))}")
