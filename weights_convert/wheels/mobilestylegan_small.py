"""Small images of MobileStyleGAN at a small price, and a latent space that is easy to move in.

**Coarse views.** The features of 16 or 32 px alone do not tell an image's colours: later layers,
which the style modulates, change them. So the later layers run too, on the coarse grid, where
they cost little. On a grid f times coarser

- the inverse Haar transform becomes half its low band: the mean of the pixels that it makes,
- a 3 x 3 depthwise convolution (a, b, c in each direction) becomes (a/f, b + (1 - 1/f)(a + c),
  c/f): the block means of its output on an image that is constant in every block,
- the added noise becomes its block means,

and all else works on single pixels and stays as it is. What this leaves out is the curvature of
the activations within a block. The image is a linear readout of the features of all levels,
fitted to block means of drawn images; its error on other draws is measured and recorded.

**P space** (Zhu, Abdal, Qin, Femiani & Wonka 2020, "Improved StyleGAN embedding: where are the
good latents?"). Let x be w before the last activation of the mapping network, with mean m and
covariance A'A over draws of z. Then x = m + v A with v standard normal has the same mean and
covariance. It is another prior than that of z: draws of z have heavier tails in v. But images
depend on v smoothly, and on few directions of it, where they depend on z wildly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxgen.models.tensor_ops import TensorGraph
from jaxgen.models.tensor_ops.variants import variant_of
from weights_convert.tensor_graph.lowering import Converted

__all__ = ["SIDES", "coarse_kernel", "p_space", "with_p_space", "with_small_images"]

SIDES = (16, 32)
"""The sides of the coarse views."""

_SIZES = (16, 32, 64, 128, 256, 512)
_FITTED, _HELD_OUT = 96, 24
_RIDGE = 1e-6
_MAPPED, _BATCH = 16_384, 1024
_SLOPE = 0.2

Layers = list[dict[str, Any]]
Arrays = dict[str, Mapping[str, np.ndarray]]


def coarse_kernel(kernel: np.ndarray, factor: int) -> np.ndarray:
    """Return the depthwise kernel `[3, 3, 1, C]` that acts on means of `factor^2` pixels."""
    for axis in (0, 1):
        a, b, c = np.moveaxis(kernel, axis, 0)
        whole = np.stack([a / factor, b + (1 - 1 / factor) * (a + c), c / factor])
        kernel = np.moveaxis(whole, 0, axis)
    return kernel


def with_small_images(
    converted: Converted, sides: Sequence[int] = SIDES, *, draws: int = _FITTED + _HELD_OUT
) -> Converted:
    """Return the graph with images of a few pixels, as parts "16" and "synthesis-16".

    Args:
      converted: the graph of `weights_convert.wheels.mobilestylegan.assembled`.
      sides: of the images.
      draws: how many images the readouts are fitted to and, a fifth of them, tested on.
    """
    description = dict(converted.description)
    arrays: Arrays = {**converted.arrays}
    layers, variants = list(description["layers"]), dict(description["variants"])
    renames = {}
    for side in sides:
        renames[side] = _on_the_grid(layers, arrays, side)
        _add_readout(layers, arrays, side)
        part = {"outputs": [f"image_{side}"], "rename": renames[side]}
        variants[str(side)] = part
        variants[f"synthesis-{side}"] = {**part, "inputs": variants["synthesis"]["inputs"]}
    description |= {"layers": layers, "variants": variants}
    whole = converted._replace(description=description, arrays=arrays)
    figures = dict(converted.metadata.get("figures", {}))
    readouts, found = _fit(whole, sides, draws)
    return whole._replace(
        arrays={**arrays, **readouts},
        metadata={**converted.metadata, "figures": {**figures, **found}},
    )


def p_space(style: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return m `[D]` and A `[D, D]` of draws of w, `[N, D]`: x = m + v A, v standard normal."""
    x = np.asarray(style, np.float64)
    x = np.where(x > 0, x, x / _SLOPE)
    mean = x.mean(0)
    variance, directions = np.linalg.eigh(np.cov(x.T))
    # The directions in order of falling variance: the first coordinates matter most.
    scale = np.sqrt(np.maximum(variance[::-1], 0.0))
    return mean, scale[:, None] * directions[:, ::-1].T


