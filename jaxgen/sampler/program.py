"""The compiled part of every run: one state, one program.

A run is a `SamplerState` that `init_stage` gives its chains and `advance` takes, a chunk at a
time, through inverse temperatures, then warm-up, then draws. The path, the kernel and the
step rule are arguments, so that new labels, masks, weights and numbers compile nothing.
Chunks may be of any size: the state holds everything that the next step depends on.

Annealing may have two stages. The pilot goes from the path's start to its end in few large
steps; scouts look for modes that it has lost (`scouts`), and a mixture is fitted to the positions
of both; the final stage starts from new draws, of the mixture or of the path's own start,
whichever is nearer, and only its weights count.

Chains live on islands, contiguous blocks of equal size that never exchange chains while
annealing: the spread of their separate estimates of Z tells how uncertain it is.

Keys: chain i draws from `fold_in(key, i)` alone, its first state from `fold_in(., 0)` and
step t from `fold_in(., t)`. Resampling, which concerns all chains, has a key of its own.
"""

from __future__ import annotations

from jaxgen.sampler.chunk import advance, advance_in_place
from jaxgen.sampler.ensemble import log_evidence
from jaxgen.sampler.init import blank_state, init_stage, initial_state, place_chains
from jaxgen.sampler.transitions import finish_annealing, finish_warm_up, stale

__all__ = [
    "advance",
    "advance_in_place",
    "blank_state",
    "finish_annealing",
    "finish_warm_up",
    "init_stage",
    "initial_state",
    "log_evidence",
    "place_chains",
    "stale",
]
