"""Rules: an exact bijection between a file's arrays and a network's.

A rule says which source keys it takes (a regular expression that must match the whole
key), where each goes (a template with the expression's groups) and how its layout changes
(a transform of `weights_convert.layouts`, by name or as a function). `apply_rules` insists
that every source key is taken by exactly one rule or expressly ignored, that every target
is filled exactly once and by an array of its shape, and that no weight is NaN or infinite.
It collects all mistakes and reports them together, because a wrong recipe rarely has one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxgen.core.errors import InputError, expected
from weights_convert.layouts import TRANSFORMS, Transform

__all__ = ["Rule", "apply_rules"]

# Bounds for what a hostile file can make an error say; no real network has as many arrays.
_MOST_SHOWN = 4000
_LONGEST = 240


class Rule(NamedTuple):
    r"""One line of a recipe.

    Attributes:
      source: regular expression; it must match a source key from end to end.
      target: template of the target's key, `\1`, `\2`, ... for the expression's groups.
      transform: a name in `layouts.TRANSFORMS`, or a function of one array.
    """

    source: str
    target: str
    transform: str | Transform = "identity"


def apply_rules(
    rules: Sequence[Rule],
    source: Mapping[str, Any],
    target: Mapping[str, Sequence[int]],
    *,
    ignore: Iterable[str] = (),
    where: str = "weights",
) -> dict[str, np.ndarray]:
    """Convert a flat dictionary of arrays.

    Args:
      rules: the recipe.
      source: key -> array, as read from the file.
      target: key -> shape that the network expects.
      ignore: regular expressions of source keys that may be left over.
      where: what to call the source in errors, most often the file's name.

    Returns:
      Target key -> array, in the order of `target`.

    Raises:
      InputError: one line with every mistake found, separated by semicolons.
    """
    mistakes: list[str] = []
    result: dict[str, np.ndarray] = {}
    origin: dict[str, str] = {}
    ignored = [_compiled(pattern, "ignore") for pattern in ignore]
    # A converter of whole graphs writes one literal rule for each key: look those up.
    literal: dict[str, list[Rule]] = {}
    for rule in rules:
        if re.escape(plain := re.sub(r"\\(.)", r"\1", rule.source)) == rule.source:
            literal.setdefault(plain, []).append(rule)
    looked_up = {id(rule) for found in literal.values() for rule in found}
    others = [(_compiled(rule.source, "rule"), rule) for rule in rules if id(rule) not in looked_up]
    for key, value in source.items():
        candidates = [(re.compile(rule.source), rule) for rule in literal.get(key, ())] + others
        matches = [(m, rule) for pattern, rule in candidates if (m := pattern.fullmatch(key))]
        if any(pattern.fullmatch(key) for pattern in ignored):
            continue
        if not matches:
            mistakes.append(f"{key}: left over (shape {tuple(np.shape(value))}), no rule takes it")
            continue
        if len(matches) > 1:
            rules_ = ", ".join(repr(rule.source) for _, rule in matches)
            mistakes.append(f"{key}: {len(matches)} rules take it ({rules_})")
            continue
        match, rule = matches[0]
        name = match.expand(rule.target)
        if name in origin:
            mistakes.append(f"{name}: filled twice, by {origin[name]} and by {key}")
            continue
        origin[name] = key
        mistake = _convert(key, value, name, rule, target, result)
        if mistake:
            mistakes.append(mistake)
    mistakes += [
        f"{name}: not filled (shape {tuple(shape)})"
        for name, shape in target.items()
        if name not in origin
    ]
    if mistakes:
        shown = "; ".join(map(_short, mistakes[:_MOST_SHOWN]))
        more = f"; and {len(mistakes) - _MOST_SHOWN} more" if len(mistakes) > _MOST_SHOWN else ""
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        raise InputError(f"{where}: {count}: {shown}{more}")
    return {name: result[name] for name in target}


def _convert(
    key: str,
    value: object,
    name: str,
    rule: Rule,
    target: Mapping[str, Sequence[int]],
    result: dict[str, np.ndarray],
) -> str | None:
    """Fill one target; the mistake in words if there is one."""
    if name not in target:
        return f"{key}: goes to {name}, which the network does not have"
    transform = rule.transform
    if isinstance(transform, str):
        if transform not in TRANSFORMS:
            return f"{key}: unknown transform {transform!r}, known: {', '.join(TRANSFORMS)}"
        transform = TRANSFORMS[transform]
    array = np.asarray(value)
    try:
        converted = transform(array)
    except ValueError as error:
        return f"{key}: cannot be transformed, {error}"
    if converted.shape != tuple(target[name]):
        return (
            f"{name}: the network has shape {tuple(target[name])}, "
            f"{key} gives {converted.shape} from {array.shape}"
        )
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        return f"{key}: holds NaN or infinite weights"
    result[name] = converted
    return None


def _short(mistake: str) -> str:
    return mistake if len(mistake) <= _LONGEST else f"{mistake[: _LONGEST - 3]}..."


def _compiled(pattern: str, name: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise expected(name, "a regular expression", f"{pattern!r} ({error})") from error
