"""A run under way and its folder."""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxgen.core.atomic import local_folder
from jaxgen.core.errors import InputError, expected
from jaxgen.core.fingerprint import describe, difference, digest
from jaxgen.sampler import program
from jaxgen.sampler.checkpoint import manifests
from jaxgen.sampler.checkpoint.draws import leaf_names, read_draws, shards_in, write_draws
from jaxgen.sampler.checkpoint.files import (
    FORMAT,
    read_checked,
    read_settings,
    space,
    write_arrays,
    write_settings,
)
from jaxgen.sampler.checkpoint.process import (
    agree,
    barrier,
    is_first,
    locked,
    own_chains,
    signals,
    suffix,
)
from jaxgen.sampler.checkpoint.reading import counted
from jaxgen.sampler.checkpoint.snapshots import (
    journey_arrays,
    journey_of,
    plan_of,
    reduced_arrays,
    reduced_of,
)
from jaxgen.sampler.config import Setup, size_of
from jaxgen.sampler.loop import InMemory, Journey, Plan
from jaxgen.sampler.state import DONE, DRAW, RunState

__all__ = ["Interrupted", "Preempted", "RunFolder", "recording"]

# Draws wait in memory for the next checkpoint up to this size.
_MOST_PENDING = 64 << 20
# A result holds draws up to this size; more stay in the folder.
_MOST_READ = 1 << 30
# What of the environment may change a run's bits.
_TELLING = ("backend", "device", "python", "jax", "jaxlib", "blackjax", "numpy", "flax", "jaxgen")


class Preempted(SystemExit):
    """SIGTERM came; the run is safe in its folder. Uncaught, it ends the process with 143."""

    def __init__(self, folder: Path):
        super().__init__(128 + signal.SIGTERM)
        self.folder = folder


class Interrupted(KeyboardInterrupt, SystemExit):
    """Ctrl-C came; the run is safe in its folder. Uncaught, it ends the process with 130.

    Python ends a process with 130 for a `KeyboardInterrupt`, but not for one of a class of its
    own: therefore it is a `SystemExit` too.
    """

    def __init__(self, folder: Path):
        super().__init__(128 + signal.SIGINT)
        self.code = 128 + signal.SIGINT
        self.folder = folder


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
        _warn_of_memory(setup, plan)
        with signals(signal.SIGINT) as pending:
            yield Interruptible(plan, pending)
        return
    if not every >= 0:
        raise expected("checkpoint_every", "a number of seconds", every)
    path = local_folder(folder, "folder")
    with locked(path) as writable, signals() as pending:
        recorder = RunFolder(path, setup, plan, every, pending, writable=writable)
        recorder.open(key, state, resume=resume)
        yield recorder


class Interruptible(InMemory):
    """Keeps draws in memory; after Ctrl-C, what has been drawn until then is the result.

    Attributes:
      stopped: whether the run is to end now.
    """

    def __init__(self, plan: Plan, pending: Callable[[], int]):
        super().__init__()
        self.stopped = False
        self._plan, self._signal = plan, pending

    def after(self, journey: Journey, kept: Any) -> None:
        """Keep what was collected; stop at Ctrl-C, if there is something to return."""
        super().after(journey, kept)
        (asked,) = agree(self._signal())
        if asked and journey.phase == DRAW and journey.done:
            self.stopped = True
            self.notes = (
                f"interrupted by Ctrl-C after {journey.done} of {self._plan.draws} draws of each "
                "chain: give a folder to go on later",
            )
        elif asked and journey.phase != DONE:
            raise KeyboardInterrupt


