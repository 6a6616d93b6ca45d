"""A run under way and its folder."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.fingerprint import describe, difference
from jaxgen.sampler.checkpoint.draws import leaf_names, process_of, read_draws, shards, write_draws
from jaxgen.sampler.checkpoint.files import read_settings, space, write_settings
from jaxgen.sampler.checkpoint.process import agree, barrier, is_first, locked, signals, suffix
from jaxgen.sampler.checkpoint.snapshots import load_journey, save_journey
from jaxgen.sampler.config import Setup, size_of
from jaxgen.sampler.loop import InMemory, Journey, Plan
from jaxgen.sampler.state import DONE, DRAW, RunState

__all__ = ["Interrupted", "Preempted", "RunFolder", "StoredRun", "load_run", "recording"]

# Draws wait in memory for the next checkpoint up to this size.
_MOST_PENDING = 256 << 20
# A result holds draws up to this size; more stay in the folder.
_MOST_READ = 1 << 30


class Preempted(SystemExit):
    """SIGTERM came; the run is safe in its folder. Uncaught, it ends the process with 143."""

    def __init__(self, folder: Path):
        super().__init__(128 + signal.SIGTERM)
        self.folder = folder


class Interrupted(KeyboardInterrupt):
    """Ctrl-C came; the run is safe in its folder."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder


class StoredRun(NamedTuple):
    """A run folder as it is on disk now, whether or not the run is still going on.

    Attributes:
      settings: what the run is made of, name -> text.
      environment: versions and devices.
      num_draws: draws of each chain, up to the last checkpoint.
      draws: name -> `[C, S, ...]`; a single array that was collected is called "draws".
    """

    settings: dict[str, str]
    environment: dict[str, str]
    num_draws: int
    draws: dict[str, np.ndarray]


@contextlib.contextmanager
def recording(
    folder: str | os.PathLike[str] | None,
    key: Any,
    setup: Setup,
    plan: Plan,
    state: RunState | None,
    resume: bool,
    every: float,
) -> Iterator[Any]:
    """Who keeps a run's draws: memory, or a folder.

    Yields:
      A recorder; its `journey` is where to go on from, or None to begin.
    """
    if folder is None:
        if resume:
            raise expected("resume", "a folder to go on from", "none", "Give folder as well")
        yield InMemory()
        return
    if state is not None:
        raise expected("folder", "a run of its own", "one that goes on from state")
    if not every >= 0:
        raise expected("checkpoint_every", "a number of seconds", every)
    with locked(Path(folder)), signals() as pending:
        recorder = RunFolder(Path(folder), setup, plan, every, pending)
        recorder.open(key, resume=resume)
        yield recorder


