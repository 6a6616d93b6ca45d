"""Multi-layer perceptrons and the decoders of VAEs: matrices, BatchNorm and activations."""

from __future__ import annotations

import re
from typing import Any

from jaxgen.core.errors import InputError, expected
from jaxgen.models.ported.sequential import check_layers
from weights_convert.recipes import Config, Recipe, State
from weights_convert.recipes.sequential_file import reference, source
from weights_convert.sequential import groups

__all__ = ["MLP", "VAE_DECODER"]

_OPTIONS = {
    "layers": "paths of the layers in their order; default: the order of the file",
    "ignore": "regular expressions of keys to leave over",
    "activation": 'between layers, "relu"',
    "slope": "of leaky_relu",
    "eps": "of batch normalisation, 1e-5",
    "output": 'after the last layer, "identity", "sigmoid", "tanh" (mapped to [0, 1]), ...',
    "image": "[C, H, W] of the output, if it is an image",
    "input_image": "[C, H, W] of the input, if it is an image",
}


def _config(state: State, options: Config) -> dict[str, Any]:
    ignored = options.get("ignore", [])
    kinds = groups({k: v for k, v in state.items() if not any(re.fullmatch(p, k) for p in ignored)})
    chosen = options.get("layers", list(kinds))
    wrong = [path for path in chosen if kinds.get(path) not in ("linear", "batch_norm")]
    if wrong or not chosen:
        raise InputError(f"recipe mlp: no matrix or batch normalisation at {', '.join(wrong)}")
    first = next((path for path in chosen if kinds[path] == "linear"), None)
    if first is None:
        raise InputError("recipe mlp: expected a matrix; got batch normalisation alone")
    layers: list[dict[str, Any]] = []
    shape = [state[f"{first}.weight"].shape[1]]
    if "input_image" in options:
        c, h, w = options["input_image"]
        shape = [h, w, c]
        layers.append({"type": "flatten"})
    act: dict[str, Any] = {"type": options.get("activation", "relu")}
    if "slope" in options:
        act["slope"] = float(options["slope"])
    for i, path in enumerate(chosen):
        if kinds[path] == "batch_norm":
            layers.append({"type": "batch_norm", "source": path, "eps": options.get("eps", 1e-5)})
        else:
            bias, out = f"{path}.bias" in state, state[f"{path}.weight"].shape[0]
            layers.append({"type": "linear", "source": path, "out": out, "bias": bias})
        if i + 1 < len(chosen) and kinds[chosen[i + 1]] != "batch_norm":
            layers.append(act)
    layers.append({"type": options.get("output", "identity")})
    if layers[-1]["type"] == "tanh" and "image" in options:
        layers.append({"type": "to_unit"})
    if "image" in options:
        layers.append({"type": "unflatten", "shape": list(options["image"])})
    named = [{"name": str(i), **layer} for i, layer in enumerate(layers)]
    return {"input_shape": shape, "layers": check_layers(shape, named)[0]}


def _decoder(state: State, options: Config) -> dict[str, Any]:
    return _config(state, {**_decoder_defaults(options), **options})


def _decoder_defaults(options: Config) -> dict[str, Any]:
    if ("layers" in options) != ("ignore" in options):
        raise expected("options", "layers and ignore together", ", ".join(options))
    return {
        "layers": ["fc3", "fc4"],
        "ignore": [r"fc(1|21|22)\.(weight|bias)"],
        "output": "sigmoid",
        "image": [1, 28, 28],
    }


MLP = Recipe(
    name="mlp",
    about="multi-layer perceptrons, generators of vectors or flat images among them",
    architecture="sequential.Sequential",
    config=_config,
    source=source,
    ignore=lambda options: options.get("ignore", []),
    options=_OPTIONS,
    reference=reference,
)

VAE_DECODER = Recipe(
    name="vae-decoder",
    about="decoders of VAEs; as they are, the 784-400-20 VAE of PyTorch's examples (fc3, fc4)",
    architecture="sequential.Sequential",
    config=_decoder,
    source=source,
    ignore=lambda options: {**_decoder_defaults(options), **options}["ignore"],
    options=_OPTIONS,
    metadata=lambda config: {
        "kind": "generator",
        "preprocessing": "latent standard normal; the output is the mean of every pixel",
    },
    reference=reference,
)
