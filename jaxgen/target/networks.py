"""Networks at the boundary between flax and the samplers.

`freeze(module)` turns an `nnx.Module` into a `Network`: parameters as data, code as
structure. Sampler code calls a `Network` like a function of one sample and never
imports flax.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxgen.core.errors import expected
from jaxgen.core.pytree import pytree, replace, static
from jaxgen.core.types import Array, ArrayTree

__all__ = ["Network", "freeze"]


@pytree
class Network:
    """A frozen network: a pure function of its input, with its weights as leaves.

    Attributes:
      params: every variable of the module (weights and running statistics).
      graphdef: the module's structure (static).
      layer: name of the layer whose output is returned, or None for the last one.
      dtype: name of the type that inputs are cast to, or None to leave them; see `astype`.
    """

    params: ArrayTree
    graphdef: Any = static()
    layer: str | None = static(default=None)
    dtype: str | None = static(default=None)

    def __call__(self, *args: Array) -> Array:
        """The network's output for one sample (or for a batch, if the module takes one)."""
        if self.dtype is None:
            return self._run(*args)
        wanted = jnp.result_type(*args)
        output = self._run(*(_cast(x, jnp.dtype(self.dtype)) for x in args))
        return _cast(output, wanted)

    def astype(self, dtype: Any) -> Network:
        """The same network computing in another floating type, as in `astype(jnp.bfloat16)`.

        Weights are cast now and inputs at each call; outputs and gradients come back in the
        type of the inputs. A sampler thus keeps its positions, log densities and acceptance
        in float32, and the chain is exact for the rounded network: a small error in log p
        that is the same at every visit of a point is no error of the sampler's.

        Args:
          dtype: a floating type.
        """
        cast = jax.tree.map(lambda x: _cast(x, jnp.dtype(dtype)), self.params)
        return replace(self, params=cast, dtype=jnp.dtype(dtype).name)

    def call(self, method: str, *args: Any) -> Any:
        """What another method of the module gives, with these weights: `call("look", image)`.

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
        """The same network, cut at a layer: its output is that layer's activation.

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


def freeze(module: nnx.Module) -> Network:
    """Freeze an `nnx.Module` for sampling.

    The module is put into evaluation mode on a copy (running statistics in BatchNorm,
    no dropout): a BatchNorm left in training mode normalises a lone sample by itself
    and gives, without any error, a gradient that is exactly zero.

    Raises:
      ValueError: if a layer stays in training mode or needs random numbers to run.
    """
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
        for layer in _submodules(module).values():
            for attribute in ("rngs", "rng_key", "rng_count"):
                if hasattr(layer, attribute):
                    setattr(layer, attribute, None)
        graphdef, params = nnx.split(module)
        if jax.tree.leaves(nnx.state(module, nnx.RngState)):
            raise ValueError("module: holds random state (nnx.Rngs) outside its Dropout layers")
    return Network(params, graphdef)


def _cast(x: Array, dtype: Any) -> Array:
    """Floating arrays in the given type, others as they are."""
    return x.astype(dtype) if jnp.issubdtype(jnp.result_type(x), jnp.floating) else x


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

    def call(self: nnx.Module, *args: Any, **kwargs: Any) -> Any:
        output = original.__call__(self, *args, **kwargs)  # type: ignore[operator]
        taps.append(output)
        return output

    object.__setattr__(
        target, "__class__", type(original.__name__, (original,), {"__call__": call})
    )