def with_p_space(converted: Converted, style: np.ndarray | None = None) -> Converted:
    """Return the graph with a part "p-N" beside each image of N pixels, whose input is v.

    Args:
      converted: with its other parts.
      style: draws of w that are not truncated; by default 16,384 are made.
    """
    mean, factor = p_space(_drawn_styles(converted) if style is None else style)
    size = len(mean)
    made = {
        "p/colour": {"input1": factor.astype(np.float32)},
        "p/mean": {"input1": mean[None].astype(np.float32)},
        "p/activation": {"input1": np.full(1, _SLOPE, np.float32)},
    }
    kinds = {"p/colour": "MatMul", "p/mean": "Add", "p/activation": "PRelu"}
    layers: Layers = []
    bottom = "v"
    for name, kind in kinds.items():
        config: dict[str, Any] = {"constants": [1]}
        if kind == "MatMul":
            config |= {"transpose_a": False, "transpose_b": False}
        shapes = {"input1": list(made[name]["input1"].shape)}
        layers.append({"name": name, "type": kind, "bottoms": [bottom], "tops": [name],
                       "config": config, "parameters": shapes})  # fmt: skip
        bottom = name
    description = dict(converted.description)
    variants = dict(description["variants"])
    inputs = [{"name": "v", "shape": [1, size], "batch_axis": 0}]
    outputs = {"": description["outputs"][0]}
    outputs |= {name: part["outputs"][0] for name, part in variants.items() if name.isdecimal()}
    for name, output in outputs.items():
        rename = variants[name].get("rename", {}) if name else {}
        variants[f"p-{name}" if name else "p"] = {
            "inputs": inputs,
            "outputs": [output],
            "rename": {**rename, "mapping/style": bottom},
        }
    description |= {"layers": [*layers, *description["layers"]], "variants": variants}
    return converted._replace(description=description, arrays={**converted.arrays, **made})


def _on_the_grid(layers: Layers, arrays: Arrays, side: int) -> dict[str, str]:
    """Add what replaces later layers on a grid of `side`; returns tensor -> its replacement."""
    rename = {}
    for level, size in enumerate(_SIZES, 1):
        if size <= side:
            continue
        factor, at = size // side, 100 * level
        tensor = f"synthesis/Add_{at + 76}"
        half = {"input1": np.float32(0.5), "input2": np.float32(0.0)}
        low = {"type": "Scaled", "bottoms": [f"synthesis/Slice_{at + 57}/Split"],
               "config": {"constants": [1, 2]}}  # fmt: skip
        _insert(layers, arrays, rename, side, tensor, low, half)
        for conv, noise in ((at + 87, at + 107), (at + 120, at + 140)):
            tensor = f"synthesis/Conv_{conv}"
            kernel = coarse_kernel(np.asarray(arrays[tensor]["kernel"], np.float64), factor)
            _insert(layers, arrays, rename, side, tensor, {}, {**arrays[tensor], "kernel": kernel})
            tensor = f"synthesis/Add_{noise}"
            plane = np.asarray(arrays[tensor]["input1"], np.float64)
            plane = plane.reshape(side, factor, side, factor).mean((1, 3))
            _insert(layers, arrays, rename, side, tensor, {}, {"input1": plane[None, None]})
    return rename


def _insert(
    layers: Layers,
    arrays: Arrays,
    rename: dict[str, str],
    side: int,
    tensor: str,
    changes: Mapping[str, Any],
    constants: Mapping[str, Any],
) -> None:
    """Put a changed copy of the layer that makes a tensor behind it."""
    place = next(i for i, layer in enumerate(layers) if tensor in layer["tops"])
    name = f"grid_{side}/{tensor}"
    arrays[name] = {k: np.asarray(v, np.float32) for k, v in constants.items()}
    shapes = {k: list(np.shape(v)) for k, v in arrays[name].items()}
    copy = {**layers[place], **changes, "name": name, "tops": [name], "parameters": shapes}
    layers.insert(place + 1, copy)
    rename[tensor] = name


def _features(side: int) -> list[str]:
    """Return the features that are read out: of the level of `side` and of all later ones."""
    levels = enumerate(_SIZES, 1)
    return [f"synthesis/LeakyRelu_{100 * i + 142}" for i, size in levels if size >= side]


def _add_readout(layers: Layers, arrays: Arrays, side: int) -> None:
    """Add the convolutions of one pixel whose sum is the image, still zero."""
    bottoms = []
    for source in _features(side):
        number = source.rpartition("_")[2]
        channels = _channels(arrays, int(number))
        name = f"to_image_{side}/{number}"
        arrays[name] = {"kernel": np.zeros((1, 1, channels, 3), np.float32),
                        "bias": np.zeros(3, np.float32)}  # fmt: skip
        layers.append({"name": name, "type": "Conv", "bottoms": [source], "tops": [name],
                       "config": {}, "parameters": {"kernel": [1, 1, channels, 3],
                                                    "bias": [3]}})  # fmt: skip
        bottoms.append(name)
    whole = bottoms[0]
    for i, other in enumerate(bottoms[1:], 1):
        top = f"image_{side}" if i == len(bottoms) - 1 else f"to_image_{side}/sum_{i}"
        layers.append({"name": top, "type": "Add", "bottoms": [whole, other], "tops": [top],
                       "config": {"constants": []}, "parameters": {}})  # fmt: skip
        whole = top


