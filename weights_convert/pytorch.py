"""PyTorch weights to Flax: read the file safely, apply a recipe, write, verify.

    done = convert("generator.pth", "dcgan", "generator.safetensors", options={"slope": 0.2})

The command line is in `weights_convert.pytorch_command`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from jaxgen.core.errors import InputError, expected
from jaxgen.models.ported import PORTED, build, leaves
from jaxgen.models.ported.sequential import check_layers
from jaxgen.models.weights import fill
from weights_convert.folding import folded
from weights_convert.recipes import Recipe, find_recipe, layer_rules
from weights_convert.rules import apply_rules
from weights_convert.softmax import cut_from_layers, said
from weights_convert.torch_files import read_file, release_pages, tidy, under_prefix
from weights_convert.writing import destination, write_new

__all__ = ["Converted", "convert", "convert_state", "load_state", "verify"]

_MOST_LAYERS = 1_300
_MOST_TENSORS = 10_000  # the largest known networks have under two thousand
VERSION = 2
"""Of the conversion; goes up when the same file would give other numbers."""


class Converted(NamedTuple):
    """A conversion, in memory.

    Attributes:
      module: the network with its weights.
      config: its configuration.
      arrays: dotted path -> float32 array, as written to the file.
      metadata: as written to the file; `assumed` lists what the file itself does not say.
      state: the state dict that the rules and the recipe's reference take: without wrappers'
        prefixes, spectral and weight normalisation folded.
      recipe: the recipe that was used.
      ignored: regular expressions of the keys that were left over on purpose.
      raw: the state dict as a module of the source's own takes it, not folded.
    """

    module: nnx.Module
    config: dict[str, Any]
    arrays: dict[str, np.ndarray]
    metadata: dict[str, Any]
    state: dict[str, np.ndarray]
    recipe: Recipe
    ignored: tuple[str, ...] = ()
    raw: Mapping[str, np.ndarray] = {}


def load_state(
    source: str | Path, key: str | None = None, prefix: str = "", buffers: str | None = None
) -> dict[str, np.ndarray]:
    """Return a file's state dict, without `module.`, `_orig_mod.` and counters of training.

    Args:
      source: the file; nothing in it is run.
      key: dotted path of the state dict in a checkpoint, where there is more than one.
      prefix: take only the entries whose names begin so, without it, as `generator`.
      buffers: dotted path of another state dict in the file, for entries that the first lacks:
        a moving average of parameters has no statistics of BatchNorm.
    """
    state = tidy(read_file(source, key), str(source))
    if buffers is not None:
        state = {**tidy(read_file(source, buffers), str(source)), **state}
    return under_prefix(state, prefix, str(source)) if prefix else state


def convert_state(
    state: Mapping[str, np.ndarray],
    recipe: str | Recipe,
    options: Mapping[str, Any] | None = None,
    where: str = "state dict",
    *,
    ignore: Sequence[str] = (),
    keep_softmax: bool = False,
) -> Converted:
    """Convert a state dict that is already in memory.

    Args:
      state: name -> array, as `load_state` gives it.
      recipe: a name in `weights_convert.recipes.RECIPES`, or a recipe.
      options: what the recipe cannot read from the shapes; see `Recipe.options`.
      where: what to call the state dict in errors.
      ignore: regular expressions of keys that may be left over.
      keep_softmax: return probabilities where a described network ends in a softmax; by
        default that softmax is cut and logits come out.

    Raises:
      InputError: with every mistake in one report: keys left over, weights not filled,
        shapes that differ, numbers that are not finite.
    """
    done = _converted(state, recipe, options, where, ignore, keep_softmax)
    return done._replace(module=fill(done.module, done.arrays, where))


def _converted(
    raw: Mapping[str, np.ndarray],
    recipe: str | Recipe,
    options: Mapping[str, Any] | None,
    where: str,
    ignore: Sequence[str] = (),
    keep_softmax: bool = False,
) -> Converted:
    """Return the conversion, its module still without weights."""
    recipe = find_recipe(recipe) if isinstance(recipe, str) else recipe
    options = dict(options or {})
    unknown = [name for name in options if name not in recipe.options]
    if unknown:
        known = ", ".join(recipe.options) or "none"
        raise expected("options", f"among {known} for {recipe.name}", ", ".join(unknown))
    if len(raw) > _MOST_TENSORS:
        raise expected(where, f"at most {_MOST_TENSORS} tensors", f"{len(raw)}", "See --prefix.")
    try:
        ignored = (*ignore, *recipe.ignore(options))
        state = folded(raw) if recipe.folds else dict(raw)
        seen = recipe.visible(state, ignore)
        empty = [name for name, value in seen.items() if 0 in np.shape(value)]
        if empty:
            got = f"{len(empty)}, {empty[0]!r:.80} of shape {np.shape(seen[empty[0]])}"
            raise expected(where, "tensors without an empty axis (see --ignore)", got)
        config = recipe.config(seen, options)
        if _layers_of(config) > _MOST_LAYERS:
            raise expected(where, f"a network of at most {_MOST_LAYERS} layers", _layers_of(config))
        config, cut = (config, ()) if keep_softmax else _without_softmax(recipe, config)
        module = build(recipe.architecture, config)
        rules = layer_rules(module, recipe, config)
        prepared = recipe.prepare(state, config)
        label = f"{where}, recipe {recipe.name}"
        arrays = apply_rules(rules, prepared, leaves(module), ignore=ignored, where=label)
    except InputError as error:
        raise InputError(f"{error}{_several_networks(raw)}") from error
    except (ArithmeticError, AttributeError, IndexError, LookupError, TypeError, ValueError,
            re.error) as error:  # fmt: skip
        # A recipe reads shapes and options of any kind: what it stumbles over does not fit it.
        raise InputError(
            f"{where}, recipe {recipe.name}: the tensors or the options {', '.join(options)} do "
            f"not fit it ({type(error).__name__}: {str(error)[:200]}){_several_networks(raw)}"
        ) from error
    arrays = {name: np.asarray(array, np.float32, order="C") for name, array in arrays.items()}
    metadata = {
        "architecture": {"name": recipe.architecture, "config": config},
        "kind": PORTED[recipe.architecture].kind,
        "recipe": recipe.name,
        "options": options,
        "assumed": recipe.assumed(config, options),
        "converter": f"weights_convert.pytorch {VERSION}",
        **recipe.metadata(config),
        **({"output": said(cut)} if cut else {}),
    }
    return Converted(module, config, arrays, metadata, state, recipe, ignored, raw)


def convert(
    source: str | Path,
    recipe: str | Recipe,
    out: str | Path | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    key: str | None = None,
    prefix: str = "",
    buffers: str | None = None,
    ignore: Sequence[str] = (),
    keep_softmax: bool = False,
    licence: str | None = None,
    force: bool = False,
) -> Converted:
    """Convert a `.pth` or safetensors file and write what `jaxgen.load` reads.

    Args:
      source: the file; nothing in it is run.
      recipe: a name in `weights_convert.recipes.RECIPES`, or a recipe.
      out: the file to write; None writes none. Never the source.
      options: see `convert_state`.
      ignore: likewise.
      keep_softmax: likewise.
      key: where in the file the weights are; see `load_state`.
      prefix: likewise.
      buffers: likewise.
      licence: of the weights, for the record.
      force: whether `out` may be replaced if it exists.

    Raises:
      InputError: for a bad file or a recipe that does not fit it.
    """
    if out is not None:
        destination(out, sources=[source], force=force)
    state = load_state(source, key, prefix, buffers)
    done = _converted(state, recipe, options, str(source), ignore, keep_softmax)
    with Path(source).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    record = {"file": Path(source).name, "sha256": digest, "licence": licence or "not stated"}
    done = done._replace(metadata={**done.metadata, "source": record})
    if out is not None:
        release_pages(state)
        write_new(out, done.arrays, done.metadata, sources=[source], force=force)
    return done._replace(module=fill(done.module, done.arrays, str(source)))


def verify(done: Converted, seed: int = 0, batch: int = 2, against: object = None) -> list[Any]:
    """Layer by layer against torch on a random batch; see `torch_parity`.

    Args:
      done: the conversion.
      seed: of the random input.
      batch: likewise.
      against: a torch module of the source's own, to compare with; None compares with the
        recipe's reference, which shares the recipe's assumptions.

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
    x = rng.random(shape) if len(shape) == 4 else rng.normal(size=shape)
    x = x.astype(np.float32)
    if against is not None:
        from weights_convert.against import compare_with_module

        return compare_with_module(done, against, x)
    return compare_with_torch(done.module, done.recipe, done.config, done.state, x, done.ignored)


