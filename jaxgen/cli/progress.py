"""Progress on stderr: one live line on a terminal, a plain line a phase elsewhere."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

from jaxgen.results import Progress

__all__ = ["Reporter"]


class Reporter:
    """Tells how far a command is. Use it as a context manager.

    Attributes:
      jobs: how many posteriors the command samples.
      mode: "live", "plain" or "quiet".
    """

    def __init__(self, jobs: int, *, quiet: bool = False, moves: int = 1, steps: int = 0) -> None:
        self.jobs = jobs
        self.mode = "quiet" if quiet else "live" if sys.stderr.isatty() else "plain"
        self._moves, self._steps = moves, steps  # steps: warm-up and draws together
        self._job, self._name = 0, ""
        self._begun = self._job_begun = time.monotonic()
        self._latest: Progress | None = None
        self._first: Progress | None = None
        self._live: Any = None

    def __enter__(self) -> Reporter:
        if self.mode == "live":
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                get_renderable=self._line,
                console=Console(file=sys.stderr),
                refresh_per_second=4,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def start(self, name: str) -> None:
        """The next posterior begins."""
        self._job, self._name = self._job + 1, name
        self._job_begun = time.monotonic()
        self._latest = self._first = None
        if self.mode == "plain":
            print(f"[{self._job}/{self.jobs}] {name}", file=sys.stderr, flush=True)

    def update(self, progress: Progress) -> None:
        """The `progress` callback of `jaxgen.sample`."""
        before, self._latest = self._latest, progress
        self._first = self._first or progress
        ended = self._ended(progress) or (progress.phase == "anneal" and progress.beta >= 1)
        if self.mode == "plain" and (before is None or before.phase != progress.phase or ended):
            print(f"  {self._figures(progress)}", file=sys.stderr, flush=True)

    def _ended(self, progress: Progress) -> bool:
        return progress.total is not None and progress.done >= progress.total

    def _line(self) -> Any:
        from rich.text import Text

        now = time.monotonic()
        text = f"[{self._job}/{self.jobs}] {self._name} · "
        text += "compiling" if self._latest is None else self._figures(self._latest)
        text += f" · {_clock(now - self._begun)} elapsed"
        left = self._left(now)
        if left is not None:
            text += f", about {_clock(left)} left"
        return Text(text, no_wrap=True, overflow="ellipsis")

    def _figures(self, at: Progress) -> str:
        total = "" if at.total is None else f"/{at.total}"
        what = "temperatures" if at.phase == "anneal" else "steps"
        return (
            f"{at.phase} {at.done}{total} {what} · beta {at.beta:.3g} · "
            f"acceptance {at.acceptance_rate:.2f} · ESS {at.ess:.1f} · step {at.step_size:.3g} · "
            f"{at.num_gradients} gradients"
            + (f" · {at.num_divergent} divergent" if at.num_divergent else "")
        )

    def _left(self, now: float) -> float | None:
        """Seconds left, from kernel steps: of this posterior, then of those to come."""
        if self._job == 0:
            return None
        mean = (self._job_begun - self._begun) / (self._job - 1) if self._job > 1 else None
        spent = now - self._job_begun
        fraction = self._fraction()
        if fraction is None:
            if mean is None:
                return None
            this = max(mean - spent, 0.0)
        else:
            this = spent * (1 - fraction) / fraction
        mean = spent + this if mean is None else mean
        return this + mean * (self.jobs - self._job)

    def _fraction(self) -> float | None:
        """Done and expected kernel steps of this posterior, as a fraction."""
        at, first = self._latest, self._first
        if at is None or first is None:
            return None
        if at.phase != "anneal":
            tail = at.done if at.phase == "warm-up" else self._steps - (at.total or 0) + at.done
            return min(0.99, 0.5 + 0.5 * tail / max(self._steps, 1))
        temperatures = float(at.total or 0)
        if at.total is None and at.beta >= 1:
            temperatures = at.done
        elif at.total is None:
            # Adaptive temperatures come at a nearly constant ratio: extrapolate log beta.
            pace = math.log(at.beta / first.beta) / max(at.done - first.done, 1)
            if pace <= 0:
                return None
            temperatures = at.done + math.log(1 / at.beta) / pace
        total = temperatures * self._moves + self._steps
        return max(at.done * self._moves / total, 1e-3)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
