"""The ImageNet classifiers of torchvision, from their state dicts.

Images in [0, 1] go in; the ImageNet mean and deviation are subtracted and divided by inside.
The published weights of GoogLeNet and Inception-v3 want images in [-1, 1] instead
(`transform_input` in torchvision), so mean and deviation are 0.5 there. Options `mean` and
`std` change them for weights trained otherwise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from jaxgen.core.errors import InputError, expected
from jaxgen.models.ported.squeezenet import LAYOUTS
from weights_convert.layouts import Transform, dense_after_flatten
from weights_convert.recipes import Config, Option, Recipe, State, shape_of

__all__ = ["ALEXNET", "GOOGLENET", "INCEPTION_V3", "MOBILENET_V2", "RESNET", "SQUEEZENET", "VGG"]

_IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
_HALVES = ([0.5] * 3, [0.5] * 3)


def _recipe(
    name: str, about: str, architecture: str, size: int, config: Callable[..., Any], **more: Any
):
    default = _HALVES if name in ("googlenet", "inception-v3") else _IMAGENET

    def complete(state: State, options: Config) -> dict[str, Any]:
        mean, std = (options.get(k, d) for k, d in zip(("mean", "std"), default, strict=True))
        if not all(_three(x) for x in (mean, std)) or min(std) <= 0:
            raise expected("mean, std", "three numbers each", f"{mean}, {std}")
        return {**config(state), "mean": list(mean), "std": list(std)}

    return Recipe(
        name=name,
        about=about,
        architecture=architecture,
        config=complete,
        options={
            "mean": Option("of each channel, images in [0, 1]", default[0]),
            "std": Option("of each channel", default[1]),
        },
        metadata=lambda config: {
            "preprocessing": f"RGB {size} x {size} in [0, 1] (torchvision: resize the short side, "
            "crop the centre); the network subtracts mean, divides by std",
            "classes": [],
            "labels": "in the order of torchvision's ImageNet-1k classes",
        },
        **more,
    )


def _three(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 3
        and all(type(x) in (int, float) and math.isfinite(x) for x in value)
    )


def _torchvision(name: str, config: Config, **settings: object) -> Any:
    from weights_convert.references import need_torchvision

    make = getattr(need_torchvision().models, name)
    return make(weights=None, num_classes=config["classes"], **settings).eval()


def _table(names: dict[str, str]) -> Callable[[str, Config], str]:
    return lambda path, config: names[path]


# AlexNet -----------------------------------------------------------------------------

_ALEXNET = {
    "conv1": "features.0", "conv2": "features.3", "conv3": "features.6", "conv4": "features.8",
    "conv5": "features.10", "fc6": "classifier.1", "fc7": "classifier.4", "fc8": "classifier.6",
}  # fmt: skip

ALEXNET = _recipe(
    "alexnet", "torchvision's AlexNet", "alexnet.AlexNet", 224,
    lambda state: {"classes": shape_of(state, "classifier.6.weight", 2, "alexnet")[0]},
    source=_table(_ALEXNET),
    special=lambda config: {"fc6.kernel": ("classifier.1.weight", dense_after_flatten(256, 6, 6))},
    reference=lambda config: _torchvision("alexnet", config),
)  # fmt: skip

# VGG ---------------------------------------------------------------------------------


def _vgg(state: State) -> dict[str, Any]:
    shape_of(state, "features.0.weight", 4, "vgg")
    shape_of(state, "classifier.6.weight", 2, "vgg")
    found = [re.fullmatch(r"features\.(\d+)\.weight", key) for key in state]
    at = sorted(int(m[1]) for m in found if m and state[m[0]].ndim == 4)
    norm = "features.1.running_mean" in state
    stages: list[list[int]] = [[]]
    for i, (place, following) in enumerate(zip(at, [*at[1:], at[-1] + 99], strict=True)):
        stages[-1].append(state[f"features.{place}.weight"].shape[0])
        # A convolution and its ReLU take two places, its BatchNorm a third, a pooling one more.
        if following - place > 2 + norm and i + 1 < len(at):
            stages.append([])
    classes, hidden = state["classifier.6.weight"].shape
    return {"stages": stages, "norm": norm, "classes": classes, "hidden": hidden}


def _vgg_source(path: str, config: Config) -> str:
    if path.startswith("fc"):
        return {"fc1": "classifier.0", "fc2": "classifier.3", "fc3": "classifier.6"}[path]
    kind, _, number = path.partition(".")
    place = i = 0
    for stage in config["stages"]:
        for _ in stage:
            if i == int(number):
                return f"features.{place + (kind == 'norms')}"
            place, i = place + 2 + config["norm"], i + 1
        place += 1
    raise KeyError(path)


def _vgg_special(config: Config) -> dict[str, tuple[str, Transform]]:
    channels = config["stages"][-1][-1]
    return {"fc1.kernel": ("classifier.0.weight", dense_after_flatten(channels, 7, 7))}


def _vgg_reference(config: Config) -> Any:
    from weights_convert.references import need_torchvision

    vgg = need_torchvision().models.vgg
    plan = [item for stage in config["stages"] for item in (*stage, "M")]
    features = vgg.make_layers(plan, batch_norm=config["norm"])
    return vgg.VGG(features, num_classes=config["classes"], init_weights=False).eval()


VGG = _recipe(
    "vgg", "torchvision's VGG-11, 13, 16, 19, with BatchNorm or not", "vgg.VGG", 224, _vgg,
    source=_vgg_source, special=_vgg_special, reference=_vgg_reference,
)  # fmt: skip

# ResNet ------------------------------------------------------------------------------


def _resnet(state: State) -> dict[str, Any]:
    shape_of(state, "conv1.weight", 4, "resnet")
    width, _, _, _ = shape_of(state, "layer1.0.conv1.weight", 4, "resnet")
    inner, per_group, _, _ = shape_of(state, "layer1.0.conv2.weight", 4, "resnet")
    classes, _ = shape_of(state, "fc.weight", 2, "resnet")
    blocks = [
        len({m[1] for key in state if (m := re.match(rf"layer{stage}\.(\d+)\.", key))})
        for stage in (1, 2, 3, 4)
    ]
    if inner % max(per_group, 1) or not all(blocks):
        raise InputError(f"recipe resnet: {blocks} blocks, groups of {per_group} of {inner}")
    return {
        "blocks": blocks,
        "bottleneck": "layer1.0.conv3.weight" in state,
        "width": width,
        "groups": inner // per_group,
        "classes": classes,
    }


def _resnet_reference(config: Config) -> Any:
    from weights_convert.references import need_torchvision

    resnet = need_torchvision().models.resnet
    block = resnet.Bottleneck if config["bottleneck"] else resnet.BasicBlock
    groups = config["groups"]
    return resnet.ResNet(
        block, list(config["blocks"]), num_classes=config["classes"], groups=groups,
        width_per_group=config["width"] // groups if config["bottleneck"] else 64,
    ).eval()  # fmt: skip


RESNET = _recipe(
    "resnet", "torchvision's ResNet-18 to 152, ResNeXt, Wide ResNet", "resnet.ResNet", 224,
    _resnet,
    source=lambda path, config: path.replace("downsample_conv", "downsample.0").replace(
        "downsample_norm", "downsample.1"
    ),
    reference=_resnet_reference,
)  # fmt: skip

# GoogLeNet and Inception-v3 ------------------------------------------------------------

GOOGLENET = _recipe(
    "googlenet", "torchvision's GoogLeNet (with BatchNorm)", "googlenet.GoogLeNet", 224,
    lambda state: {"classes": shape_of(state, "fc.weight", 2, "googlenet")[0]},
    source=lambda path, config: path.replace(".branch4.", ".branch4.1."),
    ignore=lambda options: [r"aux[12]\..*"],
    reference=lambda config: _torchvision(
        "googlenet", config, aux_logits=False, init_weights=False, transform_input=False
    ),
)  # fmt: skip

INCEPTION_V3 = _recipe(
    "inception-v3", "torchvision's Inception-v3", "inception.InceptionV3", 299,
    lambda state: {"classes": shape_of(state, "fc.weight", 2, "inception-v3")[0]},
    ignore=lambda options: [r"AuxLogits\..*"],
    reference=lambda config: _torchvision(
        "inception_v3", config, aux_logits=False, init_weights=False, transform_input=False
    ),
)  # fmt: skip

# SqueezeNet --------------------------------------------------------------------------

_PLACES = {"1.0": (3, 4, 5, 7, 8, 9, 10, 12), "1.1": (3, 4, 6, 7, 9, 10, 11, 12)}


def _squeezenet(state: State) -> dict[str, Any]:
    shape = shape_of(state, "features.0.weight", 4, "squeezenet")
    classes = shape_of(state, "classifier.1.weight", 4, "squeezenet")[0]
    versions = {layout[:2]: version for version, layout in LAYOUTS.items()}
    if (shape[0], shape[2]) not in versions:
        raise InputError(f"recipe squeezenet: features.0.weight {shape} is of no known version")
    return {"version": versions[shape[0], shape[2]], "classes": classes}


def _squeezenet_source(path: str, config: Config) -> str:
    if path in ("conv1", "classifier"):
        return {"conv1": "features.0", "classifier": "classifier.1"}[path]
    _, number, layer = path.split(".")
    return f"features.{_PLACES[config['version']][int(number)]}.{layer}"


SQUEEZENET = _recipe(
    "squeezenet", "torchvision's SqueezeNet 1.0 and 1.1", "squeezenet.SqueezeNet", 224,
    _squeezenet,
    source=_squeezenet_source,
    reference=lambda config: _torchvision(
        f"squeezenet{config['version'].replace('.', '_')}", config
    ),
)  # fmt: skip

# MobileNet-v2 ------------------------------------------------------------------------


def _mobilenet(state: State) -> dict[str, Any]:
    classes, head = shape_of(state, "classifier.1.weight", 2, "mobilenet-v2")
    stem = inputs = shape_of(state, "features.0.0.weight", 4, "mobilenet-v2")[0]
    blocks = []
    for i in range(1, 18):
        deep = f"features.{i}.conv.3.weight" in state
        narrow = f"features.{i}.conv.{2 if deep else 1}.weight"
        outputs, inner, _, _ = shape_of(state, narrow, 4, "mobilenet-v2")
        if deep == (inner == inputs):
            raise InputError(f"recipe mobilenet-v2: block {i}: {inputs} to {inner} channels")
        blocks.append([inner, outputs])
        inputs = outputs
    return {"blocks": blocks, "stem": stem, "head": head, "classes": classes}


def _mobilenet_source(path: str, config: Config) -> str:
    if path == "classifier":
        return "classifier.1"
    parts = path.split(".")
    last = {"conv": "0", "bn": "1"}[parts[-1]]
    if parts[0] in ("stem", "head"):
        return f"features.{0 if parts[0] == 'stem' else 18}.{last}"
    number = int(parts[1])
    before = config["stem"] if number == 0 else config["blocks"][number - 1][1]
    units = ["depthwise", "project"]
    if config["blocks"][number][0] != before:
        units.insert(0, "expand")
    place = units.index(parts[2])
    if parts[2] == "project":  # the only unit that torchvision does not nest
        return f"features.{number + 1}.conv.{place + int(last)}"
    return f"features.{number + 1}.conv.{place}.{last}"


def _mobilenet_reference(config: Config) -> Any:
    return _torchvision("mobilenet_v2", config, width_mult=config["stem"] / 32)


MOBILENET_V2 = _recipe(
    "mobilenet-v2", "torchvision's MobileNet-v2", "mobilenet.MobileNetV2", 224, _mobilenet,
    source=_mobilenet_source, reference=_mobilenet_reference,
)  # fmt: skip
