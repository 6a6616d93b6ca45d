"""A PyTorch `Sequential` described in a few lines of text, so that it needs no recipe.

    input = [100]                      # [features] or PyTorch's [C, H, W]
    prefix = "main."                   # what stands before the positions in the state dict
    [[layer]]
    type = "Unflatten"
    shape = [100, 1, 1]
    position = false                   # not in the Sequential itself
    [[layer]]
    type = "ConvTranspose2d"           # the out channels and the kernel are read from the file
    [[layer]]
    type = "BatchNorm2d"
    ...

Layers stand in the order of the `Sequential` and have its positions as names, unless `source`
gives another. Types and settings may have PyTorch's names or those of
`jaxgen.models.ported.sequential.LAYERS`. TOML, or YAML if PyYAML is there.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.core.errors import InputError, expected
from jaxgen.models.ported.sequential import LAYERS, check_layers

__all__ = ["complete", "groups", "read_description"]

_MAX_BYTES = 1_000_000

_TYPES = {
    "Linear": "linear", "Conv2d": "conv", "ConvTranspose2d": "conv_transpose",
    "BatchNorm1d": "batch_norm", "BatchNorm2d": "batch_norm", "ReLU": "relu",
    "LeakyReLU": "leaky_relu", "ELU": "elu", "GELU": "gelu", "SiLU": "silu",
    "Softplus": "softplus", "Tanh": "tanh", "Sigmoid": "sigmoid", "Softmax": "softmax",
    "LogSoftmax": "log_softmax", "MaxPool2d": "max_pool", "AvgPool2d": "avg_pool",
    "AdaptiveAvgPool2d": "adaptive_avg_pool", "Flatten": "flatten", "Unflatten": "unflatten",
    "Upsample": "upsample", "Identity": "identity", "Dropout": "dropout", "Dropout2d": "dropout",
}  # fmt: skip
_SETTINGS = {
    "out_features": "out", "out_channels": "out", "kernel_size": "kernel",
    "negative_slope": "slope", "ceil_mode": "ceil", "output_size": "size",
    "scale_factor": "factor", "unflattened_size": "shape",
}  # fmt: skip
_KNOWN_FROM_SHAPES = ("in_features", "in_channels", "num_features", "inplace", "dim")
_OURS = ("to_unit", "from_unit", "standardise", "scalar", "pixel_norm")


def read_description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a description; `.yaml` and `.yml` as YAML, anything else as TOML.

    Raises:
      InputError: for text that is neither, or holds something else.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path}: a description of more than {_MAX_BYTES} bytes")
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    try:
        found = _yaml(text) if path.suffix in (".yaml", ".yml") else tomllib.loads(text)
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: {str(error)[:300]}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected a table with input and layer")
    return found


def complete(description: Mapping[str, Any], state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The configuration of `jaxgen.models.ported.sequential.Sequential`.

    Sizes that the description leaves out are read from the state dict.

    Raises:
      InputError: naming every layer that is wrong.
    """
    extra = [name for name in description if name not in ("input", "prefix", "layer")]
    layers = description.get("layer")
    size = description.get("input")
    if extra or not isinstance(layers, list) or not all(isinstance(x, dict) for x in layers):
        raise expected(
            "description", "input, prefix and layer, a list of tables", list(description)
        )
    if (
        not isinstance(size, list)
        or not all(type(n) is int for n in size)
        or len(size) not in (1, 3)
    ):
        raise expected("input", "[features] or [C, H, W]", size)
    prefix = str(description.get("prefix", ""))
    made: list[dict[str, Any]] = []
    position = 0
    for layer in layers:
        layer = dict(layer)
        kind: Any = _TYPES.get(layer.get("type", ""), layer.get("type"))
        counts = layer.pop("position", kind not in _OURS)
        source = layer.pop("source", f"{prefix}{position}")
        position += bool(counts)
        settings: dict[str, Any] = {
            str(_SETTINGS.get(k, k)): v for k, v in layer.items() if k not in _KNOWN_FROM_SHAPES
        }
        names = {"type": kind, "name": str(len(made)), "source": source}
        made.append(_from_weights(kind, source, state) | settings | names)
    input_shape = size if len(size) == 1 else [*size[1:], size[0]]
    return {"input_shape": input_shape, "layers": check_layers(input_shape, made)[0]}


def groups(state: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Path of each layer in a state dict -> "linear", "conv", "batch_norm" or "unknown", in
    the order of the file.
    """
    found: dict[str, str] = {}
    for key in state:
        path = key.rpartition(".")[0]
        if path in found:
            continue
        weight = state.get(f"{path}.weight")
        kind = "unknown"
        if weight is not None:
            kind = {2: "linear", 4: "conv"}.get(weight.ndim, kind)
        found[path] = "batch_norm" if f"{path}.running_mean" in state else kind
    return found


def _from_weights(kind: Any, source: str, state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What the shapes of a layer's weights say of its settings."""
    weight = state.get(f"{source}.weight")
    if weight is None or kind not in ("linear", "conv", "conv_transpose"):
        return {}
    found: dict[str, Any] = {"bias": f"{source}.bias" in state}
    if kind == "linear" and weight.ndim == 2:
        found["out"] = weight.shape[0]
    if kind != "linear" and weight.ndim == 4:
        found["out"] = weight.shape[1 if kind == "conv_transpose" else 0]
        found["kernel"] = weight.shape[2]
    return found


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise InputError(
            "a YAML description needs PyYAML: pip install pyyaml, or use TOML"
        ) from None
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError("YAML aliases are not allowed")
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def known_types() -> Sequence[str]:
    """Every type a description may name."""
    return (*_TYPES, *LAYERS)
