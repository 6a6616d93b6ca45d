"""Recorders of a run: draws in memory, or a run folder."""

from __future__ import annotations

import contextlib
import signal
import warnings
from collections.abc import Callable, Iterator

from jaxgen.core.atomic import local_folder
from jaxgen.core.errors import expected
from jaxgen.core.types import ArrayTree, PRNGKey
from jaxgen.sampler.checkpoint.folder import RunFolder
from jaxgen.sampler.checkpoint.process import agree, locked, signals
from jaxgen.sampler.config import RunConfig, size_of
from jaxgen.sampler.options import Checkpointing
from jaxgen.sampler.recorder import InMemory, Recorder
from jaxgen.sampler.records import Checkpoint, RunLength
from jaxgen.sampler.state import Phase, SamplerState

__all__ = ["Interruptible", "recording"]


@contextlib.contextmanager
def recording(
    key: PRNGKey,
    config: RunConfig,
    run_length: RunLength,
    checkpointing: Checkpointing,
    state: SamplerState | None = None,
) -> Iterator[Recorder]:
    """Open what keeps a run's draws: memory, or a run folder.

    Args:
      key: the run's key.
      config: the settings.
      run_length: the length of the run.
      checkpointing: folder, whether to resume, and how often to save.
      state: the state of another run that this one continues, or None.

    Yields:
      A recorder; its `checkpoint` is where to resume, or None to begin.

    Raises:
      InputError: for a folder that cannot be used or that holds another run.
    """
    if checkpointing.folder is None:
        if checkpointing.resume:
            raise expected("resume", "a folder to resume from", "none", "Give folder as well")
        _warn_of_memory(config, run_length)
        with signals(signal.SIGINT) as pending:
            yield Interruptible(run_length, pending)
        return
    every = checkpointing.every
    if not every >= 0:
        raise expected("checkpoint_every", "a number of seconds", every)
    path = local_folder(checkpointing.folder, "folder")
    with locked(path) as writable, signals() as pending:
        recorder = RunFolder(path, config, run_length, every, pending, writable=writable)
        recorder.open(key, state, resume=checkpointing.resume)
        yield recorder


class Interruptible(InMemory):
    """Recorder in memory: after Ctrl-C, the draws so far are the result."""

    def __init__(self, run_length: RunLength, pending: Callable[[], int]):
        super().__init__()
        self._run_length, self._signal = run_length, pending

    def after(self, checkpoint: Checkpoint, kept: ArrayTree | None) -> None:
        """Keep what was collected; stop at Ctrl-C, if there is something to return."""
        super().after(checkpoint, kept)
        (asked,) = agree(self._signal())
        if asked and checkpoint.phase == Phase.DRAW and checkpoint.done:
            self.stopped = True
            self.notes = (
                f"interrupted by Ctrl-C after {checkpoint.done} of {self._run_length.draws} draws "
                "of each chain: give a folder, and the run can be resumed",
            )
        elif asked and checkpoint.phase != Phase.DONE:
            raise KeyboardInterrupt


def _warn_of_memory(config: RunConfig, run_length: RunLength) -> None:
    """Warn before a run whose draws will not fit into memory: it needs twice their size."""
    need = 0 if config.reduce is not None else 2 * size_of(config.kept) * max(run_length.draws, 0)
    free = _free_memory()
    if free is not None and need > free:
        warnings.warn(
            f"draws of {need / 2**31:.3g} GiB need {need / 2**30:.3g} GiB of memory at the end, "
            f"and {free / 2**30:.3g} GiB are free: give a folder, reduce=, a larger thin, or a "
            "collect= that keeps less",
            stacklevel=4,
        )


def _free_memory() -> int | None:
    """Return the bytes that a process can still get, or None where the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            found = [text.split() for text in file if text.startswith("MemAvailable:")]
        return int(found[0][1]) << 10
    except (OSError, ValueError, IndexError):
        return None
