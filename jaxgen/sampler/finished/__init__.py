"""The files of a finished run: one format for Python and the command line.

    folder/
      summary.json         what the run was, and the figures of each posterior
      draws.safetensors    NAME/position, NAME/image, ..., for each posterior called NAME

`jaxgen.sample(..., folder=)` and the tasks write these two beside the checkpoints from which a
run goes on, and the command line beside its pictures. `jaxgen report`, `jaxgen.report` and
`jaxgen.load_run` read all of them.
"""

from jaxgen.sampler.finished.reading import Arrays, present_arguments, read_summary
from jaxgen.sampler.finished.writing import (
    DRAWS,
    FORMAT,
    HISTORY,
    MANY,
    SUMMARY,
    arrays_of,
    figures_of,
    kept_positions,
    plain,
    surroundings,
    write,
    write_arrays,
    write_json,
)

__all__ = [
    "DRAWS",
    "FORMAT",
    "HISTORY",
    "MANY",
    "SUMMARY",
    "Arrays",
    "arrays_of",
    "figures_of",
    "kept_positions",
    "plain",
    "present_arguments",
    "read_summary",
    "surroundings",
    "write",
    "write_arrays",
    "write_json",
]
