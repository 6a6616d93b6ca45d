"""Prove a conversion: run both networks on the same input and compare layer by layer.

The error of a layer is max |ours - theirs| / max |theirs| over a batch: relative to the
largest activation of that layer, in float32 on both sides.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxgen.core.errors import InputError, expected
from weights_convert.recipes import Config, Recipe, layer_rules

__all__ = [
    "LayerError",
    "activations",
    "compare_with_torch",
    "layer_errors",
    "layer_sources",
    "table",
]


class LayerError(NamedTuple):
    """One line of the table."""

    layer: str
    source: str
    shape: tuple[int, ...]
    error: float


def activations(module: nnx.Module, *inputs: object) -> tuple[Any, dict[str, Any]]:
    """Return the output, and what every sub-module returned: dotted path -> its last output."""
    graphdef, state = nnx.split(module)

    @jax.jit
    def run(state: object, *inputs: object) -> Any:
        copy = nnx.merge(graphdef, state)
        taps: dict[str, Any] = {}
        for path, layer in list(nnx.iter_graph(copy)):
            if isinstance(layer, nnx.Module) and path and callable(layer):
                _tap(layer, ".".join(map(str, path)), taps)
        return copy(*inputs), taps  # type: ignore[operator]

    output, taps = run(state, *map(jnp.asarray, inputs))
    arrays = {name: np.asarray(tap) for name, tap in taps.items() if isinstance(tap, jax.Array)}
    return np.asarray(output), arrays


def compare_with_torch(
    module: nnx.Module,
    recipe: Recipe,
    config: Config,
    state: Mapping[str, np.ndarray],
    batch: np.ndarray,
    ignored: Sequence[str] = (),
) -> list[LayerError]:
    """Errors of every layer with weights, in the order in which torch runs them, then of the
    output (called "output").

    Args:
      module: the converted network.
      recipe: whose reference to compare with.
      config: the network's configuration.
      state: the state dict as it came, without wrappers' prefixes.
      batch: input of ours, `[N, ...]`, images in [0, 1].
      ignored: regular expressions of keys that the reference need not take.

    Raises:
      InputError: if the recipe has no reference, or the reference does not take the state.
    """
    import torch

    if recipe.reference is None:
        raise expected("recipe", "one with a reference in torch", recipe.name)
    theirs = recipe.reference(config)
    tensors = {key: torch.from_numpy(np.array(value)) for key, value in state.items()}
    missing, unexpected = theirs.load_state_dict(tensors, strict=False)
    unexpected = [key for key in unexpected if not any(re.fullmatch(p, key) for p in ignored)]
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise InputError(
            f"recipe {recipe.name}: the reference lacks {unexpected} and wants {missing}"
        )
    theirs.eval()
    make = recipe.reference_input or _images
    finish = recipe.reference_output or (lambda config, output: output)
    return layer_errors(
        module, theirs, layer_sources(module, recipe, config), batch, make(config, batch),
        lambda output: finish(config, output),
    )  # fmt: skip


def layer_errors(
    module: nnx.Module,
    theirs: Any,
    sources: Mapping[str, str],
    batch: np.ndarray,
    arguments: Sequence[np.ndarray],
    finish: Callable[[np.ndarray], np.ndarray],
    last: Callable[[np.ndarray], np.ndarray] = lambda output: output,
) -> list[LayerError]:
    """Run both networks and compare what they share.

    Args:
      module: the converted network.
      theirs: a torch module in evaluation mode, with its weights.
      sources: path of a layer of ours -> its name in the torch module.
      batch: input of ours.
      arguments: of the torch module, for the same input.
      finish: the torch module's output -> an array like ours.
      last: our output -> what it is compared as.
    """
    import torch

    seen: dict[str, np.ndarray] = {}
    handles = [
        layer.register_forward_hook(
            lambda _, __, out, name=name: seen.__setitem__(
                name,
                out.detach().numpy().copy(),  # the ReLU after it may work in place
            )
        )
        for name, layer in theirs.named_modules()
        if name in sources.values()
    ]
    try:
        with torch.no_grad():
            answer = theirs(*(torch.from_numpy(np.ascontiguousarray(x)) for x in arguments))
    finally:
        for handle in handles:
            handle.remove()
    output, taps = activations(module, batch)
    ours = {source: name for name, source in sources.items() if name in taps}
    rows = [
        _row(ours[source], source, taps[ours[source]], _ours_order(value))
        for source, value in seen.items()
        if source in ours
    ]
    final = _ours_order(finish(answer.detach().numpy()))
    output = last(np.asarray(output))
    if final.shape == (*output.shape, 1):  # a logit with an axis of its own
        final = final[..., 0]
    return [*rows, _row("output", "output", output, final)]


def table(rows: list[LayerError]) -> str:
    """Return the rows as text, largest error last."""
    width = max(len(row.layer) for row in rows)
    lines = [f"{row.layer:<{width}}  {row.error:8.1e}  {row.shape}" for row in rows]
    worst = max(rows, key=lambda row: row.error)
    return "\n".join(
        [
            *lines,
            f"largest relative error {worst.error:.1e} of {len(rows)} layers, at {worst.layer}",
        ]
    )


def layer_sources(module: nnx.Module, recipe: Recipe, config: Config) -> dict[str, str]:
    """Path of a layer with weights -> its path in the state dict, or that of its tap."""
    result = {}
    for rule in layer_rules(module, recipe, config):
        key = rule.source.replace("\\", "")
        result[rule.target.rpartition(".")[0]] = key.rpartition(".")[0]
    result |= recipe.taps(config)
    return {target: source for target, source in result.items() if target and source}


def _images(config: Config, batch: np.ndarray) -> tuple[np.ndarray, ...]:
    """Standardised and with channels first, as torch's own input pipeline would."""
    if batch.ndim == 4:
        if config.get("mean"):
            mean, std = (np.asarray(config[key], np.float32) for key in ("mean", "std"))
            batch = (batch - mean) / std
        batch = np.moveaxis(batch, -1, 1)
    return (batch,)


def _ours_order(value: np.ndarray) -> np.ndarray:
    return np.moveaxis(value, 1, -1) if value.ndim == 4 else value


def _row(layer: str, source: str, ours: np.ndarray, theirs: np.ndarray) -> LayerError:
    if ours.shape != theirs.shape:
        raise InputError(f"{layer}: our activation has shape {ours.shape}, torch's {theirs.shape}")
    scale = max(float(np.abs(theirs).max()), 1e-30)
    error = float(np.abs(ours - theirs).max()) / scale
    return LayerError(layer, source, theirs.shape, error if np.isfinite(error) else np.inf)


def _tap(layer: nnx.Module, name: str, taps: dict[str, Any]) -> None:
    original = type(layer)

    def call(self: nnx.Module, *args: object, **kwargs: object) -> Any:
        output = original.__call__(self, *args, **kwargs)  # type: ignore[operator]
        taps[name] = output
        return output

    made = type(original.__name__, (original,), {"__call__": call})
    object.__setattr__(layer, "__class__", made)