class RunFolder:
    """Keeps a run's journey and draws in a folder. It belongs to one run of one process.

    Attributes:
      journey: where the folder's last checkpoint stands, or None.
      notes: sentences on what the reader of the result should know of its resuming.
    """

    def __init__(
        self,
        path: Path,
        setup: Setup,
        plan: Plan,
        every: float,
        pending: Callable[[], int],
        *,
        writable: bool = True,
    ):
        self.journey: Journey | None = None
        self.notes: tuple[str, ...] = ()
        self._path, self._setup, self._plan = path, setup, plan
        self._every, self._signal = every, pending
        self._writable = writable
        self._chunks: list[Any] = []
        self._bytes = 0
        self._written = 0  # draws of each chain, in files
        self._files: dict[str, str] = {}  # of draws: name -> SHA-256; in the first process, of all
        self._serial = 0
        self._last = time.monotonic()
        self._own = own_chains(setup.num_chains, setup.tile, setup.mesh)

    def open(self, key: Any, state: RunState | None = None, *, resume: bool) -> None:
        """Make the folder, or find the last checkpoint in it; `InputError` if it is another's."""
        settings = describe(_identity(self._setup, self._plan, key))
        if state is not None:
            settings |= {"state": digest(state)}
        place = self._path / "run.json"
        occupied = place.exists()
        barrier("look")  # all have looked before one writes
        if not occupied:
            if is_first():
                self._write_settings(settings)
        elif not resume:
            raise expected(
                "folder",
                "one that holds no run",
                f"{self._path}",
                "Give resume=True to go on with it, or another folder",
            )
        else:
            self._resume(key, settings)
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
        """Write the draws since the last checkpoint, then the journey, then the manifest."""
        if not self._writable:
            raise expected("folder", "one that can be written", f"{self._path}", "It is read only")
        folder = self._path / "checkpoints"
        with space(self._path):
            self._write_draws()
            self._serial += 1
            files = dict(self._files)
            name = f"{self._serial:08d}{suffix()}.safetensors"
            arrays = reduced_arrays(journey)
            if is_first():
                arrays |= journey_arrays(journey, self._plan)
            if arrays:
                files[name] = write_arrays(folder / name, arrays)
            part = manifests.Manifest(self._serial, files, jax.process_count(), self._written)
            manifests.write_manifest(folder, part, suffix())
            if is_first():
                manifests.forget(folder, before=self._serial - 1)
        self._last = time.monotonic()

    def draws(self) -> Any:
        """All draws, read back from the folder: leaves `[C, S, ...]`, or None.

        None also where there are more than a GiB of them.
        """
        structure = self._setup.kept
        if not 0 < size_of(structure) * self._written <= _MOST_READ:
            return None
        barrier("draws")  # all have written theirs
        found = self._read(0, self._written)
        names, tree = leaf_names(structure)
        return jax.tree.unflatten(tree, [found[name] for name in names])

    def _read(self, start: int, stop: int) -> dict[str, np.ndarray]:
        folder = self._path / "checkpoints"
        parts = manifests.read_manifest(folder, self._serial)
        return read_draws(counted(folder, parts), start, stop, self._own)

    def _write_draws(self) -> None:
        if not self._chunks:
            return
        whole = jax.tree.map(lambda *x: np.moveaxis(np.concatenate(x), 0, 1), *self._chunks)
        names, _ = leaf_names(whole)
        arrays = dict(zip(names, jax.tree.leaves(whole), strict=True))
        rows, count = next(iter(arrays.values())).shape[:2]
        first, own = self._own
        if rows != own:
            raise RuntimeError(f"{rows} chains here, where {own} were expected")
        chains = (first, own, self._setup.num_chains)
        name, digest = write_draws(self._path / "draws", self._written, suffix(), chains, arrays)
        self._files[f"../draws/{name}"] = digest
        self._written += count
        self._chunks, self._bytes = [], 0

    def _write_settings(self, settings: dict[str, str], environment: Any = None) -> None:
        with space(self._path):
            for name in ("draws", "checkpoints"):
                (self._path / name).mkdir(exist_ok=True)
            data = {"settings": settings, "environment": environment or _environment()}
            write_settings(self._path / "run.json", data)

    def _resume(self, key: Any, settings: dict[str, str]) -> None:
        found = read_settings(self._path / "run.json")
        was, environment = found["settings"], _environment()
        changed = [
            f"{name} was {found['environment'].get(name, 'unknown')}, is {environment[name]}"
            for name in _TELLING
            if found["environment"].get(name) != environment[name]
        ]
        if found["format"] != FORMAT:
            raise expected(
                "resume",
                f"a run of format {FORMAT}",
                f"{self._path}, of a former version",
                "Read its draws with load_run, and start again in another folder",
            )
        longer = _longer(was, settings)
        began_with_state = {"state"} if "state" in was and "state" not in settings else set()
        skipped = {*longer, *began_with_state}
        changes = difference(
            {k: v for k, v in was.items() if k not in skipped},
            {k: v for k, v in settings.items() if k not in skipped},
        )
        if changes:
            hint = "Restore them, or give another folder"
            minor = [env.rsplit(".", 1)[0] for env in (found["environment"].get("python", ""),)]
            if minor != [environment["python"].rsplit(".", 1)[0]] and "sha256" in changes[0]:
                hint += (
                    f". The run began under Python {minor[0]}: another minor version compiles the "
                    "same function to other instructions, which looks like a change"
                )
            if any(change.startswith(("plan.draws", "plan.rest")) for change in changes):
                hint += ". A run may become longer, but not shorter"
            raise expected(
                "resume",
                f"the settings of the run in {self._path}",
                "; ".join(changes[:8]) + (f"; and {len(changes) - 8} more" * (len(changes) > 8)),
                hint,
            )
        self._restore(key, changed)
        if self.journey is None and began_with_state:
            raise expected("state", "the state that the run began with", "none")
        if changed:
            self.notes += (
                f"resumed in another environment ({'; '.join(changed)}): bits may differ from "
                "those of an unbroken run",
            )
        if longer and self._writable and is_first():
            kept = {k: was[k] for k in began_with_state}
            self._write_settings({**settings, **kept}, found["environment"])

    def _restore(self, key: Any, changed: list[str]) -> None:
        """Take up the newest checkpoint that is whole, and remove what it does not count."""
        folder = self._path / "checkpoints"
        found = manifests.numbers(folder)
        chosen, arrays, trouble = self._newest_whole(found)
        # All look at the same disk, but one may have seen it later.
        least = -agree(-chosen)[0]
        if least != chosen:
            chosen, arrays, trouble = self._newest_whole([least])
        barrier("chosen")
        if trouble is not None and not chosen:
            raise trouble
        if self._writable and is_first():
            for name in ("draws", "checkpoints"):
                (self._path / name).mkdir(exist_ok=True)
        if chosen:
            parts = manifests.read_manifest(folder, chosen)
            self._take_up(parts, arrays, key, changed)
        if trouble is not None:
            self.notes += (
                f"the newest checkpoint was damaged ({trouble}): the run went on from the one "
                "before it",
            )
            warnings.warn(self.notes[-1], stacklevel=2)
        # Draws that no checkpoint counts will be drawn again, to the same bits.
        if self._writable and is_first():
            with space(self._path):
                manifests.forget(folder, after=chosen)
                for left in (self._path / "draws").glob(".*.part"):
                    left.unlink(missing_ok=True)
                for shard in shards_in(self._path / "draws"):
                    if shard.first >= self._written:
                        shard.path.unlink()
        barrier("tidy")
        if self.journey is not None:
            self.journey = self._longer_from(self.journey, plan_of(arrays))

    def _newest_whole(
        self, found: list[int]
    ) -> tuple[int, dict[str, np.ndarray], InputError | None]:
        """The number and arrays of the newest checkpoint of which every file is as written."""
        folder, trouble = self._path / "checkpoints", None
        for number in found:
            try:
                parts = manifests.read_manifest(folder, number)
                suffixes = [manifests.ending(i, len(parts)) for i in range(len(parts))]
                own = jax.process_index() if len(parts) == jax.process_count() else 0
                arrays: dict[str, np.ndarray] = {}
                for i, (part, ending) in enumerate(zip(parts, suffixes, strict=True)):
                    name = f"{number:08d}{ending}.safetensors"
                    needed = i == 0 or name in part.files
                    content = manifests.arrays_of(folder, part, name) if needed else {}
                    reduced = {k: v for k, v in content.items() if k.startswith("reduced/")}
                    arrays |= content if i == 0 else {}
                    if i == own:
                        arrays = {k: v for k, v in arrays.items() if k not in reduced} | reduced
                for shard in counted(folder, parts):
                    read_checked(shard.path, shard.digest)
                return number, arrays, trouble
            except InputError as error:
                trouble = trouble or error
        return 0, {}, trouble

    def _take_up(
        self, parts: list[Any], arrays: dict[str, np.ndarray], key: Any, changed: list[str]
    ) -> None:
        setup = self._setup
        journey = journey_of(arrays, setup, key)
        reduced = {k: v for k, v in arrays.items() if k.startswith("reduced/")}
        if reduced and len(parts) != jax.process_count():
            raise expected(
                "resume",
                f"{len(parts)} processes, each with what it has reduced so far",
                jax.process_count(),
                "Start as many, or keep draws instead of reducing them",
            )
        journey = journey._replace(reduced=reduced_of(reduced, setup))
        self._serial, self._written = parts[0].number, parts[0].written
        if len(parts) == jax.process_count():
            self._files = _of_draws(parts[jax.process_index()])
        elif is_first():  # files of other processes than there are now
            for part in parts:
                self._files |= _of_draws(part)
        stale = program.stale(journey.state, setup.path, tile=setup.tile, mesh=setup.mesh)
        if bool(stale):
            hint = "A function, a file or a library that the target reads has changed: restore it"
            if changed:
                hint += f" ({'; '.join(changed)})"
            raise expected(
                "resume",
                f"the target of the run in {self._path}",
                "one with other densities where its chains are",
                f"{hint}, or give another folder",
            )
        self.journey = journey

    def _longer_from(self, journey: Journey, was: Plan) -> Journey:
        """A finished journey that is to go on: back among its draws, if there are more now."""
        setup, plan = self._setup, self._plan
        if journey.phase != DONE or plan.draws < 0:
            return journey
        if plan.draws == was.draws and plan.rest == was.rest:
            return journey
        if plan.draws == was.draws:  # the rest is less than a draw: it is run from its start
            more = plan.rest - was.rest
            state, *_ = setup.advance(journey.state, DRAW, 1, more)
            journey = journey._replace(state=state)
            self.checkpoint(journey)
            return journey
        journey = journey._replace(phase=DRAW)
        if was.rest:  # the kernel steps after the last draw are the first towards the next
            state, _, kept = setup.advance(journey.state, DRAW, 1, plan.thin - was.rest)
            journey = journey._replace(state=state, done=journey.done + 1)
            if setup.reduce is not None and jax.tree.leaves(kept):
                return journey._replace(reduced=setup.reduce(journey.reduced, kept))
            if jax.tree.leaves(kept):
                self._chunks.append(kept)
        return journey


