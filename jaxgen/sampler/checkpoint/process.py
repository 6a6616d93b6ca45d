"""The process and others: a lock on the folder, signals, agreement between processes."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.sampler.checkpoint.files import line

__all__ = ["agree", "barrier", "is_first", "locked", "signals", "suffix"]


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Make the folder and hold its lock, which the system releases if the process dies."""
    if not is_first():
        yield
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
        foreign = sorted(p.name for p in path.iterdir() if p.name not in ("lock", "run.json"))
        if foreign and not (path / "run.json").exists() and set(foreign) - {"draws", "checkpoints"}:
            raise expected("folder", "a new folder or one of a run", f"{path} with {foreign[0]}")
        handle = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise expected("folder", "a folder that can be written", line(error)) from error
    try:
        try:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:  # no such locks on Windows
            pass
        except OSError as error:
            raise expected(
                "folder",
                "one that no other process writes",
                f"{path}, in use",
                "Wait for the other run, or give another folder",
            ) from error
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def signals() -> Iterator[Callable[[], int]]:
    """Note SIGTERM and SIGINT instead of dying of them; a second SIGINT interrupts at once."""
    seen = [0]
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return

    def note(number: int, frame: Any) -> None:
        if number == signal.SIGINT and seen[0] == signal.SIGINT:
            raise KeyboardInterrupt
        seen[0] = number

    old = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: seen[0]
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def is_first() -> bool:
    """Whether this process writes what is written once."""
    return jax.process_index() == 0


def agree(*flags: int) -> tuple[int, ...]:
    """The largest of each flag over all processes."""
    if jax.process_count() == 1:
        return flags
    from jax.experimental import multihost_utils

    return tuple(int(x) for x in multihost_utils.process_allgather(np.asarray(flags)).max(axis=0))


def barrier(name: str) -> None:
    """Wait for all processes, five minutes at most."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils
        from orbax.checkpoint import multihost

        # First by messages: collectives on CPU give up on a peer that is 30 s behind when they
        # connect, which one process of a busy machine easily is.
        multihost.get_barrier_sync_fn()(key=f"jaxgen.{name}", timeout_ms=300_000)
        multihost_utils.sync_global_devices(name)


def suffix() -> str:
    """What tells one process's files from another's: nothing where there is one."""
    return "" if jax.process_count() == 1 else f".p{jax.process_index():04d}"
