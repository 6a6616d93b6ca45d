"""Names in the files of format 3 that differ from those in the code.

Fields and classes have been renamed since the format was fixed. Files keep the names that they
had, so that runs of former versions can be resumed, and so that former versions can read new
runs.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["present_settings", "stored_field", "stored_settings"]

# Field of a state or of an evidence -> its name in a checkpoint.
_FIELDS = {
    "adaptation": "memory",
    "lineage": "ancestor",
    "num_lineages": "num_ancestors",
    "pilot": "found",
}
# Part of a setting's name -> its name in `run.json`.
_PARTS = {"untempered": "held"}
# A setting -> its name in `run.json`, where the whole name has changed.
_SETTINGS = {"num_mcmc_steps": "moves"}
# First word of a setting's text -> the one in `run.json`.
_WORDS = {
    "LikelihoodDensity": "LogLikelihood",
    "jaxgen.sampler.options.collect_nothing": "jaxgen.sampler.config._nothing",
}


def stored_field(name: str) -> str:
    """Return the name of a field in a checkpoint."""
    return _FIELDS.get(name, name)


def stored_settings(settings: Mapping[str, str]) -> dict[str, str]:
    """Return settings, as `jaxgen.core.fingerprint.describe` has them, under their stored names."""
    return {_stored_name(name): _stored_text(text) for name, text in settings.items()}


def present_settings(settings: Mapping[str, str]) -> dict[str, str]:
    """Return settings of a `run.json` under the names that they have today, for messages."""
    return {_PRESENT.get(name, name): text for name, text in settings.items()}


_PRESENT = {stored: name for name, stored in _SETTINGS.items()}


def _stored_name(name: str) -> str:
    name = _SETTINGS.get(name, name)
    return ".".join(_PARTS.get(part, part) for part in name.split("."))


def _stored_text(text: str) -> str:
    word, space, rest = text.partition(" ")
    return _WORDS.get(word, word) + space + rest
