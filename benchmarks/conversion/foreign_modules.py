"""Networks in PyTorch that no recipe knows, written for `foreign_files.py` and `fetched.py`.

`Attention` and `Transposed` are made of what exporters meet seldom. `EfficientNetLite0` is the
published network written in PyTorch a second time: it shares no code with the converter.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Attention", "EfficientNetLite0", "Transposed", "dcgan"]


class Attention(nn.Module):
    """Latent to image: pixel shuffling, group normalisation, attention as sums of products."""

    def __init__(self, latent: int = 16, width: int = 32, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.start = nn.Linear(latent, width * 64)
        self.norm = nn.GroupNorm(8, width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)
        self.wide = nn.Conv2d(width, 4 * width, 3, padding=1)
        self.last = nn.GroupNorm(4, width)
        self.image = nn.Conv2d(width, 3 * 16, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """Return the network's output."""
        x = self.start(z).unflatten(1, (-1, 8, 8))
        n, c, h, w = x.shape
        parts = self.qkv(self.norm(x)).view(n, 3, self.heads, c // self.heads, h * w)
        q, k, v = parts.unbind(1)
        seen = torch.einsum("nhci,nhcj->nhij", q, k) / math.sqrt(c // self.heads)
        x = x + self.out(torch.einsum("nhij,nhcj->nhci", seen.softmax(-1), v).reshape(n, c, h, w))
        x = F.silu(self.last(F.pixel_shuffle(self.wide(x), 2)))
        return torch.tanh(F.pixel_shuffle(self.image(x), 4))


class Transposed(nn.Module):
    """Image to image: reflected borders, transposed convolutions with output padding."""

    def __init__(self, width: int = 16):
        super().__init__()
        self.first = nn.Sequential(
            nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), nn.InstanceNorm2d(width, affine=True),
            nn.ReLU(), nn.Conv2d(width, 2 * width, 3, 2, 1), nn.InstanceNorm2d(2 * width),
            nn.ReLU(),
        )  # fmt: skip
        self.inner = nn.Sequential(
            nn.ReflectionPad2d(1), nn.Conv2d(2 * width, 2 * width, 3, groups=2),
            nn.InstanceNorm2d(2 * width), nn.LeakyReLU(0.2),
        )  # fmt: skip
        self.up = nn.ConvTranspose2d(2 * width, width, 3, 2, 1, output_padding=1, groups=4)
        self.odd = nn.ConvTranspose2d(width, width, (5, 4), (3, 2), (2, 1), output_padding=(2, 1))
        self.last = nn.Sequential(nn.InstanceNorm2d(width), nn.ReflectionPad2d((1, 2, 0, 1)))
        self.image = nn.Conv2d(width, 3, 3, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's output."""
        x = self.first(x)
        x = self.up(x + self.inner(x))
        return torch.sigmoid(self.image(self.last(self.odd(F.softplus(x)))))


# (repeats, kernel, stride, expand, outputs): Tan and Le 2019, table 1.
_STAGES = (
    (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip


class _Same(nn.Conv2d):
    """A convolution padded as TensorFlow's "same": what is odd goes behind."""

    def forward(self, input: Tensor) -> Tensor:
        pads: list[int] = []
        for n, k, s in zip(input.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1],
                           strict=True):  # fmt: skip
            total = max((-(-n // s) - 1) * s + k - n, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(input, pads))


class _Block(nn.Module):
    def __init__(self, inputs: int, kernel: int, stride: int, expand: int, outputs: int):
        super().__init__()
        inner = inputs * expand
        self.adds = stride == 1 and inputs == outputs
        self.expands = expand != 1
        if self.expands:
            self._expand_conv = nn.Conv2d(inputs, inner, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(inner, eps=1e-3)
        self._depthwise_conv = _Same(inner, inner, kernel, stride, groups=inner, bias=False)
        self._bn1 = nn.BatchNorm2d(inner, eps=1e-3)
        self._project_conv = nn.Conv2d(inner, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's output."""
        h = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        h = F.relu6(self._bn1(self._depthwise_conv(h)))
        h = self._bn2(self._project_conv(h))
        return h + x if self.adds else h


class EfficientNetLite0(nn.Module):
    """The names are those of the published state dict, which `load_state_dict` takes whole."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = _Same(3, 32, 3, 2, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=1e-3)
        blocks, channels = [], 32
        for repeats, kernel, stride, expand, outputs in _STAGES:
            for i in range(repeats):
                blocks.append(_Block(channels, kernel, stride if i == 0 else 1, expand, outputs))
                channels = outputs
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = nn.Conv2d(320, 1280, 1, bias=False)
        self._bn1 = nn.BatchNorm2d(1280, eps=1e-3)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's output."""
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return self._fc(F.relu6(self._bn1(self._conv_head(x))).mean((2, 3)))


def dcgan(
    state: dict[str, Any], steps: list[int], last: int, dropouts: tuple[int, ...] = ()
) -> Any:
    """Return a DCGAN generator: layers `main`, from a state dict with such names.

    Args:
      state: name -> tensor.
      steps: the numbers of the transposed convolutions; each is followed by batch normalisation
        and ReLU.
      last: that of the last one, before the tanh.
      dropouts: the numbers of layers that do nothing at inference.
    """
    layers: dict[int, nn.Module] = {i: nn.Dropout() for i in dropouts}
    for n, i in enumerate([*steps, last]):
        kernel = state[f"main.{i}.weight"]
        window = (2, 1) if n else (1, 0)
        layers[i] = nn.ConvTranspose2d(*kernel.shape[:2], kernel.shape[2], *window,
                                       bias=f"main.{i}.bias" in state)  # fmt: skip
        if i != last:
            layers[i + 1] = nn.BatchNorm2d(kernel.shape[1])
            layers[i + 2] = nn.ReLU()
    layers[last + 1] = nn.Tanh()
    main = nn.Sequential(*(layers[i] for i in sorted(layers)))
    main.load_state_dict({k.removeprefix("main."): v for k, v in state.items()})
    return main.eval()
