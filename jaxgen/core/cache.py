"""The cache folder, and compiled programs in it.

A program that took seconds to compile is kept, and the next process loads it in a fraction
of a second. `JAXGEN_COMPILE_CACHE=off` switches this off; a cache that JAX has been given
already (`JAX_COMPILATION_CACHE_DIR`) is left as it is.

A kept program is native code, which runs as whoever loads it: a folder is used only if it
belongs to this user and nobody else can write to it. An entry that cannot be read, as one that
was being written when its process died, is deleted and compiled anew.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import stat
import sys
from pathlib import Path
from typing import Any

import jax

__all__ = ["cache_folder", "keep_compiled"]

# Seconds of compiling from which on a program is kept. Below are single operations.
_WORTH = 0.3


def cache_folder() -> Path:
    """Return the cache folder: `JAXGEN_CACHE`, or else the platform's place for caches."""
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
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not all(_is_private(place) for place in (folder.parent, folder)):
            return None
    except OSError:  # a home that cannot be written: compile every time, as without a cache
        return None
    if not os.access(folder, os.W_OK):
        return None
    _forget_what_cannot_be_read(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _WORTH)
    return folder


def _is_private(folder: Path) -> bool:
    """Return whether a folder is this user's and, made so if possible, closed to others."""
    if not hasattr(os, "getuid"):  # Windows: the folder lies in the user's own profile
        return True
    found = folder.lstat()
    if found.st_uid != os.getuid() or not stat.S_ISDIR(found.st_mode):
        return False
    if found.st_mode & 0o022:
        if any(folder.glob("*-cache")):  # others may have put their programs there
            return False
        folder.chmod(0o700)
    return True


def _forget_what_cannot_be_read(folder: Path) -> None:
    """Have JAX delete an entry that it cannot read: it would never be written again.

    JAX has no way to say so; where a version of it does this otherwise, nothing is changed.
    """
    try:
        from jax._src import compilation_cache as theirs

        read = theirs.get_executable_and_time
    except (ImportError, AttributeError):
        return

    @functools.wraps(read)
    def reading(cache_key: str, *args: Any, **options: Any) -> Any:
        try:
            return read(cache_key, *args, **options)
        except Exception:
            for ending in ("-cache", "-atime"):
                with contextlib.suppress(OSError):
                    (folder / f"{cache_key}{ending}").unlink()
            raise  # JAX warns, and compiles

    theirs.get_executable_and_time = reading


def _machine() -> str:
    """Return a name for the kind of processor.

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