class RunFolder:
    """Keeps a run's journey and draws in a folder. It belongs to one run of one process.

    Attributes:
      journey: where the folder's last checkpoint stands, or None.
    """

    def __init__(
        self, path: Path, setup: Setup, plan: Plan, every: float, pending: Callable[[], int]
    ):
        self.journey: Journey | None = None
        self._path, self._setup, self._plan = path, setup, plan
        self._every, self._signal = every, pending
        self._chunks: list[Any] = []
        self._bytes = 0
        self._written = 0
        self._serial = 0
        self._last = time.monotonic()

    def open(self, key: Any, *, resume: bool) -> None:
        """Make the folder, or find the last checkpoint in it; `InputError` if it is another's."""
        settings = describe(_identity(self._setup, self._plan, key))
        place = self._path / "run.json"
        occupied = place.exists()
        barrier("look")  # all have looked before one writes
        if occupied:
            if not resume:
                raise expected(
                    "folder",
                    "one that holds no run",
                    f"{self._path}",
                    "Give resume=True to go on with it, or another folder",
                )
            found = read_settings(place)
            changes = difference(found["settings"], settings)
            if changes:
                raise expected(
                    "resume",
                    f"the settings of the run in {self._path}",
                    "; ".join(changes[:8]),
                    "Restore them, or give another folder",
                )
            self._restore(key)
        elif is_first():
            with space(self._path):
                (self._path / "draws").mkdir(exist_ok=True)
                (self._path / "checkpoints").mkdir(exist_ok=True)
                data = {"settings": settings, "environment": _environment()}
                write_settings(place, data)
        barrier("open")

    def after(self, journey: Journey, kept: Any) -> None:
        """Keep what was collected; write a checkpoint if it is time, or a signal asks for it."""
        if jax.tree.leaves(kept):
            self._chunks.append(kept)
            self._bytes += size_of(kept)
        late = time.monotonic() - self._last >= self._every or self._bytes > _MOST_PENDING
        asked, late = agree(self._signal(), int(late))
        if late or asked or journey.phase == DONE:
            self.checkpoint(journey)
        if asked and journey.phase != DONE:
            raise (Interrupted if asked == signal.SIGINT else Preempted)(self._path)

    def checkpoint(self, journey: Journey) -> None:
        """Write the draws since the last checkpoint, then the journey."""
        with space(self._path):
            self._write_draws(journey)
            self._serial += 1
            place = self._path / "checkpoints" / f"{self._serial:08d}"
            save_journey(place, journey)
            if is_first():
                for other in self._checkpoints()[:-1]:
                    shutil.rmtree(other, ignore_errors=True)
        self._last = time.monotonic()

    def draws(self) -> Any:
        """All draws, read back from the folder: leaves `[C, S, ...]`, or None.

        None also where there are more than a GiB of them.
        """
        structure = self._setup.kept
        if not 0 < size_of(structure) * self._written <= _MOST_READ:
            return None
        found = read_draws(self._path, 0, self._written, only=suffix())
        names, tree = leaf_names(structure)
        return jax.tree.unflatten(tree, [found[name] for name in names])

    def _write_draws(self, journey: Journey) -> None:
        if not self._chunks:
            return
        whole = jax.tree.map(lambda *x: np.moveaxis(np.concatenate(x), 0, 1), *self._chunks)
        names, _ = leaf_names(whole)
        arrays = dict(zip(names, jax.tree.leaves(whole), strict=True))
        count = next(iter(arrays.values())).shape[1]
        name = f"{self._written:08d}-{self._written + count - 1:08d}{suffix()}"
        write_draws(self._path / "draws" / f"{name}.safetensors", arrays)
        self._written += count
        self._chunks, self._bytes = [], 0

    def _restore(self, key: Any) -> None:
        found = self._checkpoints()
        for left in (self._path / "checkpoints").glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(left, ignore_errors=True)  # of a save that was killed
        for left in (self._path / "draws").glob(".*.part"):
            left.unlink(missing_ok=True)
        if found:
            self.journey = load_journey(found[-1], self._setup, key)
            self._serial = int(found[-1].name)
            drawing = self.journey.phase in (DRAW, DONE)
            keeps = self._setup.reduce is None and jax.tree.leaves(self._setup.kept)
            self._written = self.journey.done if drawing and keeps else 0
        # Draws that no checkpoint counts will be drawn again, to the same bits.
        for path, first, _ in shards(self._path / "draws"):
            if first >= self._written and suffix() == process_of(path):
                path.unlink()

    def _checkpoints(self) -> list[Path]:
        folder = self._path / "checkpoints"
        return sorted(path for path in folder.iterdir() if re.fullmatch(r"\d{8}", path.name))


def load_run(folder: str | os.PathLike[str], start: int = 0, stop: int | None = None) -> StoredRun:
    """Read a run folder: settings, and draws up to the last checkpoint.

    The run may be going on, have been killed, or be complete. Where several processes
    wrote it, their chains are put together.

    Args:
      folder: as given to `sample` or `ais`.
      start, stop: which draws of each chain to read; all by default.

    Raises:
      InputError: if there is no run, or draws are missing.
    """
    path = Path(folder)
    if not (path / "run.json").is_file():
        raise expected(str(path), "a run folder", "none with a run.json")
    found = read_settings(path / "run.json")
    ends = {process_of(file): last + 1 for file, _, last in shards(path / "draws")}
    num_draws = min(ends.values(), default=0)
    start, stop, _ = slice(start, stop).indices(num_draws)
    draws = read_draws(path, start, stop) if num_draws else {}
    return StoredRun(found["settings"], found["environment"], num_draws, draws)


def _identity(setup: Setup, plan: Plan, key: Any) -> dict[str, Any]:
    """What decides a run's bits: everything but the devices and how it is told of."""
    names = ("num_chains", "moves", "threshold", "resample", "precondition", "collect", "tile")
    names = (*names, "islands", "pool", "pilot")
    own = {name: getattr(setup, name) for name in (*names, "reduce")}
    return {"key": key, "plan": plan, **setup.given, **own}


def _environment() -> dict[str, str]:
    from importlib.metadata import version

    return {
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "devices": str(jax.device_count()),
        "processes": str(jax.process_count()),
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "jaxlib", "blackjax", "numpy")},
    }
