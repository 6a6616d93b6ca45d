"""The DCGAN family (Radford et al. 2016): any depth, width and kernel, read from the shapes.

What shapes do not say has the paper's defaults and can be set: strides, paddings, the slope
of the activation, eps, the output. A generator's first layer is a transposed convolution of
a 1x1 image or a matrix; batch normalisation stands where the state dict has it.
"""

from __future__ import annotations

import math
from typing import Any

from jaxgen.core.errors import InputError, expected
from jaxgen.models.ported.sequential import MOST_LAYERS, check_layers
from weights_convert.recipes import Config, Option, Recipe, State
from weights_convert.recipes.sequential_file import layers_assumed, reference, source
from weights_convert.sequential import groups, one_or_two

__all__ = ["DISCRIMINATOR", "GENERATOR", "normalisation"]


def _options(slope: float, first: bool) -> dict[str, Option]:
    end = "the first" if first else "the last"
    return {
        "stride": Option(
            "of every convolution, a number or a list", f"2, but 1 for {end} if it has one pixel"
        ),
        "padding": Option(
            "of every convolution, a number or a list", f"1, but 0 for {end} if it has one pixel"
        ),
        "slope": Option("of the leaky ReLU between layers; 0 is ReLU", slope),
        "eps": Option("of batch normalisation", 1e-5),
    }


def _generator(state: State, options: Config) -> dict[str, Any]:
    chain = _chain(state, "dcgan")
    convs = [path for path, kind in chain if kind == "conv"]
    stride = _each(options, "stride", [2] * len(convs))
    padding = _each(options, "padding", [1] * len(convs))
    if chain[0][1] == "batch_norm":
        raise InputError("recipe dcgan: the first layer is batch normalisation; see `sequential`")
    first = state[f"{chain[0][0]}.weight"]
    layers: list[dict[str, Any]] = []
    if chain[0][1] == "conv":
        latent = first.shape[0]
        if "stride" not in options:
            stride[0] = 1
        if "padding" not in options:
            padding[0] = 0
        layers.append({"type": "unflatten", "shape": [latent, 1, 1]})
    else:
        latent = first.shape[1]
    act = _activation(options, 0.0)
    last = chain[-1][0] if chain[-1][1] != "batch_norm" else None
    if last is None:
        raise InputError("recipe dcgan: the last layer is batch normalisation, not a convolution")
    for number, (path, kind) in enumerate(chain):
        weight = state.get(f"{path}.weight", first)
        if kind == "batch_norm":
            layers.append(normalisation(path, state, options))
        elif kind == "linear":
            if number or not convs:
                raise InputError(f"recipe dcgan: {path}: a matrix that is not the first layer")
            channels = state[f"{convs[0]}.weight"].shape[0]
            side = round((weight.shape[0] / max(channels, 1)) ** 0.5)
            layers.append(_layer("linear", path, state, out=weight.shape[0]))
            layers.append({"type": "unflatten", "shape": [channels, side, side]})
        else:
            i = convs.index(path)
            layers.append(
                _layer("conv_transpose", path, state, out=weight.shape[1],
                       kernel=one_or_two(weight.shape[2:]), stride=stride[i],
                       padding=padding[i])
            )  # fmt: skip
        if path != last and (number + 1 == len(chain) or chain[number + 1][1] != "batch_norm"):
            layers.append(act)
    output = options.get("output", "tanh")
    if output not in ("tanh", "sigmoid"):
        raise expected("output", '"tanh" or "sigmoid"', repr(output))
    layers += [{"type": "tanh"}, {"type": "to_unit"}] if output == "tanh" else [{"type": output}]
    return _finish([latent], layers)


