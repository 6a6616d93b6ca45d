"""Judge by NumPy where OpenCV's Caffe importer is wrong, and by OpenCV everywhere else.

OpenCV ignores the k of LRN, the dilation of a deconvolution and the transpose of an
InnerProduct (found with 4.x by the loops of this module, which follow Caffe's C++ sources). Its
activations are then wrong from that layer on. So such a layer is taken out of the definition
that OpenCV gets: NumPy computes its top from OpenCV's own bottom, and the rest of the network
has that top as a further input.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.core.errors import InputError, expected
from weights_convert.caffe.caffemodel import Caffemodel, blob_key
from weights_convert.caffe.layers import DATA, DROPPED
from weights_convert.caffe.prototxt import LayerText, read_prototxt
from weights_convert.caffe.schema import message_class
from weights_convert.parity import opencv_activations

__all__ = ["deconvolution", "inner_product", "judged_activations", "lrn", "wrong_in_opencv"]

_MOST = 32

Activations = dict[str, tuple[np.ndarray, ...]]


def wrong_in_opencv(layer: LayerText) -> str | None:
    """Return what OpenCV ignores of a layer; None if it is right about it."""
    message = layer.message
    if layer.type == "LRN" and message.lrn_param.norm_region == 0 and message.lrn_param.k != 1.0:
        return "OpenCV ignores k"
    if layer.type == "Deconvolution" and any(n != 1 for n in message.convolution_param.dilation):
        return "OpenCV ignores dilation"
    if layer.type == "InnerProduct" and message.inner_product_param.transpose:
        return "OpenCV ignores transpose"
    return None


def judged_activations(
    prototxt: str | os.PathLike[str],
    caffemodel: str | os.PathLike[str] | None,
    inputs: Mapping[str, np.ndarray],
    *,
    level: int = 0,
    stages: Sequence[str] = (),
) -> tuple[Activations, dict[str, str]]:
    """Layer -> its tops in Caffe's layout, and layer -> why NumPy judged it.

    Args:
      prototxt: the original files.
      caffemodel: likewise.
      inputs: blob -> whole blob with its batch axis, (N, C, H, W).
      level: as for the conversion.
      stages: likewise.

    Raises:
      ImportError: if OpenCV is not installed.
      InputError: if OpenCV cannot read or run the network.
    """
    net = read_prototxt(prototxt, level=level, stages=stages)
    layers = [layer for layer in net.layers if layer.type not in DATA | DROPPED]
    reasons = {layer.name: why for layer in layers if (why := wrong_in_opencv(layer))}
    if not reasons or caffemodel is None:
        return opencv_activations(prototxt, caffemodel, inputs), {}
    if len(reasons) > _MOST:
        raise expected("--verify", f"at most {_MOST} layers that OpenCV gets wrong", len(reasons))
    model = Caffemodel(caffemodel)
    known: dict[str, np.ndarray] = dict(inputs)
    names: dict[str, str] = {}  # blob as the file calls it -> as the cut network does
    before: list[Any] = []
    result: Activations = {}
    with tempfile.TemporaryDirectory(prefix="jaxgen-judge-") as folder:
        for layer in layers:
            bottoms = [names.get(name, name) for name in layer.bottoms]
            if layer.name not in reasons:
                before.append(_renamed(layer, bottoms))
                for top in layer.tops:
                    names.pop(top, None)
                continue
            bottom = known.get(bottoms[0])
            if bottom is None:
                bottom = _blob(_run(folder, before, caffemodel, known), before, bottoms[0])
            top = _top(layer, model, bottom)
            result[layer.name] = (top,)
            names[layer.tops[0]] = name = f"{layer.tops[0]} by NumPy {len(result)}"
            known[name] = top
        result |= _run(folder, before, caffemodel, known)
    return result, {name: f"judged by NumPy: {why}" for name, why in reasons.items()}


def lrn(x: np.ndarray, size: int, alpha: float, beta: float, k: float) -> np.ndarray:
    """x / (k + alpha / size * sum of x^2 over `size` channels)^beta, in Caffe's layout."""
    half = (size - 1) // 2
    squares = np.pad(x.astype(np.float64) ** 2, [(0, 0), (half, half), (0, 0), (0, 0)])
    sums = sum(squares[:, i : i + x.shape[1]] for i in range(size))
    return (x / (k + alpha / size * sums) ** beta).astype(np.float32)


