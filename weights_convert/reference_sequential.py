"""The layers of a description in torch, to compare with: used by `--check` and the tests.

torch is imported when a network is made. Names of layers are those of the state dict it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxgen.models.ported.sequential_schema import pair, sides
from weights_convert.references import need_torch

__all__ = ["sequential"]

Settings = Mapping[str, Any]
Shape = tuple[int, ...]


def sequential(layers: Sequence[Settings], shapes: Sequence[Shape], path: Any) -> Any:
    """Return the torch modules of a description that `check_layers` completed.

    Args:
      layers: the completed description.
      shapes: the shape before each layer.
      path: layer -> dotted name of its weights in the state dict.
    """
    torch = need_torch()
    nn = torch.nn
    plain, weighted = _without_weights(torch), _with_weights(nn)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.steps = []
            for layer, shape in zip(layers, shapes, strict=False):
                kind = layer["type"]
                if kind in plain:
                    self.steps.append(plain[kind](layer))
                    continue
                made = weighted[kind](layer, shape)
                if not list(made.parameters()) and not list(made.buffers()):
                    self.steps.append(made)
                    continue
                *parents, last = path(layer).split(".")
                owner = self
                for name in parents:
                    if not hasattr(owner, name):
                        owner.add_module(name, nn.Module())
                    owner = getattr(owner, name)
                owner.add_module(last, made)
                self.steps.append(made)

        def forward(self, x: object) -> Any:
            for step in self.steps:
                x = step(x)
            return x

    return Net().eval()


def _with_weights(nn: Any) -> dict[str, Callable[[Settings, Shape], Any]]:
    """Type -> settings and the shape before -> module."""

    def convolution(s: Settings, shape: Shape) -> Any:
        return nn.Conv2d(
            shape[-1], s["out"], pair(s["kernel"]), pair(s["stride"]), pair(s["padding"]),
            pair(s["dilation"]), s["groups"], s["bias"],
        )  # fmt: skip

    def transposed(s: Settings, shape: Shape) -> Any:
        return nn.ConvTranspose2d(
            shape[-1], s["out"], pair(s["kernel"]), pair(s["stride"]), pair(s["padding"]),
            pair(s["output_padding"]), s["groups"], s["bias"], pair(s["dilation"]),
        )  # fmt: skip

    def layer_norm(s: Settings, shape: Shape) -> Any:
        theirs = [shape[2], *shape[:2]] if len(shape) == 3 else list(shape)
        return nn.LayerNorm(theirs, s["eps"], s["affine"], s["bias"])

    def batch_norm(s: Settings, shape: Shape) -> Any:
        norm = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
        return norm(shape[-1], eps=s["eps"], affine=s["affine"])

    return {
        "linear": lambda s, shape: nn.Linear(shape[-1], s["out"], s["bias"]),
        "conv": convolution,
        "conv_transpose": transposed,
        "batch_norm": batch_norm,
        "instance_norm": lambda s, shape: nn.InstanceNorm2d(
            shape[-1], s["eps"], affine=s["affine"]
        ),
        "group_norm": lambda s, shape: nn.GroupNorm(s["groups"], shape[-1], s["eps"], s["affine"]),
        "layer_norm": layer_norm,
        "prelu": lambda s, shape: nn.PReLU(s["count"]),
    }


def _without_weights(torch: Any) -> dict[str, Callable[[Settings], Any]]:
    """Type -> settings -> function of a batch."""
    nn, functional = torch.nn, torch.nn.functional

    def standardise(s: Settings) -> Any:
        mean, std = (torch.tensor(s[key]).view(1, -1, 1, 1) for key in ("mean", "std"))
        return lambda x: (x - mean) / std

    def upsample(s: Settings) -> Any:
        mode, corners = s["mode"], s["align_corners"]
        factor = tuple(float(n) for n in pair(s["factor"]))
        return nn.Upsample(None, factor, mode, corners if mode == "bilinear" else None)

    return {
        "relu": lambda s: functional.relu,
        "relu6": lambda s: functional.relu6,
        "leaky_relu": lambda s: lambda x: functional.leaky_relu(x, s["slope"]),
        "elu": lambda s: lambda x: functional.elu(x, s["alpha"]),
        "celu": lambda s: lambda x: functional.celu(x, s["alpha"]),
        "selu": lambda s: functional.selu,
        "gelu": lambda s: nn.GELU(s["approximate"]),
        "silu": lambda s: functional.silu,
        "mish": lambda s: functional.mish,
        "softplus": lambda s: nn.Softplus(s["beta"], s["threshold"]),
        "softsign": lambda s: functional.softsign,
        "tanh": lambda s: torch.tanh,
        "sigmoid": lambda s: torch.sigmoid,
        "log_sigmoid": lambda s: functional.logsigmoid,
        "hardtanh": lambda s: nn.Hardtanh(s["low"], s["high"]),
        "hardsigmoid": lambda s: functional.hardsigmoid,
        "hardswish": lambda s: functional.hardswish,
        "softmax": lambda s: lambda x: torch.softmax(x, 1),
        "log_softmax": lambda s: lambda x: torch.log_softmax(x, 1),
        "max_pool": lambda s: nn.MaxPool2d(
            s["kernel"], s["stride"], s["padding"], ceil_mode=s["ceil"]
        ),
        "avg_pool": lambda s: nn.AvgPool2d(
            s["kernel"], s["stride"], s["padding"], s["ceil"], s["count_padding"]
        ),
        "adaptive_avg_pool": lambda s: nn.AdaptiveAvgPool2d(pair(s["size"])),
        "flatten": lambda s: nn.Flatten(),
        "unflatten": lambda s: nn.Unflatten(1, tuple(s["shape"])),
        "upsample": upsample,
        "pixel_shuffle": lambda s: nn.PixelShuffle(s["factor"]),
        "zero_pad": lambda s: nn.ZeroPad2d(sides(s["padding"])),
        "constant_pad": lambda s: nn.ConstantPad2d(sides(s["padding"]), s["value"]),
        "reflection_pad": lambda s: nn.ReflectionPad2d(sides(s["padding"])),
        "replication_pad": lambda s: nn.ReplicationPad2d(sides(s["padding"])),
        "pixel_norm": lambda s: lambda x: x / torch.sqrt((x**2).mean(1, keepdim=True) + s["eps"]),
        "standardise": standardise,
        "to_unit": lambda s: lambda x: (x + 1) / 2,
        "from_unit": lambda s: lambda x: x * 2 - 1,
        "scalar": lambda s: lambda x: x[:, 0],
        "identity": lambda s: nn.Identity(),
        "dropout": lambda s: nn.Identity(),
    }
