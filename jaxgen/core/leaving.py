"""How a process ends, where JAX's own clean-up would end it in another way.

*Interrupted.* A signal stops Python, but not what XLA does on threads of its own: compiling
(which the main thread only waits for) or computing. When the interpreter then ends, JAX's
clean-up deletes the client and its devices under those threads. With jaxlib 0.10.2 a
compilation that finishes after that reads a deleted device, and the process dies of SIGSEGV:
exit code -11 in the place of 130. No call of JAX waits for a compilation that was given up.

*Alone.* When another process of a distributed run has died, JAX's clean-up waits for it until
its heartbeats are overdue (100 s), prints a native stack trace and aborts: exit code -6, and the
sentence that says what happened is 20 lines up.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import time
from typing import NoReturn

__all__ = ["leave", "leave_if_uncaught"]


def leave(code: int) -> NoReturn:
    """End the process with an exit code; at once if it is one of a signal (above 128).

    At once means without the functions of `atexit`: what has to be closed must be closed before.
    """
    if code <= 128:
        sys.exit(code)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one must not change the code
    _end(code)


def leave_if_uncaught(error: BaseException, *, after: float = 0.0) -> None:
    """Let the process end without JAX's clean-up, should this exception be what ends it.

    Args:
      error: the exception, about to be raised. Python prints it before anything is cleaned up.
      after: seconds to wait at the end.
    """
    atexit.register(_without_jax, error, after)  # called before what was registered until now


def _without_jax(error: BaseException, after: float) -> None:
    found = getattr(sys, "last_value", None)  # what Python has printed as uncaught
    while found is not None and found is not error:
        found = found.__cause__ or found.__context__
    if found is None:
        return
    atexit.unregister(_without_jax)
    with contextlib.suppress(ImportError, AttributeError):
        from jax._src import api

        atexit.unregister(api.clean_up)
        atexit._run_exitfuncs()  # everybody else's
    time.sleep(after)
    _end(1)


def _end(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # none, a closed pipe
            stream.flush()
    os._exit(code)
