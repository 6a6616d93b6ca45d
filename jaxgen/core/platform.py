"""Which platform a program is traced for: "cpu", "gpu" or "tpu".

The same sums have another fastest form on each. The process that traces may have another
default device than the one that will run: a run is given devices, and `jax.export` lowers for a
TPU on a machine that has none. So whoever knows the devices says so, and JAX's caches of traced
programs heed it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from jaxgen.core.errors import expected

__all__ = ["PLATFORMS", "compiling_for", "on_mesh", "platform", "platform_of"]

PLATFORMS = ("cpu", "gpu", "tpu")

_SAID = jax.make_user_context(None)
# What devices call their platform, where it is not one of the three.
_ALIASES = {"cuda": "gpu", "rocm": "gpu"}


def platform() -> str:
    """Return the platform that is traced for: what was said, else that of the default device."""
    return _SAID.value or platform_of(None)


def platform_of(devices: Any) -> str:
    """Return the platform of devices, or of the default one for None."""
    name = jax.default_backend() if devices is None else devices[0].platform
    return _ALIASES.get(name, name)


@contextlib.contextmanager
def compiling_for(name: str) -> Iterator[None]:
    """Trace for a platform of `PLATFORMS`, wherever this process runs.

    Raises:
      InputError: for another name.
    """
    if name not in PLATFORMS:
        raise expected("platform", f"one of {', '.join(PLATFORMS)}", repr(name))
    with _SAID(name):
        yield


@contextlib.contextmanager
def on_mesh(mesh: Mesh | None) -> Iterator[None]:
    """Trace for the platform of a mesh's devices; without one, nothing changes."""
    if mesh is None:
        yield
        return
    with _SAID(platform_of(mesh.devices.flat)):
        yield
