"""The graph of a converted ONNX or OpenVINO network.

The document is that of `jaxgen.models.caffe.graph`, with format "tensor-graph-1" and the layer
types of `jaxgen.models.tensor_ops`. All shapes in it are those for one sample, N = 1: the
converter has worked them out. So a layer never sees a batch; batches are made by `jax.vmap`.
Between layers the leading axis of length one is left out, wherever a tensor has it: images
are `[H, W, C]` and vectors `[D]`, as in every network of jaxgen.
"""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp

from jaxgen.core.types import Array
from jaxgen.models.caffe.base import axis_of
from jaxgen.models.caffe.graph import Graph, abstract_tops
from jaxgen.models.tensor_ops import dense as _dense  # noqa: F401
from jaxgen.models.tensor_ops import norms as _norms  # noqa: F401
from jaxgen.models.tensor_ops import pointwise as _pointwise  # noqa: F401
from jaxgen.models.tensor_ops import resize as _resize  # noqa: F401
from jaxgen.models.tensor_ops import shaping as _shaping  # noqa: F401
from jaxgen.models.tensor_ops import spatial as _spatial  # noqa: F401
from jaxgen.models.tensor_ops.base import MOST_AXES, OPERATORS, to_caffe

__all__ = ["FORMAT", "TensorGraph"]

FORMAT = "tensor-graph-1"

Shape = tuple[int, ...]


class TensorGraph(Graph):
    """The network of a description whose layers are operators on tensors.

    It is called like a `Graph`: one sample for each input, or a batch of them.

    Args:
      description: the document, as a mapping or as JSON.
      params: layer name -> parameter name -> array; without it all are zero.

    Raises:
      InputError: if the description is malformed, or layers and arrays do not fit.
    """

    format: ClassVar[str] = FORMAT
    layer_table: ClassVar = OPERATORS

    def tensors(self, *inputs: Array) -> dict[str, Array]:
        """Name -> whole tensor (N, C, H, W) of everything that the layers make."""
        made: dict[str, Array] = {}
        found = self.activations(*inputs)
        for name, attribute, _, tops in self._wiring:
            axes = getattr(self, attribute).batch_out
            for top, x, axis in zip(tops, found[name], axes, strict=True):
                whole = x if axis is None else jnp.expand_dims(x, axis_of(x.ndim + 1, axis))
                made[top] = to_caffe(whole)
        return made

    def _infer_batch_axes(self) -> None:
        """Note for each layer which of its tensors have a leading axis of length one."""
        shapes: dict[str, Shape] = {name: shape for name, shape, _ in self._inputs}
        for name, attribute, bottoms, tops in self._wiring:
            layer = getattr(self, attribute)
            layer.batch_in = tuple(_leading(shapes[b]) for b in bottoms)
            found = abstract_tops(name, layer, [shapes[b] for b in bottoms], MOST_AXES)
            shapes.update(zip(tops, found, strict=True))
            layer.batch_out = tuple(_leading(shape) for shape in found)


def _leading(shape: Shape) -> int | None:
    return 0 if shape and shape[0] == 1 else None
