"""A second thread of a command: runs that go on beside those that are shown.

A program is compiled on one core. Where a command needs two, the second core has nothing to do
otherwise.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

from jaxgen.sampler.checkpoint.folder import Interrupted, Preempted
from jaxgen.sampler.checkpoint.process import signals
from jaxgen.sampler.results import Progress

__all__ = ["Beside", "Stopped"]

T = TypeVar("T")
_LOOK_EVERY = 0.1  # seconds, for signals


class Stopped(Exception):
    """The command has ended, and with it what ran beside it."""


class Beside:
    """Runs functions in one thread, one after the other. Use it as a context manager.

    Each function is given this object last, in the place of a `Reporter`: it prints nothing. When
    the context ends before the functions have, by an error or a signal, they stop at the next call
    of `update`; signals themselves are the main thread's.

    Attributes:
      mode: "quiet", see `Reporter`.
    """

    mode = "quiet"

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._stopped = threading.Event()

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def submit(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """Run `function(*args, self)` when its turn has come; the future has what it returns."""
        return self._pool.submit(function, *args, self)

    def result(self, promised: Future[T], run: Path) -> T:
        """Wait for what a function returns, or for a signal.

        Args:
          promised: what `submit` has returned.
          run: the folder in which the function's run is kept.

        Raises:
          Interrupted: at Ctrl-C.
          Preempted: at SIGTERM.
        """
        with signals() as pending:
            while not promised.done():
                wait([promised], timeout=_LOOK_EVERY)
                asked = pending()
                if asked:
                    raise (Interrupted if asked == signal.SIGINT else Preempted)(run)
        return promised.result()

    def start(self, name: str) -> None:
        """Announce a run: nothing is printed."""

    def update(self, progress: Progress) -> None:
        """Take the place of a reporter's `update`.

        Raises:
          Stopped: when the context has ended.
        """
        del progress
        if self._stopped.is_set():
            raise Stopped