def deconvolution(
    x: np.ndarray, kernel: np.ndarray, stride: Sequence[int], pad: Sequence[int],
    dilation: Sequence[int], groups: int,
) -> np.ndarray:  # fmt: skip
    """Each input times its kernel (I, O/g, kh, kw), added at its place; without bias."""
    n, inputs, height, width = x.shape
    _, outputs, kh, kw = kernel.shape
    full = [
        (size - 1) * s + d * (k - 1) + 1
        for size, s, d, k in zip((height, width), stride, dilation, (kh, kw), strict=True)
    ]
    y = np.zeros((n, groups * outputs, *full))
    each = inputs // groups
    for g in range(groups):
        part, taps = x[:, g * each : (g + 1) * each], kernel[g * each : (g + 1) * each]
        to = slice(g * outputs, (g + 1) * outputs)
        for a in range(kh):
            for b in range(kw):
                rows = slice(a * dilation[0], a * dilation[0] + (height - 1) * stride[0] + 1,
                             stride[0])  # fmt: skip
                cols = slice(b * dilation[1], b * dilation[1] + (width - 1) * stride[1] + 1,
                             stride[1])  # fmt: skip
                y[:, to, rows, cols] += np.einsum("nihw,io->nohw", part, taps[:, :, a, b])
    return y[:, :, pad[0] : full[0] - pad[0], pad[1] : full[1] - pad[1]]


def inner_product(x: np.ndarray, matrix: np.ndarray, axis: int) -> np.ndarray:
    """Return the axes from `axis` on as one vector, times a matrix (inputs, outputs)."""
    lead = x.shape[: axis % x.ndim]
    flat = x.reshape((int(np.prod(lead)), -1)).astype(np.float64)
    return (flat @ matrix).reshape((*lead, -1))


# Inside ------------------------------------------------------------------------------


def _top(layer: LayerText, model: Caffemodel, x: np.ndarray) -> np.ndarray:
    message = layer.message
    blobs = [model[blob_key(layer.name, i)] for i in range(model.layers.get(layer.name, 0))]
    if layer.type == "LRN":
        p = message.lrn_param
        return lrn(x, p.local_size, p.alpha, p.beta, p.k)
    if layer.type == "Deconvolution":
        p = message.convolution_param
        stride, pad = _pair(p, "stride", 1), _pair(p, "pad", 0)
        dilation = _twice(list(p.dilation) or [1])
        y = deconvolution(x, blobs[0], stride, pad, dilation, p.group)
        shape = (1, -1, 1, 1)
    else:
        p = message.inner_product_param
        matrix = blobs[0].reshape(-1, p.num_output)
        y = inner_product(x, matrix, p.axis)
        shape = (-1,)
    return (y + blobs[1].reshape(shape) if p.bias_term else y).astype(np.float32)


def _pair(params: Any, name: str, default: int) -> list[int]:
    if params.HasField(f"{name}_h"):
        return [getattr(params, f"{name}_h"), getattr(params, f"{name}_w")]
    return _twice(list(getattr(params, name)) or [default])


def _twice(values: list[int]) -> list[int]:
    return values * 2 if len(values) == 1 else values


def _renamed(layer: LayerText, bottoms: Sequence[str]) -> Any:
    made = message_class("LayerParameter")()
    made.CopyFrom(layer.message)
    del made.bottom[:]
    made.bottom.extend(bottoms)
    for rules in (made.include, made.exclude):
        del rules[:]
    return made


def _run(
    folder: str, layers: Sequence[Any], caffemodel: Any, known: Mapping[str, np.ndarray]
) -> Activations:
    """OpenCV on some of the layers, with everything that is known as its inputs."""
    from google.protobuf import text_format

    net = message_class("NetParameter")(name="cut")
    used = {bottom for layer in layers for bottom in layer.bottom}
    inputs = {name: np.asarray(blob) for name, blob in known.items() if name in used}
    for name, blob in inputs.items():
        net.input.append(name)
        net.input_shape.add().dim.extend(blob.shape)
    net.layer.extend(layers)
    path = Path(folder) / "cut.prototxt"
    path.write_text(text_format.MessageToString(net), "utf-8")
    return opencv_activations(path, caffemodel, inputs)


def _blob(found: Activations, layers: Sequence[Any], name: str) -> np.ndarray:
    """Return the last value of a blob among the activations of layers."""
    for layer in reversed(layers):
        if name in layer.top:
            tops = found.get(layer.name, found.get(layer.top[0], ()))
            place = list(layer.top).index(name)
            if place < len(tops):
                return tops[place]
    raise InputError(f"--verify: OpenCV does not give the blob {name!r}")
