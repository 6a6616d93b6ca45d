"""A run's folder as one HTML page that opens from disk: pictures, diagnostics, verdicts.

    from jaxgen import report
    report.write("runs/demo")  # makes runs/demo.html

Files are read as if a stranger had written them: sizes and types are checked, and whatever
they say is escaped.
"""

from jaxgen.report.figures import Figures, measure
from jaxgen.report.page import page
from jaxgen.report.reading import Entry, Run, read
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
    "write",
]