def _discriminator(state: State, options: Config) -> dict[str, Any]:
    chain = _chain(state, "dcgan-discriminator")
    convs = [path for path, kind in chain if kind == "conv"]
    if len(convs) + sum(kind == "batch_norm" for _, kind in chain) != len(chain):
        raise InputError("recipe dcgan-discriminator: only convolutions and batch normalisation")
    if chain[-1][1] != "conv":
        raise InputError("recipe dcgan-discriminator: the last layer is no convolution")
    stride = _each(options, "stride", [2] * (len(convs) - 1) + [1])
    padding = _each(options, "padding", [1] * (len(convs) - 1) + [0])
    kernels = [state[f"{path}.weight"].shape[2] for path in convs]
    size = 1
    for k, s, p in reversed(list(zip(kernels, stride, padding, strict=True))):
        size = (size - 1) * s + k - 2 * p
    size = options.get("size", size)
    if type(size) is not int or not 1 <= size <= 1 << 14:
        raise expected("size", "the side of the image in pixels", repr(size))
    act = _activation(options, 0.2)
    layers: list[dict[str, Any]] = [{"type": "from_unit"}]
    for number, (path, kind) in enumerate(chain):
        if kind == "batch_norm":
            layers.append(normalisation(path, state, options))
        else:
            i = convs.index(path)
            layers.append(
                _layer("conv", path, state, out=state[f"{path}.weight"].shape[0],
                       kernel=kernels[i], stride=stride[i], padding=padding[i])
            )  # fmt: skip
        if path != convs[-1] and chain[number + 1][1] != "batch_norm":
            layers.append(act)
    layers += [{"type": "flatten"}, {"type": "scalar"}]
    return _finish([size, size, state[f"{convs[0]}.weight"].shape[1]], layers)


def _finish(input_shape: list[int], layers: list[dict[str, Any]]) -> dict[str, Any]:
    named = [{"name": str(i), **layer} for i, layer in enumerate(layers)]
    return {"input_shape": input_shape, "layers": check_layers(input_shape, named)[0]}


def _chain(state: State, recipe: str) -> list[tuple[str, str]]:
    found = groups(state)
    unknown = [path for path, kind in found.items() if kind == "unknown"]
    if unknown or not found or "conv" not in found.values():
        raise InputError(
            f"recipe {recipe}: expected convolutions and batch normalisation; "
            f"got {len(found)} layers, not understood: {', '.join(unknown[:20]) or 'none'}"
        )
    if len(found) > MOST_LAYERS:
        raise expected(f"recipe {recipe}", f"at most {MOST_LAYERS} layers", f"{len(found)}")
    return list(found.items())


def _each(options: Config, name: str, default: list[int]) -> list[int]:
    value = options.get(name, default)
    value = [value] * len(default) if type(value) is int else value
    if not isinstance(value, list | tuple):
        raise expected(name, f"a number or {len(default)} numbers", repr(value))
    value = list(value)
    if len(value) != len(default) or not all(type(n) is int for n in value):
        raise expected(name, f"a number or {len(default)} numbers", value)
    return value


def _activation(options: Config, default: float) -> dict[str, Any]:
    slope = options.get("slope", default)
    if type(slope) not in (int, float) or not 0 <= slope < math.inf:
        raise expected("slope", "a number of at least 0", repr(slope))
    slope = float(slope)
    return {"type": "leaky_relu", "slope": slope} if slope else {"type": "relu"}


def normalisation(path: str, state: State, options: Config) -> dict[str, Any]:
    """Return a layer of batch normalisation, with or without weights of its own."""
    affine = f"{path}.weight" in state
    return {
        "type": "batch_norm", "eps": options.get("eps", 1e-5), "affine": affine, "source": path,
    }  # fmt: skip


def _layer(kind: str, path: str, state: State, **settings: object) -> dict[str, Any]:
    return {"type": kind, "source": path, "bias": f"{path}.bias" in state, **settings}


GENERATOR = Recipe(
    name="dcgan",
    about="DCGAN generators: transposed convolutions, BatchNorm or not; latent to image",
    architecture="sequential.Sequential",
    config=_generator,
    source=source,
    options={
        **_options(0.0, True),
        "output": Option('"tanh" (images in [-1, 1], mapped to [0, 1]) or "sigmoid"', "tanh"),
    },
    assumed=layers_assumed,
    metadata=lambda config: {"kind": "generator", "preprocessing": "latent standard normal"},
    reference=reference,
)

DISCRIMINATOR = Recipe(
    name="dcgan-discriminator",
    about="DCGAN discriminators: strided convolutions; image to the logit of being real",
    architecture="sequential.Sequential",
    config=_discriminator,
    source=source,
    options={
        **_options(0.2, False),
        "size": Option("side of the image", "that for which the last output is one pixel"),
    },
    assumed=layers_assumed,
    metadata=lambda config: {
        "kind": "discriminator",
        "preprocessing": "image in [0, 1], mapped to [-1, 1] by the network; no last sigmoid",
    },
    reference=reference,
)
