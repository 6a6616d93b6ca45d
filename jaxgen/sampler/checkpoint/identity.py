"""What a run is made of, as its folder says it, and whether another run is the same.

The settings that decide the bits of a run are written as names and texts
(`jaxgen.core.fingerprint`). A run resumes only with the same settings, except that it may become
longer.
"""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from jaxgen.core.errors import InputError, expected
from jaxgen.core.fingerprint import describe, difference, digest
from jaxgen.core.types import PRNGKey
from jaxgen.core.version import __version__
from jaxgen.sampler.checkpoint.files import FORMAT, read_settings
from jaxgen.sampler.checkpoint.names import present_settings, stored_settings
from jaxgen.sampler.config import RunConfig
from jaxgen.sampler.records import RunLength
from jaxgen.sampler.state import SamplerState

__all__ = ["Changes", "check_same", "environment", "settings_of", "stored_draws"]

# Parts of the environment that may change a run's bits.
_TELLING = ("backend", "device", "python", "jax", "jaxlib", "blackjax", "numpy", "flax", "jaxgen")
_MOST_SHOWN = 8


def settings_of(
    config: RunConfig, run_length: RunLength, key: PRNGKey, state: SamplerState | None = None
) -> dict[str, str]:
    """Return what decides a run's bits: everything but the devices and the progress callback.

    Args:
      config: the settings.
      run_length: the length of the run.
      key: the run's key.
      state: the state of another run that this one continues, or None.
    """
    names = ("num_chains", "num_mcmc_steps", "threshold", "resample", "precondition", "collect")
    names = (*names, "tile", "islands", "pool", "pilot")
    own = {name: getattr(config, name) for name in (*names, "reduce")}
    if config.moves_until_mixed:
        own["most_mcmc_steps"] = config.most_mcmc_steps
    if config.precision != "highest":  # folders from before this setting ran at that precision
        own["precision"] = config.precision
    found = describe({"key": key, "plan": run_length, **config.given, **own})
    if state is not None:
        found |= {"state": digest(state)}
    return stored_settings(found)


def stored_draws(folder: Path) -> int:
    """Return how many draws of each chain the run in a folder was to have; 0 where there is none.

    Raises:
      InputError: for a folder whose settings cannot be read.
    """
    if not (folder / "run.json").exists():
        return 0
    found = read_settings(folder / "run.json")["settings"]
    try:
        return max(int(found.get("plan.draws", "0")), 0)
    except ValueError as error:
        raise expected(str(folder / "run.json"), "a number as plan.draws", str(error)) from error


def environment() -> dict[str, str]:
    """Return versions and devices, name -> text."""
    return {
        "backend": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "devices": str(jax.device_count()),
        "processes": str(jax.process_count()),
        "python": platform.python_version(),
        **{name: version(name) for name in ("jax", "jaxlib", "blackjax", "numpy", "flax")},
        "jaxgen": __version__,
    }


class Changes:
    """The differences between a stored run and the run that would resume it.

    Attributes:
      environment: a line for each part of the environment that may change bits.
      longer: the names of the settings that differ because the run becomes longer.
      is_longer: whether the run becomes longer.
      lost_state: the settings of the stored run that say from which state it began, where
        the resuming call does not give that state again.
    """

    def __init__(self, found: dict[str, Any], settings: dict[str, str]) -> None:
        was, now = found["environment"], environment()
        self.environment = [
            f"{name} was {was.get(name, 'unknown')}, is {now[name]}"
            for name in _TELLING
            if was.get(name) != now[name]
        ]
        self.longer = _longer(found["settings"], settings)
        self.is_longer = bool(self.longer)
        old = found["settings"]
        lost = "state" in old and "state" not in settings
        self.lost_state = {"state": old["state"]} if lost else {}


def check_same(path: Path, found: dict[str, Any], settings: dict[str, str]) -> Changes:
    """Return what has changed, where that does not keep a run from being resumed.

    Args:
      path: the run folder, for errors.
      found: `run.json`.
      settings: of the run that would resume it.

    Raises:
      InputError: if the stored run is of a former format, or is another run.
    """
    if found["format"] != FORMAT:
        raise expected(
            "resume",
            f"a run of format {FORMAT}",
            f"{path}, of a former version",
            "Read its draws with load_run, and start again in another folder",
        )
    allowed = Changes(found, settings)
    skipped = allowed.longer | set(allowed.lost_state)
    changes = difference(
        present_settings({k: v for k, v in found["settings"].items() if k not in skipped}),
        present_settings({k: v for k, v in settings.items() if k not in skipped}),
    )
    if changes:
        raise _of_another_run(path, found, changes)
    return allowed


def _of_another_run(path: Path, found: dict[str, Any], changes: list[str]) -> InputError:
    """Return the error that names what differs, and the likely reasons."""
    hint = "Restore them, or give another folder"
    was, now = (
        text.rsplit(".", 1)[0]
        for text in (found["environment"].get("python", ""), platform.python_version())
    )
    if was != now and "sha256" in changes[0]:
        hint += (
            f". The run began under Python {was}: another minor version compiles the "
            "same function to other instructions, which looks like a change"
        )
    if any(change.startswith(("plan.draws", "plan.rest")) for change in changes):
        hint += ". A run may become longer, but not shorter"
    if any(change.startswith("most_mcmc_steps") for change in changes):
        hint += (
            ". Without num_mcmc_steps chains move until they have mixed; runs of former versions "
            "made two steps at each temperature: give num_mcmc_steps=2"
        )
    more = len(changes) - _MOST_SHOWN
    return expected(
        "resume",
        f"the settings of the run in {path}",
        "; ".join(changes[:_MOST_SHOWN]) + (f"; and {more} more" * (more > 0)),
        hint,
    )


def _longer(was: dict[str, str], settings: dict[str, str]) -> set[str]:
    """Return the settings that may differ because the run is to become longer than it was."""
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
