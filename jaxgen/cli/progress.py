"""Progress on stderr: a live bar on a terminal, a live line in a notebook, plain lines elsewhere.

The command line uses it, and so may you:

    with Reporter(1) as reporter:
        reporter.start("sneakers")
        result = jaxgen.sample(key, posterior, progress=reporter.update)
"""

from __future__ import annotations

import math
import sys
import time
from typing import Any

from jaxgen.core.deprecation import former_keyword
from jaxgen.sampler.results import Progress

__all__ = ["Reporter"]


class Reporter:
    """Tells how far a command is. Use it as a context manager.

    Attributes:
      jobs: how many posteriors the command samples.
      mode: "live" on a terminal (Rich), "notebook" (one line that is written over), "plain"
        in logs and pipes, or "quiet".
    """

    @former_keyword("moves", "num_mcmc_steps")
    def __init__(
        self, jobs: int, *, quiet: bool = False, num_mcmc_steps: int = 1, steps: int = 0
    ) -> None:
        self.jobs = jobs
        self.mode = "quiet" if quiet else _where()
        self._mcmc_steps, self._steps = num_mcmc_steps, steps  # steps: warm-up and draws together
        self._job, self._name = 0, ""
        self._begun = self._job_begun = time.monotonic()
        self._latest: Progress | None = None
        self._first: Progress | None = None
        self._live: Any = None
        self._shown = 0  # characters of the notebook's line

    def __enter__(self) -> Reporter:
        if self.mode == "live":
            from rich.console import Console
            from rich.live import Live

            self._live = Live(
                get_renderable=self._lines,
                console=Console(file=sys.stderr),
                refresh_per_second=4,
                transient=True,
            )
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
        elif self.mode == "notebook" and self._shown:
            print(file=sys.stderr, flush=True)

    def start(self, name: str) -> None:
        """Announce the next posterior."""
        self._job, self._name = self._job + 1, name
        self._job_begun = time.monotonic()
        self._latest = self._first = None
        if self.mode == "plain":
            print(f"[{self._job}/{self.jobs}] {name}", file=sys.stderr, flush=True)
        elif self.mode == "notebook":
            self._write_over()

    def update(self, progress: Progress) -> None:
        """Show where a run stands: the `progress` callback of `jaxgen.sample`."""
        before, self._latest = self._latest, progress
        self._first = self._first or progress
        ended = self._ended(progress) or (progress.phase == "anneal" and progress.beta >= 1)
        if self.mode == "notebook":
            self._write_over()
        elif self.mode == "plain" and (before is None or before.phase != progress.phase or ended):
            print(f"  {self._figures(progress)}", file=sys.stderr, flush=True)

    def _ended(self, progress: Progress) -> bool:
        return progress.total is not None and progress.done >= progress.total

    def _write_over(self) -> None:
        """Write the line over the previous one, and blank out the rest of that."""
        text = self._words()
        print(f"\r{text:<{self._shown}}", end="", file=sys.stderr, flush=True)
        self._shown = len(text)

    def _lines(self) -> Any:
        """Return a line with a bar and the time, then a line with the figures of the run."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        def text(words: str, style: str = "") -> Text:
            return Text(words, style, no_wrap=True, overflow="ellipsis")

        at, done = self._latest, self._fraction()
        overall = None if done is None else (self._job - 1 + done) / self.jobs
        bar = ProgressBar(1.0, overall or 0.0, width=24, pulse=overall is None)
        first = Table.grid(padding=(0, 1))
        first.add_row(text(self._title()), bar, text(self._time(time.monotonic())))
        return Group(first, text("compiling" if at is None else self._figures(at), "dim"))

    def _words(self) -> str:
        now = time.monotonic()
        figures = "compiling" if self._latest is None else self._figures(self._latest)
        return f"{self._title()} · {figures} · {self._time(now)}"

    def _title(self) -> str:
        return f"[{self._job}/{self.jobs}] {self._name}"

    def _time(self, now: float) -> str:
        left = self._left(now)
        about = "" if left is None else f", about {_clock(left)} left"
        return f"{_clock(now - self._begun)} elapsed{about}"

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
        total = temperatures * self._mcmc_steps + self._steps
        return max(at.done * self._mcmc_steps / total, 1e-3)


def _where() -> str:
    if sys.stderr.isatty():
        return "live"
    # A notebook's kernel brings its own stream, which is no terminal but is looked at.
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return "notebook" if hasattr(shell, "kernel") else "plain"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
