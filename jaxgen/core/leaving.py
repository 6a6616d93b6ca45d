"""How a command's process ends.

A signal stops Python, but not what XLA does on threads of its own: compiling (which the main
thread only waits for) or computing. When the interpreter then ends, JAX's clean-up deletes the
client and its devices under those threads. With jaxlib 0.10.2 a compilation that finishes after
that reads a deleted device, and the process dies of SIGSEGV: exit code -11 in the place of 130.
No call of JAX waits for a compilation that was given up. So an interrupted command, which has
closed its files by then, leaves without taking the interpreter down.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import NoReturn

__all__ = ["leave"]


def leave(code: int) -> NoReturn:
    """End the process with an exit code; at once if it is one of a signal (above 128).

    At once means without the functions of `atexit`: what has to be closed must be closed before.
    """
    if code <= 128:
        sys.exit(code)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one must not change the code
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):  # none, a closed pipe
            stream.flush()
    os._exit(code)