def _layers_of(config: Mapping[str, Any]) -> int:
    """About how many layers a configuration asks for; a hostile file may name any number."""
    count = 0
    for name, value in config.items():
        if name in ("depth", "mapping") and isinstance(value, int):
            count += value
        elif isinstance(value, list):
            inner = [item for item in value if isinstance(item, list)]
            repeated = [n for n in value if name == "blocks" and isinstance(n, int)]
            count += len(value) + sum(map(len, inner)) + sum(repeated)
    return count


def _without_softmax(
    recipe: Recipe, config: dict[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    if recipe.architecture != "sequential.Sequential":
        return config, ()
    layers, shapes = check_layers(config["input_shape"], config["layers"])
    layers, cut = cut_from_layers(layers, shapes[-1])
    return ({**config, "layers": layers} if cut else config), cut


def _several_networks(state: Mapping[str, np.ndarray]) -> str:
    """Return a hint where a file holds several networks side by side, as Lightning's do."""
    counts: dict[str, int] = {}
    for key in state:
        first = key.partition(".")[0]
        counts[first] = counts.get(first, 0) + 1
    several = [name for name, count in counts.items() if count > 1 and not name.isdigit()]
    if not 2 <= len(several) <= 8:
        return ""
    names = ", ".join(f"{name[:40]} ({counts[name]})" for name in several)
    return f". The names begin with {names}: choose one network by --prefix, leave keys by --ignore"
