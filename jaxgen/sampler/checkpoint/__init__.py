"""Run folders: checkpoints of a run under way, and its draws as they come.

    folder/
      run.json        what the run is made of (`jaxgen.core.fingerprint`), and where it ran
      lock            held by the process that writes
      checkpoints/N   the journey after its N-th checkpoint, by Orbax; the last one is kept
      draws/          safetensors files, each with the draws between two checkpoints

A checkpoint is written beside the last one and takes its name in one rename; draws are
written, in the same way, before the checkpoint that counts them. Whatever moment a run is
killed at, the folder holds a whole checkpoint and all draws up to it, and the run goes on
from there to the same bits.
"""

from jaxgen.sampler.checkpoint.folder import (
    Interrupted,
    Preempted,
    RunFolder,
    StoredRun,
    load_run,
    recording,
)

__all__ = ["Interrupted", "Preempted", "RunFolder", "StoredRun", "load_run", "recording"]
