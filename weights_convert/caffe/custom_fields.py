"""Fields of forks of Caffe, taken out of a prototxt before the strict parser sees it.

`prior_box_param`, `bn_param` and their kind are unknown to every other Caffe, and one of them
would make a whole file unreadable, trunk and all. Those that stand in a layer's own block are
blanked, so that lines and columns stay, and remembered: a layer that has one is refused by its
type, with the way to cut the network before it, unless nothing that is asked for needs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from weights_convert.caffe.schema import message_class

__all__ = ["without_custom_fields"]

_NAME = re.compile(r"[A-Za-z_]\w*")
_CLOSES = {"{": "}", "<": ">"}


def without_custom_fields(
    text: str, pattern: re.Pattern[str]
) -> tuple[str, dict[int, tuple[str, ...]]]:
    """Return the text with unknown fields of layers replaced by spaces.

    Args:
      text: the prototxt.
      pattern: matches its tokens one after another.

    Returns:
      The text, and number of a layer in the file -> the names of its unknown fields.
    """
    known = {
        "layer": set(message_class("LayerParameter").DESCRIPTOR.fields_by_name),
        "layers": set(message_class("V1LayerParameter").DESCRIPTOR.fields_by_name),
    }
    found: dict[int, list[str]] = {}
    spans: list[tuple[int, int]] = []
    number = -1
    tokens = _tokens(text, pattern)
    word, depth, kind = "", 0, ""
    for token, start, _ in tokens:
        if token in _CLOSES:
            depth += 1
            if depth == 1:
                kind = word if word in known else ""
                number += bool(kind)
        elif token in ("}", ">"):
            depth = max(0, depth - 1)
        elif depth == 1 and kind and _NAME.fullmatch(token) and token not in known[kind]:
            end = _value_end(tokens)
            if end is None:
                break  # the parser will say what is wrong
            value_end, closes = end
            if closes:  # a brace of the layer's own: there was no value
                depth -= 1
                continue
            found.setdefault(number, []).append(token)
            spans.append((start, value_end))
        elif depth == 1 and kind and _NAME.fullmatch(token):
            word = token
            opened = _skip_known(tokens)
            if opened is None:
                break
            depth -= opened
        elif token != ":":
            word = token
    parts, at = [], 0
    for start, end in spans:
        parts += [text[at:start], re.sub(r"[^\n]", " ", text[start:end])]
        at = end
    parts.append(text[at:])
    return "".join(parts), {number: tuple(names) for number, names in found.items()}


def _tokens(text: str, pattern: re.Pattern[str]) -> Iterator[tuple[str, int, int]]:
    for match in pattern.finditer(text):
        token = match.group()
        if token != "\n" and not token.startswith("#"):
            yield token, match.start(), match.end()


def _value_end(tokens: Iterator[tuple[str, int, int]]) -> tuple[int, bool] | None:
    """Return where the value of a field ends, and whether a closing brace came instead."""
    for token, _, end in tokens:
        if token == ":":
            continue
        if token in ("}", ">"):
            return end, True
        if token not in _CLOSES:
            return (end, False) if not token.startswith("[") else _list_end(tokens, token, end)
        depth = 1
        for inner, _, stop in tokens:
            depth += (inner in _CLOSES) - (inner in ("}", ">"))
            if not depth:
                return stop, False
        return None
    return None


def _list_end(
    tokens: Iterator[tuple[str, int, int]], token: str, end: int
) -> tuple[int, bool] | None:
    while "]" not in token:
        following = next(tokens, None)
        if following is None:
            return None
        token, _, end = following
    return end, False


def _skip_known(tokens: Iterator[tuple[str, int, int]]) -> int | None:
    """Pass over a known field's value; 1 if the layer's own block ended instead."""
    end = _value_end(tokens)
    return None if end is None else int(end[1])
