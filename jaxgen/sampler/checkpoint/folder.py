"""A run under way and its folder: checkpoints are written, and the last one is found again."""

from __future__ import annotations

import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from jaxgen.core.errors import expected
from jaxgen.core.types import ArrayTree, PRNGKey
from jaxgen.sampler import driver
from jaxgen.sampler.checkpoint import manifests
from jaxgen.sampler.checkpoint.draws import leaf_names, read_draws, shards_in, write_draws
from jaxgen.sampler.checkpoint.files import (
    read_settings,
    space,
    write_arrays,
    write_settings,
)
from jaxgen.sampler.checkpoint.identity import check_same, environment, settings_of
from jaxgen.sampler.checkpoint.process import agree, barrier, is_first, own_chains, suffix
from jaxgen.sampler.checkpoint.reading import counted
from jaxgen.sampler.checkpoint.snapshots import (
    checkpoint_arrays,
    checkpoint_of,
    newest_whole,
    reduced_arrays,
    reduced_of,
    run_length_of,
)
from jaxgen.sampler.config import RunConfig, size_of
from jaxgen.sampler.records import Checkpoint, RunLength
from jaxgen.sampler.state import Phase, SamplerState

__all__ = ["Interrupted", "Preempted", "RunFolder"]

# Draws of at most this size wait in memory for the next checkpoint.
_MOST_PENDING = 64 << 20
# A result holds draws of at most this size; more stay in the folder.
_MOST_READ = 1 << 30


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


