"""Odd PyTorch modules: what a recipe cannot know and an export can."""

import torch
import torch.nn.functional as F
from torch import nn


class OddGenerator(nn.Module):
    """Latent to image by modulated kernels, pixel shuffling, attention and a wavelet."""

    def __init__(self, latent=8, width=8):
        super().__init__()
        self.start = nn.Linear(latent, width * 16)
        self.style = nn.Linear(latent, width)
        self.weight = nn.Parameter(torch.randn(width * 4, width, 3, 3) / 8)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.norm = nn.LayerNorm(width)
        self.blur = nn.ConvTranspose2d(width, width, 4, 2, 1, groups=width, bias=False)
        self.slope = nn.PReLU(width)
        self.image = nn.Conv2d(width, 3, 3, padding=1, padding_mode="reflect")

    def forward(self, z):
        z = z * torch.rsqrt(z.pow(2).mean(1, keepdim=True) + 1e-8)
        x = self.start(z).view(z.shape[0], -1, 4, 4)
        n, c, h, w = x.shape
        weight = self.weight[None] * (1 + self.style(z)).view(n, 1, c, 1, 1)
        weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        x = F.conv2d(x.reshape(1, n * c, h, w), weight.view(-1, c, 3, 3), padding=1, groups=n).view(
            n, -1, h, w
        )
        x = F.pixel_shuffle(F.gelu(x), 2)
        q, k, v = self.qkv(x).flatten(2).chunk(3, dim=1)
        seen = torch.einsum("bci,bcj->bij", q, k / c**0.5).softmax(-1)
        x = x + torch.einsum("bij,bcj->bci", seen, v).reshape(x.shape)
        x = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = self.slope(self.blur(x))
        x = x + F.interpolate(x[:, :, ::2, 1::2], size=x.shape[2:], mode="bicubic")
        x = torch.where(x > 0, x, torch.exp(x) - 1)
        return torch.tanh(self.image(torch.roll(x, 1, 3)))


class OddClassifier(nn.Module):
    """Image to classes by odd pooling, hard activations and squeeze-and-excitation."""

    def __init__(self, width=8):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.Hardswish()
        )
        self.deep = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, 4, 1), nn.SiLU(), nn.Conv2d(4, width, 1),
            nn.Hardsigmoid(),
        )  # fmt: skip
        self.instance = nn.InstanceNorm2d(width, affine=True)
        self.group = nn.GroupNorm(2, 2 * width)
        self.pool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        self.mean = nn.AvgPool2d(2, ceil_mode=True)
        self.head = nn.Linear(2 * width, 5)
        for module in (self.stem[1],):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)

    def forward(self, x):
        x = self.stem(x)
        x = x * self.gate(self.deep(x))
        x = torch.cat([self.instance(x), F.elu(x).clamp(-0.3, 2.0)], 1)
        x = self.mean(F.mish(self.group(self.pool(x))))
        x = F.interpolate(x, scale_factor=1.5, mode="bilinear", align_corners=False)
        return F.log_softmax(self.head(x.amax((2, 3))), -1)
