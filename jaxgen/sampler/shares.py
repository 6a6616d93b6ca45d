"""Equal shares of the chains, one for each device.

C chains are cut into tiles of a fixed size, one batch each, and every device has the same
number of consecutive tiles. The last tiles are filled up with copies of the last chain, whose
results nobody looks at. Inside one `jax.shard_map` a device holds the rows of its own chains;
what must be known of all of them is gathered, in the same order on every device.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxgen.core.types import Array, ArrayTree

__all__ = ["AXIS", "Shares", "share_out"]

# The name of a mesh's only axis.
AXIS = "chains"


class Shares(NamedTuple):
    """The division of the chains, seen from one device. Python numbers, known when traced.

    Attributes:
      num_chains: C, the number of chains.
      tile: chains in one batch.
      own: rows on each device, a multiple of the tile, copies among them.
      is_spread: whether there is a mesh, and this a program of one device of it.
    """

    num_chains: int
    tile: int
    own: int
    is_spread: bool

    def rows(self) -> Array:
        """Return which chains are this device's, `[own]`; copies count as the last chain."""
        return jnp.minimum(self._places(), self.num_chains - 1)

    def take(self, whole: ArrayTree) -> Any:
        """Cut this device's rows out of leaves `[C, ...]`."""
        if self._is_all:
            return whole
        rows = self.rows()
        return jax.tree.map(lambda x: x[rows], whole)

    def gather(self, own: Any) -> Any:
        """Return leaves `[C, ...]`, put together from every device's rows: one message."""
        if self._is_all:
            return own
        whole = _all_gather(own) if self.is_spread else own
        return jax.tree.map(lambda x: x[: self.num_chains], whole)

    def gather_if(self, wanted: Array, own: Array) -> Array:
        """Return numbers `[C]` of all chains from `[own]`, or zeros where nobody wants them.

        XLA adds numbers up in an order that depends on the shape in which it sees them come, and
        out of `map` they come in tiles. So do they here, and sums have the same bits on any
        number of devices.
        """
        if not self.is_spread:
            return self.gather(own)
        shape = jax.eval_shape(self._in_tiles, own)
        zeros = jnp.zeros(shape.shape, shape.dtype)
        tiles = jax.lax.cond(wanted, self._in_tiles, lambda _: zeros, own)
        return tiles.reshape(-1)[: self.num_chains]

    def count_own(self, numbers: Array) -> Array:
        """Sum integers `[own]` over this device's chains, without the copies."""
        if self._is_all:
            return numbers.sum()
        return jnp.where(self._places() < self.num_chains, numbers, 0).sum()

    def add_up(self, numbers: ArrayTree) -> Any:
        """Sum integers over the devices, element by element."""
        return jax.lax.psum(numbers, AXIS) if self.is_spread else numbers

    def map(self, function: Any, args: tuple[Any, ...]) -> Any:
        """`vmap(function)` over this device's chains, leaves `[own, ...]`, tile after tile."""
        mapped = jax.vmap(function)
        if self.own == self.tile:
            return mapped(*args)
        tiles = self.own // self.tile
        cut = jax.tree.map(lambda x: x.reshape(tiles, self.tile, *x.shape[1:]), args)
        out = jax.lax.map(lambda one: mapped(*one), cut)
        return jax.tree.map(lambda x: x.reshape(self.own, *x.shape[2:]), out)

    def _in_tiles(self, own: Array) -> Array:
        return _all_gather(own).reshape(-1, self.tile)

    @property
    def _is_all(self) -> bool:
        return not self.is_spread and self.own == self.num_chains

    def _places(self) -> Array:
        first = jax.lax.axis_index(AXIS) * self.own if self.is_spread else 0
        return first + jnp.arange(self.own)


def share_out(num_chains: int, tile: int | None = None, mesh: Mesh | None = None) -> Shares:
    """Share chains out over the devices of a mesh, in tiles; by default all in one batch."""
    size = num_chains if tile is None else tile
    devices = 1 if mesh is None else mesh.size
    tiles = -(-num_chains // size)
    return Shares(num_chains, size, -(-tiles // devices) * size, mesh is not None)


def _all_gather(tree: ArrayTree) -> Any:
    """Every device's rows on every device, in one message for all leaves."""
    leaves, structure = jax.tree.flatten(tree)
    rows = leaves[0].shape[0]
    words = [_words(leaf).reshape(rows, -1) for leaf in leaves]
    widths = np.cumsum([0, *(w.shape[1] for w in words)])
    whole = jax.lax.all_gather(jnp.concatenate(words, axis=1), AXIS, tiled=True)
    parts = [
        _unwords(whole[:, a:b], leaf)
        for a, b, leaf in zip(widths[:-1], widths[1:], leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, parts)


def _words(leaf: Array) -> Array:
    """Return an array's bits as 32-bit words; small types take a word each."""
    if leaf.dtype.itemsize < 4:
        wide = jnp.float32 if jnp.issubdtype(leaf.dtype, jnp.floating) else jnp.int32
        leaf = leaf.astype(wide)
    return jax.lax.bitcast_convert_type(leaf, jnp.uint32)


def _unwords(words: Array, like: Array) -> Array:
    """Return the array of these words, of rows of `like`'s shape: the inverse of `_words`."""
    shape = (words.shape[0], *like.shape[1:])
    if like.dtype.itemsize == 8:
        return jax.lax.bitcast_convert_type(words.reshape(*shape, 2), like.dtype)
    if like.dtype.itemsize == 4:
        return jax.lax.bitcast_convert_type(words.reshape(shape), like.dtype)
    wide = jnp.float32 if jnp.issubdtype(like.dtype, jnp.floating) else jnp.int32
    return jax.lax.bitcast_convert_type(words.reshape(shape), wide).astype(like.dtype)
