"""Run folders: checkpoints of a run under way, and its draws as they come.

    folder/
      run.json        what the run is made of (`jaxgen.core.fingerprint`), and where it ran
      lock            held by the process that writes
      checkpoints/    the run at each checkpoint, with a manifest; the last two are kept
      draws/          safetensors files, each with the draws between two checkpoints

Every file is written under a temporary name and then renamed: draws before the checkpoint that
counts them, and its manifest, with the SHA-256 of every file, last. At whatever moment a run is
killed, the folder holds a whole checkpoint and all draws up to it, and the run resumes from there
to the same bits. A file that was damaged since is never used: the run resumes from the checkpoint
before it, or raises an error.
"""

from jaxgen.sampler.checkpoint.folder import Interrupted, Preempted, RunFolder
from jaxgen.sampler.checkpoint.reading import StoredRun, load_run
from jaxgen.sampler.checkpoint.recording import recording

__all__ = ["Interrupted", "Preempted", "RunFolder", "StoredRun", "load_run", "recording"]
