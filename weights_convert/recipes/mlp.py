"""Multi-layer perceptrons and the decoders of VAEs: matrices, BatchNorm and activations."""

from __future__ import annotations

import re
from typing import Any

from jaxgen.core.errors import InputError, expected
from jaxgen.models.ported.sequential import check_layers
from weights_convert.recipes import Config, Option, Recipe, State
from weights_convert.recipes.dcgan import normalisation
from weights_convert.recipes.sequential_file import layers_assumed, reference, source
from weights_convert.sequential import groups

__all__ = ["MLP", "VAE_DECODER"]

_OPTIONS = {
    "layers": Option("paths of the layers in their order", "the order of the file"),
    "ignore": Option("regular expressions of keys to leave over", []),
    "activation": Option("between layers", "relu"),
    "slope": Option("of leaky_relu", 0.01),
    "eps": Option("of batch normalisation", 1e-5),
    "output": Option(
        'after the last layer: "identity", "sigmoid", "tanh" (an image is mapped to [0, 1]), ...',
        "identity",
    ),
    "image": Option("[C, H, W] of the output, if it is an image", "a vector"),
    "input_image": Option("[C, H, W] of the input, if it is an image", "a vector"),
}


def _config(state: State, options: Config) -> dict[str, Any]:
    ignored = _texts("ignore", options.get("ignore", []))
    kinds = groups({k: v for k, v in state.items() if not any(re.fullmatch(p, k) for p in ignored)})
    chosen = _texts("layers", options.get("layers", list(kinds)))
    wrong = [path for path in chosen if kinds.get(path) not in ("linear", "batch_norm")]
    if wrong or not chosen:
        raise InputError(f"recipe mlp: no matrix or batch normalisation at {', '.join(wrong)}")
    first = next((path for path in chosen if kinds[path] == "linear"), None)
    if first is None:
        raise InputError("recipe mlp: expected a matrix; got batch normalisation alone")
    layers: list[dict[str, Any]] = []
    shape = [state[f"{first}.weight"].shape[1]]
    if "input_image" in options:
        c, h, w = _chw("input_image", options["input_image"])
        shape = [h, w, c]
        layers.append({"type": "flatten"})
    act: dict[str, Any] = {"type": options.get("activation", "relu")}
    if "slope" in options:
        act["slope"] = options["slope"]
    for i, path in enumerate(chosen):
        if kinds[path] == "batch_norm":
            layers.append(normalisation(path, state, options))
        else:
            bias, out = f"{path}.bias" in state, state[f"{path}.weight"].shape[0]
            layers.append({"type": "linear", "source": path, "out": out, "bias": bias})
        if i + 1 < len(chosen) and kinds[chosen[i + 1]] != "batch_norm":
            layers.append(act)
    layers.append({"type": options.get("output", "identity")})
    if layers[-1]["type"] == "tanh" and "image" in options:
        layers.append({"type": "to_unit"})
    if "image" in options:
        layers.append({"type": "unflatten", "shape": _chw("image", options["image"])})
    named = [{"name": str(i), **layer} for i, layer in enumerate(layers)]
    return {"input_shape": shape, "layers": check_layers(shape, named)[0]}


def _texts(name: str, value: object) -> list[str]:
    if not isinstance(value, list | tuple) or not all(isinstance(text, str) for text in value):
        raise expected(name, "a list of texts", repr(value))
    try:
        return [re.compile(text).pattern for text in value] if name == "ignore" else list(value)
    except re.error as error:
        raise expected(name, "regular expressions", f"{value} ({error})") from error


def _chw(name: str, value: object) -> list[int]:
    if (
        not isinstance(value, list | tuple)
        or len(value) != 3
        or not all(type(n) is int and n >= 1 for n in value)
    ):
        raise expected(name, "[C, H, W]", repr(value))
    return list(value)


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
    ignore=lambda options: _texts("ignore", options.get("ignore", [])),
    options=_OPTIONS,
    assumed=layers_assumed,
    reference=reference,
)

VAE_DECODER = Recipe(
    name="vae-decoder",
    about="decoders of VAEs; as they are, the 784-400-20 VAE of PyTorch's examples (fc3, fc4)",
    architecture="sequential.Sequential",
    config=_decoder,
    source=source,
    ignore=lambda options: _texts("ignore", {**_decoder_defaults(options), **options}["ignore"]),
    options={
        **_OPTIONS,
        "layers": Option("paths of the layers in their order", ["fc3", "fc4"]),
        "ignore": Option("regular expressions of keys to leave over", r"fc1, fc21 and fc22"),
        "output": _OPTIONS["output"]._replace(default="sigmoid"),
        "image": _OPTIONS["image"]._replace(default=[1, 28, 28]),
    },
    assumed=layers_assumed,
    metadata=lambda config: {
        "kind": "generator",
        "preprocessing": "latent standard normal; the output is the mean of every pixel",
    },
    reference=reference,
)