def _channels(arrays: Arrays, number: int) -> int:
    """Return the channels of an activation: those of the convolution before it."""
    return int(np.shape(arrays[f"synthesis/Conv_{number - 21}"]["kernel"])[3])


def _fit(
    whole: Converted, sides: Sequence[int], draws: int
) -> tuple[Arrays, dict[str, dict[str, float]]]:
    """Fit the readouts to truncated draws; returns their arrays and their errors on others."""
    latents = jax.random.normal(jax.random.key(2), (draws, 512))
    fitted = draws - draws // 5
    full = _network(whole, {}, ["image"])
    sums: dict[int, list[Any]] = {side: [0.0, 0.0] for side in sides}
    rest: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {side: [] for side in sides}
    views = {
        side: _network(whole, whole.description["variants"][str(side)]["rename"], _features(side))
        for side in sides
    }
    with jax.default_matmul_precision("highest"):
        for i, z in enumerate(latents):
            image = np.asarray(full(z)["image"], np.float64)
            for side, view in views.items():
                found = view(z)
                parts = [np.asarray(found[k], np.float64) for k in _features(side)]
                ones = np.ones((side * side, 1))
                x = np.concatenate([*(p.reshape(side * side, -1) for p in parts), ones], 1)
                block = image.shape[0] // side
                y = image.reshape(side, block, side, block, 3).mean((1, 3)).reshape(-1, 3)
                if i < fitted:
                    sums[side][0] = sums[side][0] + x.T @ x
                    sums[side][1] = sums[side][1] + x.T @ y
                else:
                    rest[side].append((x.astype(np.float32), y))
    arrays, figures = {}, {}
    for side, (xx, xy) in sums.items():
        ridge = _RIDGE * np.trace(xx) / len(xx) * np.eye(len(xx))
        solution = np.linalg.solve(xx + ridge, xy)
        begin = 0
        for source in _features(side):
            number = source.rpartition("_")[2]
            name = f"to_image_{side}/{number}"
            size = whole.arrays[name]["kernel"].shape[2]
            kernel = solution[begin : begin + size]
            begin += size
            bias = solution[-1] if begin == len(solution) - 1 else np.zeros(3)
            arrays[name] = {"kernel": kernel[None, None].astype(np.float32),
                            "bias": bias.astype(np.float32)}  # fmt: skip
        misses = np.stack([x @ solution - y for x, y in rest[side]])
        truth = np.stack([y for _, y in rest[side]])
        spread = np.mean((truth - truth.mean((0, 1))) ** 2)
        figures[f"readout_{side}"] = {
            "r2": float(1 - np.mean(misses**2) / spread),
            "rmse": float(np.sqrt(np.mean(misses**2))),
            "images": len(misses),
        }
    return arrays, figures


def _network(whole: Converted, rename: Mapping[str, str], outputs: list[str]) -> Any:
    """Return a compiled network of other outputs than those of a part."""
    parts = {"asked": {"outputs": outputs, "rename": rename}}
    description = variant_of({**whole.description, "variants": parts}, "asked")
    names = {layer["name"] for layer in description["layers"]}
    graph = TensorGraph(description, {k: v for k, v in whole.arrays.items() if k in names})
    graphdef, state = nnx.split(graph)

    def run(weights: Any, z: Any) -> dict[str, Any]:
        found = nnx.merge(graphdef, weights)(z)
        return found if isinstance(found, dict) else {outputs[0]: found}

    compiled = jax.jit(run)
    return lambda z: compiled(state, jnp.asarray(z))


def _drawn_styles(converted: Converted) -> np.ndarray:
    """Draws of w, without truncation, `[N, 512]`."""
    mapping = _network(converted, {}, ["mapping/style"])
    keys = jax.random.split(jax.random.key(3), _MAPPED // _BATCH)
    rows = [mapping(jax.random.normal(key, (_BATCH, 512)))["mapping/style"] for key in keys]
    return np.concatenate([np.asarray(row).reshape(_BATCH, -1) for row in rows])
