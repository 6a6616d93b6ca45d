"""Many posteriors from one command: a folder for each item below --out, resumed item by item.

    OUT.partial/items.json   what the command was, and on what: another command cannot resume it
    OUT.partial/ITEM/        a run's folder, written whole or not at all when the item is done
    OUT/                     takes the place of OUT.partial at the end, with one summary.json

All items are one compiled program (`jaxgen.sample_each`).
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxgen
from jaxgen.cli import options as texts
from jaxgen.cli import runs
from jaxgen.core.errors import InputError, expected, visible
from jaxgen.core.types import ArrayTree
from jaxgen.report import output_folder
from jaxgen.report.reading import Entry, read
from jaxgen.sampler.checkpoint import Interrupted
from jaxgen.sampler.finished import SUMMARY, present_arguments, read_summary, surroundings
from jaxgen.target.posterior import Posterior

__all__ = ["Item", "Job", "Saved", "finish", "folder_names", "pictures_in", "read_all", "run"]

# Of a folder of images that a command is given.
_SUFFIXES = (".png", ".jpg", ".jpeg", ".npy")
_MOST_ITEMS = 100_000
# Entries of the table at the end, and rows of the picture.
_MOST_SHOWN = 32
_ITEMS = "items.json"
# Arguments that belong to one call, and not to what is computed.
_OF_ONE_CALL = ("out", "force", "resume", "json", "quiet", "checkpoint_every", "run")


class Item(NamedTuple):
    """One posterior to sample.

    Attributes:
      folder: its folder's name below --out.
      label: for tables, pictures and errors: a class, or the name of a file.
      number: of the item among those that `sample_each` is given.
    """

    folder: str
    label: str
    number: int


class Job(NamedTuple):
    """A command on many items.

    Attributes:
      path: where the results will be, reserved by `runs.out_folder`.
      options: as parsed.
      command: the command's name.
      models: the networks.
      items: in the order of their numbers.
      data: a tree of arrays `[N, ...]`, from which posteriors are made.
    """

    path: Path
    options: Namespace
    command: str
    models: Sequence[runs.Model]
    items: Sequence[Item]
    data: ArrayTree

    @property
    def waiting(self) -> Path:
        """Return the folder in which results wait until all items are done."""
        return output_folder.partial(self.path)


class Saved(NamedTuple):
    """The files of a finished item: pictures by file name, and arrays by their names."""

    done: runs.Finished
    pictures: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]


def pictures_in(folder: Path) -> list[Path]:
    """Return the pictures in a folder, by name; hidden files and other kinds are left alone."""
    found = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in _SUFFIXES and path.is_file() and not path.name.startswith(".")
    )
    if not 0 < len(found) <= _MOST_ITEMS:
        wanted = "a folder with PNG, JPEG or npy files in it"
        raise expected("IMAGE", wanted, f"{folder} with {len(found)} of them")
    return found


def read_all(paths: Sequence[Path], read: Callable[[str], Any]) -> list[Any]:
    """Return what `read` makes of every file, or raise one error that names those it cannot use.

    Args:
      paths: of the files.
      read: path -> anything; its `InputError` begins with the argument's name.
    """
    made, bad = [], []
    for path in paths:
        try:
            made.append(read(str(path)))
        except InputError as error:
            bad.append((path.name, str(error).partition(": ")[2]))
    if bad:
        name, reason = bad[0]
        others = ", ".join(other for other, _ in bad[1:6])
        more = f"; {len(bad) - 1} more cannot be used: {others}" if others else ""
        raise InputError(visible(f"{name}: {reason}{more}"))
    return made


def folder_names(labels: Sequence[str]) -> list[str]:
    """Return a folder's name for each label: without slashes and blanks, each its own."""
    stems = [Path(label).stem if Path(label).suffix else label for label in labels]
    names: list[str] = []
    taken = {"lock", _ITEMS, SUMMARY}
    for label, stem in zip(labels, stems, strict=True):
        whole = label.replace("/", "-").replace(" ", "-")
        name = stem.replace("/", "-").replace(" ", "-")
        if name in taken or stems.count(stem) > 1 or name.startswith("."):
            name = whole
        count = 2
        while name in taken:
            name, count = f"{whole}-{count}", count + 1
        taken.add(name)
        names.append(name)
    return names


def run(
    job: Job,
    make: Callable[[ArrayTree], Posterior],
    settings: runs.Settings,
    save: Callable[[Item, runs.Finished], Saved],
) -> list[tuple[str, str]]:
    """Sample every item that has no folder yet.

    Args:
      job: the command and its items.
      make: one item of the data -> its posterior, as `sample_each` takes it.
      settings: the sampler's.
      save: an item and its result -> what is written.

    Returns:
      Label and error of each item that failed.
    """
    if settings.until is not None:
        got = f"{len(job.items)} posteriors"
        raise expected("--until", "one posterior at a time", got, "Raise --steps instead")
    waiting, items, options = job.waiting, job.items, job.options
    _same_command(job)
    by_number = {item.number: item for item in items}
    todo = [item for item in items if not (waiting / item.folder / SUMMARY).is_file()]
    failed: list[tuple[str, str]] = []
    said = _Announcer(len(items), len(items) - len(todo), quiet=options.quiet)
    last = time.monotonic()

    def each(number: int, outcome: Any) -> None:
        nonlocal last
        item, seconds, last = by_number[number], time.monotonic() - last, time.monotonic()
        if isinstance(outcome, InputError):
            reason = str(outcome).partition(": ")[2]
            failed.append((item.label, reason))
            said.failed(item)
            return
        done = runs.Finished("image", item.label, outcome, seconds)
        saved = save(item, done)
        summary = runs.summary(job.command, vars(options), job.models, [saved.done])
        target = waiting / item.folder
        runs.save(target, summary, [saved.done], saved.pictures, force=False, more=saved.arrays)
        said.done(item, saved.done)

    try:
        said.begin(todo)
        jaxgen.sample_each(
            jax.random.key(settings.seed),
            make,
            job.data,
            texts.kernel(settings.kernel),
            which=[item.number for item in todo],
            each=each,
            **settings.arguments(),
        )
    except KeyboardInterrupt as stop:
        raise Interrupted(waiting / "items") from stop
    return failed


