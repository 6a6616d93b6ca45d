"""Names in the files of format 3 that differ from those in the code.

Fields and classes have been renamed since the format was fixed. Files keep the names that they
had, so that runs of former versions can be resumed, and so that former versions can read new
runs.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["stored_field", "stored_settings"]

# Field of a state or of an evidence -> its name in a checkpoint.
_FIELDS = {
    "adaptation": "memory",
    "lineage": "ancestor",
    "num_lineages": "num_ancestors",
    "pilot": "found",
}
# Part of a setting's name -> its name in `run.json`.
_PARTS = {"untempered": "held"}
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


def _stored_name(name: str) -> str:
    return ".".join(_PARTS.get(part, part) for part in name.split("."))


def _stored_text(text: str) -> str:
    word, space, rest = text.partition(" ")
    return _WORDS.get(word, word) + space + rest
