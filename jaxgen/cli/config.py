"""Settings of a command from a TOML file, and back: `--config FILE`, `--save-config FILE`.

A file holds options by their names without the dashes, and arguments by theirs:

    command = "sample"
    class = "sneaker"
    chains = 128
    step-size = 0.05

What it says goes through the command's own parser, as if it had been typed; what is typed
as well wins.
"""

from __future__ import annotations

import argparse
import difflib
import json
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jaxgen.core.atomic import replacing
from jaxgen.core.errors import InputError, expected
from jaxgen.core.toml import parse_toml

__all__ = ["add_config", "save", "with_file"]

_MOST_BYTES = 1 << 20
# Not settings of a run, but of one call.
_NEVER = ("help", "version", "config", "save_config")
_NOT_SAVED = (*_NEVER, "force", "resume")


def add_config(parser: argparse.ArgumentParser) -> None:
    """--config and --save-config."""
    group = parser.add_argument_group("configuration")
    group.add_argument("--config", metavar="FILE", help="take settings from a TOML file")
    group.add_argument(
        "--save-config", metavar="FILE", help="write all settings to a TOML file, then go on"
    )


def with_file(
    command: str,
    parser: argparse.ArgumentParser,
    relaxed: argparse.ArgumentParser,
    typed: list[str],
) -> list[str]:
    """Return the words after the command, with the settings of its --config added.

    Args:
      command: its name.
      parser: its parser.
      relaxed: another instance of it, which is changed: it comes to require nothing and to
        fill nothing in, so that it tells what was typed.
      typed: the arguments.

    Raises:
      InputError: naming the file, the key and what is wrong with it.
    """
    _relax(relaxed)
    given = vars(relaxed.parse_args(typed))
    path = given.get("config")
    if path is None:
        return typed
    settings = _read(path, command)
    actions = {key: action for action in _settable(parser) for key in _keys(action)}
    options: list[str] = []
    words: list[str] = []
    seen: dict[str, str] = {}
    for name, value in settings.items():
        key = name.replace("_", "-")
        if key not in actions:
            near = difflib.get_close_matches(key, actions, 1, 0.4)
            hint = f"Did you mean {near[0]!r}?" if near else ""
            raise expected(f"{path}: {name}", f"a setting of `jaxgen {command}`", "none", hint)
        action = actions[key]
        before = seen.setdefault(action.dest, name)
        if before != name:
            raise expected(f"{path}: {name}", "each setting once", f"{before} as well")
        if _beaten(action, parser, given):
            continue
        found = _words(f"{path}: {name}", action, value)
        try:  # alone, so that an error can name the file
            relaxed.parse_args(found)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        (options if action.option_strings else words).extend(found)
    if any(action.dest in given for action in actions.values() if not action.option_strings):
        return [*options, *typed, *words]
    return [*options, *words, *typed]


def save(path: str, command: str, parser: argparse.ArgumentParser, options: Namespace) -> None:
    """Write the settings in force, defaults included; --force and --resume are left out.

    Raises:
      InputError: where another file is there already, or none can be written.
    """
    lines = [
        f"# Settings of `jaxgen {command}`: give them back by --config.",
        f'command = "{command}"',
    ]
    for action in _settable(parser):
        value = getattr(options, action.dest, None)
        if action.dest in _NOT_SAVED or value is None or value is False:
            continue
        if action.option_strings and action.nargs == "?" and value == action.default:
            continue  # it says that the option was not given, which no text says
        lines.append(f"{_key(action)} = {_toml(value)}")
    text = "\n".join(lines) + "\n"
    file = Path(path)
    try:
        if file.exists() and file.read_bytes() != text.encode():
            hint = "Give another name, or remove it"
            raise expected("--save-config", "a file that is not there yet", path, hint)
        with replacing(file) as out:
            out.write(text.encode("utf-8"))
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "a name that is not UTF-8"
        raise expected(
            "--save-config", "a file that can be written", f"{path}: {reason}"
        ) from error


def _read(path: str, command: str) -> dict[str, Any]:
    file = Path(path)
    if not file.is_file():
        raise expected("--config", "a TOML file that exists", path)
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise expected("--config", f"at most {_MOST_BYTES >> 20} MiB", f"{path}, larger")
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no text in UTF-8"
        raise expected("--config", "a TOML file", f"{path}: {reason}") from error
    try:
        data = parse_toml(text)
    except ValueError as error:
        raise expected(
            "--config", 'TOML, as in chains = 64 or class = "coat"', f"{path}: {str(error)[:300]}"
        ) from error
    of = data.pop("command", command)
    if of != command:
        raise expected(f"{path}: command", repr(command), repr(of), "Give the file to that command")
    return data


def _settable(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.dest not in _NEVER]


def _key(action: argparse.Action) -> str:
    """Return an option's name without dashes, or an argument's own."""
    if not action.option_strings:
        return action.dest.replace("_", "-")
    return max(action.option_strings, key=len).lstrip("-")


def _keys(action: argparse.Action) -> list[str]:
    """Return all the names of a setting, former ones included."""
    long = [name.lstrip("-") for name in action.option_strings if name.startswith("--")]
    return long or [_key(action)]


def _relax(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:
        action.required = False
        action.default = argparse.SUPPRESS
        if not action.option_strings:
            action.choices = None  # or an absent word would be checked against them
            action.nargs = "*" if action.nargs == "+" else "?"
    for group in parser._mutually_exclusive_groups:
        group.required = False


def _beaten(
    action: argparse.Action, parser: argparse.ArgumentParser, given: dict[str, Any]
) -> bool:
    """Return whether what was typed overrides a setting of the file."""
    rivals: Iterable[argparse.Action] = [action]
    for group in parser._mutually_exclusive_groups:
        if action in group._group_actions:
            rivals = group._group_actions
    return any(rival.dest in given for rival in rivals)


def _words(field: str, action: argparse.Action, value: Any) -> list[str]:
    """Return a setting as it would be typed."""
    if isinstance(action, argparse._StoreTrueAction):
        if not isinstance(value, bool):
            raise expected(field, "true or false", _short(value))
        return [action.option_strings[-1]] if value else []
    if isinstance(value, list) and action.nargs == "+":
        return [_word(field, item) for item in value]
    text = _word(field, value)
    return [f"--{_key(action)}={text}"] if action.option_strings else [text]


def _word(field: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise expected(field, "a text or a number", _short(value))
    return str(value)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true"
    if isinstance(value, str):  # JSON's escapes are TOML's, but for one character
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    if isinstance(value, list):
        return f"[{', '.join(_toml(item) for item in value)}]"
    return repr(value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
