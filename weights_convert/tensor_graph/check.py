"""Compare a converted network's tensors with those of the original framework.

The error of a tensor is max |ours - judge| / max |judge|, in float32 with full-precision
products, as everywhere in `weights_convert.parity`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from flax import nnx

from jaxgen.core.types import Array, ArrayTree
from jaxgen.models.tensor_ops import TensorGraph
from weights_convert.parity import LayerParity, relative_error

__all__ = ["Judge", "compared", "random_tensors", "tensors"]

Judge = Callable[[Mapping[str, np.ndarray], Sequence[str]], tuple[dict[str, np.ndarray], str]]
"""Inputs by name and the wanted tensors -> those it knows, and its name."""

_MOST_AT_ONCE = 1 << 27


def random_tensors(
    shapes: Mapping[str, Sequence[int]],
    seed: int = 0,
    spread: float = 1.0,
    whole: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """One normal sample of every input, as a whole tensor; of those in `whole` counts, |x| cut."""
    rng = np.random.default_rng(seed)
    drawn = {name: spread * rng.standard_normal(shape) for name, shape in shapes.items()}
    return {
        name: (np.floor(np.abs(x)) if name in whole else x).astype(np.float32)
        for name, x in drawn.items()
    }


def tensors(
    graph: TensorGraph, inputs: Mapping[str, np.ndarray], names: Sequence[str] | None = None
) -> dict[str, np.ndarray]:
    """Tensor -> numbers, (N, C, H, W), of everything the layers make, or of `names` alone."""
    samples = []
    for name, axis in zip(graph.input_names, graph.batch_axes, strict=True):
        x = inputs[name]
        x = x.transpose(0, 2, 3, 1) if x.ndim == 4 else x
        samples.append(x if axis is None else x[0])
    graphdef, state = nnx.split(graph)

    @jax.jit
    def run(weights: ArrayTree, xs: Sequence[Array]) -> dict[str, Array]:
        found = nnx.merge(graphdef, weights).tensors(*xs)
        return found if names is None else {name: found[name] for name in names}

    with jax.default_matmul_precision("highest"):
        return {name: np.asarray(x) for name, x in run(state, samples).items()}


def compared(
    graph: TensorGraph,
    inputs: Mapping[str, np.ndarray],
    judge: Judge,
    tolerance: float,
) -> tuple[list[LayerParity], str]:
    """Return a row for each layer, and the judge's name.

    Large networks are compared some layers at a time, so that no more than about a gigabyte
    of numbers is held.
    """
    rows: list[LayerParity] = []
    who = ""
    tops = graph.layer_tops
    samples = [jax.ShapeDtypeStruct(shape, np.float32) for shape in graph.sample_shapes]
    sizes = jax.eval_shape(graph.tensors, *samples)
    parts: list[list[str]] = [[]]
    held = 0
    for layer, names in tops.items():
        count = sum(int(np.prod(sizes[name].shape)) for name in names)
        if parts[-1] and held + count > _MOST_AT_ONCE:
            parts.append([])
            held = 0
        parts[-1].append(layer)
        held += count
    for part in parts:
        wanted = [name for layer in part for name in tops[layer]]
        judged, who = judge(inputs, wanted)
        ours = tensors(graph, inputs, [name for name in wanted if name in judged])
        for layer in part:
            rows.append(
                _row(layer, graph.layer_types[layer], tops[layer], ours, judged,
                     tuple(sizes[tops[layer][0]].shape), tolerance)
            )  # fmt: skip
    return rows, who


def _row(
    layer: str,
    kind: str,
    tops: Sequence[str],
    ours: Mapping[str, np.ndarray],
    judged: Mapping[str, np.ndarray],
    shape: tuple[int, ...],
    tolerance: float,
) -> LayerParity:
    known = [name for name in tops if name in judged]
    if not known:
        return LayerParity(layer, kind, shape, None, True, "the judge lacks it")
    worst = 0.0
    for name in known:
        if ours[name].shape != judged[name].shape:
            note = f"judge: {judged[name].shape}"
            return LayerParity(layer, kind, shape, float("inf"), False, note)
        if not np.isfinite(judged[name]).all():
            # Both may agree on NaN, which shows nothing.
            return LayerParity(layer, kind, shape, None, True, "not finite in the judge")
        error = relative_error(ours[name].astype(np.float64), np.asarray(judged[name], np.float64))
        worst = max(worst, error)
    note = "" if len(known) == len(tops) else f"{len(known)} of {len(tops)} outputs judged"
    return LayerParity(layer, kind, shape, worst, worst <= tolerance, note)
