"""ResNet-20/32/44/56/110 for CIFAR, as in akamaster/pytorch_resnet_cifar10 (option A)."""

from __future__ import annotations

import re
from typing import Any

from jaxgen.core.errors import InputError
from weights_convert.recipes import Config, Recipe, State, shape_of

__all__ = ["RECIPE"]

CIFAR10 = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def _config(state: State, options: Config) -> dict[str, Any]:
    classes, _ = shape_of(state, "linear.weight", 2, "cifar-resnet")
    stages = [
        len({m[1] for key in state if (m := re.match(rf"layer{stage}\.(\d+)\.", key))})
        for stage in (1, 2, 3)
    ]
    if len(set(stages)) != 1 or stages[0] == 0:
        raise InputError(f"recipe cifar-resnet: expected three equal stages; got {stages} blocks")
    return {
        "depth": 6 * stages[0] + 2,
        "classes": classes,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }


def _metadata(config: Config) -> dict[str, Any]:
    return {
        "preprocessing": "RGB 32 x 32 in [0, 1]; the network subtracts mean, divides by std",
        "classes": list(CIFAR10) if config["classes"] == 10 else [],
    }


def _reference(config: Config) -> Any:
    from weights_convert.references import cifar_resnet

    return cifar_resnet(config["depth"], config["classes"])


RECIPE = Recipe(
    name="cifar-resnet",
    about="ResNet-20/32/44/56/110 for CIFAR with weightless shortcuts",
    architecture="cifar_resnet.CifarResNet",
    config=_config,
    metadata=_metadata,
    reference=_reference,
)
