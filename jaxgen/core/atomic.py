"""Files that appear whole or not at all, names that only one process gets, and where they lie."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from jaxgen.core.errors import expected

__all__ = ["acquire", "local_folder", "replacing"]

# What a file system says that knows no locks: the run goes on without.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """Yield a file under another name, which is given its own name when all went well.

    A run that is killed meanwhile, or an exception, leaves what was at `path` as it was.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def acquire(path: str | Path) -> int:
    """Lock a file, which is made if it is missing: the lock is released when the handle closes.

    The system also releases it when the process dies. On a system or a disk without locks the
    handle is returned all the same.

    Raises:
      BlockingIOError: if another process, or another handle of this one, holds the lock.
      OSError: if the file cannot be opened.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise BlockingIOError(error.errno, "locked", str(path)) from error
                return handle
            # The file may have been removed, or replaced, between opening and locking it.
            with contextlib.suppress(FileNotFoundError):
                there, here = os.stat(path), os.fstat(handle)
                if (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino):
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def local_folder(folder: str | os.PathLike[str], argument: str) -> Path:
    """Return the absolute path of a folder, with `~` expanded, wherever the process goes later.

    Raises:
      InputError: for an address such as gs://bucket/run, and for what is no path.
    """
    try:
        text = os.fsdecode(os.fspath(folder))
    except TypeError as error:
        raise expected(argument, "a path", type(folder).__name__) from error
    if not text or "\0" in text:
        raise expected(argument, "a path", repr(text))
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", text):
        raise expected(
            argument,
            "a folder on a disk of this machine",
            text,
            "Mount the bucket as a folder, or copy the folder there when the run has ended",
        )
    try:
        return Path(os.path.abspath(Path(text).expanduser()))
    except RuntimeError as error:  # no such user
        raise expected(argument, "a path", text) from error
