"""PyTorch weights to Flax: read the file safely, apply a recipe, write, verify.

python -m weights_convert pytorch resnet20.th --recipe cifar-resnet --out net.safetensors
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from jaxgen.core.errors import InputError, expected
from jaxgen.models.ported import PORTED, build, leaves
from jaxgen.models.weights import fill, save_weights
from weights_convert.recipes import RECIPES, Recipe, find_recipe, layer_rules, listing
from weights_convert.rules import apply_rules
from weights_convert.torch_files import read_file, release_pages, tidy

__all__ = ["Converted", "add_arguments", "convert", "convert_state", "load_state", "run", "verify"]

VERSION = 1
"""Of the conversion; goes up when the same file would give other numbers."""


class Converted(NamedTuple):
    """A conversion, in memory.

    Attributes:
      module: the network with its weights.
      config: its configuration.
      arrays: dotted path -> float32 array, as written to the file.
      metadata: as written to the file.
      state: the state dict it came from, without wrappers' prefixes.
      recipe: the recipe that was used.
      ignored: regular expressions of the keys that were left over on purpose.
    """

    module: nnx.Module
    config: dict[str, Any]
    arrays: dict[str, np.ndarray]
    metadata: dict[str, Any]
    state: dict[str, np.ndarray]
    recipe: Recipe
    ignored: tuple[str, ...] = ()


def load_state(source: str | Path, key: str | None = None) -> dict[str, np.ndarray]:
    """A file's state dict, without `module.`, `_orig_mod.` and `num_batches_tracked`."""
    return tidy(read_file(source, key), str(source))


def convert_state(
    state: Mapping[str, np.ndarray],
    recipe: str | Recipe,
    options: Mapping[str, Any] | None = None,
    where: str = "state dict",
) -> Converted:
    """Convert a state dict that is already in memory.

    Args:
      state: name -> array, as `load_state` gives it.
      recipe: a name in `weights_convert.recipes.RECIPES`, or a recipe.
      options: what the recipe cannot read from the shapes; see `Recipe.options`.
      where: what to call the state dict in errors.

    Raises:
      InputError: with every mistake in one report: keys left over, weights not filled,
        shapes that differ, numbers that are not finite.
    """
    done = _converted(state, recipe, options, where)
    return done._replace(module=fill(done.module, done.arrays, where))


def _converted(
    state: Mapping[str, np.ndarray],
    recipe: str | Recipe,
    options: Mapping[str, Any] | None,
    where: str,
) -> Converted:
    """The conversion, its module still without weights."""
    recipe = find_recipe(recipe) if isinstance(recipe, str) else recipe
    options = dict(options or {})
    unknown = [name for name in options if name not in recipe.options]
    if unknown:
        known = ", ".join(recipe.options) or "none"
        raise expected("options", f"among {known} for {recipe.name}", ", ".join(unknown))
    config = recipe.config(state, options)
    module = build(recipe.architecture, config)
    rules = layer_rules(module, recipe, config)
    prepared = recipe.prepare(state, config)
    label = f"{where}, recipe {recipe.name}"
    ignored = tuple(recipe.ignore(options))
    arrays = apply_rules(rules, prepared, leaves(module), ignore=ignored, where=label)
    arrays = {name: np.asarray(array, np.float32, order="C") for name, array in arrays.items()}
    metadata = {
        "architecture": {"name": recipe.architecture, "config": config},
        "kind": PORTED[recipe.architecture].kind,
        "recipe": recipe.name,
        "converter": f"weights_convert.pytorch {VERSION}",
        **recipe.metadata(config),
    }
    return Converted(module, config, arrays, metadata, dict(state), recipe, ignored)


def convert(
    source: str | Path,
    recipe: str | Recipe,
    out: str | Path | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    key: str | None = None,
    licence: str | None = None,
) -> Converted:
    """Convert a `.pth` or safetensors file and write what `jaxgen.load` reads.

    Args:
      source: the file; nothing in it is run.
      recipe: a name in `weights_convert.recipes.RECIPES`, or a recipe.
      out: the file to write; None writes none.
      options: what the recipe cannot read from the shapes.
      key: where in a checkpoint the state dict is, if there is more than one.
      licence: of the weights, for the record.

    Raises:
      InputError: for a bad file or a recipe that does not fit it.
    """
    state = load_state(source, key)
    done = _converted(state, recipe, options, str(source))
    with Path(source).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    record = {"file": Path(source).name, "sha256": digest, "licence": licence or "not stated"}
    done = done._replace(metadata={**done.metadata, "source": record})
    if out is not None:
        release_pages(state)
        save_weights(out, done.arrays, done.metadata)
    return done._replace(module=fill(done.module, done.arrays, str(source)))


def verify(done: Converted, seed: int = 0, batch: int = 2) -> list[Any]:
    """Layer by layer against torch on a random batch; see `torch_parity`.

    Raises:
      ImportError: without torch.
      InputError: if the recipe has no reference.
    """
    from weights_convert.references import need_torch
    from weights_convert.torch_parity import compare_with_torch

    need_torch()
    family = PORTED[done.recipe.architecture]
    shape = (batch, *family.input_shape(done.config))
    rng = np.random.default_rng(seed)
    image = len(shape) == 4
    x = rng.random(shape) if image else rng.normal(size=shape)
    return compare_with_torch(
        done.module, done.recipe, done.config, done.state, x.astype(np.float32), done.ignored
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `python -m weights_convert pytorch`."""
    parser.add_argument("file", help=".pth, .pt, .th, .ckpt or .safetensors")
    parser.add_argument("--recipe", help=f"one of {', '.join(RECIPES)}")
    parser.add_argument("--out", help="the safetensors file to write")
    parser.add_argument("--key", help="where in a checkpoint the state dict is, as in ema.model")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="options",
                        help="an option of the recipe; VALUE is JSON or text")  # fmt: skip
    parser.add_argument("--licence", help="the licence of the weights, for the record")
    parser.add_argument(
        "--verify", "--check", action="store_true", help="compare with torch, layer by layer"
    )
    parser.add_argument("--tolerance", type=float, default=1e-5, help="largest error for --verify")
    parser.add_argument("--list", action="store_true", help="list the file's tensors and stop")


def run(args: argparse.Namespace) -> int:
    """Carry out the command; the exit status. InputError is for the caller to print."""
    if args.list:
        for name, array in read_file(args.file, args.key).items():
            print(f"{name}  {array.dtype}  {tuple(array.shape)}")
        return 0
    if not args.recipe:
        print("\n".join(f"{name:<20} {about}" for name, about in listing()))
        raise InputError("--recipe: expected one of the recipes above")
    if not args.out and not args.verify:
        raise InputError("--out: expected a file to write, or --verify")
    options = dict(_option(text) for text in args.options)
    done = convert(
        args.file, args.recipe, args.out, options=options, key=args.key, licence=args.licence
    )
    count = sum(array.size for array in done.arrays.values())
    print(f"{args.file}: {len(done.state)} tensors -> {len(done.arrays)} arrays, {count:,} numbers")
    if args.out:
        print(f"wrote {args.out}")
    if not args.verify:
        return 0
    from weights_convert.torch_parity import table

    rows = verify(done)
    print(table(rows))
    return 0 if max(row.error for row in rows) <= args.tolerance else 1


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise expected("--set", "NAME=VALUE", repr(text))
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
