"""Networks that others published: not shipped, but fetched once and kept in a cache folder.

`jaxgen fetch NAME` obtains, converts and stores them; from then on `jaxgen.load(NAME)` needs
no network.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["FETCHABLE", "cache_folder", "cached"]

FETCHABLE = ("progan-celeba128", "face-expression", "face-age-gender")
"""The names that `jaxgen fetch` knows."""


def cache_folder() -> Path:
    """Where fetched weights are kept: `JAXGEN_CACHE`, or else the platform's place for caches."""
    chosen = os.environ.get("JAXGEN_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    home = Path("~").expanduser()
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "jaxgen"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "jaxgen"
    # The XDG specification says to ignore relative paths.
    folder = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return (folder if folder.is_absolute() else home / ".cache") / "jaxgen"


def cached(name: str) -> Path:
    """The file of one of `FETCHABLE` in the cache, whether or not it is there."""
    return cache_folder() / f"{name}.safetensors"
