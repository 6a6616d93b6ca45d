"""Any `Sequential`, from a description in a file: `--set description=net.toml`."""

from __future__ import annotations

from typing import Any

from jaxgen.core.errors import expected
from jaxgen.models.ported.sequential import check_layers
from weights_convert.recipes import Config, Recipe, State
from weights_convert.sequential import complete, read_description

__all__ = ["RECIPE", "reference", "source"]


def source(path: str, config: Config) -> str:
    """Where the weights of `layers.NAME` lie in the state dict."""
    name = path.removeprefix("layers.")
    return next(layer["source"] for layer in config["layers"] if layer["name"] == name)


def reference(config: Config) -> Any:
    """The same layers in torch."""
    from weights_convert.references import sequential

    layers, shapes = check_layers(config["input_shape"], config["layers"])
    return sequential(layers, shapes, lambda layer: layer["source"])


def _config(state: State, options: Config) -> dict[str, Any]:
    description = options.get("description")
    if isinstance(description, str):
        description = read_description(description)
    if not isinstance(description, dict):
        raise expected("description", "the path of a TOML or YAML file", description)
    return complete(description, state)


RECIPE = Recipe(
    name="sequential",
    about="any Sequential of common layers, described in a TOML or YAML file",
    architecture="sequential.Sequential",
    config=_config,
    source=source,
    options={"description": "the path of the description"},
    reference=reference,
)
