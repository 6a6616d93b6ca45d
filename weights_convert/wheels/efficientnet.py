"""EfficientNet-lite0 on ImageNet, from a PyTorch state dict.

Tan and Le 2019, "EfficientNet", and its "lite" form of 2020: no squeeze-and-excitation, ReLU6
for swish, stem and head of fixed width. Blocks of an inverted bottleneck:
1 x 1 convolution to `expand` times the channels, depthwise convolution k x k, 1 x 1 to the
output's channels, each with batch normalisation (eps 1e-3); the input is added where shapes
allow. Strided convolutions are padded as TensorFlow's "same" pads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from weights_convert.tensor_graph.images import Images, with_images
from weights_convert.tensor_graph.lowering import lower
from weights_convert.tensor_graph.program import Node, Program

__all__ = ["BLOCKS", "convert", "efficientnet_program"]

# (repeats, kernel, stride, expand, outputs)
BLOCKS = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip
# Images in [0, 1] to (255 x - 127) / 128.
_IMAGES = Images((127 / 255,), (128 / 255,))
_SIZE = 224


def convert(folder: Path) -> tuple[Mapping[str, np.ndarray], Mapping[str, Any]]:
    """Return the classifier from the package's state dict: logits of ImageNet's 1,000 classes."""
    from weights_convert.torch_files import read_file

    state = read_file(folder / "efficientnet-lite0-57934424.pth")
    converted = lower(efficientnet_program(state), {"kind": "classifier"})
    return with_images(converted, _IMAGES).stored


def efficientnet_program(state: Mapping[str, np.ndarray], size: int = _SIZE) -> Program:
    """Return the network's nodes, for a state dict with the names of its first port to PyTorch."""
    nodes: list[Node] = []
    tensor = "images"

    def add(name: str, op: str, operands: list[str], **attributes: object) -> str:
        nonlocal tensor
        where = f"efficientnet: {name} ({op})"
        nodes.append(Node(name, op, tuple(operands), (name,), attributes, 18, where))
        tensor = name
        return name

    def conv(name: str, norm: str, act: bool, stride: int = 1, groups: int = 1) -> None:
        add(name, "Conv", [tensor, f"{name}.weight"], strides=[stride] * 2, group=groups,
            auto_pad="SAME_UPPER")  # fmt: skip
        statistics = [f"{norm}.{n}" for n in ("weight", "bias", "running_mean", "running_var")]
        add(norm, "BatchNormalization", [tensor, *statistics], epsilon=1e-3)
        if act:
            add(f"{norm}.relu6", "Clip", [tensor], min=0.0, max=6.0)

    conv("_conv_stem", "_bn0", True, 2)
    number, channels = 0, 32
    for repeats, _, stride, expand, outputs in BLOCKS:
        for i in range(repeats):
            block, start = f"_blocks.{number}", tensor
            if expand != 1:
                conv(f"{block}._expand_conv", f"{block}._bn0", True)
            step = stride if i == 0 else 1
            conv(f"{block}._depthwise_conv", f"{block}._bn1", True, step, channels * expand)
            conv(f"{block}._project_conv", f"{block}._bn2", False)
            if step == 1 and channels == outputs:
                add(f"{block}.add", "Add", [tensor, start])
            channels, number = outputs, number + 1
    conv("_conv_head", "_bn1", True)
    add("pool", "GlobalAveragePool", [tensor])
    add("flat", "Flatten", [tensor])
    add("logits", "Gemm", [tensor, "_fc.weight", "_fc.bias"], transB=1)
    constants = {k: np.asarray(v) for k, v in state.items() if v.ndim > 0}
    shape = (1, 3, size, size)
    return Program("EfficientNet-lite0", "efficientnet", {"images": shape}, constants, nodes,
                   ["logits"])  # fmt: skip
