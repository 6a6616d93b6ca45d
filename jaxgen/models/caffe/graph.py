"""A network described by data: layers with names, and blobs that connect them.

The description is a JSON document, so that a converted Caffe network can be stored beside
its weights and come back without its prototxt:

    {"format": "caffe-graph-1", "name": "LeNet",
     "inputs": [{"name": "data", "shape": [1, 1, 28, 28], "batch_axis": 0}],
     "layers": [{"name": "conv1", "type": "Convolution", "bottoms": ["data"],
                 "tops": ["conv1"], "config": {"kernel_size": [5, 5]},
                 "parameters": {"kernel": [5, 5, 1, 20], "bias": [20]}}, ...],
     "outputs": ["prob"]}

Shapes of blobs are in Caffe's order, (N, C, H, W), with N = 1; of parameters, as ours.
A blob's name may be used again as a top (Caffe's in-place layers): from there on it means
the new blob. `Graph` is one `flax.nnx.Module`; each layer is a sub-module under its own
name, so `Network.at("relu5")` cuts the network there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxgen.core.errors import InputError, expected
from jaxgen.core.types import Array

# Importing the layers registers them.
from jaxgen.models.caffe import dense as _caffe_dense  # noqa: F401
from jaxgen.models.caffe import layers as _caffe_layers  # noqa: F401
from jaxgen.models.caffe import spatial as _caffe_spatial  # noqa: F401
from jaxgen.models.caffe.base import LAYERS, Layer, from_caffe, to_caffe
from jaxgen.models.caffe.description import FORMAT, MOST_ELEMENTS, checked

__all__ = ["FORMAT", "Graph", "abstract_tops", "attribute_of", "build_layer"]


Shape = tuple[int, ...]


class Graph(nnx.Module):
    """The network of a description.

    `graph(*inputs)` takes one sample for each input, in the description's order: an image
    `[H, W, C]` for (1, C, H, W), a vector `[D]` for (1, D); or batches of them, all with a
    leading batch axis. It returns the output's sample, `[C]` where an image of one pixel
    comes out, or a dictionary of them where the network has several outputs.

    Args:
      description: the document above, as a mapping or as JSON.
      params: layer name -> parameter name -> array; without it all are zero, which is of
        use inside `nnx.eval_shape`, for `jaxgen.models.weights.fill`.

    Raises:
      InputError: if the description is malformed, or layers and arrays do not fit.
    """

    # What a graph of another kind of layers changes, see `jaxgen.models.tensor_ops`.
    format: ClassVar[str] = FORMAT
    layer_table: ClassVar[Mapping[str, type[Layer]]] = LAYERS

    def __init__(
        self,
        description: Mapping[str, Any] | str,
        params: Mapping[str, Mapping[str, Any]] | None = None,
    ):
        text = description if isinstance(description, str) else json.dumps(description)
        document = checked(text, self.format)
        # One text for equal descriptions: it is part of what jit compares.
        self.description = json.dumps(document, sort_keys=True)
        self._inputs = tuple(
            (i["name"], tuple(i["shape"]), i.get("batch_axis", 0)) for i in document["inputs"]
        )
        self._outputs = tuple(document["outputs"])
        wiring: list[tuple[str, str, tuple[str, ...], tuple[str, ...]]] = []
        names = {layer["name"] for layer in document["layers"]}
        for name in params or ():
            if name not in names:
                raise expected("params", "arrays of the description's layers", f"layer {name!r}")
        for entry in document["layers"]:
            shapes = {k: tuple(v) for k, v in entry.get("parameters", {}).items()}
            if params is None:
                arrays = {name: jnp.zeros(shape) for name, shape in shapes.items()}
            else:
                arrays = params.get(entry["name"], {})
                got = {name: tuple(np.shape(array)) for name, array in arrays.items()}
                if got != shapes:
                    raise expected(f"layer {entry['name']!r}: parameters", str(shapes), got)
            attribute = attribute_of(entry["name"])
            setattr(self, attribute, build_layer(entry, arrays, self.layer_table))
            wiring.append((entry["name"], attribute, *_ends(entry)))
        self._wiring = tuple(wiring)
        self._infer_batch_axes()

    def __call__(self, *inputs: Array) -> Any:
        """Return the output for one sample, or for a batch of them."""
        values = self._floats(inputs)
        extra = [x.ndim - rank for x, rank in zip(values, self._ranks(), strict=True)]
        if extra and all(n == 1 for n in extra):
            graphdef, state = nnx.split(self)
            return jax.vmap(lambda *xs: nnx.merge(graphdef, state)._outcome(xs))(*values)
        return self._outcome(values)

    def activations(self, *inputs: Array) -> dict[str, tuple[Array, ...]]:
        """Layer name -> its tops for one sample, for every layer, images as `[H, W, C]`."""
        return self._run(self._floats(inputs))[1]

    @property
    def layer_types(self) -> dict[str, str]:
        """Layer name -> its type, in the order in which they run."""
        return {layer["name"]: layer["type"] for layer in json.loads(self.description)["layers"]}

    @property
    def layer_tops(self) -> dict[str, tuple[str, ...]]:
        """Layer name -> the blobs it makes."""
        return {name: tops for name, _, _, tops in self._wiring}

    @property
    def input_names(self) -> tuple[str, ...]:
        """The inputs' blobs, in the order in which the graph takes them."""
        return tuple(name for name, _, _ in self._inputs)

    @property
    def batch_axes(self) -> tuple[int | None, ...]:
        """For each input's blob, in Caffe's order, its batch axis."""
        return tuple(batch for _, _, batch in self._inputs)

    @property
    def sample_shapes(self) -> tuple[Shape, ...]:
        """The shape of one sample of each input: `[H, W, C]` for images."""
        return tuple(
            tuple(
                shape[axis]
                for axis in ((0, 2, 3, 1) if len(shape) == 4 else range(len(shape)))
                if axis != batch
            )
            for _, shape, batch in self._inputs
        )

    def _floats(self, inputs: tuple[Array, ...]) -> tuple[Array, ...]:
        if len(inputs) != len(self._inputs):
            wanted = f"{len(self._inputs)} ({', '.join(name for name, *_ in self._inputs)})"
            raise expected("inputs", wanted, len(inputs))
        values = tuple(jnp.asarray(x) for x in inputs)
        return tuple(
            x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))
            for x in values
        )

    def _ranks(self) -> tuple[int, ...]:
        """Return the number of axes of one sample, for each input."""
        return tuple(len(shape) - (batch is not None) for _, shape, batch in self._inputs)

    def _outcome(self, samples: tuple[Array, ...]) -> Any:
        blobs, _ = self._run(samples)
        out = {name: _squeezed(blobs[name]) for name in self._outputs}
        return out if len(out) > 1 else next(iter(out.values()))

    def _run(
        self, samples: tuple[Array, ...]
    ) -> tuple[dict[str, Array], dict[str, tuple[Array, ...]]]:
        """Run all layers on one sample: (the last blob of each name, the tops of each layer)."""
        blobs: dict[str, Array] = {}
        for x, rank, (name, shape, _) in zip(samples, self._ranks(), self._inputs, strict=True):
            if x.ndim != rank:
                wanted = f"a sample (or batch) of the blob {shape}, images as [H, W, C]"
                raise expected(name, wanted, f"shape {x.shape}")
            blobs[name] = x
        activations: dict[str, tuple[Array, ...]] = {}
        for name, attribute, bottoms, tops in self._wiring:
            try:
                result = getattr(self, attribute)(*(blobs[b] for b in bottoms))
            except InputError as error:
                raise InputError(f"layer {name!r}: {error}") from error
            activations[name] = result if isinstance(result, tuple) else (result,)
            blobs.update(zip(tops, activations[name], strict=True))
        return blobs, activations

    def _infer_batch_axes(self) -> None:
        """Set each layer's batch axes: where a blob of one and of two samples differ."""
        one: dict[str, Shape] = {}
        two: dict[str, Shape] = {}
        for name, shape, batch in self._inputs:
            one[name] = shape
            two[name] = tuple(2 * n if a == batch else n for a, n in enumerate(shape))
        for name, attribute, bottoms, tops in self._wiring:
            layer = getattr(self, attribute)
            layer.batch_in = tuple(_batch_axis(one[b], two[b]) for b in bottoms)
            first = abstract_tops(name, layer, [one[b] for b in bottoms])
            second = abstract_tops(name, layer, [two[b] for b in bottoms])
            if len(first) != len(tops):
                raise InputError(f"layer {name!r}: expected {len(first)} tops; got {len(tops)}")
            one.update(zip(tops, first, strict=True))
            two.update(zip(tops, second, strict=True))
            layer.batch_out = tuple(_batch_axis(one[t], two[t]) for t in tops)


