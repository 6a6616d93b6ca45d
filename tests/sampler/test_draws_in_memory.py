"""Draws are in memory once: chunks go as they are copied, and no view keeps a larger buffer."""

import weakref
from typing import Any

import numpy as np

from jaxgen.sampler.driver import _first
from jaxgen.sampler.recorder import InMemory

UNUSED: Any = None  # the checkpoint, which is kept by others


def chunks(sizes, chains=3):
    """Chunks of so many draws, leaves `[n, C, ...]`, numbered through."""
    begun = 0
    for size in sizes:
        rows = np.arange(begun, begun + size)[:, None] + 100 * np.arange(chains)
        yield {"image": np.repeat(rows[..., None], 4, -1).astype(np.float32), "rows": rows}
        begun += size


def test_chunks_are_joined_in_order_and_let_go():
    recorder, alive, chunk = InMemory(), [], None
    for chunk in chunks([2, 1, 4]):
        recorder.after(UNUSED, chunk)
        alive += [weakref.ref(leaf) for leaf in chunk.values()]
    chunk = None
    draws = recorder.draws()
    assert not any(reference() is not None for reference in alive)
    np.testing.assert_array_equal(draws["rows"], np.arange(7) + 100 * np.arange(3)[:, None])
    assert draws["image"].shape == (3, 7, 4)
    assert draws["image"].dtype == np.float32
    np.testing.assert_array_equal(draws["image"][..., 2], draws["rows"])
    # Else `draws.reshape(C * S, ...)`, with which most uses begin, would copy them all.
    assert all(leaf.flags.c_contiguous for leaf in draws.values())


def test_nothing_collected_is_none():
    recorder = InMemory()
    recorder.after(UNUSED, ())
    assert recorder.draws() is None


def test_a_part_of_a_buffer_does_not_keep_it():
    buffer = np.zeros((10, 3))
    assert _first(buffer, 4).base is None
    assert _first(buffer, 10) is buffer
