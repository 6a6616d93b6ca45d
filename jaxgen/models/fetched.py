"""Networks that others published: not shipped, but fetched once and kept in a cache folder.

`jaxgen fetch NAME` obtains, converts and stores them; from then on `jaxgen.load(NAME)` needs
no network.
"""

from __future__ import annotations

from pathlib import Path

from jaxgen.core.cache import cache_folder
from jaxgen.models.catalogue import FETCHABLE, PARTS

__all__ = ["FETCHABLE", "PARTS", "cached"]


def cached(name: str) -> Path:
    """Return the file of one of `FETCHABLE` in the cache, whether or not it is there."""
    return cache_folder() / f"{name}.safetensors"
