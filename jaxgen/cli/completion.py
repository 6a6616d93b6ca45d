"""`jaxgen completion SHELL`: what a shell needs to complete commands, options and names.

The script is written from the parsers themselves, so it knows what they know.
"""

from __future__ import annotations

import argparse
from argparse import Namespace
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxgen.cli.options import Commands, Parser, add_talk

__all__ = ["add", "script"]

_SHELLS = ("bash", "zsh", "fish")
# Options whose values are names that parsers check by themselves.
_KERNELS = ("hmc", "mala", "nuts", "barker", "mclmc", "pcn", "elliptical", "mh", "langevin:")
_BETAS = ("adaptive", "sigmoid:", "linear:", "geometric:", "wu2017", "cogen-toy")
_BETAS += ("cogen-toy-paper", "cogen-images")
_NAMED = {"--kernel": _KERNELS, "--betas": _BETAS}
_MODELS = ("--model", "--classifier", "--encoder")


class _Option(NamedTuple):
    """An option: its names, its help, its values, and whether it takes one."""

    names: tuple[str, ...]
    help: str
    values: tuple[str, ...]
    takes: bool


def add(commands: Commands, name: str) -> None:
    """Add the command to a parser."""
    parser: Parser = commands.add_parser(
        name,
        help="a script that completes commands and options in your shell",
        description="Print a completion script for bash, zsh or fish.",
        epilog="Example: jaxgen completion bash >> ~/.bashrc",
    )
    parser.add_argument("shell", metavar="SHELL", choices=_SHELLS, help=", ".join(_SHELLS))
    add_talk(parser, json="print JSON", quiet="no effect: there is no progress to show")
    parser.set_defaults(run=_run)


def _run(options: Namespace) -> int:
    import json

    from jaxgen.cli import commands

    text = script(options.shell, commands())
    print(json.dumps({"shell": options.shell, "script": text}) if options.json else text)
    return 0


def script(shell: str, commands: Mapping[str, argparse.ArgumentParser]) -> str:
    """Return the completion script of a shell, from the commands' parsers."""
    tables = {name: _options(parser) for name, parser in commands.items()}
    words = {name: _words(name, parser) for name, parser in commands.items()}
    abouts = {name: _plain(parser.description or "") for name, parser in commands.items()}
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](tables, words, abouts)


def _options(parser: argparse.ArgumentParser) -> list[_Option]:
    from jaxgen.models.catalogue import SHIPPED

    found = []
    for action in parser._actions:
        if not action.option_strings:
            continue
        takes = action.nargs != 0
        longest = max(action.option_strings, key=len)
        values = tuple(str(choice) for choice in action.choices or ())
        values = values or _NAMED.get(longest, ())
        values = values or (tuple(SHIPPED) if longest in _MODELS else ())
        about = _plain((action.help or "").replace("%(default)s", str(action.default)))
        found.append(_Option(tuple(action.option_strings), about, values, takes))
    return found


def _words(name: str, parser: argparse.ArgumentParser) -> tuple[str, ...]:
    """Return the words that may stand where no option does; files are completed as well."""
    from jaxgen.models.catalogue import SHIPPED

    words = [str(c) for a in parser._actions if not a.option_strings for c in a.choices or ()]
    if name in ("train", "loglik"):
        words += tuple(SHIPPED)
    return tuple(words)


def _plain(text: str) -> str:
    """Help in characters that no shell cares about."""
    kept = "".join(c if c.isalnum() or c in " .,;/=+-_()" else " " for c in text)
    return " ".join(kept.split())[:100]


def _bash(tables: Any, words: Any, abouts: Any) -> str:
    lines = [
        "# bash completion of jaxgen",
        "_jaxgen() {",
        "  local current=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}",
        "  local command=${COMP_WORDS[1]} values= names=",
        "  if [ $COMP_CWORD -eq 1 ]; then",
        f'    COMPREPLY=($(compgen -W "{" ".join(tables)} --help --version" -- "$current"))',
        "    return",
        "  fi",
        '  case "$command $before" in',
    ]
    for name, options in tables.items():
        for option in options:
            if option.takes:
                cases = "|".join(f'"{name} {n}"' for n in option.names)
                given = f'values="{" ".join(option.values)}"' if option.values else "values=-"
                lines.append(f"    {cases}) {given} ;;")
    lines += [
        "  esac",
        '  if [ "$values" = - ]; then',
        '    COMPREPLY=($(compgen -f -- "$current"))',
        "    return",
        '  elif [ -n "$values" ]; then',
        '    COMPREPLY=($(compgen -W "$values" -- "$current"))',
        "    return",
        "  fi",
        '  case "$command" in',
    ]
    for name, options in tables.items():
        names = " ".join(n for option in options for n in option.names)
        lines.append(f'    {name}) names="{names}" values="{" ".join(words[name])}" ;;')
    lines += [
        "  esac",
        '  if [ "${current:0:1}" = - ]; then',
        '    COMPREPLY=($(compgen -W "$names" -- "$current"))',
        "  else",
        '    COMPREPLY=($(compgen -W "$values" -- "$current") $(compgen -f -- "$current"))',
        "  fi",
        "}",
        "complete -o filenames -F _jaxgen jaxgen",
    ]
    return "\n".join(lines)


def _zsh(tables: Any, words: Any, abouts: Any) -> str:
    lines = ["#compdef jaxgen", "_jaxgen() {", "  local -a commands", "  commands=("]
    lines += [f"    '{name}:{about}'" for name, about in abouts.items()]
    lines += [
        "  )",
        "  if (( CURRENT == 2 )); then",
        "    _describe command commands",
        "    return",
        "  fi",
        "  local command=$words[2]",
        "  shift words; (( CURRENT-- ))",
        '  case "$command" in',
    ]
    for name, options in tables.items():
        lines.append(f"    {name})")
        lines.append("      _arguments \\")
        for option in options:
            value = ""
            if option.takes:
                value = f":value:({' '.join(_escaped(option.values))})" if option.values else ""
                value = value or ":value:_files"
            for spelt in option.names:
                lines.append(f"        '{spelt}[{option.help}]{value}' \\")
        rest = f"({' '.join(_escaped(words[name]))})" if words[name] else "_files"
        lines += [f"        '*:argument:{rest}'", "      ;;"]
    lines += ["  esac", "}", "compdef _jaxgen jaxgen"]
    return "\n".join(lines)


def _escaped(values: tuple[str, ...]) -> list[str]:
    return [value.replace(":", "\\:") for value in values]


def _fish(tables: Any, words: Any, abouts: Any) -> str:
    lines = ["# fish completion of jaxgen"]
    for name, about in abouts.items():
        lines.append(f"complete -c jaxgen -n __fish_use_subcommand -f -a {name} -d '{about}'")
    for name, options in tables.items():
        where = f"complete -c jaxgen -n '__fish_seen_subcommand_from {name}'"
        for option in options:
            flags = " ".join(
                f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in option.names
            )
            takes = (
                f" -x -a '{' '.join(option.values)}'"
                if option.values
                else " -r"
                if option.takes
                else ""
            )
            lines.append(f"{where} {flags}{takes} -d '{option.help}'")
        if words[name]:
            lines.append(f"{where} -a '{' '.join(words[name])}'")
    return "\n".join(lines)
