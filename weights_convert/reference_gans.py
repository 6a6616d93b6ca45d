"""Generators in torch, written anew from the papers, with the names of the state dicts they take.

To compare with; torch is imported when one is made. They run in evaluation mode only.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from weights_convert.references import need_torch

__all__ = ["biggan_deep", "progan", "stylegan2"]


def progan(latent: int, channels: Sequence[int], colours: int) -> Any:
    """Progressive GAN with the constants of the equalised learning rate at run time."""
    torch = need_torch()
    nn, functional = torch.nn, torch.nn.functional

    class Dense(nn.Linear):
        def forward(self, x: Any) -> Any:
            return super().forward(x) * math.sqrt(2.0 / self.weight[0].numel())

    class Conv(nn.Conv2d):
        def forward(self, x: Any) -> Any:
            return super().forward(x) * math.sqrt(2.0 / self.weight[0].numel())

    def norm(x: Any) -> Any:
        return x / torch.sqrt(x.pow(2).mean(1, keepdim=True) + 1e-8)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.formatLayer = Dense(latent, 16 * channels[0])
            self.groupScale0 = nn.ModuleList([Conv(channels[0], channels[0], 3, padding=1)])
            self.scaleLayers = nn.ModuleList(
                nn.ModuleList([Conv(a, b, 3, padding=1), Conv(b, b, 3, padding=1)])
                for a, b in itertools.pairwise(channels)
            )
            self.toRGBLayers = nn.ModuleList(Conv(c, colours, 1) for c in channels)

        def forward(self, z: Any) -> Any:
            x = functional.leaky_relu(self.formatLayer(norm(z)), 0.2)
            x = norm(x.reshape(len(z), -1, 4, 4))
            x = norm(functional.leaky_relu(self.groupScale0[0](x), 0.2))
            for pair in self.scaleLayers:
                x = functional.interpolate(x, scale_factor=2)
                for layer in pair:
                    x = norm(functional.leaky_relu(layer(x), 0.2))
            return self.toRGBLayers[-1](x)

    return Net().eval()


def stylegan2(latent: int, style: int, mapping: int, channels: Sequence[int]) -> Any:
    """StyleGAN2 with the names of rosinality/stylegan2-pytorch and its constant noise.

    Modulation scales the weights of each sample (a grouped convolution), as the paper defines
    it, not the activations.
    """
    torch = need_torch()
    nn, functional = torch.nn, torch.nn.functional
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    lowpass = torch.outer(taps, taps) / 16.0  # gain 4, for the zeros in between

    def filtered(x: Any, pads: tuple[int, int]) -> Any:
        n, c, h, w = x.shape
        x = functional.pad(x.reshape(n * c, 1, h, w), (*pads, *pads))
        x = functional.conv2d(x, lowpass[None, None])
        return x.reshape(n, c, *x.shape[2:])

    def leaky(x: Any) -> Any:
        return functional.leaky_relu(x, 0.2) * math.sqrt(2.0)

    def parameter(*shape: int) -> Any:
        return nn.Parameter(torch.zeros(*shape))

    class Equal(nn.Module):
        def __init__(self, inputs: int, outputs: int, rate: float = 1.0):
            super().__init__()
            self.weight, self.bias = parameter(outputs, inputs), parameter(outputs)
            self.rate = rate

        def forward(self, x: Any) -> Any:
            scale = self.rate / math.sqrt(self.weight.shape[1])
            return x @ (self.weight * scale).T + self.bias * self.rate

    class Modulated(nn.Module):
        def __init__(self, inputs: int, outputs: int, size: int, up: bool, demodulate: bool):
            super().__init__()
            self.weight = parameter(1, outputs, inputs, size, size)
            self.modulation = Equal(style, inputs)
            self.up, self.demodulate = up, demodulate

        def forward(self, x: Any, w: Any) -> Any:
            n, inputs, h, wide = x.shape
            scale = 1.0 / math.sqrt(self.weight[0, 0].numel())
            weight = scale * self.weight * self.modulation(w)[:, None, :, None, None]
            if self.demodulate:
                weight = weight / torch.sqrt(weight.pow(2).sum((2, 3, 4), keepdim=True) + 1e-8)
            x = x.reshape(1, n * inputs, h, wide)
            outputs, k = weight.shape[1], weight.shape[-1]
            if self.up:
                weight = weight.transpose(1, 2).reshape(n * inputs, outputs, k, k)
                x = functional.conv_transpose2d(x, weight, stride=2, groups=n)
                return filtered(x.reshape(n, outputs, *x.shape[2:]), (1, 1))
            weight = weight.reshape(n * outputs, inputs, k, k)
            x = functional.conv2d(x, weight, padding=k // 2, groups=n)
            return x.reshape(n, outputs, h, wide)

    class Holder(nn.Module):
        def __init__(self, **values: Any):
            super().__init__()
            for name, value in values.items():
                setattr(self, name, value)

    class Styled(nn.Module):
        def __init__(self, inputs: int, outputs: int, up: bool):
            super().__init__()
            self.conv = Modulated(inputs, outputs, 3, up, True)
            self.noise = Holder(weight=parameter(1))
            self.activate = Holder(bias=parameter(outputs))

        def forward(self, x: Any, w: Any, noise: Any) -> Any:
            x = self.conv(x, w) + self.noise.weight * noise
            return leaky(x + self.activate.bias[None, :, None, None])

    class ToRGB(nn.Module):
        def __init__(self, inputs: int):
            super().__init__()
            self.conv = Modulated(inputs, 3, 1, False, False)
            self.bias = parameter(1, 3, 1, 1)

        def forward(self, x: Any, w: Any) -> Any:
            return self.conv(x, w) + self.bias

    def doubled(x: Any) -> Any:
        n, c, h, w = x.shape
        spread = x.new_zeros(n, c, 2 * h, 2 * w)
        spread[:, :, ::2, ::2] = x
        return filtered(spread, (2, 1))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            sizes = [latent, *[style] * mapping]
            layers = [Equal(a, b, 0.01) for a, b in itertools.pairwise(sizes)]
            self.style = nn.Sequential(nn.Identity(), *layers)
            self.input = Holder(input=parameter(1, channels[0], 4, 4))
            self.conv1 = Styled(channels[0], channels[0], False)
            self.to_rgb1 = ToRGB(channels[0])
            self.convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
            for a, b in itertools.pairwise(channels):
                self.convs.extend([Styled(a, b, True), Styled(b, b, False)])
                self.to_rgbs.append(ToRGB(b))
            self.noises = nn.Module()
            for i in range(2 * len(channels) - 1):
                side = 4 * 2 ** ((i + 1) // 2)
                self.noises.register_buffer(f"noise_{i}", torch.zeros(1, 1, side, side))

        def forward(self, z: Any) -> Any:
            w = z / torch.sqrt(z.pow(2).mean(1, keepdim=True) + 1e-8)
            for layer in self.style[1:]:
                w = leaky(layer(w))
            noises = [getattr(self.noises, f"noise_{i}") for i in range(2 * len(channels) - 1)]
            x = self.conv1(self.input.input.repeat(len(z), 1, 1, 1), w, noises[0])
            image = self.to_rgb1(x, w)
            for i, rgb in enumerate(self.to_rgbs):
                x = self.convs[2 * i](x, w, noises[2 * i + 1])
                x = self.convs[2 * i + 1](x, w, noises[2 * i + 2])
                image = doubled(image) + rgb(x, w)
            return image

    return Net().eval()


def biggan_deep(config: Mapping[str, Any]) -> Any:
    """BigGAN-deep with spectral normalisation and statistics looked up at run time."""
    torch = need_torch()
    nn, functional = torch.nn, torch.nn.functional
    condition, stats = 2 * config["latent"], 51

    class Spectral(nn.Module):
        """A linear map or a convolution whose weight is divided by u . W v."""

        def __init__(self, inputs: int, outputs: int, kernel: int = 0, bias: bool = True):
            super().__init__()
            shape = (outputs, inputs, kernel, kernel) if kernel else (outputs, inputs)
            self.weight_orig = nn.Parameter(torch.zeros(shape))
            self.register_buffer("weight_u", torch.zeros(outputs))
            self.register_buffer("weight_v", torch.zeros(inputs * max(kernel, 1) ** 2))
            self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
            self.kernel = kernel

        def forward(self, x: Any) -> Any:
            sigma = torch.dot(self.weight_u, self.weight_orig.flatten(1) @ self.weight_v)
            weight = self.weight_orig / sigma
            if not self.kernel:
                return functional.linear(x, weight, self.bias)
            return functional.conv2d(x, weight, self.bias, padding=self.kernel // 2)

    class Norm(nn.Module):
        def __init__(self, features: int, conditional: bool = True):
            super().__init__()
            self.register_buffer("running_means", torch.zeros(stats, features))
            self.register_buffer("running_vars", torch.ones(stats, features))
            self.conditional = conditional
            if conditional:
                self.scale = Spectral(condition, features, bias=False)
                self.offset = Spectral(condition, features, bias=False)
            else:
                self.weight = nn.Parameter(torch.ones(features))
                self.bias = nn.Parameter(torch.zeros(features))

        def forward(self, x: Any, c: Any) -> Any:
            part, start = math.modf(config["truncation"] * (stats - 1))
            rows = []
            for table in (self.running_means, self.running_vars):
                row = table[int(start)]
                if part:
                    row = row * part + table[int(start) + 1] * (1 - part)
                rows.append(row[None, :, None, None])
            if self.conditional:
                weight, bias = 1 + self.scale(c)[..., None, None], self.offset(c)[..., None, None]
            else:
                weight, bias = self.weight[None, :, None, None], self.bias[None, :, None, None]
            return (x - rows[0]) / torch.sqrt(rows[1] + config["epsilon"]) * weight + bias

    class Block(nn.Module):
        def __init__(self, up: bool, inputs: int, outputs: int):
            super().__init__()
            inner = inputs // 4
            self.up, self.kept = up, inputs if inputs == outputs else inputs // 2
            sizes = [inputs, inner, inner, inner, outputs]
            for i, kernel in enumerate((1, 3, 3, 1)):
                setattr(self, f"bn_{i}", Norm(sizes[i]))
                setattr(self, f"conv_{i}", Spectral(sizes[i], sizes[i + 1], kernel))

        def forward(self, x: Any, c: Any) -> Any:
            y = x
            for i in range(4):
                y = functional.relu(getattr(self, f"bn_{i}")(y, c))
                if self.up and i == 1:
                    y = functional.interpolate(y, scale_factor=2)
                y = getattr(self, f"conv_{i}")(y)
            x = x[:, : self.kept]
            return y + (functional.interpolate(x, scale_factor=2) if self.up else x)

    class Attention(nn.Module):
        def __init__(self, channels: int):
            super().__init__()
            self.snconv1x1_theta = Spectral(channels, channels // 8, 1, bias=False)
            self.snconv1x1_phi = Spectral(channels, channels // 8, 1, bias=False)
            self.snconv1x1_g = Spectral(channels, channels // 2, 1, bias=False)
            self.snconv1x1_o_conv = Spectral(channels // 2, channels, 1, bias=False)
            self.gamma = nn.Parameter(torch.zeros(1))

        def forward(self, x: Any, c: Any) -> Any:
            theta = self.snconv1x1_theta(x).flatten(2)
            phi = functional.max_pool2d(self.snconv1x1_phi(x), 2).flatten(2)
            g = functional.max_pool2d(self.snconv1x1_g(x), 2).flatten(2)
            weights = torch.softmax(torch.einsum("ncq,nck->nqk", theta, phi), -1)
            y = torch.einsum("nqk,nck->ncq", weights, g)
            y = y.reshape(len(x), -1, *x.shape[2:])
            return x + self.gamma * self.snconv1x1_o_conv(y)

    class Generator(nn.Module):
        def __init__(self):
            super().__init__()
            self.gen_z = Spectral(condition, 16 * config["layers"][0][1])
            layers = [Block(bool(up), a, b) for up, a, b in config["layers"]]
            layers.insert(config["attention"], Attention(config["layers"][config["attention"]][1]))
            self.layers = nn.ModuleList(layers)
            self.bn = Norm(config["width"], conditional=False)
            self.conv_to_rgb = Spectral(config["width"], config["width"], 3)

        def forward(self, c: Any) -> Any:
            x = self.gen_z(c).reshape(len(c), 4, 4, -1).permute(0, 3, 1, 2)
            for layer in self.layers:
                x = layer(x, c)
            return torch.tanh(self.conv_to_rgb(functional.relu(self.bn(x, c)))[:, :3])

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embeddings = nn.Linear(config["classes"], config["latent"], bias=False)
            self.generator = Generator()

        def forward(self, z: Any) -> Any:
            label = torch.zeros(len(z), config["classes"])
            label[:, config["label"]] = 1.0
            return self.generator(torch.cat([z, self.embeddings(label)], 1))

    return Net().eval()
