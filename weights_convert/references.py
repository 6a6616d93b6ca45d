"""The same networks in torch, written anew, to compare with: used by `--verify` and tests.

torch is imported when one is made. Names of layers are those of the state dicts they take.
"""

from __future__ import annotations

import re
import sys
from typing import Any

__all__ = ["cifar_resnet", "need_torch", "need_torchvision"]


_KEPT: list[Any] = []  # torch forgets a library's operators with the library


def need_torch() -> Any:
    """Return the torch module.

    Raises:
      ImportError: saying how to get it.
    """
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            "comparing with PyTorch needs it: pip install torch (the CPU build will do)"
        ) from error
    return torch


def need_torchvision() -> Any:
    """Return the torchvision package, its models at least.

    Its compiled operators (for detection) belong to one build of torch. The classifiers need
    none of them, so with another build they are declared, without an implementation.

    Raises:
      ImportError: saying how to get it.
    """
    torch = need_torch()
    library = None
    for _ in range(20):
        try:
            import torchvision
            import torchvision.models
        except ImportError as error:
            raise ImportError(
                "comparing with torchvision needs it: pip install --no-deps torchvision"
            ) from error
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if not missing:
                raise
            for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
                del sys.modules[name]
            library = library or torch.library.Library("torchvision", "FRAGMENT")
            library.define(f"{missing[1]}(Tensor a) -> Tensor")
            _KEPT.append(library)
        else:
            return torchvision
    raise ImportError("torchvision does not fit this build of torch")


def cifar_resnet(depth: int, classes: int) -> Any:
    """He et al.'s CIFAR ResNet with option-A shortcuts."""
    torch = need_torch()
    nn, functional = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int):
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.stride, self.extra = stride, outputs - inputs

        def forward(self, x: Any) -> Any:
            y = functional.relu(self.bn1(self.conv1(x)))
            y = self.bn2(self.conv2(y))
            if self.extra:
                x = x[:, :, :: self.stride, :: self.stride]
                half = self.extra // 2
                x = functional.pad(x, (0, 0, 0, 0, half, self.extra - half))
            return functional.relu(x + y)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            count = (depth - 2) // 6
            self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(16)
            width = 16
            for stage, outputs in enumerate((16, 32, 64), 1):
                blocks = []
                for i in range(count):
                    blocks.append(Block(width, outputs, 2 if stage > 1 and i == 0 else 1))
                    width = outputs
                self.add_module(f"layer{stage}", nn.Sequential(*blocks))
            self.linear = nn.Linear(64, classes)

        def forward(self, x: Any) -> Any:
            x = functional.relu(self.bn1(self.conv1(x)))
            x = self.layer3(self.layer2(self.layer1(x)))
            return self.linear(x.mean((2, 3)))

    return Net().eval()
