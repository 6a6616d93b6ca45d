"""Checkpoints in the shapes in which people save them, built with torch.

Each case writes one file and says by which arguments of `weights_convert torch` it is converted,
and which network of `NETS` it holds. `benchmarks/conversion/checkpoints.py` prints the errors.
"""

from __future__ import annotations

import argparse
import collections
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

__all__ = ["CASES", "NETS", "Generator"]

Build = Callable[[Path], list[str]]


class Generator(nn.Module):
    """A small DCGAN generator under the names that PyTorch's tutorial gives."""

    def __init__(self, wrap: Any = lambda layer: layer, norm: bool = True):
        super().__init__()
        layers: list[Any] = []
        shapes = [(6, 5, 4, 1, 0), (5, 4, 4, 2, 1)]
        for inputs, outputs, *shape in shapes:
            layers.append(wrap(nn.ConvTranspose2d(inputs, outputs, *shape, bias=False)))
            layers += [nn.BatchNorm2d(outputs)] if norm else []
            layers.append(nn.ReLU(True))
        layers += [wrap(nn.ConvTranspose2d(4, 3, 4, 2, 1, bias=False)), nn.Tanh()]
        self.main = nn.Sequential(*layers)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return self.main(z)


class Critic(nn.Module):
    """A discriminator, whose weights are in the way."""

    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(nn.Conv2d(3, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 4))


def filled(module: nn.Module, seed: int = 0) -> Any:
    """Random weights, and statistics far from BatchNorm's defaults."""
    generator = torch.Generator().manual_seed(seed)
    state = module.state_dict()
    for name, value in state.items():
        noise = torch.randn(value.shape, generator=generator) if value.is_floating_point() else 0
        if name.endswith("running_var"):
            value.copy_(0.5 + torch.as_tensor(noise).abs())
        elif value.is_floating_point() and not name.endswith(("_u", "_v", ".0._v")):
            scale = (2.0 / value[0].numel()) ** 0.5 if value.ndim > 1 else 0.3
            value.copy_(noise * scale + (1.0 if value.ndim == 1 and "weight" in name else 0.0))
    if any(name.endswith(("_u", "._v")) for name in state):  # settle the power iteration
        module.train()
        with torch.no_grad():
            for _ in range(30):
                module(torch.randn(4, 6, 1, 1, generator=generator))
    return module.eval()


def spectral_old(layer: nn.Module) -> Any:
    return nn.utils.spectral_norm(layer)


def spectral_new(layer: nn.Module) -> Any:
    return nn.utils.parametrizations.spectral_norm(layer)


def weight_old(layer: nn.Module) -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.utils.weight_norm(layer)


def weight_new(layer: nn.Module) -> Any:
    return nn.utils.parametrizations.weight_norm(layer)


NETS: dict[str, Callable[[], Any]] = {
    "plain": lambda: filled(Generator()),
    "spectral old": lambda: filled(Generator(spectral_old)),
    "spectral new": lambda: filled(Generator(spectral_new)),
    "weight old": lambda: filled(Generator(weight_old, norm=False)),
    "weight new": lambda: filled(Generator(weight_new, norm=False)),
}


def _save(path: Path, value: Any, *extra: str, **how: Any) -> list[str]:
    torch.save(value, path, **how)
    return [str(path), *extra]


def _lightning(path: Path) -> list[str]:
    state = {f"generator.{k}": v for k, v in NETS["plain"]().state_dict().items()}
    state |= {f"discriminator.{k}": v for k, v in filled(Critic(), 1).state_dict().items()}
    return _save(
        path,
        {
            "epoch": 3, "state_dict": state, "pytorch-lightning_version": "2.4.0",
            "hyper_parameters": {"lr": 1e-4, "opt": argparse.Namespace(size=16)},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(3)}}}],
        },
        "--prefix", "generator",
    )  # fmt: skip


def _training(path: Path) -> list[str]:
    """What a training script of GAN people keeps beside the weights."""
    net, critic = NETS["plain"](), filled(Critic(), 1)
    optimiser = torch.optim.Adam(net.parameters())
    return _save(
        path,
        {
            "g_ema": net.state_dict(), "d": critic.state_dict(), "g_optim": optimiser.state_dict(),
            "args": argparse.Namespace(size=16, path=Path("data"), channels=torch.Size([3, 4])),
            "iter": np.int64(5), "best": np.float32(2.5), "mean": np.zeros(3),
            "log": collections.defaultdict(list, {"loss": [1.0]}), "latent_avg": torch.zeros(6),
            "seen": {"a", "b"}, "device": torch.device("cpu"), "dtype": torch.float32,
        },
    )  # fmt: skip


