"""Preprocessing as part of the network: images are RGB in [0, 1] outside, Caffe's inside.

Caffe feeds a network scale * (x - mean), with x in 0 to 255 and most often BGR. A
conversion with a `Preprocessing` has this as its first layer, or its inverse as the last
layer of a generator, so that what composes with it needs to know nothing of Caffe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxgen.core.errors import expected
from weights_convert.layouts import chw_to_hwc

__all__ = [
    "PRESETS", "Preprocessing", "add_preprocessing", "declared_preprocessing", "from_prototxt",
]  # fmt: skip

_BGR_MEAN = (104.0, 117.0, 123.0)


class Preprocessing(NamedTuple):
    """The difference between a network's images and RGB in [0, 1].

    Attributes:
      channels: "rgb", "bgr" or "grey", the network's order.
      mean: subtracted from 0-255 values, in the network's order: one number for each
        channel, or a [C, H, W] image, whose middle is taken if it is larger.
      scale: multiplies what is left.
      resize: length to which images of any size should be resized first; only recorded.
        Of images larger than the network's input the middle is taken.
      draws: whether the network is a generator, and its output, not its input, an image.
    """

    channels: str = "bgr"
    mean: Any = _BGR_MEAN
    scale: float = 1.0
    resize: int | None = None
    draws: bool = False


PRESETS = {
    # BVLC's ImageNet networks and the networks of LMB Freiburg.
    "imagenet": Preprocessing(resize=256),
    "imagenet-generator": Preprocessing(draws=True),
    "lenet": Preprocessing(channels="grey", mean=(), scale=1 / 256),
}


def declared_preprocessing(layers: Sequence[Any]) -> dict[str, Any] | None:
    """Return what the data layers of a prototxt say that they do to images; None if nothing.

    Read from `transform_param` and, in older files, from the layer's own parameters.

    Args:
      layers: the `LayerText` of the data layers of the TEST phase.

    Returns:
      "layer", and of "scale", "mean", "mean_file", "crop" and "grey" what is given. The crop is
      the middle of the image; that images come as BGR, with values 0 to 255, goes unsaid.
    """
    for layer in layers:
        message = layer.message
        groups = [message.transform_param]
        groups += [
            getattr(message, f"{kind}_param") for kind in ("data", "image_data", "window_data")
        ]
        found: dict[str, Any] = {}
        for group in groups:
            names = group.DESCRIPTOR.fields_by_name
            if "scale" in names and group.HasField("scale"):
                found.setdefault("scale", float(group.scale))
            if group.HasField("mean_file"):
                found.setdefault("mean_file", group.mean_file[:500])
            if group.HasField("crop_size") and group.crop_size:
                found.setdefault("crop", int(group.crop_size))
            if "mean_value" in names and group.mean_value:
                found.setdefault("mean", [float(value) for value in group.mean_value][:3])
            if "force_gray" in names and group.force_gray:
                found.setdefault("grey", True)
        if found:
            return {"layer": layer.name, **found}
    return None


def from_prototxt(found: dict[str, Any] | None, channels: int) -> Preprocessing:
    """Return the preprocessing that a prototxt declares.

    Args:
      found: from `declared_preprocessing`.
      channels: of the network's input.

    Raises:
      InputError: if it declares none.
    """
    if found is None:
        hint = "A deploy.prototxt has none; the train_val.prototxt of the same network may."
        raise expected("--preset prototxt", "a data layer with transform_param", "none", hint)
    return Preprocessing(
        "grey" if channels == 1 or found.get("grey") else "bgr",
        tuple(found.get("mean", ())),
        found.get("scale", 1.0),
        found.get("crop"),
    )


def add_preprocessing(converted: Any, preprocessing: Preprocessing) -> Any:
    """Return a `Converted` network that takes, or draws, RGB (or grey) images in [0, 1].

    Raises:
      InputError: if the network has several inputs, or the mean does not fit it.
    """
    channels, scale = preprocessing.channels, float(preprocessing.scale)
    if channels not in ("rgb", "bgr", "grey"):
        raise expected("channels", "rgb, bgr or grey", repr(channels))
    if not np.isfinite(scale) or scale == 0.0:
        raise expected("scale", "a finite number other than 0", scale)
    description = dict(converted.description)
    ends = description["outputs" if preprocessing.draws else "inputs"]
    if len(ends) != 1:
        raise expected("preprocessing", "one image", f"{len(ends)} blobs")
    names = {layer["name"] for layer in description["layers"]}
    title = "to_image" if preprocessing.draws else "from_image"
    while title in names:
        title += "_"
    layer = {"name": title, "config": {"scale": scale, "swap": channels == "bgr"}}
    shape: list[int] | None = None
    mean = np.asarray(preprocessing.mean, np.float32)
    if preprocessing.draws:
        layer |= {"type": "ToImage", "bottoms": list(ends), "tops": ["image"]}
        description["layers"] = [*description["layers"], layer]
        description["outputs"] = ["image"]
    else:
        blob = ends[0]
        shape = list(blob["shape"])
        if len(shape) != 4 or shape[1] != (1 if channels == "grey" else 3):
            raise expected("channels", f"the order of {shape[1:2]} channels", channels)
        layer["config"] = {**layer["config"], "size": shape[2:]}
        layer |= {"type": "FromImage", "bottoms": ["image"], "tops": [blob["name"]]}
        description["layers"] = [layer, *description["layers"]]
        description["inputs"] = [{**blob, "name": "image"}]
    arrays = dict(converted.arrays)
    if mean.size:
        arrays[f"{title}.mean"] = _fitted(mean, channels, shape)
        layer["parameters"] = {"mean": list(arrays[f"{title}.mean"].shape)}
    record = {
        "channels": channels,
        "scale": scale,
        "mean": mean.tolist() if mean.ndim < 3 else f"an image, {title}.mean",
        "resize": preprocessing.resize,
        "inside": "FromImage" if not preprocessing.draws else "ToImage",
    }
    metadata = {**converted.metadata, "preprocessing": record}
    return converted._replace(description=description, arrays=arrays, metadata=metadata)


def _fitted(mean: np.ndarray, channels: str, shape: list[int] | None) -> np.ndarray:
    """Return the mean as [C], or as [H, W, C] of the input's size."""
    count = 1 if channels == "grey" else 3
    if not np.isfinite(mean).all():
        raise expected("mean", "finite numbers", "NaN or infinite ones")
    if mean.ndim in (0, 1):
        mean = np.broadcast_to(mean, (count,)) if mean.size == 1 else mean
        if mean.shape != (count,):
            raise expected("mean", f"1 or {count} numbers", mean.size)
        return np.array(mean)
    if mean.ndim != 3 or mean.shape[0] != count or shape is None:
        raise expected("mean", f"{count} numbers or a ({count}, H, W) image", mean.shape)
    top, left = (mean.shape[1] - shape[2]) // 2, (mean.shape[2] - shape[3]) // 2
    if top < 0 or left < 0:
        raise expected("mean", f"at least {shape[2]} x {shape[3]} pixels", mean.shape[1:])
    return chw_to_hwc(mean)[top : top + shape[2], left : left + shape[3]]