def _warn_of_memory(setup: Setup, plan: Plan) -> None:
    """Warn before a run whose draws will not fit: twice their size is needed at its end."""
    need = 0 if setup.reduce is not None else 2 * size_of(setup.kept) * max(plan.draws, 0)
    free = _free_memory()
    if free is not None and need > free:
        warnings.warn(
            f"draws of {need / 2**31:.3g} GiB need {need / 2**30:.3g} GiB of memory at the end, "
            f"and {free / 2**30:.3g} GiB are free: give a folder, reduce=, a larger thin, or a "
            "collect= that keeps less",
            stacklevel=4,
        )


def _free_memory() -> int | None:
    """Bytes that a process can still get, where the system says so."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            found = [text.split() for text in file if text.startswith("MemAvailable:")]
        return int(found[0][1]) << 10
    except (OSError, ValueError, IndexError):
        return None


def _of_draws(part: manifests.Manifest) -> dict[str, str]:
    return {name: digest for name, digest in part.files.items() if name.startswith("../draws/")}


def _longer(was: dict[str, str], settings: dict[str, str]) -> set[str]:
    """The settings that may differ, where a run is to become longer than it was."""
    names = {"plan.draws", "plan.rest", "plan.thin"}
    if not names <= was.keys() or not names <= settings.keys():
        return set()
    try:
        old = [int(was[name]) for name in sorted(names)]
        new = [int(settings[name]) for name in sorted(names)]
    except ValueError:
        return set()
    steps = [draws * thin + rest for draws, rest, thin in (old, new)]
    longer = old[0] >= 0 and old[2] == new[2] and steps[1] > steps[0]
    return {"plan.draws", "plan.rest"} if longer else set()


def _identity(setup: Setup, plan: Plan, key: Any) -> dict[str, Any]:
    """What decides a run's bits: everything but the devices and how it is told of."""
    names = ("num_chains", "moves", "threshold", "resample", "precondition", "collect", "tile")
    names = (*names, "islands", "pool", "pilot")
    own = {name: getattr(setup, name) for name in (*names, "reduce")}
    if setup.precision != "highest":  # what folders of before that setting have run at
        own["precision"] = setup.precision
    return {"key": key, "plan": plan, **setup.given, **own}


def _environment() -> dict[str, str]:
    from importlib.metadata import version

    from jaxgen.core.version import __version__

    return {
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "devices": str(jax.device_count()),
        "processes": str(jax.process_count()),
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "jaxlib", "blackjax", "numpy", "flax")},
        "jaxgen": __version__,
    }
