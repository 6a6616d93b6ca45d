"""One line on a terminal that says where a run stands: `sample(..., progress=True)`."""

from __future__ import annotations

import sys
from typing import TextIO

from jaxgen.sampler.results import Progress

__all__ = ["ProgressLine"]


class ProgressLine:
    """Writes each `Progress` over the line before; a new phase begins a new line.

    Attributes:
      stream: where to write, the standard error by default.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = sys.stderr if stream is None else stream
        self._phase: str | None = None
        self._width = 0

    def __call__(self, progress: Progress) -> None:
        """Write the line."""
        of = "" if progress.total is None else f" of {progress.total}"
        unit = "temperatures" if progress.phase in ("anneal", "pilot") else "steps"
        text = (
            f"{progress.phase}: {progress.done}{of} {unit}, beta {progress.beta:.3g}, "
            f"acceptance {progress.acceptance_rate:.2f}, "
            f"{progress.num_gradients} gradients per chain"
        )
        if self._phase not in (None, progress.phase):
            self.stream.write("\n")
            self._width = 0
        self.stream.write("\r" + text.ljust(self._width))
        self.stream.flush()
        self._phase, self._width = progress.phase, len(text)

    def close(self) -> None:
        """End the line."""
        if self._phase is not None:
            self.stream.write("\n")
            self.stream.flush()
