"""A run as one HTML page that opens from disk: pictures, diagnostics, verdicts.

    jaxgen.report("runs/demo")  # makes runs/demo.html
    jaxgen.report(result, "sneakers.html", posterior=posterior)

This module may be called: `jaxgen.report(...)` is `jaxgen.report.results.report(...)`. Files are
read as if a stranger had written them: sizes and types are checked, and whatever they say is
escaped.
"""

import sys
from types import ModuleType
from typing import Any

from jaxgen.report.figures import Figures, measure
from jaxgen.report.page import page
from jaxgen.report.reading import Entry, Run, read
from jaxgen.report.results import report, run_of
from jaxgen.report.verdicts import Part, Verdict, examine, judge
from jaxgen.report.writing import default_path, write

__all__ = [
    "Entry",
    "Figures",
    "Part",
    "Run",
    "Verdict",
    "default_path",
    "examine",
    "judge",
    "measure",
    "page",
    "read",
    "report",
    "run_of",
    "write",
]


class _Callable(ModuleType):
    """A module that is a function as well, so that `jaxgen.report` keeps its one name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Write a report: see `jaxgen.report.results.report`."""
        return report(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
