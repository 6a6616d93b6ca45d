"""Files of draws: put together from whatever processes wrote, and nothing is ever made up."""

import itertools

import numpy as np
import pytest

from jaxgen import InputError
from jaxgen.sampler.checkpoint.draws import read_draws, shard_of, write_draws

WHOLE = np.arange(11 * 9 * 2.0).reshape(11, 9, 2)
# Draws of one process, then of three, then of two.
PARTS = {
    (0, 2): [(0, 11, "")],
    (3, 5): [(0, 4, ".p0000"), (4, 8, ".p0001"), (8, 11, ".p0002")],
    (6, 8): [(0, 6, ".p0000"), (6, 11, ".p0001")],
}


@pytest.fixture
def shards(tmp_path):
    found = []
    for (first, last), parts in PARTS.items():
        for low, high, suffix in parts:
            arrays = {"draws": WHOLE[low:high, first : last + 1]}
            chains = (low, high - low, len(WHOLE))
            name, digest = write_draws(tmp_path, first, suffix, chains, arrays)
            found.append(shard_of(tmp_path / name, digest))
    return found


def test_any_draws_of_any_chains_are_found_in_them(shards):
    for start, stop in itertools.combinations(range(10), 2):
        for chains in (None, (0, 4), (4, 7), (8, 3), (3, 1), (0, 11)):
            first, count = chains or (0, 11)
            found = read_draws(shards, start, stop, chains)["draws"]
            np.testing.assert_array_equal(found, WHOLE[first : first + count, start:stop])


def test_draws_that_are_missing_are_missed(shards):
    for i in range(len(shards)):
        with pytest.raises(InputError, match="expected all draws"):
            read_draws(shards[:i] + shards[i + 1 :], 0, 9)
    with pytest.raises(InputError, match="expected all draws; got no 9 of some chain"):
        read_draws(shards, 9, 12)
    assert read_draws(shards, 4, 4)["draws"].shape == (11, 0, 2)


def test_a_file_under_the_name_of_another_is_refused(shards):
    shards[2].path.write_bytes(shards[1].path.read_bytes())
    with pytest.raises(InputError, match="it is damaged"):
        read_draws(shards, 0, 9)
    shards[2] = shards[2]._replace(digest=shards[1].digest)  # or the manifest says so, too
    with pytest.raises(InputError, match="expected all draws"):
        read_draws(shards, 0, 9)
