"""Networks at the boundary between flax and the samplers.

`freeze(module)` turns an `nnx.Module` into a `Network`: parameters as data, code as
structure. Sampler code calls a `Network` like a function of one sample and never
imports flax.

A network computes in the precision of its weights, also where `jax_enable_x64` makes its
inputs float64: a float32 network is float32 everywhere, or the same file would give other
numbers, at twice the cost, in a process that happens to have that switch on.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jax.typing import DTypeLike

from jaxgen.core.errors import expected
from jaxgen.core.pytree import pytree, replace, static
from jaxgen.core.types import Array, ArrayTree

__all__ = ["Network", "freeze", "is_module"]


@pytree
class Network:
    """A frozen network: a pure function of its input, with its weights as leaves.

    Attributes:
      params: every variable of the module (weights and running statistics).
      graphdef: the module's structure (static).
      layer: name of the layer whose output is returned, or None for the last one.
      dtype: name of the type that inputs are cast to; None for that of the weights, where
        inputs are wider. See `astype`.
      input_shape: of one sample, where it is known; only said, as in `print(network)`.
      classes: names of a classifier's classes, where they are known.
    """

    params: ArrayTree
    graphdef: Any = static()
    layer: str | None = static(default=None)
    dtype: str | None = static(default=None)
    input_shape: tuple[int, ...] | None = static(default=None, remark=True)
    classes: tuple[str, ...] = static(default=(), remark=True)

    def __call__(self, *args: Array) -> Array:
        """Return the network's output for one sample (or for a batch, if the module takes one)."""
        if self.dtype is None:
            widest = _widest(self.params)
            return self._run(*(x if widest is None else _narrowed(x, widest) for x in args))
        wanted = jnp.result_type(*args)
        output = self._run(*(_cast(x, jnp.dtype(self.dtype)) for x in args))
        return _cast(output, wanted)

    def astype(self, dtype: DTypeLike) -> Network:
        """Return the same network computing in another floating type, as in `astype(jnp.bfloat16)`.

        Weights are cast now and inputs at each call; outputs and gradients come back in the
        type of the inputs. A sampler thus keeps its positions, log densities and acceptance
        in float32, and the chain is exact for the rounded network: a small error in log p
        that is the same at every visit of a point is no error of the sampler's.

        Args:
          dtype: a floating type.
        """
        cast = jax.tree.map(lambda x: _cast(x, jnp.dtype(dtype)), self.params)
        return replace(self, params=cast, dtype=jnp.dtype(dtype).name)

    def __repr__(self) -> str:
        parts = [f"{self.size:,} parameters"]
        if self.input_shape is not None:
            parts.append(f"{list(self.input_shape)} -> {self._output()}")
        if self.layer is not None:
            parts.append(f"cut at {self.layer}")
        if self.dtype is not None:
            parts.append(self.dtype)
        return f"Network({', '.join(parts)})"

    @property
    def size(self) -> int:
        """Number of parameters; running statistics are none."""
        # What JAX puts into the fields is not always a state with arrays in it.
        if not isinstance(self.params, nnx.State):
            return sum(np.size(leaf) for leaf in jax.tree.leaves(self.params))
        weights = nnx.filter_state(self.params, nnx.Param)
        return sum(np.size(leaf) for leaf in jax.tree.leaves(weights))

    def _output(self) -> str:
        """Return the shape of an output as text; traced once a structure, nothing is computed."""
        leaves, structure = jax.tree.flatten(self)
        if any(isinstance(leaf, Tracer) or not hasattr(leaf, "dtype") for leaf in leaves):
            return "?"  # JAX prints what it is tracing; that is no time to trace more
        return _output_of(structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))

    def call(self, method: str, *args: object) -> Any:
        """Return the result of another method with these weights: `call("look", image)`.

        Raises:
          InputError: for a method that the module does not have.
        """
        module = nnx.merge(self.graphdef, self.params)
        if not callable(getattr(module, method, None)):
            raise expected("network", f"one with a method {method}", type(module).__name__)
        return getattr(module, method)(*args)

    def _run(self, *args: Array) -> Array:
        module = nnx.merge(self.graphdef, self.params)
        if self.layer is None:
            return module(*args)
        taps: list[Array] = []
        _tap(module, self.layer, taps)
        module(*args)
        if not taps:
            raise ValueError(f"layer {self.layer!r} is never called by {type(module).__name__}")
        return taps[-1]

    def at(self, layer: str) -> Network:
        """Return the same network, cut at a layer: its output is that layer's activation.

        Args:
          layer: dotted path of a sub-module, as in `conv2` or `blocks.0.conv`.

        Raises:
          ValueError: if there is no such sub-module; the message lists those there are.
        """
        if layer not in self.layers:
            raise ValueError(f"layer: expected one of {', '.join(self.layers)}; got {layer!r}")
        return replace(self, layer=layer)

    @property
    def layers(self) -> tuple[str, ...]:
        """The dotted paths of all sub-modules, in the order of their names."""
        module = nnx.merge(self.graphdef, self.params)
        return tuple(_submodules(module))