def attribute_of(layer: str) -> str:
    """Under which attribute a graph keeps a layer: its name, if that is not taken already."""
    while layer.startswith("_") or layer in ("", "description") or hasattr(Graph, layer):
        layer = f"layer_{layer}"
    return layer


def build_layer(
    entry: Mapping[str, Any],
    arrays: Mapping[str, Any],
    table: Mapping[str, type[Layer]] = LAYERS,
) -> Layer:
    """Return a layer from its entry in a description and its arrays, by a table of types.

    Raises:
      InputError: naming the layer and what is wrong with it.
    """
    where = f"layer {entry['name']!r} ({entry['type']})"
    if entry["type"] not in table:
        raise InputError(f"{where}: unknown type; known: {', '.join(sorted(table))}")
    cls = table[entry["type"]]
    least, most = cls.arity
    count = len(entry["bottoms"])
    if count < least or (most is not None and count > most):
        bounds = str(least) if most == least else f"{least} to {most or 'any number of'}"
        raise InputError(f"{where}: expected {bounds} bottoms; got {count}")
    unknown = set(arrays) - set(cls.parameters)
    if unknown:
        raise InputError(f"{where}: has no parameters {', '.join(sorted(unknown))}")
    try:
        layer = cls(**entry.get("config", {}))
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{where}: bad configuration, {error}") from error
    layer.set_parameters(dict(arrays))
    return layer


