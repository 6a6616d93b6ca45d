"""MobileStyleGAN, FFHQ, 1024 px: one graph from the latent to images of four sizes.

Belousov 2021, "MobileStyleGAN: a lightweight convolutional neural network for high-fidelity
image synthesis", as the PyPI package `random-face` holds it: a mapping network z -> w and a
synthesis network w -> image, each an OpenVINO IR. The graph made here is

    z -> mapping -> w = mean + psi (mapping(z) - mean) -> synthesis -> 0.5 img + 0.5.

The mean is that of 4,096 draws, as in the package. The images at 512 px are the low-pass band of
the last wavelet level, which is the mean of every 2 x 2 pixels of the large image, exactly.
The network has no image at 256 and 128 px: its heads for those were left out by its exporter.
There the image is a linear readout of the features, fitted to the means of 4 x 4 and 8 x 8
pixels of drawn images; how well it fits images that it was not fitted to is measured and
recorded. Smaller images yet, and P space: `weights_convert.wheels.mobilestylegan_small`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxgen.models.tensor_ops import TensorGraph
from jaxgen.models.tensor_ops.variants import variant_of
from weights_convert.openvino import operators as _operators  # noqa: F401
from weights_convert.openvino.reader import read_openvino
from weights_convert.tensor_graph.lowering import Converted, lower
from weights_convert.wheels.mobilestylegan_small import with_p_space, with_small_images

__all__ = ["LATENT", "PSI", "READOUTS", "assembled", "convert", "fitted"]

LATENT = 512
PSI = 0.7
_DRAWS = 4096
_FITTED, _HELD_OUT = 24, 8

READOUTS = {256: "synthesis/LeakyRelu_642", 128: "synthesis/LeakyRelu_542"}
"""Side of the image -> the layer whose features are read out."""

_LOW_BAND = "synthesis/Slice_764/Split"
_IMAGE = "synthesis/img"


def convert(folder: Path) -> tuple[Mapping[str, np.ndarray], Mapping[str, Any]]:
    """Return the network from the four files in a folder, its readouts fitted."""
    parts = [
        lower(read_openvino(folder / f"{part}Network.xml")) for part in ("Mapping", "Synthesis")
    ]
    return with_p_space(with_small_images(fitted(assembled(*parts)))).stored


def assembled(mapping: Converted, synthesis: Converted, *, size: int = 1024) -> Converted:
    """One graph of both networks, its readouts still zero.

    Args:
      mapping: as the lowering gives them.
      synthesis: likewise.
      size: the side of the image.
    """
    first, arrays = _prefixed(mapping, "mapping", {"var": "z"})
    second, more = _prefixed(synthesis, "synthesis", {"style": "w"})
    arrays |= more
    mean = _mean_style(mapping)
    layers = [
        *first,
        _layer(arrays, "truncation", "Towards", "mapping/style", "w",
               {"input1": mean[None], "input2": np.float32(PSI)}),
        *second,
        _layer(arrays, "to_image", "Scaled", _IMAGE, "image",
               {"input1": np.float32(0.5), "input2": np.float32(0.5)}),
        # The band is twice the mean of the pixels.
        _layer(arrays, "to_image_half", "Scaled", _LOW_BAND, f"image_{size // 2}",
               {"input1": np.float32(0.25), "input2": np.float32(0.5)}),
    ]  # fmt: skip
    shapes = _channels(first + second, arrays)
    for side, source in READOUTS.items():
        layers.append({
            "name": f"to_image_{side}", "type": "Conv", "bottoms": [source],
            "tops": [f"image_{side}"], "config": {},
            "parameters": {"kernel": [1, 1, shapes[source], 3], "bias": [3]},
        })  # fmt: skip
        arrays[f"to_image_{side}"] = {
            "kernel": np.zeros((1, 1, shapes[source], 3), np.float32),
            "bias": np.zeros(3, np.float32),
        }
    style = [{"name": "w", "shape": [1, LATENT], "batch_axis": 0}]
    small = (size // 2, *READOUTS)
    variants: dict[str, Any] = {str(n): {"outputs": [f"image_{n}"]} for n in small}
    variants["mapping"] = {"kind": "mapping", "outputs": ["mapping/style"]}
    variants["synthesis"] = {"inputs": style, "outputs": ["image"]}
    for n in small:
        variants[f"synthesis-{n}"] = {"inputs": style, "outputs": [f"image_{n}"]}
    description = {
        "format": mapping.description["format"],
        "name": "MobileStyleGAN",
        "inputs": [{"name": "z", "shape": [1, LATENT], "batch_axis": 0}],
        "layers": layers,
        "outputs": ["image"],
        "variants": variants,
    }
    metadata = {
        "kind": "generator",
        "converter": "weights_convert.wheels.mobilestylegan 2",
        "truncation": PSI,
    }
    return Converted(description, arrays, metadata, mapping.folded + synthesis.folded)


def fitted(converted: Converted, fit: int = _FITTED, held_out: int = _HELD_OUT) -> Converted:
    """Return the graph with readouts fitted by least squares to untruncated draws.

    Let x be the features of a pixel and a 1, y the mean of the pixels under it: the readout is
    (sum x x^T)^-1 sum x y^T over all pixels of `fit` images, and its error is measured on
    `held_out` others: R^2, and the root mean square error of colours in [0, 1].
    """
    whole = variant_of(converted.description, "synthesis")
    wanted = {**whole, "outputs": ["image", *READOUTS.values()]}
    names = {layer["name"] for layer in wanted["layers"]}
    graph = TensorGraph(wanted, {k: v for k, v in converted.arrays.items() if k in names})
    graphdef, state = nnx.split(graph)

    @jax.jit
    def sums(weights: Any, w: Any) -> Any:
        found = nnx.merge(graphdef, weights)(w)
        image = found["image"]
        result = {}
        for side, source in READOUTS.items():
            x = found[source].reshape(side * side, -1)
            x = jnp.concatenate([x, jnp.ones((side * side, 1), x.dtype)], 1)
            y = image.reshape(side, image.shape[0] // side, side, -1, 3).mean((1, 3))
            y = y.reshape(-1, 3)
            result[side] = (x.T @ x, x.T @ y, y.T @ y, y.sum(0))
        return result

    styles = _styles(converted, fit + held_out)
    totals: dict[int, list[list[np.ndarray]]] = {side: [] for side in READOUTS}
    with jax.default_matmul_precision("highest"):
        for w in styles:
            for side, arrays in sums(state, w).items():
                totals[side].append([np.asarray(a, np.float64) for a in arrays])
    arrays, figures = dict(converted.arrays), {}
    for side, rows in totals.items():
        xx, xy, _, _ = (np.sum(part, 0) for part in zip(*rows[:fit], strict=True))
        solution = np.linalg.solve(xx + 1e-7 * np.trace(xx) / len(xx) * np.eye(len(xx)), xy)
        arrays[f"to_image_{side}"] = {
            "kernel": solution[:-1][None, None].astype(np.float32),
            "bias": solution[-1].astype(np.float32),
        }
        xx, xy, yy, y = (np.sum(part, 0) for part in zip(*rows[fit:], strict=True))
        pixels = held_out * side * side
        # Rounding can make the error of an exact fit negative.
        error = max(np.trace(solution.T @ xx @ solution - 2 * solution.T @ xy + yy), 0.0)
        spread = np.trace(yy) - (y @ y) / pixels
        figures[f"readout_{side}"] = {
            "r2": float(1 - error / spread),
            "rmse": float(np.sqrt(error / pixels / 3)),
            "images": held_out,
        }
    metadata = {**converted.metadata, "figures": figures}
    return converted._replace(arrays=arrays, metadata=metadata)


def _mean_style(mapping: Converted) -> np.ndarray:
    """Return the mean of w over draws of z, in float64."""
    z = jax.random.normal(jax.random.key(0), (_DRAWS, LATENT))
    w = jax.jit(lambda network, z: network(z))(mapping.network, z)
    return np.asarray(w, np.float64).mean(0).astype(np.float32)


def _styles(converted: Converted, count: int) -> Any:
    """Draws of w."""
    description = variant_of(converted.description, "mapping")
    names = {layer["name"] for layer in description["layers"]}
    graph = TensorGraph(description, {k: v for k, v in converted.arrays.items() if k in names})
    return graph(jax.random.normal(jax.random.key(1), (count, LATENT)))


def _prefixed(
    converted: Converted, prefix: str, inputs: Mapping[str, str]
) -> tuple[list[dict[str, Any]], dict[str, dict[str, np.ndarray]]]:
    """Layers and arrays with a prefix to all names, but for inputs, which are renamed."""

    def named(tensor: str) -> str:
        return inputs.get(tensor, f"{prefix}/{tensor}")

    layers = [
        {**layer, "name": f"{prefix}/{layer['name']}",
         "bottoms": [named(b) for b in layer["bottoms"]],
         "tops": [named(t) for t in layer["tops"]]}
        for layer in converted.description["layers"]
    ]  # fmt: skip
    return layers, {f"{prefix}/{name}": found for name, found in converted.arrays.items()}


def _channels(
    layers: list[dict[str, Any]], arrays: Mapping[str, Mapping[str, np.ndarray]]
) -> dict[str, int]:
    """Tensor -> its channels, for the features that are read out: those of the last kernel."""
    channels: dict[str, int] = {}
    for layer in layers:
        kernel = arrays.get(layer["name"], {}).get("kernel")
        before = [channels[b] for b in layer["bottoms"] if b in channels]
        for top in layer["tops"]:
            if kernel is not None:
                channels[top] = kernel.shape[3]
            elif before:
                channels[top] = before[0]
    return channels


def _layer(
    arrays: dict[str, dict[str, np.ndarray]],
    name: str,
    kind: str,
    bottom: str,
    top: str,
    constants: Mapping[str, Any],
) -> dict[str, Any]:
    arrays[name] = {k: np.asarray(v, np.float32) for k, v in constants.items()}
    positions = sorted(int(k.removeprefix("input")) for k in constants)
    return {
        "name": name, "type": kind, "bottoms": [bottom], "tops": [top],
        "config": {"constants": positions},
        "parameters": {k: list(np.shape(v)) for k, v in arrays[name].items()},
    }  # fmt: skip
