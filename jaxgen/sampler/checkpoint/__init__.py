"""Run folders: checkpoints of a run under way, and its draws as they come.

    folder/
      run.json        what the run is made of (`jaxgen.core.fingerprint`), and where it ran
      lock            held by the process that writes
      checkpoints/    the journey after each checkpoint, with a manifest; the last two are kept
      draws/          safetensors files, each with the draws between two checkpoints

Files are written beside their places and take their names in one rename, draws before the
checkpoint that counts them, and its manifest, with the SHA-256 of every file, last. Whatever
moment a run is killed at, the folder holds a whole checkpoint and all draws up to it, and the
run goes on from there to the same bits. A file that was damaged since is never used: the run
goes on from the checkpoint before, or is refused.
"""

from jaxgen.sampler.checkpoint.folder import Interrupted, Preempted, RunFolder, recording
from jaxgen.sampler.checkpoint.reading import StoredRun, load_run

__all__ = ["Interrupted", "Preempted", "RunFolder", "StoredRun", "load_run", "recording"]
