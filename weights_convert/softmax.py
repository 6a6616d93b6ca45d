"""Cut the softmax that ends a classifier, so that the converted network gives logits.

`jaxgen`'s conditions on a class take logits: of probabilities they would take the softmax once
more, which flattens them (0.23 where 1.0 is right for a digit that LeNet is sure of). Nearly
every `deploy.prototxt` and many described networks end in a softmax, which carries no weights:

    softmax(x) = exp(x) / sum(exp(x)),   so log softmax(logits) = log of what was cut.

Only a softmax over one vector of classes is cut. One over the channels of every pixel, or of
every step of a sequence, stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["cut_from_graph", "cut_from_layers", "cut_from_tensors", "said"]

_IDLE = ("identity", "dropout", "flatten")


def said(layers: Sequence[str]) -> str:
    """Return what the metadata says of the output where layers were cut."""
    return f"logits; the source's last softmax ({', '.join(layers)}) was cut"


def cut_from_layers(
    layers: Sequence[Mapping[str, Any]], output_shape: Sequence[int]
) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Return a list of `jaxgen.models.ported.sequential` without its last softmax.

    Args:
      layers: the description, completed.
      output_shape: of the network, for one sample.

    Returns:
      The layers, and the names of those that were cut, none or one.
    """
    kept = [dict(layer) for layer in layers]
    last = len(kept) - 1
    while last >= 0 and kept[last]["type"] in _IDLE:
        last -= 1
    if last < 1 or kept[last]["type"] != "softmax" or len(output_shape) != 1:
        return kept, ()
    name = str(kept.pop(last)["name"])
    return kept, (name,)


def cut_from_graph(
    description: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return a graph's description without the softmax layers whose tops are its outputs.

    Args:
      description: see `jaxgen.models.caffe.graph`.
      shapes: blob -> its shape in Caffe's order, as it is last written.

    Returns:
      The description, and the names of the layers that were cut.
    """
    layers = list(description["layers"])
    outputs = list(description["outputs"])
    cut: list[str] = []
    for place, output in enumerate(outputs):
        writers = [i for i, layer in enumerate(layers) if output in layer["tops"]]
        if not writers:
            continue
        number = writers[-1]
        layer = layers[number]
        read = any(output in other["bottoms"] for other in layers[number + 1 :])
        if layer["type"] != "Softmax" or read or len(layers) < 2:
            continue
        shape, axis = tuple(shapes[output]), layer["config"].get("axis", 1)
        # The first axis is the batch's; blobs of three axes are sequences, (T, N, ...).
        axis = axis % len(shape) if shape else 0
        alone = all(n == 1 for i, n in enumerate(shape) if i not in (0, axis))
        if len(shape) not in (2, 4) or axis == 0 or not alone:
            continue
        bottom = layer["bottoms"][0]
        outputs[place] = bottom
        cut.append(layer["name"])
        del layers[number]
    return {**description, "layers": layers, "outputs": outputs}, tuple(cut)


def cut_from_tensors(
    description: Mapping[str, Any], shapes: Mapping[str, Sequence[int]]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return a tensor graph's description without the softmax layers that make its outputs.

    Args:
      description: see `jaxgen.models.tensor_ops.graph`.
      shapes: tensor -> its shape, the batch axis first.

    Returns:
      The description, and the names of the layers that were cut.
    """
    layers = list(description["layers"])
    outputs = list(description["outputs"])
    cut: list[str] = []
    for place, output in enumerate(outputs):
        made = {top: layer for layer in layers for top in layer["tops"]}
        name = output
        while name in made and made[name]["type"] == "Identity":
            name = made[name]["bottoms"][0]
        layer = made.get(name)
        if layer is None or layer["type"] != "Softmax" or len(layers) < 2:
            continue
        ends = {name, output}
        others = [entry for entry in layers if not ends & set(entry["tops"])]
        read = any(ends & set(entry["bottoms"]) for entry in others)
        shape = tuple(shapes.get(name, ()))
        axes = {axis % len(shape) for axis in layer["config"]["axes"]} if shape else {0}
        alone = all(n == 1 for i, n in enumerate(shape) if i not in axes)
        # A log-softmax may stay: the log-softmax of one is itself.
        if read or layer["config"]["log"] or 0 in axes or not alone:
            continue
        if output in outputs[:place] + outputs[place + 1 :]:
            continue
        outputs[place] = layer["bottoms"][0]
        cut.append(layer["name"])
        layers = [entry for entry in layers if not ends & set(entry["tops"])]
    return {**description, "layers": layers, "outputs": outputs}, tuple(cut)
