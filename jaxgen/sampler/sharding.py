"""Chains over tiles and devices.

Chains run in tiles of a fixed size: one tile is one batch, tiles follow each other on a
device, and devices share the tiles out among them. What a network sees is a batch of `tile`
chains whatever the number of chains, devices or processes, and XLA's sums depend on nothing
else. Weights, resampling, step sizes and betas are computed on every device from the same
gathered numbers in the same order. For a given tile, results agree to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxgen.core.errors import expected
from jaxgen.core.platform import on_mesh
from jaxgen.core.types import Array, ArrayTree, Device
from jaxgen.sampler.shares import AXIS, share_out

__all__ = [
    "chosen_devices",
    "local_chains",
    "mesh_for",
    "over_chains",
    "replicate",
]

# Bytes from which on an array is worth keeping in parts.
_LARGE = 1 << 20


def over_chains(
    function: Any,
    batched: tuple[Any, ...],
    tile: int | None = None,
    mesh: Mesh | None = None,
    *,
    gather: bool = True,
) -> Any:
    """`vmap(function)` over chains, in tiles, shared out over a mesh's devices.

    Args:
      function: of one chain.
      batched: its arguments, leaves `[C, ...]`, whole on every device.
      tile: chains in one batch; None for all. The last tile is filled up with copies.
      mesh: one axis of devices, or None for wherever the arguments are.
      gather: give every device the whole result, leaves `[C, ...]`. Without, leaves are
        `[P, ...]`, P >= C a multiple of tile and devices, spread over the mesh; rows
        beyond C are copies.
    """
    count: int = jax.tree.leaves(batched)[0].shape[0]
    shares = share_out(count, tile, mesh)

    def each(batched: tuple[Any, ...]) -> Any:
        out = shares.map(function, shares.take(batched))
        return shares.gather(out) if gather or mesh is None else out

    if mesh is None:
        return each(batched)
    spread = jax.shard_map(
        each,
        mesh=mesh,
        in_specs=PartitionSpec(),
        out_specs=PartitionSpec() if gather else PartitionSpec(AXIS),
        check_vma=False,
    )
    with on_mesh(mesh):
        return spread(batched)


def mesh_for(devices: Sequence[Device] | None, num_chains: int, tile: int) -> Mesh | None:
    """As many of the devices as share the tiles out evenly; None where one has them all.

    In a run of several processes every device takes part, since every process must.
    """
    devices = chosen_devices(devices)
    tiles = -(-num_chains // tile)
    several = len({device.process_index for device in devices}) > 1
    if not several:
        rounds = -(-tiles // len(devices))
        devices = devices[: -(-tiles // rounds)]
    if len(devices) == 1 and devices[0] == jax.devices()[0]:
        return None
    # Auto axes: with explicit ones, the users' networks could not reshape.
    return Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))


def chosen_devices(devices: Sequence[Device] | None) -> list[Any]:
    """Return the devices to use: all there are, in all processes, by default."""
    if devices is None:
        return list(jax.devices())
    devices = list(devices)
    if not devices or any(not isinstance(device, jax.Device) for device in devices):
        raise expected("devices", "a list of devices, as from jax.devices()", devices)
    if len(set(devices)) < len(devices):
        raise expected("devices", "each device once", devices)
    return devices


def replicate(tree: ArrayTree, mesh: Mesh | None, *, spread: bool = False) -> Any:
    """Put a tree's arrays, whole, on every device of a mesh (the same in every process).

    With `spread`, large ones are kept in parts, one on each device, along the longest axis
    that can be divided; XLA puts them together where they are used.
    """
    if mesh is None:
        return tree
    everywhere = NamedSharding(mesh, PartitionSpec())

    def whole(array: np.ndarray) -> Array:
        place = _in_parts(array, mesh) if spread else everywhere
        return jax.make_array_from_callback(array.shape, place, lambda index: array[index])

    def put(leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            words = whole(np.asarray(jax.random.key_data(leaf)))
            return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
        if isinstance(leaf, jax.Array) and leaf.sharding == everywhere and not spread:
            return leaf
        return whole(np.asarray(leaf, jnp.result_type(leaf)))

    return jax.tree.map(put, tree)


def local_chains(leaf: Any, count: int, axis: int = 0) -> tuple[int, np.ndarray]:
    """Return the part of an array over (padded) chains that is here: first chain, and rows.

    Args:
      leaf: an array whose `axis` runs over chains, from `over_chains(..., gather=False)`.
      count: C; rows beyond it are copies, and are cut off.
      axis: where the chains are.
    """
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        rows = np.asarray(leaf)
        return 0, rows[(slice(None),) * axis + (slice(0, count),)]
    parts = {}
    for shard in leaf.addressable_shards:
        where = shard.index[axis]
        parts[where.start or 0] = np.asarray(shard.data)
    first = min(parts)
    rows = np.concatenate([parts[start] for start in sorted(parts)], axis=axis)
    return first, rows[(slice(None),) * axis + (slice(0, max(count - first, 0)),)]


def _in_parts(array: np.ndarray, mesh: Mesh) -> NamedSharding:
    fits = [axis for axis, size in enumerate(array.shape) if size % mesh.size == 0]
    if array.nbytes < _LARGE or not fits:
        return NamedSharding(mesh, PartitionSpec())
    axis = max(fits, key=lambda axis: array.shape[axis])
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, *mesh.axis_names))
