"""Parity: does the converted network compute what the original does, layer by layer?

The judge is independent software that reads the original files itself: OpenCV's Caffe
importer where it is installed, or activations stored by the original framework. The error
of a layer is

    max |ours - judge| / max |judge|

over all numbers of all its tops, in float32 with full-precision products.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from jaxgen.core.errors import InputError, expected
from jaxgen.models.caffe.graph import Graph
from weights_convert.archives import read_npz
from weights_convert.layouts import hwc_to_chw
from weights_convert.report import plain

__all__ = [
    "TOLERANCE",
    "LayerParity",
    "compare",
    "graph_activations",
    "opencv_activations",
    "parity_table",
    "random_inputs",
    "relative_error",
    "stored_activations",
    "to_blob",
]

TOLERANCE = 1e-5


class LayerParity(NamedTuple):
    """One row of a parity report.

    Attributes:
      layer, type: which.
      shape: of its first top for one sample, in our layout.
      error: the relative error, or None if the judge does not have the layer.
      passed: whether the error is within the tolerance; True where there is no judgement.
      note: why there is none, or what else is wrong.
    """

    layer: str
    type: str
    shape: tuple[int, ...]
    error: float | None
    passed: bool
    note: str = ""


def relative_error(ours: np.ndarray, judge: np.ndarray) -> float:
    """max |ours - judge| / max |judge|; infinite if either is not finite everywhere."""
    if not (np.isfinite(ours).all() and np.isfinite(judge).all()):
        return 0.0 if np.array_equal(ours, judge, equal_nan=True) else float("inf")
    if not judge.size:
        return 0.0
    gap, scale = float(np.abs(ours - judge).max()), float(np.abs(judge).max())
    return 0.0 if gap == 0.0 else gap / scale if scale else float("inf")


def random_inputs(graph: Graph, seed: int = 0, spread: float = 1.0) -> list[np.ndarray]:
    """One normal sample for each input of a graph, in our layout."""
    rng = np.random.default_rng(seed)
    return [
        (spread * rng.standard_normal(shape)).astype(np.float32) for shape in graph.sample_shapes
    ]


def graph_activations(
    graph: Graph, inputs: Sequence[np.ndarray]
) -> dict[str, tuple[np.ndarray, ...]]:
    """Layer -> its tops for one sample, in our layout."""
    graphdef, state = nnx.split(graph)
    with jax.default_matmul_precision("highest"):
        run = jax.jit(lambda weights, xs: nnx.merge(graphdef, weights).activations(*xs))
        found = run(state, list(inputs))
    return {name: tuple(np.asarray(top) for top in tops) for name, tops in found.items()}


def opencv_activations(
    prototxt: str | os.PathLike[str],
    caffemodel: str | os.PathLike[str] | None,
    inputs: Mapping[str, np.ndarray],
) -> dict[str, tuple[np.ndarray, ...]]:
    """Layer -> its tops as OpenCV's Caffe importer computes them, in Caffe's layout.

    Args:
      prototxt: the original files.
      caffemodel: likewise.
      inputs: blob -> whole blob with its batch axis, (N, C, H, W).

    Raises:
      ImportError: if OpenCV is not installed, saying how to get it.
      InputError: if OpenCV cannot read or run the network.
    """
    try:
        import cv2
    except ImportError as error:
        raise ImportError(
            "the judge is OpenCV's Caffe importer: pip install 'opencv-python-headless<5'"
        ) from error
    if not hasattr(cv2.dnn, "readNetFromCaffe"):
        raise ImportError("this OpenCV has no Caffe importer: use opencv-python-headless<5")
    try:
        files = [os.fspath(path) for path in (prototxt, caffemodel) if path is not None]
        net = cv2.dnn.readNetFromCaffe(*files)
        # Fusion would overwrite the very activations that we compare.
        net.enableFusion(False)
        if hasattr(net, "enableWinograd"):
            net.enableWinograd(False)
        names = list(net.getLayerNames())
        for name, blob in inputs.items():
            net.setInput(np.ascontiguousarray(blob, np.float32), name)
        found = net.forwardAndRetrieve(names)
    except cv2.error as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{Path(prototxt).name}: OpenCV cannot judge it ({reason})") from error
    return {
        name: tuple(np.array(top) for top in tops) for name, tops in zip(names, found, strict=True)
    }


def stored_activations(path: str | os.PathLike[str]) -> dict[str, tuple[np.ndarray, ...]]:
    """Activations from an npz of arrays by layer name, with their batch axis of one.

    Raises:
      InputError: if the file is no npz of plain arrays.
    """
    found = {}
    for name, array in read_npz(Path(path), slashes=False).items():
        if array.dtype.kind not in "fiub":
            raise expected(f"{path}: {name[:80]!r}", "an npz of plain arrays", str(array.dtype))
        found[name] = (array.astype(np.float32),)
    return found


def compare(
    graph: Graph,
    ours: Mapping[str, Sequence[np.ndarray]],
    judge: Mapping[str, Sequence[np.ndarray]],
    tolerance: float = TOLERANCE,
    notes: Mapping[str, str] | None = None,
) -> list[LayerParity]:
    """Return a row for each layer of the graph.

    Args:
      graph: the converted network.
      ours: from `graph_activations`, in our layout.
      judge: layer -> tops with the batch axis of one sample, in Caffe's layout.
      tolerance: on the relative error.
      notes: layer -> what to say beside its verdict.
    """
    rows: list[LayerParity] = []
    judge = dict(judge)
    blobs = graph.layer_tops
    for name, kind in graph.layer_types.items():
        # OpenCV calls convolutions by the name of their top.
        if kind == "Convolution" and name not in judge:
            top = blobs[name][0]
            judge |= {name: judge[top]} if top in judge else {}
    for name, kind in graph.layer_types.items():
        tops = ours[name]
        shape = tuple(tops[0].shape)
        if name not in judge:
            rows.append(LayerParity(name, kind, shape, None, True, "the judge lacks it"))
            continue
        # OpenCV's maximum pooling also gives a mask, its Split fewer copies than asked for.
        pairs = list(zip(tops, judge[name], strict=False))
        errors = [_error(a, b) for a, b in pairs]
        if not pairs or None in errors:
            shapes = ", ".join(str(b.shape) for b in judge[name]) or "nothing"
            rows.append(LayerParity(name, kind, shape, float("inf"), False, f"judge: {shapes}"))
            continue
        worst = max(error for error in errors if error is not None)
        note = "" if len(pairs) == len(tops) else f"{len(pairs)} of {len(tops)} tops judged"
        note = ", ".join(part for part in (note, (notes or {}).get(name, "")) if part)
        rows.append(LayerParity(name, kind, shape, worst, worst <= tolerance, note))
    return rows


def parity_table(rows: Sequence[LayerParity], title: str = "Parity") -> Any:
    """Return the rows as a `rich` table."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(plain(title)), title_justify="left")
    for column in ("layer", "type", "shape", "relative error", ""):
        table.add_column(column, justify="right" if column == "relative error" else "left")
    for row in rows:
        error = "" if row.error is None else f"{row.error:.1e}"
        verdict = "" if row.error is None else "ok" if row.passed else "FAILED"
        verdict = ", ".join(part for part in (verdict, row.note) if part)
        shape = " x ".join(str(n) for n in row.shape) or "scalar"
        # Text takes no markup, and names come from files of strangers.
        table.add_row(Text(plain(row.layer)), Text(row.type), shape, error, verdict)
    return table


def _error(ours: np.ndarray, judge: np.ndarray) -> float | None:
    """Return the relative error of one top; None if the shapes cannot be the same blob."""
    if ours.ndim == 3:
        ours = hwc_to_chw(ours)
    if ours.size != judge.size:
        return None
    # The judge has a batch axis of one somewhere; OpenCV also drops or adds such axes.
    if tuple(n for n in ours.shape if n != 1) != tuple(n for n in judge.shape if n != 1):
        return None
    return relative_error(ours.reshape(-1), judge.reshape(-1))


def to_blob(sample: np.ndarray, batch_axis: int | None = 0) -> np.ndarray:
    """One of our samples as a Caffe blob: `[H, W, C]` to (1, C, H, W)."""
    if batch_axis is None:
        return hwc_to_chw(sample) if sample.ndim == 4 else sample
    sample = hwc_to_chw(sample) if sample.ndim == 3 else sample
    return np.expand_dims(sample, batch_axis)
