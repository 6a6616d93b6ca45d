"""The process and others: a lock on the folder, signals, agreement between processes."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxgen.core.atomic import acquire
from jaxgen.core.errors import InputError, expected
from jaxgen.core.leaving import leave_if_uncaught
from jaxgen.sampler.checkpoint import manifests
from jaxgen.sampler.checkpoint.files import line

__all__ = ["agree", "barrier", "is_first", "locked", "own_chains", "signals", "suffix"]

_OURS = {"lock", "run.json", "draws", "checkpoints"}
_STOPPING = (signal.SIGTERM, signal.SIGINT)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Make the folder and hold its lock, which the system releases if the process dies.

    A folder that was made here is removed again if the run fails before its first checkpoint.

    Yields:
      Whether the folder can be written: a run on a read-only disk can still be read.
    """
    if not is_first():
        with _together(None), _peers(path):
            yield True
        return
    handle, made, trouble = None, False, None
    try:
        handle, made = _lock(path)
    except InputError as error:
        trouble = error
    writable = handle is not None
    try:
        with _together(trouble), _peers(path):
            try:
                yield writable
            except BaseException:
                if writable and made:
                    _remove_unless_begun(path)
                raise
    finally:
        if handle is not None:
            os.close(handle)


def _lock(path: Path) -> tuple[int | None, bool]:
    """Return the lock's handle, None on a read-only disk; and whether there was no run before."""
    try:
        foreign = []
        if path.is_dir():
            foreign = sorted(p.name for p in path.iterdir() if not _is_ours(p.name))
        if foreign and not (path / "run.json").exists():
            raise expected("folder", "a new folder or one of a run", f"{path} with {foreign[0]}")
        path.mkdir(parents=True, exist_ok=True)
        handle = acquire(path / "lock")
        return handle, not (path / "run.json").exists()
    except BlockingIOError as error:
        raise expected(
            "folder",
            "one that no other process writes",
            f"{path}, in use",
            "Wait for the other run, or give another folder",
        ) from error
    except OSError as error:
        with contextlib.suppress(OSError):
            path.rmdir()  # if it is empty
        if error.errno in _READ_ONLY and (path / "run.json").is_file():
            return None, False
        raise expected("folder", "a folder that can be written", line(error)) from error


def _is_ours(name: str) -> bool:
    return name in _OURS or name.startswith("lock.p")


def _remove_unless_begun(path: Path) -> None:
    """Remove a folder that this process has made and locked, if no checkpoint is in it."""
    if manifests.numbers(path / "checkpoints"):
        return
    for name in ("draws", "checkpoints"):
        shutil.rmtree(path / name, ignore_errors=True)
    for name in ("run.json", *(p.name for p in path.glob("lock*"))):
        with contextlib.suppress(OSError):
            (path / name).unlink()
    with contextlib.suppress(OSError):
        path.rmdir()


@contextlib.contextmanager
def _together(trouble: InputError | None) -> Iterator[None]:
    """Stop all processes if the first could not lock the folder."""
    barrier("lock")
    (failed,) = agree(int(trouble is not None))
    if trouble is not None:
        raise trouble
    if failed:
        raise expected("folder", "one that the first process could lock", "an error there")
    yield


@contextlib.contextmanager
def _peers(path: Path) -> Iterator[None]:
    """Say which process is gone, where the others' messages come to nothing.

    Every process but the first holds a lock of its own beside the first one's. A lock that can
    be had is that of a process that has died.
    """
    count, own = jax.process_count(), jax.process_index()
    if count == 1:
        yield
        return
    names = ["lock", *(f"lock.p{index:04d}" for index in range(1, count))]
    handle = acquire(path / names[own]) if own else None
    barrier("peers")
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:  # JAX's errors are RuntimeErrors
        if isinstance(error, InputError):
            raise
        gone = _gone({index: path / names[index] for index in range(count) if index != own})
        if not gone:
            raise
        alone = ProcessGone(gone, path)
        if count > 2:
            time.sleep(3.0)  # the others look for who is gone before this one goes
        # JAX's service lives in the first process: without it the others could not say anything.
        leave_if_uncaught(alone, after=3.0 if own == 0 and count > 2 else 0.0)
        raise alone from error
    finally:
        if handle is not None:
            os.close(handle)


def _gone(locks: dict[int, Path]) -> list[int]:
    """Return the processes whose locks are free: those that died first, not those that follow."""
    deadline = time.monotonic() + 2.0  # a process that is being killed keeps it for a moment
    while True:
        free = [index for index, lock in locks.items() if _is_free(lock)]
        if free or time.monotonic() > deadline:
            return free
        time.sleep(0.1)


def _is_free(lock: Path) -> bool:
    try:
        os.close(acquire(lock))
        return True
    except OSError:
        return False


class ProcessGone(RuntimeError):
    """A process of the run has died; the others cannot go on without it."""

    def __init__(self, gone: list[int], path: Path):
        names = ", ".join(map(str, gone))
        who = f"process {names}" if len(gone) == 1 else f"processes {names}"
        are = "is" if len(gone) == 1 else "are"
        super().__init__(
            f"{who} of {jax.process_count()} {are} gone. Start all again with resume=True: "
            f"the last checkpoint in {path} is whole"
        )
        self.gone = gone


@contextlib.contextmanager
def signals(*numbers: int) -> Iterator[Callable[[], int]]:
    """Note SIGTERM and SIGINT instead of dying of them; a second SIGINT interrupts at once."""
    seen = [0]
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return

    def note(number: int, frame: Any) -> None:
        if number == signal.SIGINT and seen[0] == signal.SIGINT:
            raise KeyboardInterrupt
        seen[0] = number

    old = {number: signal.signal(number, note) for number in numbers or _STOPPING}
    try:
        yield lambda: seen[0]
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def is_first() -> bool:
    """Return whether this process writes what is written once."""
    return jax.process_index() == 0


def agree(*flags: int) -> tuple[int, ...]:
    """Return the largest of each flag over all processes."""
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
    """Return the ending of this process's files: empty where there is one process."""
    return manifests.ending(jax.process_index(), jax.process_count())


def own_chains(num_chains: int, tile: int, mesh: Any) -> tuple[int, int]:
    """Return the first of this process's chains, and how many it has.

    Chains are spread over a mesh in equal blocks (`jaxgen.sampler.sharding.over_chains`).
    """
    if mesh is None:
        return 0, num_chains
    devices = list(mesh.devices.flat)
    here = [i for i, d in enumerate(devices) if d.process_index == jax.process_index()]
    tiles = -(-num_chains // tile)
    tiles = -(-tiles // len(devices)) * len(devices)
    if len(here) == len(devices) or (tiles == 1 and tile == num_chains) or not here:
        return 0, num_chains
    each = tiles // len(devices) * tile
    first = min(here) * each
    return min(first, num_chains), max(min(len(here) * each, num_chains - first), 0)
