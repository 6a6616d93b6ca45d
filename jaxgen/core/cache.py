"""The cache folder, and compiled programs in it.

A program that took seconds to compile is kept, and the next process loads it in a fraction
of a second. `JAXGEN_COMPILE_CACHE=off` switches this off; a cache that JAX has been given
already (`JAX_COMPILATION_CACHE_DIR`) is left as it is.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import sys
from pathlib import Path

import jax

__all__ = ["cache_folder", "keep_compiled"]

# Seconds of compiling from which on a program is kept. Below are single operations.
_WORTH = 0.3


def cache_folder() -> Path:
    """Where things are kept: `JAXGEN_CACHE`, or else the platform's place for caches."""
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


@functools.cache
def keep_compiled() -> Path | None:
    """Let JAX keep compiled programs, once in a process; returns the folder, or None if off."""
    if os.environ.get("JAXGEN_COMPILE_CACHE", "on").lower() in ("off", "0", "no", "false"):
        return None
    chosen = getattr(jax.config, "jax_compilation_cache_dir", None)
    if chosen:
        return Path(chosen)
    folder = cache_folder() / "compiled" / _machine()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # a home that cannot be written: compile every time, as without a cache
        return None
    if not os.access(folder, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _WORTH)
    return folder


def _machine() -> str:
    """A name for the kind of processor.

    Programs for one CPU may use instructions that another, in the same cluster with the
    same home folder, does not have.
    """
    flags = ""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        flags = platform.processor()
    digest = hashlib.sha256(" ".join(sorted(flags.split())).encode()).hexdigest()[:10]
    return f"{platform.machine()}-{digest}"
