"""Recipes: one file for each network, found by name.

A recipe says which architecture of `jaxgen.models.ported` a state dict becomes, reads its
configuration from the shapes, and says where in the state dict each layer's weights lie. The
rest follows from the network itself: a layer's kind decides the names of its weights in
PyTorch and the change of layout, so the rules are a bijection by construction and every
mistake is reported (`weights_convert.rules`).
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from jaxgen.core.errors import InputError, expected
from jaxgen.models.conv.layers import Conv, ConvTranspose
from jaxgen.models.ported import leaves
from jaxgen.models.ported.blocks import Depthwise, UpConv
from jaxgen.models.ported.sequential_layers import (
    GroupNorm,
    LayerNorm,
    PReLU,
    TransposedConvolution,
)
from weights_convert.layouts import Transform, chw_to_hwc, deconv
from weights_convert.rules import Rule

__all__ = [
    "RECIPES", "Option", "Recipe", "find_recipe", "layer_rules", "listing", "shape_of",
]  # fmt: skip

State = Mapping[str, np.ndarray]
Config = Mapping[str, Any]

RECIPES: dict[str, str] = {
    "cifar-resnet": "cifar_resnet:RECIPE",
    "dcgan": "dcgan:GENERATOR",
    "dcgan-discriminator": "dcgan:DISCRIMINATOR",
    "mlp": "mlp:MLP",
    "vae-decoder": "mlp:VAE_DECODER",
    "sequential": "sequential_file:RECIPE",
    "alexnet": "torchvision:ALEXNET",
    "googlenet": "torchvision:GOOGLENET",
    "vgg": "torchvision:VGG",
    "resnet": "torchvision:RESNET",
    "inception-v3": "torchvision:INCEPTION_V3",
    "squeezenet": "torchvision:SQUEEZENET",
    "mobilenet-v2": "torchvision:MOBILENET_V2",
    "progan": "progan:RECIPE",
    "stylegan2": "stylegan2:RECIPE",
    "biggan-deep": "biggan:RECIPE",
}
"""Name -> "file:attribute" in this folder; none is imported before it is used."""


class Option(NamedTuple):
    """The settings of a recipe.

    Attributes:
      about: what it does, in a few words.
      default: what is taken without it, as it would be written, or in words.
    """

    about: str
    default: Any = None


_ASSUMED = ("mean", "std", "slope", "epsilon", "gain", "shift")


def _same(path: str, config: Config) -> str:
    return path


def _constants(config: Config, options: Config) -> dict[str, Any]:
    """Return what a family of networks takes for granted: constants that no tensor holds."""
    return {name: config[name] for name in _ASSUMED if name in config and name not in options}


@dataclass(frozen=True)
class Recipe:
    """The conversion of a state dict to a network of jaxgen.

    Attributes:
      name: as on the command line.
      about: whose state dicts these are, in a line.
      architecture: a name in `jaxgen.models.ported.PORTED`.
      config: state dict and options -> the network's configuration. Raises InputError with
        all that does not fit.
      source: path of a layer here and the configuration -> its path in the state dict.
      special: configuration -> leaf path -> (source key, transform), for leaves that no
        common layer has, or whose layout changes in another way.
      ignore: options -> regular expressions of keys to leave over.
      prepare: state dict and configuration -> the state dict the rules read; for weights
        stored as a product, a norm, or a run of several.
      options: option -> what it does and what is taken without it.
      assumed: configuration and options -> what was taken for granted, because neither the
        file nor an option says it: activations, eps, strides, the output's range.
      folds: whether spectral and weight normalisation are folded before the recipe sees the
        state dict.
      metadata: configuration -> what else to write into the file: preprocessing, classes.
      reference: configuration -> a torch module that takes the state dict as it is.
      reference_input: configuration and a batch of ours (NumPy) -> the module's arguments.
      reference_output: configuration and the module's output -> an array like ours.
      taps: configuration -> layer here -> the torch module to compare it with ("" for none),
        where that is not the one its weights came from.
    """

    name: str
    about: str
    architecture: str
    config: Callable[[State, Config], dict[str, Any]]
    source: Callable[[str, Config], str] = _same
    special: Callable[[Config], dict[str, tuple[str, Transform]]] = lambda config: {}
    ignore: Callable[[Config], Sequence[str]] = lambda options: ()
    prepare: Callable[[State, Config], State] = lambda state, config: state
    options: Mapping[str, Option] = field(default_factory=dict)
    assumed: Callable[[Config, Config], dict[str, Any]] = _constants
    folds: bool = True
    metadata: Callable[[Config], dict[str, Any]] = lambda config: {}
    reference: Callable[[Config], Any] | None = None
    reference_input: Callable[[Config, np.ndarray], tuple[np.ndarray, ...]] | None = None
    reference_output: Callable[[Config, np.ndarray], np.ndarray] | None = None
    taps: Callable[[Config], dict[str, str]] = lambda config: {}

    def visible(self, state: State, ignore: Sequence[str]) -> State:
        """Return the entries that the configuration is read from: all but the ignored ones."""
        try:
            patterns = [re.compile(pattern) for pattern in ignore]
        except re.error as error:
            raise expected("ignore", "a regular expression", str(error)) from error
        return {k: v for k, v in state.items() if not any(p.fullmatch(k) for p in patterns)}


def find_recipe(name: str) -> Recipe:
    """Return the recipe of that name.

    Raises:
      InputError: listing those there are.
    """
    if name not in RECIPES:
        raise expected("recipe", f"one of {', '.join(RECIPES)}", repr(name))
    module, _, attribute = RECIPES[name].partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), attribute)


def listing() -> list[tuple[str, str]]:
    """Name and description of every recipe."""
    return [(name, find_recipe(name).about) for name in RECIPES]


def layer_rules(module: nnx.Module, recipe: Recipe, config: Config) -> list[Rule]:
    """One rule for each leaf of the network, by the kind of layer it belongs to."""
    layers = {
        ".".join(map(str, path)): node
        for path, node in nnx.iter_graph(module)
        if isinstance(node, nnx.Module)
    }
    special = recipe.special(config)
    rules = []
    for leaf in leaves(module):
        if leaf in special:
            key, transform = special[leaf]
        else:
            layer, _, variable = leaf.rpartition(".")
            name, transform = _leaf(layers[layer], variable)
            source = recipe.source(layer, config)
            key = f"{source}.{name}" if source else name
        # A template expands backslashes: a path has none.
        rules.append(Rule(re.escape(key), leaf, transform))
    return rules


def _leaf(layer: nnx.Module, variable: str) -> tuple[str, str | Transform]:
    """Return a variable's name in PyTorch and the change of its layout."""
    if isinstance(layer, nnx.BatchNorm):
        return {
            "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var",
        }[variable], "identity"  # fmt: skip
    if isinstance(layer, LayerNorm):
        name = {"scale": "weight", "bias": "bias"}[variable]
        return name, lambda x: chw_to_hwc(x) if x.ndim == 3 else x
    if variable == "bias":
        return "bias", "identity"
    if isinstance(layer, GroupNorm | PReLU):
        return "weight", "identity"
    if variable == "embedding":
        return "weight", "identity"
    if isinstance(layer, TransposedConvolution):
        return "weight", deconv(layer.groups)
    if isinstance(layer, ConvTranspose):
        return "weight", "deconv"
    if isinstance(layer, Conv | Depthwise | UpConv):
        return "weight", "conv"
    if isinstance(layer, nnx.Linear):
        return "weight", "dense"
    return variable, "identity"


def shape_of(state: State, key: str, rank: int, recipe: str) -> tuple[int, ...]:
    """Return a tensor's shape, for reading a configuration from it.

    Raises:
      InputError: if it is not there or of another rank.
    """
    if key not in state:
        some = ", ".join(list(state)[:5])
        raise InputError(
            f"recipe {recipe}: no {key!r} in the state dict, whose first entries are {some}; "
            "is it another network, or in a checkpoint under --key?"
        )
    shape = tuple(state[key].shape)
    if len(shape) != rank:
        raise InputError(f"recipe {recipe}: {key}: expected {rank} axes; got shape {shape}")
    return shape
