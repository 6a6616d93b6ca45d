"""Any `torch.nn.Module` as a network for sampling, gradients included, through torchax.

For models without a recipe: the module's own Python code runs, once, while JAX traces it, on
tensors that are JAX arrays. The result is a `TorchNetwork`, called like `jaxgen.Network`:
weights are leaves of a pytree, so another checkpoint compiles nothing. It needs torch and
torchax, and the module's code, which is trusted: this is not a way to open foreign files.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.core.errors import InputError, expected
from jaxgen.core.pytree import pytree, static
from jaxgen.core.types import Array, ArrayTree

__all__ = ["TorchNetwork", "wrap"]

_KEPT: list[Any] = []  # torch forgets the operators of a library that is collected


@pytree
class TorchNetwork:
    """A torch module as a pure function of one sample.

    Attributes:
      params: name -> array of every parameter and buffer.
      apply: `(params, args) -> output`, from torchax (static).
      image_in: a sample comes as `[H, W, C]` and torch gets (1, C, H, W).
      image_out: torch gives (1, C, H, W) and `[H, W, C]` comes back.
    """

    params: ArrayTree
    apply: Any = static()
    image_in: bool = static(default=False)
    image_out: bool = static(default=False)

    def __call__(self, x: Array) -> Array:
        """Return the output for one sample; use `jax.vmap` for many."""
        if self.image_in:
            if x.ndim != 3:
                raise expected("x", "one image [H, W, C] (use jax.vmap for many)", x.shape)
            x = jnp.moveaxis(x, -1, 0)
        with jax.numpy_rank_promotion("allow"):  # torch broadcasts, and so does torchax
            y = self.apply(self.params, (x[None],))[0]
        return jnp.moveaxis(y, 0, -1) if self.image_out else y


def wrap(module: Any, example: object) -> TorchNetwork:
    """Wrap a torch module.

    Args:
      module: a `torch.nn.Module`; it is put into evaluation mode and not changed otherwise.
        Its `forward` takes one batch and returns one tensor, and does not depend on the
        values of its input by `if` or by `.item()`.
      example: one sample of ours, `[features]` or `[H, W, C]`, to see what comes out.

    Raises:
      ImportError: without torch or torchax.
      InputError: if torch and JAX disagree about the example by more than 1e-4, relative to
        the largest output, or the module returns something other than a tensor.
    """
    torch, torchax = _import()
    module = module.eval()
    example = jnp.asarray(example, jnp.float32)
    image_in = example.ndim == 3
    with torch.no_grad():
        given = jnp.moveaxis(example, -1, 0) if image_in else example
        wanted = module(torch.from_numpy(jax.device_get(given)[None].copy()))
    if not isinstance(wanted, torch.Tensor):
        raise expected("module", "one that returns a tensor", type(wanted).__name__)
    params, apply = torchax.extract_jax(module)
    network = TorchNetwork(params, apply, image_in, wanted.ndim == 4)
    ours = jax.device_get(jax.jit(network)(example))
    theirs = wanted[0].numpy()
    theirs = theirs.transpose(1, 2, 0) if network.image_out else theirs
    error = abs(ours - theirs).max() / max(abs(theirs).max(), 1e-30)
    if not error < 1e-4:
        raise InputError(f"module: JAX and torch differ by {error:.1e}, relative, on the example")
    return network


def _import() -> tuple[Any, Any]:
    """torch and torchax, made to fit each other.

    torch 2.12 and later have no named tensors; torchax 0.0.13 mentions operators of theirs
    in its tables and fails to import without them. Their names are declared, and nothing
    calls them.
    """
    from weights_convert.references import need_torch

    torch = need_torch()
    spec = importlib.util.find_spec("torchax")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("wrapping torch modules needs torchax: pip install torchax")
    if not _KEPT:
        library = torch.library.Library("aten", "FRAGMENT")
        _KEPT.append(library)
        text = "".join(
            file.read_text("utf-8")
            for folder in spec.submodule_search_locations
            for file in Path(folder).rglob("*.py")
        )
        for name, overload in sorted(set(re.findall(r"\baten\.(\w+)\.(\w*name\w*)", text))):
            packet = getattr(torch.ops.aten, name, None)
            if packet is not None and overload not in packet.overloads():
                library.define(f"{name}.{overload}(Tensor self, str dim) -> Tensor")
    try:
        import torchax

        torchax.default_env()
    except (AttributeError, RuntimeError) as error:
        raise ImportError(f"this torchax does not fit this torch: {error}") from error
    return torch, torchax
