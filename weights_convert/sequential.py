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
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.core.errors import InputError, expected
from jaxgen.core.toml import parse_toml
from jaxgen.models.ported.sequential import LAYERS, MOST_LAYERS, check_layers
from weights_convert.torch_names import TORCH_TYPES, translate

__all__ = ["complete", "groups", "one_or_two", "read_description"]

_MAX_BYTES = 500_000
_MAX_YAML = 100_000  # its reader is slow,
_DEEPEST = 20  # and quadratic in the depth

_OURS = ("to_unit", "from_unit", "standardise", "scalar", "pixel_norm")


def read_description(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a description; `.yaml` and `.yml` as YAML, anything else as TOML.

    Raises:
      InputError: for text that is neither, or holds something else.
    """
    path = Path(path)
    try:
        limit = _MAX_YAML if path.suffix in (".yaml", ".yml") else _MAX_BYTES
        if not path.is_file():
            raise InputError(f"{path}: expected a TOML or YAML file; there is none")
        if path.stat().st_size > limit:
            raise InputError(f"{path}: a description of more than {limit} bytes")
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from None
    try:
        found = _yaml(text) if path.suffix in (".yaml", ".yml") else parse_toml(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: {str(error)[:300]}") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected a table with input and layer")
    return found


def complete(description: Mapping[str, Any], state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the configuration of `jaxgen.models.ported.sequential.Sequential`.

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
    if len(layers) > MOST_LAYERS:
        raise expected("layer", f"at most {MOST_LAYERS} layers", len(layers))
    prefix = str(description.get("prefix", ""))
    made: list[dict[str, Any]] = []
    sizes: list[dict[str, Any]] = []
    wrong: list[str] = []
    position = 0
    for number, layer in enumerate(layers):
        layer = dict(layer)
        kind = layer.pop("type", None)
        if not isinstance(kind, str) or kind not in (*TORCH_TYPES, *LAYERS):
            known = ", ".join((*TORCH_TYPES, *LAYERS))
            wrong.append(f"layer {number}: unknown type {kind!r:.80}, known: {known}")
            continue
        counts = layer.pop("position", kind not in _OURS)
        source = layer.pop("source", f"{prefix}{position}")
        if type(counts) is not bool or not isinstance(source, str):
            wrong.append(f"layer {number} ({kind}): expected position true or false, source text")
            continue
        position += counts
        kind, settings, given, mistakes = translate(kind, layer)
        wrong += [f"layer {number} ({kind}): {mistake}" for mistake in mistakes]
        names = {"type": kind, "name": str(len(made)), "source": source}
        read = _from_weights(kind, source, state)
        wrong += [
            f"layer {number} ({kind}): {name}: the weights at {source!r} say {read[name]}, the "
            f"description {settings[name]!r:.80}"
            for name in read
            if name in settings and not _agree(settings[name], read[name])
        ]
        made.append(read | settings | names)
        sizes.append(given)
    if wrong:
        raise expected("description", "layers with PyTorch's settings", "; ".join(wrong))
    input_shape = size if len(size) == 1 else [*size[1:], size[0]]
    complete, shapes = check_layers(input_shape, made)
    for number, (given, shape) in enumerate(zip(sizes, shapes, strict=False)):
        for name, value in given.items():
            # PyTorch's axis of features or channels: the first after the batch.
            allowed = (1, -len(shape)) if name == "dim" else (shape[-1],)
            if type(value) is not int or value not in allowed:
                field = f"layer {number} ({complete[number]['type']}): {name}"
                raise expected(field, " or ".join(map(str, allowed)), f"{value!r:.80}")
    return {"input_shape": input_shape, "layers": complete}


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


def _from_weights(kind: str, source: str, state: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return what the weights of a layer say of its settings."""
    weight = state.get(f"{source}.weight")
    bias = f"{source}.bias" in state
    if kind in ("batch_norm", "instance_norm", "group_norm"):
        return {"affine": weight is not None}
    if kind == "layer_norm":
        return {"affine": weight is not None, "bias": bias}
    if kind == "prelu" and weight is not None:
        return {"count": int(weight.size)}
    if weight is None or kind not in ("linear", "conv", "conv_transpose"):
        return {}
    found: dict[str, Any] = {"bias": bias}
    if kind == "linear" and weight.ndim == 2:
        found["out"] = int(weight.shape[0])
    if kind == "conv" and weight.ndim == 4:
        found["out"] = int(weight.shape[0])
    if kind != "linear" and weight.ndim == 4:
        found["kernel"] = one_or_two(weight.shape[2:])
    return found


def _agree(given: object, read: object) -> bool:
    """Return whether a setting agrees with the weights; the schema checks its type."""
    if isinstance(given, list | tuple):
        given = given[0] if len(set(map(str, given))) == 1 else list(given)
    return type(given) is not type(read) or given == read


def one_or_two(numbers: Sequence[int]) -> Any:
    """Return a pair of sizes as a setting: one number where they are equal."""
    sizes = [int(n) for n in numbers]
    return sizes[0] if len(set(sizes)) == 1 else sizes


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise InputError(
            "a YAML description needs PyYAML: pip install pyyaml, or use TOML"
        ) from None
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", text):
        depth += 1 if bracket in "[{" else -1
        if depth > _DEEPEST:
            raise ValueError(f"brackets in brackets, over {_DEEPEST} deep")
    if re.search(rf"(-[ \t]+){{{_DEEPEST}}}", text):
        raise ValueError(f"lists in lists, over {_DEEPEST} deep")
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ValueError("YAML aliases are not allowed")
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def known_types() -> Sequence[str]:
    """Every type a description may name."""
    return (*TORCH_TYPES, *LAYERS)
