"""Generators and classifiers of any library, as pytrees that JAX can carry.

`Posterior` and the class conditions pass what they are given through `as_function`:

| what | becomes |
|---|---|
| a `Network`, any callable pytree of arrays | itself |
| an `nnx.Module`, a linen module in `nnx.bridge.ToNNX` | `freeze(module)` |
| a linen module bound to its variables, `module.bind(v)` | `Apply` of the two |
| a callable pytree with functions among its leaves (equinox) | `Split` |
| a name that `jaxgen.load` knows | that network |
| a plain function | a pytree without leaves, compiled into the program |

For haiku, and for any `apply(variables, z)`, say `Apply(apply, variables)`. Modules of
PyTorch and Keras cannot be differentiated by JAX; the error says how they are converted.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.core import names
from jaxgen.core.errors import expected
from jaxgen.core.pytree import StaticFunction, pytree, short, static
from jaxgen.core.types import Array
from jaxgen.target.networks import Network, freeze, is_module

__all__ = ["Apply", "Labelled", "Split", "as_function"]


@pytree
class Apply:
    """`function(variables, x)` as a function of x alone, its variables as data.

    `Apply(net.apply, params)` for haiku (transformed with or without random numbers, which
    are then None) and `Apply(module.apply, variables)` for linen.

    Attributes:
      function: of the variables and one sample; an object with a method `apply` may be given.
      variables: any pytree of arrays; other weights compile nothing.
    """

    function: Any = static()
    variables: Any = None

    def __post_init__(self) -> None:
        apply = getattr(self.function, "apply", None)
        if callable(apply):
            object.__setattr__(self, "function", apply)
        if not callable(self.function):
            raise expected("Apply.function", "apply(variables, z)", type(self.function).__name__)

    def __repr__(self) -> str:
        count = sum(np.size(leaf) for leaf in jax.tree.leaves(self.variables))
        owner = getattr(self.function, "__self__", self.function)
        name = getattr(owner, "__qualname__", type(owner).__name__)
        return f"Apply({name}, {count:,} numbers)"

    def __call__(self, *args: object) -> Any:
        """function(variables, *args)."""
        if _takes_key(self.function):
            return self.function(self.variables, None, *args)
        return self.function(self.variables, *args)


@pytree
class Split:
    """A callable pytree whose leaves are not all arrays, as equinox modules are.

    Attributes:
      arrays: its arrays, in the order of its leaves.
      rest: the other leaves (activation functions, flags) and the tree's structure.
    """

    arrays: tuple[Any, ...]
    rest: Any = static()

    def __call__(self, *args: object) -> Any:
        """Return what the original gives."""
        return self._merged()(*args)

    def __repr__(self) -> str:
        count = sum(np.size(leaf) for leaf in self.arrays)
        return f"{self.rest[2]}({count:,} numbers)"

    def _merged(self) -> Any:
        others, structure, _ = self.rest
        arrays = iter(self.arrays)
        leaves = [next(arrays) if leaf is _ARRAY else leaf for leaf in others]
        return jax.tree.unflatten(structure, leaves)


class _Array:
    """A placeholder for an array."""

    def __repr__(self) -> str:
        return "array"


_ARRAY = _Array()


@pytree
class Labelled:
    """A class-conditional generator G(z, label) with its label, as a function of z.

    With a label, z is all of the latent. Without, the label is part of the latent,
    `{"latent": z, "label": c}`, as the prior `RandomLabel` draws it.

    Attributes:
      generator: of a latent and a class.
      label: the class, an integer (data: another class compiles nothing) or its name; None
        for a sampled one.
      classes: K, to give the generator a one-hot vector `[K]` in place of the integer.
    """

    generator: Callable[..., Array]
    label: Any = None
    classes: int | None = static(default=None)

    def __post_init__(self) -> None:
        object.__setattr__(self, "generator", as_function(self.generator, "Labelled.generator"))

    def __call__(self, latent: Any) -> Array:
        """G(z, label)."""
        label = self.label
        if label is None:
            latent, label = latent["latent"], latent["label"]
        if self.classes is not None:
            dtype = next(
                (x.dtype for x in jax.tree.leaves(latent) if jnp.issubdtype(x.dtype, jnp.floating)),
                None,
            )
            label = jax.nn.one_hot(label, self.classes, dtype=dtype)
        return self.generator(latent, label)

    def check(self) -> None:
        """Check that the label is one of the classes."""
        if self.classes is not None and not (isinstance(self.classes, int) and self.classes > 0):
            raise expected("Labelled.classes", "a number of classes", self.classes)
        if self.label is None:
            return
        dtype = getattr(self.label, "dtype", np.asarray(self.label).dtype)
        if not jnp.issubdtype(dtype, jnp.integer) or np.shape(self.label) != ():
            raise expected("Labelled.label", "one integer", short(self.label))
        top = self.classes
        if top is not None and not 0 <= int(self.label) < top:
            raise expected("Labelled.label", f"an integer from 0 to {top - 1}", self.label)


def as_function(value: object, argument: str) -> Any:
    """Return a callable as a pytree whose arrays are data; other values stay as they are.

    Args:
      value: what the user gave; or, since JAX builds our objects out of them, a placeholder.
      argument: whose value it is, for errors.

    Raises:
      InputError: for modules that JAX cannot call, with the way out.
    """
    if isinstance(value, Network | Apply | Split | Labelled | StaticFunction):
        return value
    if isinstance(value, str):
        return names.network(value, argument)
    if isinstance(value, type) or not callable(value):
        return value
    if is_module(value):
        try:
            return freeze(cast(Any, value))
        except ValueError as error:
            raise expected(argument, "an nnx.Module that can be frozen", error) from error
    if _is_a(value, "flax.linen", "Module"):
        return _linen(value, argument)
    if _is_a(value, "torch.nn", "Module"):
        raise expected(
            argument,
            "a function that JAX can differentiate",
            f"{type(value).__name__}, a torch module",
            "Convert it: weights_convert.torchax_wrap.wrap(module, example=...), or "
            "python -m weights_convert torch FILE --recipe NAME",
        )
    if _is_a(value, "keras", "Layer") and _keras_backend() != "jax":
        raise expected(
            argument,
            "a function that JAX can differentiate",
            f"{type(value).__name__}, a Keras model on {_keras_backend()}",
            "Set KERAS_BACKEND=jax before importing keras, and give lambda z: model(z[None])[0]",
        )
    if jax.tree_util.all_leaves([value]):
        return StaticFunction(value)
    return _split(value)


def _split(module: object) -> Any:
    """Return the module itself where JAX can carry it; else its arrays apart from the rest."""
    equinox = sys.modules.get("equinox")
    ours = equinox is not None and isinstance(module, equinox.Module)
    if equinox is not None and ours:
        module = equinox.nn.inference_mode(module)
    leaves, structure = jax.tree.flatten(module)

    def data(leaf: object) -> bool:
        # Equinox takes Python numbers for structure, other trees for data.
        if ours:
            return isinstance(leaf, jax.Array | np.ndarray)
        return not (isinstance(leaf, str | bytes) or callable(leaf))

    if all(data(leaf) for leaf in leaves):
        return module
    others = tuple(_ARRAY if data(leaf) else leaf for leaf in leaves)
    arrays = tuple(leaf for leaf in leaves if data(leaf))
    return Split(arrays, (others, structure, type(module).__name__))


def _linen(module: Any, argument: str) -> Any:
    if module.scope is None:
        raise expected(
            argument,
            "a linen module with its variables",
            f"{type(module).__name__} without them",
            "Give module.bind(variables)",
        )
    free, variables = module.unbind()
    return Apply(free.apply, variables)


def _is_a(value: object, module: str, name: str) -> bool:
    """Return whether it is of a class of a library that somebody else has imported."""
    found = getattr(sys.modules.get(module), name, None)
    return isinstance(found, type) and isinstance(value, found)


def _keras_backend() -> str:
    return str(sys.modules["keras"].backend.backend())


def _takes_key(function: Any) -> bool:
    """Return whether it is haiku's `apply(params, rng, *args)`."""
    try:
        parameters = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return False
    return parameters[1:2] == ["rng"]