class RunFolder:
    """Recorder that keeps the checkpoints and draws of one run of one process in a folder.

    Attributes:
      checkpoint: the last one in the folder, or None.
      notes: what the reader of the result should know of how the run was resumed.
    """

    def __init__(
        self,
        path: Path,
        config: RunConfig,
        run_length: RunLength,
        every: float,
        pending: Callable[[], int],
        *,
        writable: bool = True,
    ):
        self.checkpoint: Checkpoint | None = None
        self.stopped = False
        self.notes: tuple[str, ...] = ()
        self._path, self._config, self._run_length = path, config, run_length
        self._every, self._signal = every, pending
        self._writable = writable
        self._chunks: list[ArrayTree] = []
        self._bytes = 0
        self._written = 0  # draws of each chain, in files
        self._files: dict[str, str] = {}  # of draws: name -> SHA-256; in the first process, of all
        self._serial = 0
        self._last = time.monotonic()
        self._own = own_chains(config.num_chains, config.tile, config.mesh)

    def open(self, key: PRNGKey, state: SamplerState | None = None, *, resume: bool) -> None:
        """Make the folder, or find the last checkpoint in it.

        Raises:
          InputError: if the folder holds another run, or `resume` is False and it holds any.
        """
        settings = settings_of(self._config, self._run_length, key, state)
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
                "Give resume=True to resume it, or another folder",
            )
        else:
            self._resume(key, settings)
        barrier("open")

    def after(self, checkpoint: Checkpoint, kept: ArrayTree | None) -> None:
        """Keep what was collected; write a checkpoint if it is time, or a signal asks for it."""
        if jax.tree.leaves(kept):
            self._chunks.append(kept)
            self._bytes += size_of(kept)
        late = time.monotonic() - self._last >= self._every or self._bytes > _MOST_PENDING
        asked, late = agree(self._signal(), int(late))
        if late or asked or checkpoint.phase == Phase.DONE:
            self.save(checkpoint)
        if asked and checkpoint.phase != Phase.DONE:
            raise (Interrupted if asked == signal.SIGINT else Preempted)(self._path)

    def save(self, checkpoint: Checkpoint) -> None:
        """Write the draws since the last checkpoint, then the checkpoint, then the manifest."""
        if not self._writable:
            raise expected("folder", "one that can be written", f"{self._path}", "It is read only")
        folder = self._path / "checkpoints"
        with space(self._path):
            self._write_draws()
            self._serial += 1
            files = dict(self._files)
            name = f"{self._serial:08d}{suffix()}.safetensors"
            arrays = reduced_arrays(checkpoint)
            if is_first():
                arrays |= checkpoint_arrays(checkpoint, self._run_length)
            if arrays:
                files[name] = write_arrays(folder / name, arrays)
            part = manifests.Manifest(self._serial, files, jax.process_count(), self._written)
            manifests.write_manifest(folder, part, suffix())
            if is_first():
                manifests.forget(folder, before=self._serial - 1)
        self._last = time.monotonic()

    def draws(self) -> ArrayTree | None:
        """Return all draws, read back from the folder: leaves `[C, S, ...]`.

        None where there are none, or more than a GiB of them.
        """
        structure = self._config.kept
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
        chains = (first, own, self._config.num_chains)
        name, digest = write_draws(self._path / "draws", self._written, suffix(), chains, arrays)
        self._files[f"../draws/{name}"] = digest
        self._written += count
        self._chunks, self._bytes = [], 0

    def _write_settings(self, settings: dict[str, str], of: dict[str, str] | None = None) -> None:
        with space(self._path):
            for name in ("draws", "checkpoints"):
                (self._path / name).mkdir(exist_ok=True)
            data = {"settings": settings, "environment": of or environment()}
            write_settings(self._path / "run.json", data)

    def _resume(self, key: PRNGKey, settings: dict[str, str]) -> None:
        found = read_settings(self._path / "run.json")
        changes = check_same(self._path, found, settings)
        self._restore(key, changes.environment)
        if self.checkpoint is None and changes.lost_state:
            raise expected("state", "the state that the run began with", "none")
        if changes.environment:
            self.notes += (
                f"resumed in another environment ({'; '.join(changes.environment)}): bits may "
                "differ from those of an unbroken run",
            )
        if changes.is_longer and self._writable and is_first():
            self._write_settings({**settings, **changes.lost_state}, found["environment"])

    def _restore(self, key: PRNGKey, changed: list[str]) -> None:
        """Resume from the newest undamaged checkpoint, and remove files that it does not count."""
        folder = self._path / "checkpoints"
        found = manifests.numbers(folder)
        chosen, arrays, trouble = newest_whole(folder, found)
        # All look at the same disk, but one may have seen it later.
        least = -agree(-chosen)[0]
        if least != chosen:
            chosen, arrays, trouble = newest_whole(folder, [least])
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
                f"the newest checkpoint was damaged ({trouble}): the run was resumed from "
                "the one before it",
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
        if self.checkpoint is not None:
            self.checkpoint = self._longer_from(self.checkpoint, run_length_of(arrays))

    def _take_up(
        self,
        parts: list[manifests.Manifest],
        arrays: dict[str, np.ndarray],
        key: PRNGKey,
        changed: list[str],
    ) -> None:
        config = self._config
        checkpoint = checkpoint_of(arrays, config, key)
        reduced = {k: v for k, v in arrays.items() if k.startswith("reduced/")}
        if reduced and len(parts) != jax.process_count():
            raise expected(
                "resume",
                f"{len(parts)} processes, each with what it has reduced so far",
                jax.process_count(),
                "Start as many, or keep draws instead of reducing them",
            )
        checkpoint = checkpoint._replace(reduced=reduced_of(reduced, config))
        self._serial, self._written = parts[0].number, parts[0].written
        if len(parts) == jax.process_count():
            self._files = _of_draws(parts[jax.process_index()])
        elif is_first():  # files of other processes than there are now
            for part in parts:
                self._files |= _of_draws(part)
        if driver.stale(checkpoint.state, config):
            hint = "A function, a file or a library that the target reads has changed: restore it"
            if changed:
                hint += f" ({'; '.join(changed)})"
            raise expected(
                "resume",
                f"the target of the run in {self._path}",
                "one with other densities where its chains are",
                f"{hint}, or give another folder",
            )
        self.checkpoint = checkpoint

    def _longer_from(self, checkpoint: Checkpoint, was: RunLength) -> Checkpoint:
        """Return a finished checkpoint to its draws, if the run is to have more of them now."""
        config, run_length = self._config, self._run_length
        if checkpoint.phase != Phase.DONE or run_length.draws < 0:
            return checkpoint
        if run_length.draws == was.draws and run_length.rest == was.rest:
            return checkpoint
        if run_length.draws == was.draws:  # the rest is less than a draw: it is run from its start
            more = run_length.rest - was.rest
            state, *_ = driver.advance(checkpoint.state, config, Phase.DRAW, 1, more)
            checkpoint = checkpoint._replace(state=state)
            self.save(checkpoint)
            return checkpoint
        checkpoint = checkpoint._replace(phase=Phase.DRAW)
        if was.rest:  # the kernel steps after the last draw are the first towards the next
            state, _, kept = driver.advance(
                checkpoint.state, config, Phase.DRAW, 1, run_length.thin - was.rest
            )
            checkpoint = checkpoint._replace(state=state, done=checkpoint.done + 1)
            if config.reduce is not None and jax.tree.leaves(kept):
                return checkpoint._replace(reduced=config.reduce(checkpoint.reduced, kept))
            if jax.tree.leaves(kept):
                self._chunks.append(kept)
        return checkpoint


def _of_draws(part: manifests.Manifest) -> dict[str, str]:
    return {name: digest for name, digest in part.files.items() if name.startswith("../draws/")}
