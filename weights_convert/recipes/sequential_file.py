"""Any `Sequential`, from a description in a file: `--set description=net.toml`."""

from __future__ import annotations

from typing import Any

from jaxgen.core.errors import expected
from jaxgen.models.ported.sequential import check_layers
from jaxgen.models.ported.sequential_schema import SCHEMA
from weights_convert.recipes import Config, Option, Recipe, State
from weights_convert.sequential import complete, read_description
from weights_convert.torch_names import TORCH_SETTINGS

__all__ = ["RECIPE", "layers_assumed", "reference", "source"]


def source(path: str, config: Config) -> str:
    """Return where the weights of `layers.NAME` lie in the state dict."""
    name = path.removeprefix("layers.")
    return next(layer["source"] for layer in config["layers"] if layer["name"] == name)


def reference(config: Config) -> Any:
    """Return the same layers in torch."""
    from weights_convert.reference_sequential import sequential

    layers, shapes = check_layers(config["input_shape"], config["layers"])
    return sequential(layers, shapes, lambda layer: layer["source"])


def _config(state: State, options: Config) -> dict[str, Any]:
    description = options.get("description")
    if isinstance(description, str):
        description = read_description(description)
    if not isinstance(description, dict):
        raise expected("description", "the path of a TOML or YAML file", description)
    return complete(description, state)


def layers_assumed(config: Config, options: Config) -> dict[str, Any]:
    """Return what a recipe for lists of layers took for granted, in the words of its options.

    Options that were given are left out.
    """
    layers = config["layers"]
    found: dict[str, Any] = {}
    between = [x for x in layers[:-1] if x["type"] in _ACTIVATIONS]
    names = sorted({_activation(layer) for layer in between})
    last = [layer["type"] for layer in layers if layer["type"] in _OUTPUTS]
    if "slope" not in options and "activation" not in options and names:
        found["activation"] = ", ".join(names)
    eps = sorted({layer["eps"] for layer in layers if "eps" in layer})
    if "eps" not in options and eps:
        found["eps"] = eps[0] if len(eps) == 1 else eps
    for name in ("stride", "padding"):
        values = [layer[name] for layer in layers if layer["type"] in ("conv", "conv_transpose")]
        if name not in options and values:
            found[name] = values
    if "output" not in options:
        words = last[-1:]
        if any(layer["type"] == "to_unit" for layer in layers):
            words = [*words, "mapped from [-1, 1] to [0, 1]"]
        found["output"] = ", ".join(words) or "the last layer's, as it is"
    if layers[0]["type"] == "from_unit":
        found["input"] = "images in [0, 1], mapped to [-1, 1]"
    return found


_ACTIVATIONS = ("relu", "leaky_relu", "elu", "gelu", "silu", "prelu", "selu", "softplus")
_OUTPUTS = ("tanh", "sigmoid", "softmax", "log_softmax")


def _activation(layer: Config) -> str:
    return f"leaky_relu with slope {layer['slope']}" if "slope" in layer else str(layer["type"])


def _assumed(config: Config, options: Config) -> dict[str, Any]:
    """Return the defaults of settings that the description leaves out, layer by layer."""
    description = options["description"]
    if isinstance(description, str):
        description = read_description(description)
    found: dict[str, Any] = {}
    for number, (given, layer) in enumerate(
        zip(description["layer"], config["layers"], strict=False)
    ):
        names = {TORCH_SETTINGS.get(name, name) for name in given}
        left = {
            name: layer[name]
            for name in SCHEMA[layer["type"]]
            if name in _SILENT and name not in names
        }
        if left:
            words = ", ".join(f"{name} {value}" for name, value in left.items())
            found[f"layer {number} ({layer['type']})"] = words
    return found


_SILENT = ("eps", "slope", "stride", "padding", "alpha", "approximate", "mode", "align_corners")

RECIPE = Recipe(
    name="sequential",
    about="any Sequential of common layers, described in a TOML or YAML file",
    architecture="sequential.Sequential",
    config=_config,
    source=source,
    options={"description": Option("the path of the description, TOML or YAML")},
    assumed=_assumed,
    reference=reference,
)