def finish(
    job: Job,
    failed: Sequence[tuple[str, str]],
    picture: Callable[[list[Entry]], Mapping[str, Any]],
) -> int:
    """Write the summary of all items, give the folder its name, print; returns the exit code.

    Args:
      job: the command and its items.
      failed: from `run`.
      picture: posteriors of the first items -> pictures by file name.
    """
    waiting, items, options = job.waiting, job.items, job.options
    entries, shown = [], []
    lost = {label for label, _ in failed}
    for item in items:
        if item.label in lost:
            continue
        figures = read_summary(waiting / item.folder / SUMMARY)["runs"][0]
        entries.append({**figures, "name": item.folder})
        if len(shown) < _MOST_SHOWN:
            shown += read(waiting / item.folder).entries
    if not entries:
        (waiting / _ITEMS).unlink()  # nothing waits to be resumed
        label, reason = failed[0]
        raise InputError(f"{label}: {reason} (none of {len(items)} could be sampled)")
    made = picture(shown)
    for name, image in made.items():
        output_folder.write_picture(waiting / name, image)
    data = {
        "format": output_folder.MANY,
        "command": job.command,
        "arguments": {k: v for k, v in vars(options).items() if k != "run"},
        "models": [runs.identity(model.info) for model in job.models],
        "items": entries,
        "failed": [{"label": label, "error": reason} for label, reason in failed],
        "seconds": round(sum(entry["seconds"] for entry in entries), 2),
        "gradients": sum(entry["gradients"] for entry in entries),
        **surroundings(texts.typed()),
        "files": [*(entry["name"] for entry in entries), *made, SUMMARY],
    }
    output_folder.write_json(waiting / SUMMARY, data)
    (waiting / _ITEMS).unlink()
    output_folder.put(job.path, force=options.force)
    _print(data, job.path, as_json=options.json)
    for label, reason in failed:
        print(f"error: {visible(f'{label}: {reason}')}", file=sys.stderr)
    return 1 if failed else 0


def _print(data: dict[str, Any], path: Path, *, as_json: bool) -> None:
    if as_json:
        whole = output_folder.plain({**data, "folder": path})
        print(json.dumps(whole, indent=2, allow_nan=False))
        return
    entries = data["items"]
    runs.print_table(entries[:_MOST_SHOWN])
    if len(entries) > _MOST_SHOWN:
        print(f"... and {len(entries) - _MOST_SHOWN} more, in {path / SUMMARY}")
    print(
        f"{len(entries)} posteriors, {data['gradients']:,} gradients of one image, "
        f"{data['seconds']:.1f} s (compiling included)\n"
        f"{path}: a folder for each, {', '.join(data['files'][len(entries) :])}"
    )


def _same_command(job: Job) -> None:
    """Write down what is done on what; raise `InputError` if another command is waiting there."""
    place, options = job.waiting / _ITEMS, job.options
    arguments = {k: v for k, v in vars(options).items() if k not in _OF_ONE_CALL}
    now = {"command": job.command, **arguments}
    now |= {f"model {k}": m.info.metadata["sha256"] for k, m in enumerate(job.models)}
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(job.data)]
    for item in job.items:
        parts = b"".join(np.ascontiguousarray(leaf[item.number]).tobytes() for leaf in leaves)
        now[f"item {item.folder}"] = f"{item.label} {hashlib.sha256(parts).hexdigest()}"
    now = json.loads(json.dumps(output_folder.plain(now)))
    if not place.exists():
        output_folder.write_json(place, now)
        return
    try:
        was = json.loads(place.read_text(encoding="utf-8"))
        was = present_arguments(was)
        changed = sorted(k for k in {*was, *now} if was.get(k) != now.get(k))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        hint = "Give --force to start again"
        raise expected("--resume", f"a readable {place}", "a damaged one", hint) from error
    if changed:
        raise expected(
            "--resume",
            "the command that was interrupted",
            f"another {', '.join(changed[:5])}",
            "Give that command, or --force to start again",
        )


class _Announcer:
    """A line on stderr for each item that is done."""

    def __init__(self, total: int, before: int, *, quiet: bool) -> None:
        self._total, self._count, self._quiet = total, before, quiet

    def begin(self, todo: Sequence[Item]) -> None:
        if self._count:
            self._say(f"{self._count} of {self._total} are done already")
        if todo:
            self._say(f"compiling, then sampling {todo[0].label}")

    def done(self, item: Item, found: runs.Finished) -> None:
        self._count += 1
        result = found.result
        error = f"{result.log_z:.2f} +- {result.log_z_standard_error:.2f}"
        self._say(
            f"[{self._count}/{self._total}] {item.label}: log Z {error}, {found.seconds:.1f} s"
        )

    def failed(self, item: Item) -> None:
        self._count += 1
        self._say(f"[{self._count}/{self._total}] {item.label}: failed")

    def _say(self, text: str) -> None:
        if not self._quiet:
            print(visible(text), file=sys.stderr, flush=True)
