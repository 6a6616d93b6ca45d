"""Networks whose weights come from other frameworks, written by hand.

Images are `[..., H, W, C]` float32 in [0, 1] on both ends: what a framework's own input
pipeline does with them (mean, deviation, order of channels) is part of the network. One file
for each family; none is imported before it is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from flax import nnx

from jaxgen.core.errors import expected

__all__ = ["PORTED", "Ported", "build", "leaves"]

Config = Mapping[str, Any]


class Ported(NamedTuple):
    """A family of networks.

    Attributes:
      where: "module:Class" under `jaxgen.models.ported`.
      kind: "generator", "discriminator", "classifier" or "encoder"; a function of the
        configuration where it depends on it.
      input_shape: configuration -> shape of one sample.
    """

    where: str
    kind: str
    input_shape: Callable[[Config], tuple[int, ...]]

    def make(self, **config: object) -> nnx.Module:
        """Return the module; `rngs` among the arguments."""
        module, _, name = self.where.partition(":")
        return getattr(importlib.import_module(f"{__name__}.{module}"), name)(**config)


def _square(default: int) -> Callable[[Config], tuple[int, ...]]:
    return lambda config: (config.get("size", default), config.get("size", default), 3)


def _latent(default: int) -> Callable[[Config], tuple[int, ...]]:
    return lambda config: (config.get("latent", default),)


PORTED: dict[str, Ported] = {
    "sequential.Sequential": Ported(
        "sequential:Sequential", "network", lambda config: tuple(config["input_shape"])
    ),
    "cifar_resnet.CifarResNet": Ported("cifar_resnet:CifarResNet", "classifier", _square(32)),
    "resnet.ResNet": Ported("resnet:ResNet", "classifier", _square(224)),
    "alexnet.AlexNet": Ported("alexnet:AlexNet", "classifier", _square(224)),
    "vgg.VGG": Ported("vgg:VGG", "classifier", _square(224)),
    "googlenet.GoogLeNet": Ported("googlenet:GoogLeNet", "classifier", _square(224)),
    "inception.InceptionV3": Ported("inception:InceptionV3", "classifier", _square(299)),
    "squeezenet.SqueezeNet": Ported("squeezenet:SqueezeNet", "classifier", _square(224)),
    "mobilenet.MobileNetV2": Ported("mobilenet:MobileNetV2", "classifier", _square(224)),
    "progan.ProGAN": Ported("progan:ProGAN", "generator", _latent(512)),
    "stylegan2.StyleGAN2": Ported("stylegan2:StyleGAN2", "generator", _latent(512)),
    "biggan.BigGANDeep": Ported("biggan:BigGANDeep", "generator", _latent(128)),
    "faceapi.FaceExpression": Ported("faceapi:FaceExpression", "classifier", _square(112)),
    "faceapi.FaceAgeGender": Ported("faceapi:FaceAgeGender", "classifier", _square(112)),
}
"""Name in a weight file's metadata -> family."""


def build(name: str, config: Config) -> nnx.Module:
    """Return the network of that name with shapes for weights: no memory, no random numbers.

    Raises:
      InputError: for an unknown name or a configuration that does not fit it.
    """
    if name not in PORTED:
        raise expected("architecture", f"one of {', '.join(PORTED)}", repr(name))
    try:
        return nnx.eval_shape(lambda: PORTED[name].make(**config, rngs=nnx.Rngs(0)))
    except TypeError as error:
        raise expected(f"{name}: config", "one it takes", f"{dict(config)} ({error})") from error


def leaves(module: nnx.Module) -> dict[str, tuple[int, ...]]:
    """Dotted path -> shape of every weight and statistic of a (perhaps abstract) module."""
    return {
        ".".join(map(str, path)): tuple(leaf.get_value().shape)
        for path, leaf in nnx.to_flat_state(nnx.state(module))
    }
