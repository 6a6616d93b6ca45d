"""Networks that others published: not shipped, but fetched once and kept in a cache folder.

`jaxgen fetch NAME` obtains, converts and stores them; from then on `jaxgen.load(NAME)` needs
no network.
"""

from __future__ import annotations

from pathlib import Path

from jaxgen.core.cache import cache_folder

__all__ = ["FETCHABLE", "cached"]

FETCHABLE = ("progan-celeba128", "face-expression", "face-age-gender")
"""The names that `jaxgen fetch` knows."""


def cached(name: str) -> Path:
    """The file of one of `FETCHABLE` in the cache, whether or not it is there."""
    return cache_folder() / f"{name}.safetensors"
