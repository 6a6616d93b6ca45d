"""Run folders: what a command leaves behind, written whole or not at all.

A run is computed first. Its files are then written into a temporary folder beside the
final one, which takes its name in one rename: nobody ever sees half of a run, and an
interrupted one leaves nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from jaxgen.core.atomic import acquire
from jaxgen.core.errors import expected
from jaxgen.sampler.finished import FORMAT, MANY, SUMMARY, plain, write_arrays, write_json

__all__ = [
    "FORMAT",
    "MANY",
    "check_free",
    "free_name",
    "partial",
    "plain",
    "put",
    "release",
    "reserve",
    "reserve_free",
    "write_arrays",
    "write_json",
    "write_picture",
    "writing",
]

_SUMMARY = SUMMARY
_MOST_SUMMARY = 1 << 26
# Seconds in which a folder that was just made gets its lock.
_MOMENT = 0.2


class _Reservation(NamedTuple):
    """A folder that this process has locked.

    Attributes:
      folder: where the run lives.
      handle: of its lock.
      made: folders above it that were made for it, innermost first.
    """

    folder: Path
    handle: int
    made: list[Path]


_RESERVED: list[_Reservation] = []


def free_name(folder: str | Path, stem: str) -> Path:
    """Return the first of `folder/stem`, `folder/stem-2`, `folder/stem-3`, ... that is free."""
    return next(path for path in _names(folder, stem) if not _taken(path))


def partial(path: str | Path) -> Path:
    """Return the folder, beside `path`, in which a run is kept until it is written to `path`."""
    path = Path(path)
    return path.with_name(f"{path.name}.partial")


def reserve_free(folder: str | Path, stem: str) -> Path:
    """Reserve the first free name, which no other process gets until `release`.

    The folder `partial(name)` is made, which only one process can, and locked.
    """
    made = _make_parents(Path(folder).absolute())
    for path in _names(folder, stem):
        if _taken(path):
            continue
        try:
            handle = _make_and_lock(path)
        except (FileExistsError, BlockingIOError):
            continue  # another process was faster
        _RESERVED.append(_Reservation(partial(path).absolute(), handle, made))
        if not os.path.lexists(path):
            return path
        _release(_RESERVED.pop())
    raise AssertionError("names do not end")


def reserve(path: str | Path, *, resume: bool = False, force: bool = False) -> None:
    """Keep a folder for a run of this process, until `release`.

    Args:
      path: where the run will be written; it lives in `partial(path)` until then.
      resume: whether to resume the run that waits there, if there is one.
      force: give that run up, and replace the finished one at `path`.

    Raises:
      InputError: if a run of another process has the name, or waits there to be resumed.
    """
    path = Path(path)
    check_free(path, force=force)
    made = _make_parents(path.absolute().parent)
    waiting = partial(path)
    in_use = expected(
        "--out", "a folder that no other command writes", f"{path}, in use", "Wait for it to end"
    )
    try:
        handle = _make_and_lock(path)
    except BlockingIOError:
        raise in_use from None
    except FileExistsError:
        if not waiting.is_dir() or waiting.is_symlink():
            raise expected("--out", "a new folder", f"{waiting}, which is in the way") from None
        if not (resume or force):
            if _is_locked(waiting / "lock"):
                raise in_use from None
            raise expected(
                "--out",
                "a new folder",
                f"{path}, whose run was interrupted and waits in {waiting}",
                "Give --resume to resume it, or --force to start again",
            ) from None
        try:
            handle = acquire(waiting / "lock")
        except BlockingIOError:
            raise in_use from None
        except OSError as error:
            raise expected("--out", "a folder that can be written", error) from error
    except OSError as error:
        raise expected("--out", "a folder that can be written", error) from error
    _RESERVED.append(_Reservation(waiting.absolute(), handle, made))
    check_free(path, force=force)  # again: it may have been finished meanwhile
    if force:
        for entry in waiting.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != "lock":
                entry.unlink()


def release() -> None:
    """Give up all names that this process has reserved; what holds no run is removed."""
    while _RESERVED:
        _release(_RESERVED.pop())


def check_free(path: str | Path, *, force: bool = False) -> None:
    """Raise `InputError` unless a run may be written at `path`; nothing is touched.

    With `force`, a folder that holds a run of ours and no other files may be replaced, and
    so may an empty one. Anything else is never removed, whatever the caller says.
    """
    path = Path(path)
    parent = path.absolute().parent
    while not os.path.lexists(parent):
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise expected("--out", "a folder that can be written to", str(parent))
    if not os.path.lexists(path):
        return
    if not force:
        raise expected(
            "--out",
            "a folder that does not exist yet",
            f"{path}",
            "Give --force to replace the run in it, or another --out",
        )
    if path.is_symlink() or not path.is_dir():
        raise expected("--out", "a folder to replace", f"{path}, which is none")
    foreign = _foreign(path)
    if foreign:
        raise expected(
            "--out",
            "a folder that holds a run of jaxgen and nothing else",
            f"{path} with {foreign[0]}",
            "It is not replaced; give another --out",
        )


def put(path: str | Path, *, force: bool = False) -> None:
    """Give the folder in which a run has lived, `partial(path)`, its own name.

    Args:
      path: reserved by this process.
      force: replace the run that is there.
    """
    path = Path(path)
    check_free(path, force=force)
    _put(partial(path), path)
    (path / "lock").unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: str | Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends without an exception.

    Args:
      path: the folder to make; its parents are made where they are missing.
      force: replace the run that is there, once the new one is complete.

    Raises:
      InputError: as `check_free`, and where the folder cannot be written.
    """
    path = Path(path)
    check_free(path, force=force)
    made = _make_parents(path.absolute().parent)
    temporary = None
    try:
        try:
            temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=".jaxgen-part-"))
        except OSError as error:
            raise expected("--out", "a folder that can be written", error) from error
        temporary.chmod(0o755)
        yield temporary
        check_free(path, force=force)  # again: it may have appeared meanwhile
        _put(temporary, path)
    except BaseException:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        for parent in made:  # the innermost first; one that is in use stays
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise


