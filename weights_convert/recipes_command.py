"""The command `python -m weights_convert recipes [NAME]`: recipes, their options, defaults."""

from __future__ import annotations

import argparse
import json

from weights_convert.recipes import find_recipe, listing

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("name", nargs="?", help="list the options of this recipe")


def run(args: argparse.Namespace) -> int:
    """Print the recipes, or one with its options; the exit status."""
    if args.name is None:
        for name, about in listing():
            options = ", ".join(find_recipe(name).options) or "no options"
            print(f"{name:<20} {about} ({options})")
        return 0
    recipe = find_recipe(args.name)
    print(f"{recipe.name}: {recipe.about}")
    for name, option in recipe.options.items():
        default = option.default
        words = "required" if default is None else _written(default)
        print(f"  --set {name}=...  {option.about}; default: {words}")
    if recipe.options:
        return 0
    print("  no options")
    return 0


def _written(default: object) -> str:
    """As it would be given by --set; a default in words as it is."""
    return default if isinstance(default, str) else json.dumps(default)
