"""The number of chains in one batch: as many as fit a device's memory or caches."""

from __future__ import annotations

import math
from typing import Any

import jax

from jaxgen.core.platform import platform
from jaxgen.core.types import ArrayTree

__all__ = ["bytes_per_chain", "choose_tile", "items_that_fit"]

# Bytes of activations that a tile may fill. On CPU this is a cache, not a limit: products
# whose operands have left the second-level cache run at the speed of memory. Constants, not
# what happens to be free, so that another machine chooses the same tile.
_BUDGET = {"cpu": 32 << 20}
_ACCELERATOR_BUDGET = 4 << 30
# Beyond this, larger batches gain nothing on a CPU, and smaller ones can be shared out.
_MOST_ON_CPU = 64
# What GPU and TPU programs take over the sum below: XLA keeps copies in other layouts there.
# `benchmarks/speed/compiled_for.py` finds 1.59 (ProGAN 128, H100), 1.65 (StyleGAN2 1024, H100) and
# 1.53 (ProGAN 128, v5e); small networks need less.
_ON_ACCELERATORS = 1.65
# A TPU lays a batch out in rows of so many numbers, and computes with whole rows.
_LANES = 128


def choose_tile(
    function: Any, position: ArrayTree, num_chains: int, memory: int | None, devices: int
) -> int:
    """Choose a tile: as many chains as fill the memory budget, shared out evenly.

    On CPU the choice depends on the function and the number of chains alone. On
    accelerators, where only large batches are fast, also on the number of devices; give
    `tile` for results that agree between different numbers of them. On TPU a tile is a multiple
    of 128, where there are as many chains: a smaller one costs as much.

    The platform is `jaxgen.core.platform.platform()`.

    Args:
      function: scalar function of one chain's position, whose gradient is taken.
      position: a position, or its shapes.
      num_chains: C.
      memory: bytes that a tile may take; by default 32 MiB on CPU, 4 GiB elsewhere.
      devices: how many share the chains.
    """
    where = platform()
    cpu = where == "cpu"
    most = max(1, _budget(memory) // max(1, bytes_per_chain(function, position)))
    if cpu:
        most = min(most, _MOST_ON_CPU)
        # Products are computed in blocks of rows: whole powers of two waste none.
        most = 1 << int(math.log2(most))
        tiles = -(-num_chains // most)
        return -(-num_chains // tiles)
    if where == "tpu" and most >= _LANES:
        most -= most % _LANES
    tiles = _round_up(-(-num_chains // most), devices)
    tile = -(-num_chains // tiles)
    if where == "tpu" and num_chains >= _LANES <= most:
        tile = _round_up(tile, _LANES)
    return tile


def items_that_fit(
    function: Any, position: ArrayTree, num_chains: int, tile: int | None, memory: int | None
) -> int:
    """Return how many posteriors of one kind may run at once: each has a tile in memory.

    The memory is that of `choose_tile`: where one posterior's tile fills it, the answer is 1.

    Args:
      function: scalar function of one chain's position, whose gradient is taken.
      position: a position, or its shapes.
      num_chains: C, of each posterior.
      tile: chains in a tile; None for what `choose_tile` chooses on one device.
      memory: bytes that all tiles may take; None for the default of the platform.
    """
    if tile is None:
        tile = choose_tile(function, position, num_chains, memory, 1)
    each = min(tile, num_chains) * bytes_per_chain(function, position)
    return max(1, _budget(memory) // max(1, each))


def _budget(memory: int | None) -> int:
    default = _BUDGET["cpu"] if platform() == "cpu" else _ACCELERATOR_BUDGET
    return default if memory is None else memory


def bytes_per_chain(function: Any, position: ArrayTree) -> int:
    """Estimate the bytes that one chain's gradient keeps in memory: its forward activations."""
    jaxpr = jax.make_jaxpr(function)(position)
    kept = sum(math.prod(v.aval.shape) * 4 for v in _outputs(jaxpr.jaxpr))
    return kept if platform() == "cpu" else math.ceil(_ON_ACCELERATORS * kept)


def _outputs(jaxpr: Any) -> Any:
    """Yield the arrays in a program that its backward pass reads again."""
    for equation in jaxpr.eqns:
        if equation.primitive.name.startswith("custom_vjp_call"):
            # Its backward pass is its own; what it keeps is about what it returns.
            yield from equation.outvars
            continue
        inner = [p for p in equation.params.values() if hasattr(p, "jaxpr") or hasattr(p, "eqns")]
        for program in inner:
            yield from _outputs(getattr(program, "jaxpr", program))
        if equation.primitive.name in _KEPT:
            yield from equation.outvars


# Products, what they read, and what is not linear. The rest is fused or moves no data. On
# the shipped networks their sum is within a third of what XLA allots on CPU.
_KEPT = frozenset(
    {"dot_general", "conv_general_dilated", "concatenate", "tanh", "logistic", "exp", "log"}
    | {"max", "min", "integer_pow", "rsqrt", "sqrt", "div"}
    | {"reduce_window_max", "reduce_window_sum"}
)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
