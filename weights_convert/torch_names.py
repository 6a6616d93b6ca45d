"""PyTorch's layers by PyTorch's names: which type each is here, and what its settings are called.

A setting is renamed, or checked against what the weights and the shapes say, or must have the
one value that changes nothing. What is in none of these lists is refused: a setting that is
dropped without a word is a network that computes something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxgen.models.ported.sequential_schema import SCHEMA

__all__ = ["TORCH_SETTINGS", "TORCH_TYPES", "translate"]


class TorchType(NamedTuple):
    """A class of `torch.nn`.

    Attributes:
      type: the type here.
      names: setting there -> setting here.
      fixed: setting there -> the values that change nothing here.
      sizes: settings that must equal the input's channels ("in") or be its axis ("axis").
      preset: settings here that the class implies.
    """

    type: str
    names: Mapping[str, str] = {}
    fixed: Mapping[str, tuple[Any, ...]] = {}
    sizes: Mapping[str, str] = {}
    preset: Mapping[str, Any] = {}


_ANY = ("inplace", "device", "dtype", "momentum")  # nothing of these matters at inference
_CONV = {"out_channels": "out", "kernel_size": "kernel"}
_CONV_SAME = {name: name for name in ("stride", "padding", "groups", "dilation", "bias")}
_NORM_FIXED = {"track_running_stats": (True,)}
_POOL = {"kernel_size": "kernel", "stride": "stride", "padding": "padding", "ceil_mode": "ceil"}
_DIM = {"dim": "axis"}
_PAD = {"padding": "padding"}


def _activation(kind: str, **names: str) -> TorchType:
    return TorchType(kind, names)


TORCH_TYPES: dict[str, TorchType] = {
    "Linear": TorchType(
        "linear", {"out_features": "out", "bias": "bias"}, sizes={"in_features": "in"}
    ),
    "Conv2d": TorchType(
        "conv", {**_CONV, **_CONV_SAME}, {"padding_mode": ("zeros",)}, {"in_channels": "in"}
    ),
    "ConvTranspose2d": TorchType(
        "conv_transpose",
        {**_CONV, **_CONV_SAME, "output_padding": "output_padding"},
        {"padding_mode": ("zeros",)},
        {"in_channels": "in"},
    ),
    **{
        name: TorchType(
            "batch_norm", {"eps": "eps", "affine": "affine"}, _NORM_FIXED, {"num_features": "in"}
        )
        for name in ("BatchNorm1d", "BatchNorm2d", "SyncBatchNorm")
    },
    "InstanceNorm2d": TorchType(
        "instance_norm", {"eps": "eps", "affine": "affine"},
        {"track_running_stats": (False,)}, {"num_features": "in"},
    ),
    "GroupNorm": TorchType(
        "group_norm", {"num_groups": "groups", "eps": "eps", "affine": "affine"},
        sizes={"num_channels": "in"},
    ),
    "LayerNorm": TorchType(
        "layer_norm",
        {"normalized_shape": "shape", "eps": "eps", "elementwise_affine": "affine",
         "bias": "bias"},
    ),
    "ReLU": _activation("relu"),
    "ReLU6": _activation("relu6"),
    "LeakyReLU": _activation("leaky_relu", negative_slope="slope"),
    "PReLU": TorchType("prelu", {"num_parameters": "count"}, {"init": (0.25,)}),
    "ELU": _activation("elu", alpha="alpha"),
    "CELU": _activation("celu", alpha="alpha"),
    "SELU": _activation("selu"),
    "GELU": _activation("gelu", approximate="approximate"),
    "SiLU": _activation("silu"),
    "Mish": _activation("mish"),
    "Softplus": _activation("softplus", beta="beta", threshold="threshold"),
    "Softsign": _activation("softsign"),
    "Tanh": _activation("tanh"),
    "Sigmoid": _activation("sigmoid"),
    "LogSigmoid": _activation("log_sigmoid"),
    "Hardtanh": _activation("hardtanh", min_val="low", max_val="high"),
    "Hardsigmoid": _activation("hardsigmoid"),
    "Hardswish": _activation("hardswish"),
    "Softmax": TorchType("softmax", sizes=_DIM),
    "Softmax2d": TorchType("softmax"),
    "LogSoftmax": TorchType("log_softmax", sizes=_DIM),
    "MaxPool2d": TorchType("max_pool", _POOL, {"dilation": (1,), "return_indices": (False,)}),
    "AvgPool2d": TorchType(
        "avg_pool", {**_POOL, "count_include_pad": "count_padding"}, {"divisor_override": (None,)}
    ),
    "AdaptiveAvgPool2d": TorchType("adaptive_avg_pool", {"output_size": "size"}),
    "Flatten": TorchType("flatten", fixed={"start_dim": (1, -3), "end_dim": (-1, 3)}),
    "Unflatten": TorchType("unflatten", {"unflattened_size": "shape"}, {"dim": (1, -1)}),
    "Upsample": TorchType(
        "upsample", {"scale_factor": "factor", "mode": "mode", "align_corners": "align_corners"},
        {"recompute_scale_factor": (None, False), "size": (None,)},
        preset={"factor": None},
    ),
    "UpsamplingNearest2d": TorchType(
        "upsample", {"scale_factor": "factor"}, {"size": (None,)}, preset={"factor": None}
    ),
    "UpsamplingBilinear2d": TorchType(
        "upsample", {"scale_factor": "factor"}, {"size": (None,)},
        preset={"factor": None, "mode": "bilinear", "align_corners": True},
    ),
    "PixelShuffle": TorchType("pixel_shuffle", {"upscale_factor": "factor"}),
    "ZeroPad2d": TorchType("zero_pad", _PAD),
    "ConstantPad2d": TorchType("constant_pad", {**_PAD, "value": "value"}),
    "ReflectionPad2d": TorchType("reflection_pad", _PAD),
    "ReplicationPad2d": TorchType("replication_pad", _PAD),
    "Identity": TorchType("identity"),
    **{
        name: TorchType("dropout", {"p": "p"})
        for name in ("Dropout", "Dropout1d", "Dropout2d", "AlphaDropout")
    },
}  # fmt: skip
"""Class of `torch.nn` -> `TorchType`."""

TORCH_SETTINGS = {
    theirs: ours for entry in TORCH_TYPES.values() for theirs, ours in entry.names.items()
}
"""Setting in PyTorch -> setting here, of all classes."""

_WAYS_OUT = {
    "padding_mode": "write the padding as a layer of its own, as in ReflectionPad2d",
    "track_running_stats": "statistics of a batch are no function of one image, and instance "
    "normalisation with running statistics is BatchNorm2d",
    "size": "give scale_factor instead",
}


def translate(
    kind: str, settings: Mapping[str, Any]
) -> tuple[str, dict[str, Any], dict[str, Any], list[str]]:
    """Return a layer of a description in the terms of `jaxgen.models.ported.sequential`.

    Args:
      kind: a class of `torch.nn`, or a type here, whose settings are taken as they are.
      settings: as they are written; the settings of both spellings may be mixed.

    Returns:
      The type, its settings, what is to be compared with the shapes, and what is wrong, in
      words.
    """
    if kind not in TORCH_TYPES:
        return kind, dict(settings), {}, []
    torch = TORCH_TYPES[kind]
    found: dict[str, Any] = dict(torch.preset)
    sizes: dict[str, Any] = {}
    wrong: list[str] = []
    for name, value in settings.items():
        if name in torch.names or name in SCHEMA[torch.type]:
            ours = torch.names.get(name, name)
            if settings.get(ours, value) is not value and ours in settings:
                wrong.append(f"{name} and {ours} are the same setting")
            found[ours] = _spelt(name, value)
        elif name in torch.sizes:
            sizes[name] = value
        elif name in torch.fixed:
            if not any(value is good or _equal(value, good) for good in torch.fixed[name]):
                allowed = " or ".join(map(repr, torch.fixed[name]))
                way_out = f"; {_WAYS_OUT[name]}" if name in _WAYS_OUT else ""
                wrong.append(f"{name}: expected {allowed}; got {value!r:.80}{way_out}")
        elif name in _ANY:
            if name == "inplace" and type(value) is not bool:
                wrong.append(f"inplace: expected true or false; got {value!r:.80}")
        else:
            known = ", ".join([*torch.names, *torch.sizes, *torch.fixed]) or "none"
            wrong.append(f"{kind} has no setting {name!r:.80}; known: {known}")
    if "factor" in torch.preset and found.get("factor") is None:
        wrong.append("scale_factor is missing (PyTorch's own default leaves the size alone)")
        found.pop("factor", None)
    return torch.type, found, sizes, wrong


def _spelt(name: str, value: object) -> Any:
    """PyTorch's words for numbers."""
    if name == "padding" and value == "valid":
        return 0
    if name == "scale_factor" and isinstance(value, list | tuple):
        return [_spelt(name, item) for item in value]
    if name == "scale_factor" and type(value) is float and value.is_integer():
        return int(value)
    return value


def _equal(value: object, good: object) -> bool:
    return type(value) is type(good) and value == good