def write_picture(path: Path, picture: Any) -> None:
    """Write a Pillow image as PNG."""
    picture.save(path, format="PNG", optimize=True)


def _names(folder: str | Path, stem: str) -> Iterator[Path]:
    yield Path(folder) / stem
    for number in itertools.count(2):
        yield Path(folder) / f"{stem}-{number}"


def _taken(path: Path) -> bool:
    return os.path.lexists(path) or os.path.lexists(partial(path))


def _is_locked(lock: Path) -> bool:
    """Return whether another process has the folder; a new one gets time to lock it."""
    if not lock.exists():
        time.sleep(_MOMENT)
    if not lock.exists():
        return False
    try:
        os.close(acquire(lock))
    except BlockingIOError:
        return True
    return False


def _make_and_lock(path: Path) -> int:
    """Make `partial(path)`, which only one process can, and lock it."""
    waiting = partial(path)
    while True:
        waiting.mkdir()
        try:
            return acquire(waiting / "lock")
        except FileNotFoundError:  # it was taken away at once: by nobody who had it
            continue


def _release(reservation: _Reservation) -> None:
    folder, handle, made = reservation
    with contextlib.suppress(OSError):
        # A folder of that name may be another's by now, if the run has ended and taken it away.
        ours = os.path.samestat(os.fstat(handle), os.stat(folder / "lock"))
        if ours and {entry.name for entry in folder.iterdir()} == {"lock"}:
            (folder / "lock").unlink()
            folder.rmdir()
    os.close(handle)
    for parent in made:  # the innermost first; one that is in use stays
        with contextlib.suppress(OSError):
            parent.rmdir()


def _foreign(path: Path) -> list[str]:
    """Return the files in a folder that no run of jaxgen wrote, in folders of runs too."""
    own = _own_files(path)
    found = []
    for entry in sorted(path.iterdir()):
        inside = entry.is_dir() and not entry.is_symlink()
        if entry.name not in own:
            found.append(entry.name)
        elif inside:
            found += [f"{entry.name}/{name}" for name in _foreign(entry)]
    return found


def _own_files(path: Path) -> set[str]:
    """Return the files that the summary in a folder lists; empty where there is no run."""
    summary = path / _SUMMARY
    try:
        if not summary.is_file() or summary.stat().st_size > _MOST_SUMMARY:
            return set()
        data = json.loads(summary.read_text(encoding="utf-8"))
        if data["format"] not in (FORMAT, MANY):
            return set()
        return {_SUMMARY, *(str(name) for name in data["files"])}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()


def _make_parents(folder: Path) -> list[Path]:
    """Make a folder and its parents; returns those that were made, innermost first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    try:
        for parent in reversed(missing):
            parent.mkdir(exist_ok=True)
    except OSError as error:
        raise expected("--out", "a folder that can be written", error) from error
    return missing


def _put(temporary: Path, path: Path) -> None:
    """Give the finished folder its name; an old one goes only after that."""
    old = None
    if os.path.lexists(path):
        old = Path(tempfile.mkdtemp(dir=path.parent, prefix=".jaxgen-old-"))
        os.replace(path, old)
    try:
        os.rename(temporary, path)
    except OSError as error:
        if old is not None:
            os.replace(old, path)
        raise expected("--out", f"to name the new folder {path}", error) from error
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