def _ema_shadow(path: Path) -> list[str]:
    """An average of the parameters alone; BatchNorm's statistics are in the model."""
    net = NETS["plain"]()
    shadow = {k: v.detach().clone() for k, v in net.named_parameters()}
    return _save(
        path, {"model": net.state_dict(), "ema": {"decay": 0.999, "shadow": shadow}},
        "--key", "ema.shadow", "--buffers", "model",
    )  # fmt: skip


def _averaged(path: Path) -> list[str]:
    return _save(path, torch.optim.swa_utils.AveragedModel(NETS["plain"]()).state_dict())


def _expanded(path: Path) -> list[str]:
    state = NETS["plain"]().state_dict()
    state["unused"] = torch.ones(1).expand(1000, 1000)
    return _save(path, state, "--ignore", "unused")


def _safetensors(path: Path) -> list[str]:
    from safetensors.torch import save_file

    path = path.with_suffix(".safetensors")
    state = {k: v.contiguous() for k, v in NETS["plain"]().state_dict().items()}
    save_file(state, path)
    return [str(path)]


def _ddp(state: Any, prefix: str) -> Any:
    return collections.OrderedDict((prefix + k, v) for k, v in state.items())


def state() -> Any:
    return NETS["plain"]().state_dict()


CASES: dict[str, tuple[str, Build]] = {
    "state dict": ("plain", lambda p: _save(p, state())),
    "state dict, before 1.6": (
        "plain", lambda p: _save(p, state(), _use_new_zipfile_serialization=False)
    ),
    "state dict, pickle protocol 4": ("plain", lambda p: _save(p, state(), pickle_protocol=4)),
    "safetensors": ("plain", _safetensors),
    "DataParallel": ("plain", lambda p: _save(p, _ddp(state(), "module."))),
    "torch.compile": ("plain", lambda p: _save(p, _ddp(state(), "_orig_mod."))),
    "DataParallel, compiled, twice": (
        "plain", lambda p: _save(p, _ddp(state(), "module.module._orig_mod."))
    ),
    "state_dict and epoch": ("plain", lambda p: _save(p, {"epoch": 1, "state_dict": state()})),
    "netG and netD": (
        "plain", lambda p: _save(p, {"netG": state(), "netD": filled(Critic(), 1).state_dict()})
    ),
    "two networks, by key": (
        "plain",
        lambda p: _save(p, {"A": state(), "B": filled(Critic(), 1).state_dict()}, "--key", "A"),
    ),
    "training script": ("plain", _training),
    "Lightning": ("plain", _lightning),
    "AveragedModel": ("plain", _averaged),
    "shadow of an EMA": ("plain", _ema_shadow),
    "nested ema.state": (
        "plain", lambda p: _save(p, {"ema": {"state": {"net": state()}, "step": 4}})
    ),
    "a key with dots": (
        "plain",
        lambda p: _save(p, {"v1.0": {"g": state()}, "v0.9": {"g": state()}}, "--key", "v1.0.g"),
    ),
    "leftovers": (
        "plain",
        lambda p: _save(
            p, {**state(), "fid.mu": torch.zeros(4), "fid.sigma": torch.eye(4)},
            "--ignore", r"fid\..*",
        ),
    ),
    "expanded tensor": ("plain", _expanded),
    "whole module": ("plain", lambda p: _save(p, NETS["plain"]())),
    "whole module in a dictionary": ("plain", lambda p: _save(p, {"g_ema": NETS["plain"]()})),
    "parameters with attributes": (
        "plain", lambda p: _save(p, {k: _tagged(v) for k, v in state().items()})
    ),
    "float64": ("plain", lambda p: _save(p, {k: v.double() for k, v in state().items()})),
    "spectral_norm, old": ("spectral old", lambda p: _save(p, NETS["spectral old"]().state_dict())),
    "spectral_norm, new": ("spectral new", lambda p: _save(p, NETS["spectral new"]().state_dict())),
    "weight_norm, old": ("weight old", lambda p: _save(p, NETS["weight old"]().state_dict())),
    "weight_norm, new": ("weight new", lambda p: _save(p, NETS["weight new"]().state_dict())),
}  # fmt: skip
"""Name -> (which of `NETS` it holds, writes the file and gives the arguments after `torch`)."""


def _tagged(value: torch.Tensor) -> Any:
    """A parameter with an attribute of its own, which torch saves in another way."""
    if not value.is_floating_point():
        return value
    made = nn.Parameter(value)
    made.note = "mine"  # type: ignore[attr-defined]
    return made