def abstract_tops(name: str, layer: Layer, bottoms: list[Shape], most_axes: int = 4) -> list[Shape]:
    """Return the shapes of a layer's tops for bottoms of given shapes, in Caffe's order.

    Nothing is computed and no memory is taken.

    Raises:
      InputError: naming the layer, if the shapes do not fit it or a top would be absurd.
    """
    graphdef, state = nnx.split(layer)
    # Shapes alone, so that arrays that are only views of one number are never filled in.
    weights = jax.tree.map(lambda w: jax.ShapeDtypeStruct(np.shape(w), w.dtype), state)

    def forward(weights: Any, *xs: Array) -> tuple[Array, ...]:
        result = nnx.merge(graphdef, weights).forward(*(from_caffe(x) for x in xs))
        return tuple(to_caffe(x) for x in (result if isinstance(result, tuple) else (result,)))

    structs = [jax.ShapeDtypeStruct(shape, np.float32) for shape in bottoms]
    try:
        tops = [tuple(int(n) for n in t.shape) for t in jax.eval_shape(forward, weights, *structs)]
    except InputError as error:
        raise InputError(f"layer {name!r}: {error}") from error
    except (TypeError, ValueError, IndexError, ZeroDivisionError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"layer {name!r}: does not fit bottoms {bottoms}; {reason}") from error
    for shape in tops:
        if len(shape) > most_axes:
            least = {4: "five", 8: "nine"}.get(most_axes, str(most_axes + 1))
            raise InputError(f"layer {name!r}: blobs of {least} axes and more are not supported")
        if math.prod(shape) > MOST_ELEMENTS:
            raise InputError(f"layer {name!r}: its top {shape} has over {MOST_ELEMENTS} elements")
    return tops


def _batch_axis(one: Shape, two: Shape) -> int | None:
    """Return the axis of length one that a second sample doubles, or None."""
    if len(one) != len(two):
        return None
    axes = [a for a, (n, m) in enumerate(zip(one, two, strict=True)) if n != m]
    return axes[0] if len(axes) == 1 and one[axes[0]] == 1 else None


def _squeezed(x: Array) -> Array:
    return x.reshape(-1) if x.ndim == 3 and x.shape[:2] == (1, 1) else x


def _ends(entry: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(entry["bottoms"]), tuple(entry["tops"])