def freeze(
    module: nnx.Module, input_shape: tuple[int, ...] | None = None, classes: Sequence[str] = ()
) -> Network:
    """Freeze an `nnx.Module` for sampling.

    The module is put into evaluation mode on a copy (running statistics in BatchNorm,
    no dropout): a BatchNorm left in training mode normalises a lone sample by itself
    and gives, without any error, a gradient that is exactly zero.

    Args:
      module: an `nnx.Module`, or a linen module in `nnx.bridge.ToNNX` once it has variables.
      input_shape: of one sample; errors and `print` then say it.
      classes: names of a classifier's classes; a class condition then takes them as labels.

    Raises:
      InputError: for what is no `nnx.Module`.
      ValueError: if a layer stays in training mode or needs random numbers to run.
    """
    if not isinstance(module, nnx.Module):
        raise expected(
            "module",
            "an nnx.Module",
            type(module).__name__,
            "Other callables go into Posterior as they are",
        )
    module = nnx.merge(*nnx.split(module))
    module.eval()
    for name, layer in _submodules(module).items():
        if isinstance(layer, nnx.BatchNorm) and not layer.use_running_average:
            raise ValueError(f"{name}: BatchNorm is in training mode; set use_running_average")
        if isinstance(layer, nnx.Dropout) and not layer.deterministic:
            raise ValueError(f"{name}: Dropout is active; set deterministic")
    # Random state has no place in a pure function: rebuild the graph without it.
    graphdef, params = nnx.split(module)
    if jax.tree.leaves(nnx.state(module, nnx.RngState)):
        for layer in (module, *_submodules(module).values()):
            # `ToNNX` has a property of the name `rngs`, and keeps them elsewhere.
            for attribute in ("rngs", "rng_key", "rng_count", "to_nnx__rngs"):
                if attribute in vars(layer):
                    setattr(layer, attribute, None)
        graphdef, params = nnx.split(module)
        if jax.tree.leaves(nnx.state(module, nnx.RngState)):
            raise ValueError("module: holds random state (nnx.Rngs) outside its Dropout layers")
    shape = None if input_shape is None else tuple(int(size) for size in input_shape)
    return Network(params, graphdef, input_shape=shape, classes=tuple(classes))


@functools.cache
def _output_of(structure: object, leaves: tuple[Any, ...]) -> str:
    structs = [jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in leaves]
    network = jax.tree.unflatten(structure, structs)
    for dtype in (jnp.float32, jnp.int32):  # tokens, if not numbers
        sample = jax.ShapeDtypeStruct(network.input_shape, dtype)
        try:
            # A lambda, because JAX prints a callable object that it is to trace.
            out = jax.eval_shape(lambda net, x: net(x), network, sample)
        except Exception:  # whatever a module says of a sample that it cannot take
            continue
        return str(list(out.shape)) if hasattr(out, "shape") else "several outputs"
    return "?"


def is_module(value: object) -> bool:
    """Return whether it is an `nnx.Module`, which `freeze` takes."""
    return isinstance(value, nnx.Module)


def _cast(x: Array, dtype: DTypeLike) -> Array:
    """Floating arrays in the given type, others as they are."""
    return x.astype(dtype) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x


def _widest(params: ArrayTree) -> Any:
    """Return the widest floating type of the weights; None where there is none."""
    types = {leaf.dtype for leaf in jax.tree.leaves(params) if hasattr(leaf, "dtype")}
    floating = [kind for kind in types if jnp.issubdtype(kind, jnp.floating)]
    return max(floating, key=lambda kind: jnp.dtype(kind).itemsize, default=None)


def _narrowed(x: Any, widest: Any) -> Any:
    """Return a float64 input in float32 where the weights are narrower than it."""
    kind = getattr(x, "dtype", None)
    if kind == jnp.float64 and jnp.dtype(widest).itemsize < 8:
        return x.astype(jnp.float32)
    return x


def _submodules(module: nnx.Module) -> dict[str, nnx.Module]:
    """Dotted path -> sub-module, the root left out."""
    return {
        ".".join(str(part) for part in path): node
        for path, node in nnx.iter_graph(module)
        if isinstance(node, nnx.Module) and path
    }


def _tap(module: nnx.Module, layer: str, taps: list[Array]) -> None:
    """Make one sub-module of a freshly merged module also append its output to `taps`."""
    target = _submodules(module)[layer]
    original = type(target)

    def call(self: nnx.Module, *args: object, **kwargs: object) -> Any:
        output = original.__call__(self, *args, **kwargs)  # type: ignore[operator]
        taps.append(output)
        return output

    object.__setattr__(
        target, "__class__", type(original.__name__, (original,), {"__call__": call})
    )
